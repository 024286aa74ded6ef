"""The ssh_api family's /tunnel."""

from mcp_ssh.tools import tunnel
from rest_bridge.api.route import Route

ROUTES = (
    Route("POST", "/tunnel/local", tunnel.local),
    Route("POST", "/tunnel/remote", tunnel.remote),
    Route("GET", "/tunnel/list", tunnel.list_tunnels),
    Route("DELETE", "/tunnel/{tunnel_id}", tunnel.close),
    Route("DELETE", "/tunnel/", tunnel.close_all),
)
