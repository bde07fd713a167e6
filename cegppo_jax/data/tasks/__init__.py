"""Built-in tasks, a file a task."""
