"""`mcp-ssh upload` and `mcp-ssh download`."""
