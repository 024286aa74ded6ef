"""One SSH connection: its channels, its limits, its warm shells, and the sessions that share it."""
