"""The firewall tools on real firewalld: what they change decides about real connections, and never shuts us out."""

import functools
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.linux.firewall import backend as firewalls
from mcp_ssh.linux.firewall.firewalld import FUNCTIONS, Firewalld
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import firewall
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault
from tests.support.firewall import console, gets_in
from tests.support.firewalld import CLEAN, LISTED, LISTENS, connects, done
from tests.support.machine import SOAK, opened


@pytest.fixture
async def on(app: App, rocky: Host) -> AsyncIterator[dict[str, Any]]:
    await done(rocky, CLEAN + LISTENS)
    yield await opened(Direct(app), app, rocky, "root")
    await console(rocky, CLEAN)


@pytest.mark.requirement("firewall.changing")
async def test_what_is_allowed_gets_in_and_what_is_blocked_does_not(app: App, rocky: Host, on: dict[str, Any]) -> None:
    way = Direct(app)
    assert not await connects(rocky, expected=False)
    planned = await way.call(firewall.allow_port, {**on, "port": 8080, "dry_run": True})
    assert (planned["success"], planned["changed"], len(planned["commands"])) == (True, False, 2)
    assert not await connects(rocky, expected=False)
    told = await way.call(firewall.allow_port, {**on, "port": 8080})
    assert (told["backend"], told["success"], told["changed"]) == ("firewalld", True, True)
    assert "warning" not in told
    assert told["commands"] == planned["commands"]
    assert await connects(rocky)
    again = await way.call(firewall.allow_port, {**on, "port": 8080})
    assert (again["success"], again["changed"], again["commands"]) == (True, False, [])
    assert (await way.call(firewall.block_port, {**on, "port": 8080, "ip_version": "ipv4"}))["success"]
    assert not await connects(rocky, expected=False)
    first = (await way.call(firewall.rules, {**on, "chain": "INPUT", "ip_version": "ipv4"}))["rules"][0]
    assert (first["number"], first["target"], first["protocol"], first["ports"]) == (1, "DROP", "tcp", "8080")
    deleted = {**on, "chain": "INPUT", "rule_num": 1, "ip_version": "ipv4", "expected_rule": first["text"]}
    assert (await way.call(firewall.rule_delete, deleted))["success"]
    assert await connects(rocky)
    with pytest.raises(Fault) as changed:
        await way.call(firewall.rule_delete, deleted)
    assert changed.value.code == "conflict"
    assert await connects(rocky)


LOCK_OUTS: Mapping[str, tuple[AnyTool, dict[str, Any]]] = {
    "a flush": (firewall.flush, {}),
    "our address": (firewall.block_ip, {"ip": "10.77.0.1"}),
    "answers": (firewall.policy, {"chain": "OUTPUT", "target": "DROP"}),
    "a policy": (firewall.policy, {"chain": "INPUT", "target": "DROP"}),
}
BEFORE = """
firewall-cmd --add-port=81/tcp
firewall-cmd --add-rich-rule='rule family="ipv4" source address="10.9.0.0/16" log prefix="a b" accept'
firewall-cmd --direct --add-rule ipv4 filter OUTPUT 3 -p tcp --dport 9 -m comment --comment "it's a *" -j DROP
firewall-cmd --direct --add-rule ipv6 filter OUTPUT 4 -p tcp --dport 9 -j DROP
"""
LET_IN_BY_POLICY = """
for each in ipv4 ipv6; do firewall-cmd --add-rich-rule="rule priority=\\"32767\\" family=\\"$each\\" accept"; done
firewall-cmd --remove-service=ssh
"""


@pytest.mark.requirement("firewall.way_back")
@pytest.mark.parametrize("name", LOCK_OUTS if SOAK else ["our address"])
async def test_who_shuts_himself_out_is_let_in_again(app: App, rocky: Host, on: dict[str, Any], name: str) -> None:
    tool, arguments = LOCK_OUTS[name]
    await console(rocky, BEFORE + (LET_IN_BY_POLICY if name == "a policy" else ""))
    rules = await console(rocky, LISTED)
    told = await Direct(app).call(tool, {**on, **arguments, "rollback_s": 2})
    assert (told["rolled_back"], told["success"], told["changed"]) == (True, False, False)
    assert sorted((await console(rocky, LISTED)).splitlines()) == sorted(rules.splitlines())
    assert await gets_in(app, rocky)


@pytest.mark.requirement("firewall.way_back")
async def test_a_restore_that_shuts_us_out_brings_running_rules_and_target_back(
    app: App, rocky: Host, on: dict[str, Any]
) -> None:
    await console(
        rocky, BEFORE + "firewall-cmd --permanent --remove-service=ssh; firewall-cmd --permanent --set-target=DROP"
    )
    rules = await console(rocky, LISTED)
    told = await Direct(app).call(firewall.restore, {**on, "rollback_s": 2})
    assert (told["rolled_back"], told["success"]) == (True, False)
    assert sorted((await console(rocky, LISTED)).splitlines()) == sorted(rules.splitlines())
    assert (await console(rocky, "firewall-cmd --permanent --get-target")).strip() == "DROP"
    assert await gets_in(app, rocky)


@pytest.mark.requirement("firewall.way_back")
async def test_without_the_way_back_nobody_gets_in(
    app: App, rocky: Host, on: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    unable = Firewalld(functions=FUNCTIONS + "undo() { :; }")
    monkeypatch.setattr(firewalls, "Firewalld", lambda: unable)
    monkeypatch.setattr("mcp_ssh.tools.firewall.safe_apply.BACK_S", 1.0)
    with pytest.raises(Fault) as lost:
        await Direct(app).call(firewall.block_port, {**on, "rollback_s": 2, "port": 22})
    assert lost.value.payload["details"] == {"rolled_back": "unknown"}
    assert not await gets_in(app, rocky, expected=False)


@pytest.mark.requirement("firewall.way_back")
async def test_a_policy_that_leaves_us_in_stays_and_can_be_turned(app: App, rocky: Host, on: dict[str, Any]) -> None:
    way = Direct(app)
    for chain in ("INPUT", "OUTPUT"):
        given = {**on, "chain": chain, "ip_version": "ipv4"}
        if chain == "OUTPUT":
            answers = {**on, "chain": "OUTPUT", "source": rocky.ip, "protocol": "tcp"}
            assert (await way.call(firewall.rule_add, answers))["success"]
        for target in ("DROP", "ACCEPT") if chain == "INPUT" else ("DROP",):
            told = await way.call(firewall.policy, {**given, "target": target})
            assert (told["success"], told["changed"]) == (True, True)
            listed = await way.call(firewall.rules, {**on, "ip_version": "ipv4"})
            assert listed["policies"]["ipv4"][chain] == target
            let_in = chain == "OUTPUT" or target == "ACCEPT"
            assert (await connects(rocky, let_in)) == let_in
    with pytest.raises(Fault) as refused:
        await way.call(firewall.policy, {**on, "chain": "FORWARD", "target": "ACCEPT"})
    assert refused.value.code == "unsupported"


@pytest.mark.requirement("firewall.keeping")
async def test_rules_that_were_saved_are_there_after_a_reboot_and_a_restore(
    app: App, rocky: Host, on: dict[str, Any]
) -> None:
    way = Direct(app)
    assert (await way.call(firewall.allow_port, {**on, "port": 8080}))["success"]
    assert (await way.call(firewall.save, on))["success"]
    assert (await way.call(firewall.block_ip, {**on, "ip": "192.0.2.7"}))["success"]
    assert (await way.call(firewall.restore, on))["success"]
    assert "192.0.2.7" not in await console(rocky, LISTED)
    assert await connects(rocky)
    await anyio.to_thread.run_sync(functools.partial(rocky.reboot))
    await done(rocky, LISTENS)
    listed = await way.call(firewall.rules, {**await opened(way, app, rocky, "root"), "chain": "INPUT"})
    assert [each["ports"] for each in listed["rules"] if "8080" in each["text"]] == ["8080", "8080"]
    assert await connects(rocky)


@pytest.mark.requirement("firewall.rights")
async def test_reading_needs_rights_and_says_so(app: App, rocky: Host) -> None:
    way = Direct(app)
    with pytest.raises(Fault) as refused:
        await way.call(firewall.rules, await opened(way, app, rocky, "dev"))
    assert refused.value.code == "permission_denied"
    assert (await way.call(firewall.rules, await opened(way, app, rocky, "nopass")))["success"]
