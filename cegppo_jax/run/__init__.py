"""Config to a run: settings, checks, checkpoints, directories."""
