"""Changes that really shut us out, on real packet filters: the machine itself takes them back, as its console tells.

The negative control of each promise switches the way back off, and shows that nobody gets in any more.
"""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.linux.firewall import backend as firewalls
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import firewall
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault
from tests.support.firewall import LOCK_OUTS, OPEN, console, gets_in
from tests.support.machine import opened, processes


@pytest.fixture
async def on(app: App, host: Host) -> AsyncIterator[dict[str, Any]]:
    yield {**await opened(Direct(app), app, host, "root"), "rollback_s": 2}
    await console(host, OPEN)


@pytest.mark.requirement("firewall.way_back")
@pytest.mark.parametrize("name", LOCK_OUTS)
async def test_who_shuts_himself_out_is_let_in_again(app: App, host: Host, on: dict[str, Any], name: str) -> None:
    before, tool, arguments = LOCK_OUTS[name]
    await console(host, before)
    rules = await console(host, "iptables -S; ip6tables -S")
    told = await Direct(app).call(tool, {**on, **arguments})
    assert (told["rolled_back"], told["success"], told["changed"]) == (True, False, False)
    assert "no new connection" in told["error"]
    assert await console(host, "iptables -S; ip6tables -S") == rules
    assert await gets_in(app, host)


@pytest.mark.requirement("firewall.way_back")
async def test_without_the_way_back_nobody_gets_in(app: App, deb: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {**await opened(Direct(app), app, deb, "root"), "rollback_s": 2, "port": 22}
    monkeypatch.setattr(firewalls, "_CHANGE", firewalls._CHANGE.replace('undo "$family"', ":"))
    monkeypatch.setattr("mcp_ssh.tools.firewall.safe_apply.BACK_S", 1.0)
    try:
        with pytest.raises(Fault) as lost:
            await Direct(app).call(firewall.block_port, arguments)
        assert lost.value.payload["details"] == {"rolled_back": "unknown"}
        assert not await gets_in(app, deb, expected=False)
    finally:
        await console(deb, OPEN)


@pytest.mark.requirement("firewall.way_back")
async def test_a_login_that_is_refused_meanwhile_is_not_repeated(app: App, deb: Host) -> None:
    on = {**await opened(Direct(app), app, deb, "root"), "rollback_s": 2, "port": 22}
    keys = "/root/.ssh/authorized_keys"
    refusals = "journalctl -o cat --no-pager | grep -c 'authenticating user root' || true"
    before = int(await console(deb, refusals))

    async def take_the_key_away() -> None:
        armed = "until [ -e /run/mcp-ssh-firewall.*/armed ]; do sleep 0.02; done"
        await console(deb, f"timeout 20 sh -c '{armed}'; mv {keys} {keys}.away")

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(take_the_key_away)
            told = await Direct(app).call(firewall.block_port, on)
        assert (told["rolled_back"], told["changed"]) == (True, False)
        assert int(await console(deb, refusals)) - before == 1
    finally:
        await console(deb, f"{OPEN}; mv {keys}.away {keys}")


@pytest.mark.requirement("firewall.way_back")
async def test_what_leaves_us_in_stays(app: App, host: Host, on: dict[str, Any]) -> None:
    way = Direct(app)
    await console(host, "iptables -A INPUT -p tcp --dport 22 -j ACCEPT")
    told = await way.call(firewall.policy, {**on, "chain": "INPUT", "target": "DROP", "ip_version": "ipv4"})
    assert (told["success"], told["changed"], told["rolled_back"], told["error"]) == (True, True, False, None)
    # What watched over the change ends once its folder is gone; after that nothing can come back any more.
    await console(host, "rm -rf /run/mcp-ssh-firewall.*")
    with anyio.fail_after(10):
        while await processes(host, "mcp-ssh-firewall."):
            await anyio.sleep(0.05)
    assert "-P INPUT DROP" in await console(host, "iptables -S")
    again = await way.call(firewall.policy, {**on, "chain": "INPUT", "target": "DROP", "ip_version": "ipv4"})
    assert (again["success"], again["changed"], again["commands"]) == (True, False, [])


@pytest.mark.requirement("firewall.way_back")
async def test_nothing_is_changed_while_another_change_is_being_proved(
    app: App, host: Host, on: dict[str, Any]
) -> None:
    await console(host, "mkdir /run/mcp-ssh-firewall.other; touch /run/mcp-ssh-firewall.other/armed")
    try:
        for tool in (firewall.block_ip, firewall.allow_ip):
            with pytest.raises(Fault) as refused:
                await Direct(app).call(tool, {**on, "ip": "192.0.2.9"})
            assert refused.value.code == "conflict"
        assert "192.0.2.9" not in await console(host, "iptables -S")
    finally:
        await console(host, "rm -r /run/mcp-ssh-firewall.other")


# ---- a machine that does not begin -------------------------------------------------------------------------------

HOLD = r"""
rm -rf /run/mcp-ssh-firewall.*; mkfifo /run/hold; mkdir /run/real; path=$(command -v iptables-save)
ln -s "$(readlink -f "$path")" /run/real/iptables-save; mv "$path" "$path.real"
printf '#!/bin/sh\n[ ! -p /run/hold ] || cat /run/hold\nexec /run/real/iptables-save "$@"\n' >"$path"
chmod +x "$path"
"""
GO_ON = "[ ! -p /run/hold ] || mv /run/hold /run/held; : <>/run/held"
HOLD_NO_MORE = (
    GO_ON
    + """
path=$(command -v iptables-save); mv "$path.real" "$path"; rm -rf /run/held /run/real /run/mcp-ssh-firewall.*
"""
)
SOON = "left=10"
CALLS_OFF = 'mv "$dir/waiting" "$dir/called_off"'


@pytest.fixture
async def holding(host: Host, on: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[str, Any]]:
    """A machine whose change does not get past keeping the rules, and is waited for half a second."""
    monkeypatch.setattr(firewalls, "_BEGIN", firewalls._BEGIN.replace("left=600", SOON))
    monkeypatch.setattr("mcp_ssh.tools.firewall.safe_apply.BEGIN_S", 0.5)
    await console(host, HOLD)
    yield {**on, "ip": "192.0.2.9"}
    await console(host, HOLD_NO_MORE)


@pytest.mark.requirement("firewall.way_back")
@pytest.mark.parametrize("answer", ["heard", "lost"])
async def test_a_change_that_the_machine_does_not_begin_is_called_off_for_good(
    app: App, host: Host, holding: dict[str, Any], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    if answer == "lost":  # whoever asks next calls it off
        monkeypatch.setattr(firewalls, "_BEGIN", firewalls._BEGIN.replace("\n    call_off\n", "\n"))
    before = await console(host, "iptables -S; ip6tables -S")
    with pytest.raises(Fault) as refused:
        await Direct(app).call(firewall.block_ip, {**holding, "rollback_s": 10 if answer == "heard" else 1})
    assert refused.value.code == "remote_failed"
    assert "nothing was changed, nor will be" in refused.value.payload["message"]
    await console(host, GO_ON)
    with anyio.fail_after(10):
        while await processes(host, "mcp-ssh-firewall."):
            await anyio.sleep(0.05)
    assert await console(host, "iptables -S; ip6tables -S; ls -d /run/mcp-ssh-firewall.* || true") == before


@pytest.mark.requirement("firewall.way_back")
async def test_a_change_that_is_not_called_off_begins_after_its_answer(
    app: App, host: Host, holding: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(firewalls, "_FOLDER", firewalls._FOLDER.replace(CALLS_OFF, "false"))
    monkeypatch.setattr("mcp_ssh.tools.firewall.safe_apply.BACK_S", 0.5)
    with pytest.raises(Fault) as late:
        await Direct(app).call(firewall.block_ip, {**holding, "rollback_s": 1})
    assert late.value.payload["details"] == {"rolled_back": "unknown"}
    await console(host, GO_ON)
    with anyio.fail_after(10):
        while "192.0.2.9" not in await console(host, "iptables -S"):
            await anyio.sleep(0.05)


FULL = "dd if=/dev/zero of=/srv/small/full bs=1k 2>/dev/null || true"


@pytest.mark.requirement("firewall.way_back")
@pytest.mark.parametrize("tool", [firewall.block_ip, firewall.allow_ip], ids=["block", "allow"])
async def test_a_machine_without_room_for_the_change_says_so_and_keeps_its_rules(
    app: App, host: Host, on: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tool: AnyTool
) -> None:
    monkeypatch.setattr(firewalls, "_FOLDER", firewalls._FOLDER.replace("base=/run;", "base=/srv/small;"))
    before = await console(host, "iptables -S; ip6tables -S")
    await console(host, FULL)
    try:
        with pytest.raises(Fault) as refused:
            await Direct(app).call(tool, {**on, "ip": "192.0.2.9"})
        assert refused.value.code == "remote_failed"
        assert "could not write the change down" in refused.value.payload["message"]
        assert await console(host, "iptables -S; ip6tables -S; ls -d /srv/small/mcp-ssh* || true") == before
    finally:
        await console(host, "rm -f /srv/small/full")
