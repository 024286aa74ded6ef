"""The commands, one a file or folder."""
