"""The MCP door."""

from mcp_ssh.mcp_server.handlers import CALLER_KEY, build_server
from mcp_ssh.mcp_server.stdio import serve_stdio

__all__ = ["CALLER_KEY", "build_server", "serve_stdio"]
