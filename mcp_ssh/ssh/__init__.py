"""The wire: connections, host keys, channels, commands. The only folder that speaks SSH."""
