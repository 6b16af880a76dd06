"""The command line: a file per command, heavy imports inside the command."""
