"""The ssh_api family's /firewall."""

from mcp_ssh.tools import firewall
from rest_bridge.routes import Route

ROUTES = (
    Route("GET", "/firewall/backend", firewall.backend),
    Route("GET", "/firewall/rules", firewall.rules, only=("chain", "ip_version", "session_id")),
    Route("GET", "/firewall/rules/raw", firewall.raw, only=("ip_version", "session_id")),
    Route("POST", "/firewall/allow/ip", firewall.allow_ip, query=("session_id", "ip", "ip_version")),
)
