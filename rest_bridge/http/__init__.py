"""HTTP itself: who may call, how much and how slowly, bodies, events, and the MCP endpoints."""
