"""The SSH client: connections, host keys, channels, commands, terminals."""
