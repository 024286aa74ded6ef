"""The same way back where more is different: legacy tables, IPv6, firewalld on iptables, a server that is killed."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.tools import firewall
from tests.fleet.hosts import Host
from tests.support.doors import Direct
from tests.support.firewall import LOCK_OUTS, ONLY_WHO_IS_IN, OPEN, console, gets_in
from tests.support.firewalld import CLEAN, LISTENS, connects, done
from tests.support.machine import SOAK, login, opened, trust
from tests.support.servers import stdio

# ---- legacy tables -----------------------------------------------------------------------------------------------

LEGACY = "cd /usr/local/sbin; for each in {}; do {} $each; done"
PROGRAMS = "iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore"


@pytest.fixture
async def legacy(app: App, deb: Host) -> AsyncIterator[dict[str, Any]]:
    await console(deb, LEGACY.format(PROGRAMS, "ln -s /usr/sbin/xtables-legacy-multi"))
    yield {**await opened(Direct(app), app, deb, "root"), "rollback_s": 2}
    await console(deb, OPEN + "; " + LEGACY.format(PROGRAMS, "rm"))


@pytest.mark.requirement("firewall.way_back")
@pytest.mark.parametrize("name", LOCK_OUTS if SOAK else ["our address"])
async def test_legacy_tables_are_changed_and_put_back_alike(
    app: App, deb: Host, legacy: dict[str, Any], name: str
) -> None:
    way = Direct(app)
    assert (await way.call(firewall.block_ip, {**legacy, "ip": "192.0.2.9"}))["success"]
    assert "-A INPUT -s 192.0.2.9/32 -j DROP" in await console(deb, "iptables-legacy -S")
    assert "192.0.2.9" not in await console(deb, "iptables-nft -S")
    before, tool, arguments = LOCK_OUTS[name]
    await console(deb, f"iptables -F; {before}")
    rules = await console(deb, "iptables-legacy -S; ip6tables-legacy -S")
    assert (await way.call(tool, {**legacy, **arguments}))["rolled_back"]
    assert await console(deb, "iptables-legacy -S; ip6tables-legacy -S") == rules
    assert await gets_in(app, deb)


@pytest.mark.requirement("firewall.way_back")
async def test_legacy_rules_that_were_kept_and_shut_us_out_do_not_stay(
    app: App, deb: Host, legacy: dict[str, Any]
) -> None:
    await console(deb, ONLY_WHO_IS_IN)
    assert (await Direct(app).call(firewall.save, {"session_id": legacy["session_id"]}))["success"]
    try:
        await console(deb, "iptables -F; iptables -A INPUT -s 192.0.2.9 -j DROP")
        rules = await console(deb, "iptables-legacy -S")
        assert (await Direct(app).call(firewall.restore, legacy))["rolled_back"]
        assert await console(deb, "iptables-legacy -S") == rules
        assert await gets_in(app, deb)
    finally:
        await console(deb, "rm -f /etc/iptables/rules.v4 /etc/iptables/rules.v6")


# ---- IPv6 --------------------------------------------------------------------------------------------------------


class OverIpv6(Host):
    """A host that is logged in to by its IPv6 address."""

    @property
    def ip(self) -> str:
        return self.ip6


GUARDED = """
ip6tables -A INPUT -p tcp --dport 22 -j ACCEPT; ip6tables -A INPUT -p ipv6-icmp -j ACCEPT; ip6tables -P INPUT DROP
"""
LOCK_OUTS_OF_IPV6 = {
    "our address": (":", firewall.block_ip, {"ip": "fd77::1"}),
    "a policy": (":", firewall.policy, {"chain": "INPUT", "target": "DROP", "ip_version": "ipv6"}),
    "a flush under DROP": (GUARDED, firewall.flush, {"ip_version": "ipv6"}),
}


@pytest.mark.requirement("firewall.way_back")
@pytest.mark.parametrize("name", LOCK_OUTS_OF_IPV6 if SOAK else ["our address"])
async def test_who_came_by_ipv6_and_shuts_himself_out_is_let_in_again(app: App, deb: Host, name: str) -> None:
    six = OverIpv6(deb.row, deb.cache)
    before, tool, arguments = LOCK_OUTS_OF_IPV6[name]
    try:
        on = {**await opened(Direct(app), app, six, "root"), "rollback_s": 2}
        await console(deb, before)
        rules = await console(deb, "iptables -S; ip6tables -S")
        told = await Direct(app).call(tool, {**on, **arguments})
        assert (told["rolled_back"], told["success"], told["ipv4"]) == (True, False, None)
        assert await console(deb, "iptables -S; ip6tables -S") == rules
        assert await gets_in(app, six)
    finally:
        await console(deb, OPEN)


@pytest.mark.requirement("firewall.way_back")
@pytest.mark.soak
async def test_firewalld_too_lets_in_again_who_came_by_ipv6(app: App, rocky: Host) -> None:
    await console(rocky, CLEAN)
    six = OverIpv6(rocky.row, rocky.cache)
    on = {**await opened(Direct(app), app, six, "root"), "rollback_s": 3}
    told = await Direct(app).call(firewall.block_ip, {**on, "ip": "fd77::1"})
    assert (told["rolled_back"], told["success"]) == (True, False)
    assert "fd77::1" not in await console(rocky, "firewall-cmd --list-all-zones")
    assert await gets_in(app, six)


# ---- firewalld's other backend -----------------------------------------------------------------------------------

BACKEND = """
sed -i s/^FirewallBackend=.*/FirewallBackend={}/ /etc/firewalld/firewalld.conf
systemctl restart firewalld; firewall-cmd --state
"""


@pytest.mark.requirement("firewall.changing")
@pytest.mark.soak
async def test_firewalld_on_iptables_is_changed_and_put_back_alike(app: App, rocky: Host) -> None:
    way = Direct(app)
    await done(rocky, CLEAN + LISTENS + BACKEND.format("iptables"))
    try:
        on = await opened(way, app, rocky, "root")
        assert "IN_public" in await console(rocky, "iptables -S")
        for tool, reached in ((firewall.allow_port, True), (firewall.block_port, False)):
            assert (await way.call(tool, {**on, "port": 8080}))["success"]
            assert await connects(rocky, reached) == reached
        told = await way.call(firewall.block_ip, {**on, "ip": "10.77.0.1", "rollback_s": 3})
        assert (told["rolled_back"], told["success"]) == (True, False)
        assert await gets_in(app, rocky)
    finally:
        await console(rocky, BACKEND.format("nftables") + CLEAN)


# ---- a server that is killed -------------------------------------------------------------------------------------

WITHOUT_THE_WAY_BACK = """
from mcp_ssh.linux.firewall import backend as firewalls
from mcp_ssh.cli import main
firewalls._CHANGE = firewalls._CHANGE.replace('undo "$family"', ":")
main()
"""
# What watched over an earlier change, and has taken it back, stays for a minute.
NO_OTHERS = "rm -rf /run/mcp-ssh-firewall.*"
CHANGED = "ls /run/mcp-ssh-firewall.*/armed && iptables -S | grep 'dport 22' && ip6tables -S | grep 'dport 22'"


@pytest.mark.requirement("firewall.way_back")
@pytest.mark.parametrize("program", [("-m", "mcp_ssh"), ("-c", WITHOUT_THE_WAY_BACK)], ids=["killed", "twin"])
async def test_a_machine_whose_server_is_killed_before_the_proof_lets_in_again(
    mcp_home: Path, deb: Host, program: tuple[str, str]
) -> None:
    async with open_app(mcp_home, Config()) as app:
        await trust(app, deb)
    before = await console(deb, f"{NO_OTHERS}; iptables -S; ip6tables -S")
    try:
        async with stdio(mcp_home, "--toolsets", "all", program=program) as server:
            session_id = (await server.call("session_connect", login(deb, "root")))["session_id"]
            given = {"session_id": session_id, "port": 22, "rollback_s": 4}
            await server.send("tools/call", {"name": "firewall_block_port", "arguments": given})
            await until(deb, CHANGED)
            server.process.kill()
        async with open_app(mcp_home, Config()) as app:
            assert not await gets_in(app, deb, expected=False)
            await until(deb, "ls /run/mcp-ssh-firewall.*/undone")
            assert await gets_in(app, deb, program[0] == "-m") == (program[0] == "-m")
        assert (await console(deb, "iptables -S; ip6tables -S") == before) == (program[0] == "-m")
    finally:
        await console(deb, f"{OPEN}; {NO_OTHERS}")


async def until(host: Host, command: str) -> None:
    """Wait until the command succeeds on the console."""
    with anyio.fail_after(20):
        while not (await console(host, f"if {command}; then echo yes; fi")).endswith("yes\n"):
            await anyio.sleep(0.05)
