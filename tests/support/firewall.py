"""A packet filter as the console sets it and a connection feels it, and the changes that would shut us out."""

import asyncio
import functools
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread

from mcp_ssh.app import App
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import firewall, hostkey
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault

OPEN = "for each in iptables ip6tables; do $each -P INPUT ACCEPT; $each -P OUTPUT ACCEPT; $each -F; done"
ONLY_WHO_IS_IN = "iptables -A INPUT -p tcp --syn --dport 22 -j DROP"
GUARDED = """
iptables -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
iptables -A INPUT -p tcp --dport 22 -j ACCEPT
iptables -P INPUT DROP
"""


async def console(host: Host, text: str) -> str:
    """What root's shell prints on the console; it stops at the first command that fails."""
    return (await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-ec", text]))).stdout


def patience(expected: bool) -> float:
    """How long an answer is waited for: a loaded machine takes its time, and one that is shut never answers."""
    return 10 if expected else 1


async def gets_in(app: App, host: Host, expected: bool = True) -> bool:
    """Whether sshd can be asked for its keys from here."""
    given = {"host": host.ip, "port": host.port, "timeout": patience(expected)}
    try:
        scanned = await Direct(app).call(hostkey.scan, given)
    except Fault:
        return False
    return bool(scanned)


LOCK_OUTS: Mapping[str, tuple[str, AnyTool, dict[str, Any]]] = {
    "a policy": (":", firewall.policy, {"chain": "INPUT", "target": "DROP"}),
    "answers": (":", firewall.policy, {"chain": "OUTPUT", "target": "DROP", "ip_version": "ipv4"}),
    "the port": (":", firewall.block_port, {"port": 22}),
    "our address": (GUARDED, firewall.block_ip, {"ip": "10.77.0.1"}),
    "a flush under DROP": (GUARDED, firewall.flush, {"chain": "INPUT"}),
    "the rule that lets us in": (GUARDED, firewall.rule_delete, {"chain": "INPUT", "rule_num": 2}),
    "a reject": (":", firewall.rule_add, {"source": "10.0.0.0/8", "target": "REJECT", "protocol": "all"}),
}


async def reaches(host: Host, port: int, expected: bool = True) -> bool:
    """Whether a connection from here gets an answer, be it that nobody listens."""
    try:
        async with asyncio.timeout(patience(expected)):
            _, writer = await asyncio.open_connection(host.ip, port)
        writer.close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True
