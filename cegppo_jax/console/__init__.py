"""The command line: one table of commands, their flags and help, and how a command starts."""
