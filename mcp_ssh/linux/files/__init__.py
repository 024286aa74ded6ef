"""Files of a machine: scripts that read and write them, and what they answer."""
