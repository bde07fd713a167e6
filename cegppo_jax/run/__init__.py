"""From a config to a run: settings, checks, checkpoints, directories."""
