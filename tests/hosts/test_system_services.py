"""Services and signals on real service managers, with and without rights, read back by the console."""

import functools

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import system
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault, Way
from tests.support.machine import number, opened, outside, processes


async def runs(host: Host) -> bool:
    """Whether the small service runs, as its manager tells the console."""
    words = {"alpine": ["rc-service", "pinger", "status"], "sysv": ["service", "pinger", "status"]}
    argv = words.get(host.name, ["systemctl", "is-active", "pinger"])
    return (await anyio.to_thread.run_sync(functools.partial(host.console, argv))).returncode == 0


async def starts_with_the_machine(host: Host) -> bool:
    look = {"alpine": "ls /etc/runlevels/default/pinger", "sysv": "ls /etc/rc2.d/S??pinger"}
    script = look.get(host.name, "test $(systemctl is-enabled pinger) = enabled")
    return (await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-c", script]))).returncode == 0


async def ended(host: Host, marked: int) -> None:
    """Wait until no process with the number is left."""
    with anyio.fail_after(10):
        while await processes(host, marked):
            await anyio.sleep(0.02)


@pytest.mark.requirement("system.service")
async def test_a_service_does_as_it_is_told_on_every_family(app: App, every: Host) -> None:
    way = Direct(app)
    on = {**await opened(way, app, every, "root"), "service": "pinger"}
    try:
        stopped = await way.call(system.service, {**on, "action": "status"})
        assert (stopped["success"], stopped["active"], stopped["enabled"]) == (True, False, False)
        started = await way.call(system.service, {**on, "action": "start"})
        assert (started["success"], started["active"], started["error"]) == (True, True, None)
        assert await runs(every)
        again = await way.call(system.service, {**on, "action": "restart"})
        assert (again["success"], again["active"]) == (True, True)
        assert (await way.call(system.service, {**on, "action": "enable"}))["enabled"] is True
        assert await starts_with_the_machine(every)
        assert (await way.call(system.service, {**on, "action": "disable"}))["enabled"] is False
        assert not await starts_with_the_machine(every)
        ended = await way.call(system.service, {**on, "action": "stop"})
        assert (ended["success"], ended["active"]) == (True, False)
        assert not await runs(every)
        with pytest.raises(Fault) as unknown:
            await way.call(system.service, {**on, "service": "no-such-service", "action": "start"})
        assert unknown.value.code == "not_found"
    finally:
        await way.call(system.service, {**on, "action": "stop"})


@pytest.mark.requirement("system.service")
async def test_every_door_leads_to_it(way: Way, app: App, host: Host) -> None:
    on = {**await opened(way, app, host, "root"), "service": "pinger", "action": "status"}
    assert (await way.call(system.service, on))["active"] is False
    for wrong in ({"service": "-x"}, {"service": "a b"}, {"service": "../x"}, {"action": "explode"}):
        with pytest.raises(Fault) as refused:
            await way.call(system.service, {**on, **wrong})
        assert refused.value.status in {None, 400}


@pytest.mark.requirement("system.rights")
async def test_without_rights_nothing_changes_and_with_sudo_it_does(app: App, host: Host) -> None:
    way = Direct(app)
    start = {"service": "pinger", "action": "start"}
    try:
        plain = await opened(way, app, host, "dev")
        with pytest.raises(Fault) as refused:
            await way.call(system.service, {**plain, **start})
        assert refused.value.code == "permission_denied"
        assert refused.value.payload["hint"]
        assert not await runs(host)
        with_password = await opened(way, app, host, "ops")
        with pytest.raises(Fault) as refused:
            await way.call(system.service, {**with_password, **start})
        assert "become.password" in refused.value.payload["hint"]
        assert not await runs(host)
        become = {"become": {"password": host.password}}
        assert (await way.call(system.service, {**with_password, **start, **become}))["success"]
        assert await runs(host)
        without = await opened(way, app, host, "nopass")
        assert (await way.call(system.service, {**without, "service": "pinger", "action": "stop"}))["success"]
        assert not await runs(host)
    finally:
        root = await opened(way, app, host, "root")
        await way.call(system.service, {**root, "service": "pinger", "action": "stop"})


@pytest.mark.requirement("system.kill")
async def test_a_signal_reaches_its_process_and_never_the_first(way: Way, app: App, host: Host) -> None:
    on = await opened(way, app, host, "dev")
    marked = number()
    pid = (await outside(host, f"sleep {marked} >/dev/null 2>&1 & echo $!", "dev")).strip()
    sent = await way.call(system.kill, {**on, "pid": pid})
    assert (sent["status"], str(sent["pid"]), sent["signal"], sent["error"]) == ("sent", pid, "TERM", None)
    await ended(host, marked)
    gone = await way.call(system.kill, {**on, "pid": 4_194_303, "signal": "KILL"})
    assert (gone["status"], gone["error"]) == ("failed", "No such process")
    for first in ("1", "0", "-1", "1; id", "", 1):
        with pytest.raises(Fault) as refused:
            await way.call(system.kill, {**on, "pid": first})
        assert refused.value.status in {None, 400}


@pytest.mark.requirement("system.rights")
async def test_a_process_of_another_account_needs_its_rights(app: App, host: Host) -> None:
    way = Direct(app)
    marked = number()
    pid = (await outside(host, f"sleep {marked} >/dev/null 2>&1 & echo $!")).strip()
    with pytest.raises(Fault) as refused:
        await way.call(system.kill, {**await opened(way, app, host, "dev"), "pid": pid})
    assert refused.value.code == "permission_denied"
    assert len(await processes(host, marked)) == 1
    assert (await way.call(system.kill, {**await opened(way, app, host, "nopass"), "pid": pid}))["status"] == "sent"
    await ended(host, marked)


@pytest.mark.requirement("system.service")
async def test_units_of_every_kind_and_those_without_a_file_are_told_truly(app: App, deb: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, deb, "root")
    assert (await way.call(system.service, {**on, "service": "system.slice", "action": "status"}))["active"]
    with pytest.raises(Fault) as template:
        await way.call(system.service, {**on, "service": "getty@", "action": "status"})
    assert (template.value.code, "instance" in template.value.payload["hint"]) == ("invalid_input", True)
    enabled = await way.call(system.service, {**on, "service": "getty@", "action": "enable"})
    assert (enabled["success"], enabled["enabled"]) == (True, True)
    unit = "/etc/systemd/system/ours.service"
    await outside(
        deb,
        f"printf '[Service]\\nExecStart=/bin/sleep 600\\n' >{unit}; systemctl daemon-reload; systemctl start ours;"
        f"rm {unit}; systemctl daemon-reload",
    )
    gone = {**on, "service": "ours"}
    assert (await way.call(system.service, {**gone, "action": "status"}))["active"]
    assert (await way.call(system.service, {**gone, "action": "stop"}))["success"]
    assert (await outside(deb, "systemctl is-active ours || true")).strip() == "inactive"
    with pytest.raises(Fault) as unknown:
        await way.call(system.service, {**gone, "action": "status"})
    assert unknown.value.code == "not_found"


TALKS = "(while sleep 0.1; do echo tick; echo tick >>{file}; done) & echo $! >{file}.pid"
RC = "#!/sbin/openrc-run\nstart() {{ {0}; }}\nstop() {{ :; }}\n"
SYSV = "#!/bin/sh\nstart() {{ {0}; }}\nstop() {{ :; }}\n$1\n"


@pytest.mark.requirement("system.service")
async def test_a_daemon_that_keeps_the_output_open_is_not_waited_for_and_lives_on(
    app: App, sysv: Host, alpine: Host
) -> None:
    way = Direct(app)
    for host, head in ((sysv, SYSV), (alpine, RC)):
        file = f"/tmp/talks-{number()}"
        put = "cat >/etc/init.d/talks; chmod 755 /etc/init.d/talks"
        text = head.format(TALKS.format(file=file))
        await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-c", put], input=text))
        try:
            on = {**await opened(way, app, host, "root"), "service": "talks"}
            with anyio.fail_after(20):
                assert (await way.call(system.service, {**on, "action": "start"}))["success"]
            before = int(await outside(host, f"wc -l <{file}"))
            with anyio.fail_after(10):
                while int(await outside(host, f"wc -l <{file}")) < before + 3:
                    await anyio.sleep(0.1)
        finally:
            await outside(host, f"kill $(cat {file}.pid); rm -f /etc/init.d/talks {file}*")
