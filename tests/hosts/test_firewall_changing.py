"""Rules that are added, deleted, kept and put back, on real packet filters, read back by the console."""

import functools
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import firewall, session
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault, Way
from tests.support.firewall import ONLY_WHO_IS_IN, OPEN, console, reaches
from tests.support.machine import opened


@pytest.fixture
async def on(app: App, host: Host) -> AsyncIterator[dict[str, Any]]:
    yield {**await opened(Direct(app), app, host, "root"), "rollback_s": 5}
    await console(host, OPEN)


async def rules(host: Host, program: str = "iptables") -> list[str]:
    return (await console(host, f"{program} -S")).splitlines()


@pytest.mark.requirement("firewall.changing")
async def test_a_port_is_closed_and_opened_through_every_door(way: Way, app: App, host: Host) -> None:
    on = {**await opened(way, app, host, "root"), "port": 7001, "rollback_s": 5}
    try:
        assert await reaches(host, 7001)
        planned = await way.call(firewall.block_port, {**on, "dry_run": True})
        assert (planned["success"], planned["changed"], len(planned["commands"])) == (True, False, 2)
        assert await reaches(host, 7001)
        closed = await way.call(firewall.block_port, on)
        assert (closed["success"], closed["changed"], closed["rolled_back"]) == (True, True, False)
        assert closed["commands"] == planned["commands"]
        assert not await reaches(host, 7001, expected=False)
        again = await way.call(firewall.block_port, on)
        assert (again["success"], again["changed"], again["commands"]) == (True, False, [])
        # What lets in goes before what shuts out, and the other way round.
        assert (await way.call(firewall.allow_port, on))["changed"]
        assert await reaches(host, 7001)
        assert (await way.call(firewall.block_port, on))["changed"]
        assert not await reaches(host, 7001, expected=False)
    finally:
        await console(host, OPEN)


@pytest.mark.requirement("firewall.changing")
async def test_a_rule_is_for_the_family_of_its_address(app: App, host: Host, on: dict[str, Any]) -> None:
    way = Direct(app)
    four = await way.call(firewall.block_ip, {**on, "ip": "192.0.2.5"})
    assert (four["success"], four["ipv6"]) == (True, None)
    six = await way.call(firewall.block_ip, {**on, "ip": "2001:db8::5"})
    assert (six["success"], six["ipv4"]) == (True, None)
    assert "-A INPUT -s 192.0.2.5/32 -j DROP" in await rules(host)
    assert "-A INPUT -s 2001:db8::5/128 -j DROP" in await rules(host, "ip6tables")
    with pytest.raises(Fault) as fault:
        await way.call(firewall.block_ip, {**on, "ip": "192.0.2.5", "ip_version": "ipv6"})
    assert fault.value.code == "invalid_input"
    ranged = {"port_start": 8000, "port_end": 9000, "target": "REJECT", "ip_version": "ipv4"}
    assert (await way.call(firewall.rule_add_range, {**on, **ranged}))["success"]
    assert any("--dport 8000:9000 -j REJECT" in each for each in await rules(host))


@pytest.mark.requirement("firewall.changing")
async def test_a_rule_is_deleted_by_number_unless_the_list_has_changed(
    app: App, host: Host, on: dict[str, Any]
) -> None:
    way = Direct(app)
    for port in (7001, 7002):
        added = {"port": port, "target": "DROP", "comment": "of a test; $(touch /tmp/pwned)", "ip_version": "ipv4"}
        assert (await way.call(firewall.rule_add, {**on, **added}))["success"]
    told = await way.call(firewall.rules, {"session_id": on["session_id"], "chain": "INPUT", "ip_version": "ipv4"})
    second = next(each for each in told["rules"] if each["number"] == 2)
    await console(host, "iptables -D INPUT 1")
    wanted = {**on, "chain": "INPUT", "rule_num": 2, "ip_version": "ipv4"}
    before = await rules(host)
    with pytest.raises(Fault) as fault:
        await way.call(firewall.rule_delete, {**wanted, "expected_rule": second["text"]})
    assert fault.value.code == "conflict"
    assert await rules(host) == before
    gone = await way.call(firewall.rule_delete, {**wanted, "rule_num": 1, "expected_rule": second["text"]})
    assert (gone["success"], gone["changed"]) == (True, True)
    assert len(await rules(host)) == len(before) - 1
    with pytest.raises(Fault) as fault:
        await way.call(firewall.rule_delete, wanted)
    assert fault.value.code == "not_found"


@pytest.mark.requirement("firewall.rights")
@pytest.mark.parametrize("tool", [firewall.save, firewall.flush], ids=["save", "flush"])
async def test_who_is_not_root_is_refused_and_nothing_changes(app: App, host: Host, tool: AnyTool) -> None:
    way = Direct(app)
    on = await opened(way, app, host, "dev")
    await console(host, "iptables -A INPUT -s 192.0.2.8 -j DROP")
    before = await rules(host)
    try:
        with pytest.raises(Fault) as fault:
            await way.call(tool, on)
        assert fault.value.code == "permission_denied"
        assert "become" in fault.value.payload["hint"]
        assert await rules(host) == before
    finally:
        await console(host, OPEN)


@pytest.mark.requirement("firewall.keeping")
@pytest.mark.parametrize("name", ["deb", "alpine", "sysv", "bastion"])
async def test_kept_rules_are_there_after_a_reboot_and_can_be_gone_back_to(
    app: App, name: str, request: pytest.FixtureRequest
) -> None:
    host: Host = request.getfixturevalue(name)
    way = Direct(app)
    on = await opened(way, app, host, "root")
    try:
        assert (await way.call(firewall.block_ip, {**on, "ip": "192.0.2.6"}))["success"]
        assert (await way.call(firewall.block_ip, {**on, "ip": "2001:db8::6"}))["success"]
        planned = await way.call(firewall.save, {**on, "dry_run": True})
        assert (planned["success"], bool(planned["commands"])) == (True, True)
        saved = await way.call(firewall.save, on)
        assert (saved["success"], saved["error"]) == (True, None)
        before = [await rules(host, each) for each in ("iptables", "ip6tables")]
        # Where Debian's own package does that, ours stays away from it.
        ours = await console(host, "find /etc/systemd/system /etc/init.d -name 'mcp-ssh-firewall*'")
        assert bool(ours) == (name != "bastion")
        await anyio.to_thread.run_sync(functools.partial(host.reboot, 60))
        assert [await rules(host, each) for each in ("iptables", "ip6tables")] == before
        await way.call(session.disconnect, on)
        on = {**await opened(way, app, host, "root"), "rollback_s": 5}
        assert (await way.call(firewall.flush, on))["success"]
        assert not any("192.0.2.6" in each for each in await rules(host))
        back = await way.call(firewall.restore, on)
        assert (back["success"], back["rolled_back"]) == (True, False)
        assert [await rules(host, each) for each in ("iptables", "ip6tables")] == before
        # What was kept may shut us out by now.
        await console(host, f"iptables -F; {ONLY_WHO_IS_IN}")
        assert (await way.call(firewall.save, {"session_id": on["session_id"]}))["success"]
        await console(host, "iptables -F")
        shut = await way.call(firewall.restore, {**on, "rollback_s": 2})
        assert (shut["success"], shut["rolled_back"]) == (False, True)
        assert not any("dport 22" in each for each in await rules(host))
    finally:
        await console(host, f"{OPEN}; rm -f /etc/iptables/rules.v4 /etc/iptables/rules.v6 || true")
