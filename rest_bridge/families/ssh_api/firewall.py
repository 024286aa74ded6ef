"""The ssh_api family's /firewall."""

from mcp_ssh.tools import firewall
from rest_bridge.api.route import Route

_IP = ("session_id", "ip", "ip_version")
_PORT = ("session_id", "port", "protocol", "ip_version")

ROUTES = (
    Route("GET", "/firewall/backend", firewall.backend),
    Route("GET", "/firewall/rules", firewall.rules, only=("chain", "ip_version", "session_id")),
    Route("GET", "/firewall/rules/raw", firewall.raw, only=("ip_version", "session_id")),
    Route("POST", "/firewall/rule", firewall.rule_add),
    Route("DELETE", "/firewall/rule", firewall.rule_delete),
    Route("POST", "/firewall/rule/port-range", firewall.rule_add_range),
    Route("POST", "/firewall/flush", firewall.flush, query=("session_id", "chain", "ip_version")),
    Route("POST", "/firewall/save", firewall.save),
    Route("POST", "/firewall/restore", firewall.restore),
    Route("POST", "/firewall/policy", firewall.policy, query=("session_id", "chain", "target", "ip_version")),
    Route("POST", "/firewall/allow/port", firewall.allow_port, query=(*_PORT, "source")),
    Route("POST", "/firewall/block/port", firewall.block_port, query=_PORT),
    Route("POST", "/firewall/block/ip", firewall.block_ip, query=_IP),
    Route("POST", "/firewall/allow/ip", firewall.allow_ip, query=_IP),
)
