"""How a request becomes a call of a tool."""
