"""Firewalld with several zones in use: a rule counts wherever packets come in, as packets sent through each zone show.

The tests' own packets come in by eth0, in zone internal; those of a second network namespace by v0, in zone trusted;
nothing comes in by the default zone, public.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from mcp_ssh.app import App
from mcp_ssh.linux.firewall import backend as firewalls
from mcp_ssh.linux.firewall.firewalld import FUNCTIONS, Firewalld
from mcp_ssh.linux.firewall.model import FilterRule, Table
from mcp_ssh.shell_command import Command, command
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import firewall
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault
from tests.support.firewall import console, gets_in, patience
from tests.support.firewalld import CLEAN, LISTED, LISTENS, connects, done
from tests.support.machine import SOAK, opened

ZONES = """
ip netns add peer
ip link add v0 type veth peer name v1 netns peer
ip addr add 10.79.0.1/24 dev v0; ip link set v0 up
ip -n peer addr add 10.79.0.2/24 dev v1; ip -n peer link set v1 up
firewall-cmd --zone=internal --change-interface=eth0
firewall-cmd --zone=trusted --change-interface=v0
"""
NO_ZONES = """
firewall-cmd --zone=internal --remove-interface=eth0 || true
firewall-cmd --zone=trusted --remove-interface=v0 || true
ip link del v0 || true
ip netns del peer || true
"""
PEER = """ip netns exec peer python3 -c '
import socket
try: socket.create_connection(("10.79.0.1", 8080), {patience}); print("in")
except OSError: print("out")'
"""


async def peer_connects(host: Host, expected: bool = True) -> bool:
    return (await console(host, PEER.format(patience=patience(expected)))).strip() == "in"


@pytest.fixture
async def on(app: App, rocky: Host) -> AsyncIterator[dict[str, Any]]:
    await done(rocky, NO_ZONES + CLEAN + LISTENS + ZONES)
    yield {**await opened(Direct(app), app, rocky, "root"), "rollback_s": 25}
    await console(rocky, NO_ZONES + CLEAN)


async def of_port(on: dict[str, Any], app: App) -> dict[str, dict[str, Any]]:
    """The first rule of port 8080 in each zone."""
    told = await Direct(app).call(firewall.rules, {"session_id": on["session_id"], "ip_version": "ipv4"})
    return {each["zone"]: each for each in reversed(told["rules"]) if each.get("ports") == "8080"}


@pytest.mark.requirement("firewall.zones")
async def test_a_rule_holds_in_every_zone_that_packets_come_in_through(
    app: App, rocky: Host, on: dict[str, Any]
) -> None:
    way = Direct(app)
    told = await way.call(firewall.rules, {"session_id": on["session_id"]})
    shown = [(each["name"], each.get("default", False), each["interfaces"]) for each in told["zones"]]
    assert shown == [("public", True, []), ("internal", False, ["eth0"]), ("trusted", False, ["v0"])]
    assert told["zones"][2]["policies"] == {"ipv4": "ACCEPT", "ipv6": "ACCEPT"}
    assert (await connects(rocky, expected=False), await peer_connects(rocky)) == (False, True)

    # The harm: the default zone alone lets nobody in who comes by another.
    await console(rocky, "firewall-cmd --add-port=8080/tcp")
    assert not await connects(rocky, expected=False)
    await console(rocky, "firewall-cmd --remove-port=8080/tcp")

    given = {**on, "port": 8080, "ip_version": "ipv4"}
    planned = await way.call(firewall.allow_port, {**given, "ip_version": "both", "dry_run": True})
    for each in ("public", "internal", "trusted"):
        assert sum(f"--zone={each} " in line for line in planned["commands"]) == 2
    assert await of_port(on, app) == {}
    allowed = await way.call(firewall.allow_port, given)
    assert (allowed["success"], allowed["commands"]) == (True, planned["commands"][:3])
    assert (await connects(rocky), await peer_connects(rocky)) == (True, True)
    again = await way.call(firewall.allow_port, given)
    assert (again["success"], again["changed"], again["commands"]) == (True, False, [])
    assert (await way.call(firewall.block_port, given))["changed"]
    assert (await connects(rocky, expected=False), await peer_connects(rocky, expected=False)) == (False, False)

    # Numbers go through all zones, and the zone says whether it is still the rule that was meant.
    rules = await of_port(on, app)
    assert rules.keys() == {"public", "internal", "trusted"}
    meant = rules["trusted"]
    named = {"chain": "INPUT", "rule_num": meant["number"], "expected_rule": meant["text"], "ip_version": "ipv4"}
    with pytest.raises(Fault) as other:
        await way.call(firewall.rule_delete, {**on, **named, "zone": "internal"})
    assert other.value.code == "conflict"
    assert not await peer_connects(rocky)
    assert (await way.call(firewall.rule_delete, {**on, **named, "zone": "trusted"}))["success"]
    left = await of_port(on, app)
    assert {zone: rule["target"] for zone, rule in left.items()} == {
        "public": "DROP",
        "internal": "DROP",
        "trusted": "ACCEPT",
    }
    assert (await connects(rocky, expected=False), await peer_connects(rocky)) == (False, True)


@pytest.mark.requirement("firewall.zones")
@pytest.mark.soak
async def test_kept_rules_of_all_zones_come_back(app: App, rocky: Host, on: dict[str, Any]) -> None:
    way = Direct(app)
    assert (await way.call(firewall.block_port, {**on, "port": 8080, "ip_version": "ipv4"}))["success"]
    assert (await way.call(firewall.save, {"session_id": on["session_id"]}))["success"]
    kept = await console(rocky, LISTED)
    for zone in ("internal", "trusted"):
        rule = (await of_port(on, app))[zone]["text"]
        await console(rocky, f"firewall-cmd --zone={zone} '--remove-rich-rule={rule}'")
        await console(rocky, f"firewall-cmd --zone={zone} --add-port=8080/tcp")
    assert (await connects(rocky), await peer_connects(rocky)) == (True, True)
    back = await way.call(firewall.restore, on)
    assert (back["success"], back["rolled_back"]) == (True, False)
    assert (await connects(rocky, expected=False), await peer_connects(rocky, expected=False)) == (False, False)
    assert await console(rocky, LISTED) == kept


@pytest.mark.requirement("firewall.zones")
@pytest.mark.soak
async def test_a_flush_empties_every_zone_in_use_and_no_other(app: App, rocky: Host, on: dict[str, Any]) -> None:
    # What comes from us is let in by a zone's target, so that the flush may stay.
    await console(
        rocky, "firewall-cmd --zone=trusted --add-source=10.77.0.1; firewall-cmd --zone=trusted --add-port=1/tcp"
    )
    others = "firewall-cmd --info-zone=home; firewall-cmd --info-zone=work"
    before = await console(rocky, others)
    flushed = await Direct(app).call(firewall.flush, {**on, "chain": "INPUT", "ip_version": "ipv4"})
    assert (flushed["success"], flushed["changed"], flushed["rolled_back"]) == (True, True, False)
    for each in ("public", "internal", "trusted"):
        left = await console(
            rocky, f"for w in services ports rich-rules; do firewall-cmd --zone={each} --list-$w; done"
        )
        assert left.split() == []
    assert "10.77.0.1" in await console(rocky, "firewall-cmd --zone=trusted --list-sources")
    assert (await connects(rocky), await console(rocky, others)) == (True, before)


@pytest.mark.requirement("firewall.way_back")
@pytest.mark.soak
async def test_who_shuts_himself_out_of_a_zone_of_sources_is_let_in_again(
    app: App, rocky: Host, on: dict[str, Any]
) -> None:
    await console(rocky, "firewall-cmd --zone=trusted --add-source=10.77.0.1")
    rules = await console(rocky, LISTED)
    told = await Direct(app).call(firewall.block_ip, {**on, "ip": "10.77.0.1", "rollback_s": 4})
    assert (told["rolled_back"], told["success"], told["changed"]) == (True, False, False)
    assert sorted((await console(rocky, LISTED)).splitlines()) == sorted(rules.splitlines())
    assert await gets_in(app, rocky)


class OneZoneTooMany(Firewalld):
    """Firewalld, with a last command that the machine refuses."""

    def add(self, rule: FilterRule, table: Table) -> list[Command]:
        refused = command("firewall-cmd", "--zone=nowhere", f"--add-port={rule.ports}/tcp")
        return [*super().add(rule, table), refused]


UNABLE = {
    "withdrawn": "",
    "torn": 'undo() { flat <"$dir/firewalld" >"$dir/old"; }',
    "twin": "withdraw() { :; }",
}


@pytest.mark.requirement("firewall.zones")
@pytest.mark.parametrize("name", UNABLE)
async def test_a_rule_is_in_all_zones_or_in_none(
    app: App, rocky: Host, on: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(firewalls, "Firewalld", lambda: OneZoneTooMany(functions=FUNCTIONS + UNABLE[name]))
    before = await console(rocky, LISTED)
    told = await Direct(app).call(firewall.allow_port, {**on, "port": 8080, "ip_version": "ipv4"})
    assert not told["success"]
    assert "INVALID_ZONE" in told["error"]
    assert (await console(rocky, LISTED) == before) == (name == "withdrawn")
    assert await connects(rocky, name != "withdrawn") == (name != "withdrawn")
    assert told["changed"] == (name == "torn")
    assert ("the rules are as they were" in told["error"]) == (name == "withdrawn")
    assert ("could not be taken back" in told["error"]) == (name == "torn")


# ---- policy objects ----------------------------------------------------------------------------------------------

POLICY = """cat >/etc/firewalld/policies/guard.xml <<END
<policy target="CONTINUE" priority="{}"><ingress-zone name="ANY"/><egress-zone name="HOST"/>{}</policy>
END
firewall-cmd --reload
"""
DROPS = '<rule><port port="8080" protocol="tcp"/><drop/></rule>'
ACCEPTS = '<port port="8080" protocol="tcp"/>'
OVERRULED: Mapping[str, tuple[int, str, AnyTool, bool, str | None]] = {
    "what is allowed": (-1, DROPS, firewall.allow_port, False, "guard (priority -1): rule port"),
    "what is blocked": (-1, ACCEPTS, firewall.block_port, True, "guard (priority -1): port 8080/tcp"),
    "nothing": (1, DROPS, firewall.allow_port, True, None),
}
"""The policy object's priority and rules; a tool, whether packets get in after it, and of what it warns."""


@pytest.mark.requirement("firewall.policy_objects")
@pytest.mark.parametrize("name", OVERRULED if SOAK else ["what is allowed"])
async def test_what_a_policy_object_overrules_is_told_with_a_warning(app: App, rocky: Host, name: str) -> None:
    priority, content, tool, reached, warning = OVERRULED[name]
    way = Direct(app)
    await console(rocky, "rm -f /etc/firewalld/zones/*.xml" + LISTENS + POLICY.format(priority, content))
    try:
        on = await opened(way, app, rocky, "root")
        told = await way.call(tool, {**on, "port": 8080, "ip_version": "ipv4"})
        assert (told["success"], told["changed"]) == (True, True)
        assert await connects(rocky, reached) == reached
        listed = await way.call(firewall.rules, {**on, "chain": "INPUT"})
        assert ("warning" in told, "warning" in listed) == (warning is not None, warning is not None)
        assert (warning or "") in told.get("warning", "")
    finally:
        await console(rocky, CLEAN)
