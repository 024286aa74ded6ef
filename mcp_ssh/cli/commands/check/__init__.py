"""`mcp-ssh check`: this machine, the configuration, and a machine behind SSH."""
