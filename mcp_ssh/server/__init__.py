"""The MCP door."""

from mcp_ssh.server.endpoint import CALLER_KEY, build_server
from mcp_ssh.server.stdio import serve_stdio

__all__ = ["CALLER_KEY", "build_server", "serve_stdio"]
