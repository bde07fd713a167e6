"""From an experiment file to many runs, their table and their page."""
