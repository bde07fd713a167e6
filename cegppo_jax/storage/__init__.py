"""Files of this machine and objects in buckets: whole or not at all, and one line that says why."""
