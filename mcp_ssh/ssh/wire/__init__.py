"""The text that a machine gets for a command, for another account, and to end processes."""
