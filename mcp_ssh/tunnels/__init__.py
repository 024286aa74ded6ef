"""TCP ports forwarded through a connection."""
