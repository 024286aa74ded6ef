"""A service action succeeds when the service is afterwards as asked, on each init system, read back by the console."""

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import system
from tests.fleet.hosts import Host
from tests.support.doors import Direct
from tests.support.machine import opened, outside

SYSTEMD = "[Unit]\nStartLimitIntervalSec=0\n[Service]\n{}\n[Install]\nWantedBy=multi-user.target\n"
OPENRC = '#!/sbin/openrc-run\ncommand=/bin/sh\ncommand_args="/srv/{}.program"\n{}\n'
SYSV = """#!/bin/sh
### BEGIN INIT INFO
# Provides:          {0}
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
### END INIT INFO
. /lib/lsb/init-functions
case $1 in
start) start-stop-daemon --start -qobm --pidfile /run/{0}.pid --exec /bin/sh -- /srv/{0}.program {1} ;;
stop) start-stop-daemon --stop --quiet --oknodo --remove-pidfile --pidfile /run/{0}.pid ;;
restart) "$0" stop; "$0" start ;;
status) status_of_proc -p /run/{0}.pid /bin/sh {0} ;;
esac
"""
STAYS = "exec sleep 100000"
DIES = "echo the-port-is-taken >&2; logger -t {0} the-port-is-taken; exit 3"
Act = Callable[[str], Awaitable[dict[str, Any]]]
Put = Callable[..., Awaitable[Act]]


@pytest.fixture
async def put(app: App) -> AsyncGenerator[Put]:
    """Install a service: its host, its name, its program, and what its unit or init script says beside it."""
    placed: list[tuple[Host, str]] = []

    async def install(host: Host, name: str, program: str, more: str = "") -> Act:
        placed.append((host, name))
        await write(host, f"/srv/{name}.program", program.format(name))
        if host.name == "alpine":
            await write(
                host,
                f"/etc/init.d/{name}",
                OPENRC.format(name, more or f"command_background=yes\npidfile=/run/{name}.pid"),
            )
        elif host.name == "sysv":
            await write(host, f"/etc/init.d/{name}", more if more.startswith("#!") else SYSV.format(name, more))
        else:
            more = more if "ExecStart=" in more else f"ExecStart=/bin/sh /srv/{name}.program\n{more}"
            await write(host, f"/etc/systemd/system/{name}.service", SYSTEMD.format(more))
            await outside(host, "systemctl daemon-reload")
        on = {**await opened(Direct(app), app, host, "root"), "service": name}

        async def act(action: str) -> dict[str, Any]:
            return await Direct(app).call(system.service, {**on, "action": action})

        return act

    yield install
    for host, name in placed:
        host.console(["sh", "-c", f"systemctl stop {name} || rc-service {name} stop || service {name} stop"])
        host.console(["sh", "-c", f"rm -f /etc/init.d/{name} /etc/systemd/system/{name}.service /srv/{name}.*"])
        host.console(["sh", "-c", f"rm -f /etc/runlevels/*/{name} /etc/rc?.d/*{name}; systemctl daemon-reload"])


async def write(host: Host, path: str, text: str) -> None:
    argv = ["sh", "-c", 'cat >"$1" && chmod 755 "$1"', "sh", path]
    done = await anyio.to_thread.run_sync(functools.partial(host.console, argv, input=text))
    assert done.returncode == 0, done.stderr


@pytest.fixture(params=["deb", "alpine", "sysv"])
def each(request: pytest.FixtureRequest) -> Host:
    """A host of each init system."""
    return request.getfixturevalue(request.param)


@pytest.mark.requirement("fault.N1")
async def test_a_service_that_dies_at_once_fails_with_the_last_lines_of_its_log(each: Host, put: Put) -> None:
    act = await put(each, "dier", DIES)
    for action in ("start", "restart"):
        told = await act(action)
        assert (told["success"], told["active"]) == (False, False), told
        if each.name != "sysv":  # which has no log daemon
            assert "the-port-is-taken" in told["error"]
        assert "does not stay up" in told["error"]


@pytest.mark.requirement("fault.N1")
async def test_the_last_lines_of_a_service_are_found_when_the_log_was_rotated_after_them(
    alpine: Host, put: Put
) -> None:
    noise = "yes noise | head -n 200 | logger -t noise"
    turned = f"until grep -q the-port-is-taken /var/log/messages.0; do {noise}; done"
    await outside(alpine, "rm -f /var/log/messages.0")
    act = await put(alpine, "dier", DIES.replace("exit 3", f"timeout 20 sh -c '{turned}'; exit 3"))
    assert "the-port-is-taken" in (await act("start"))["error"]
    assert "the-port-is-taken" not in await outside(alpine, "tail -n 500 /var/log/messages | grep -v noise || true")


@pytest.mark.requirement("fault.N1")
async def test_a_service_that_stays_up_is_started_with_no_word_of_its_log(each: Host, put: Put) -> None:
    act = await put(each, "stayer", STAYS)
    for action in ("start", "restart"):
        told = await act(action)
        assert (told["success"], told["active"], told["error"]) == (True, True, None), told
    assert (await act("stop"))["active"] is False


@pytest.mark.requirement("fault.R7")
@pytest.mark.parametrize("pause", ["RestartSec=5", "RestartSec=100ms"])
async def test_a_unit_in_a_crash_loop_is_not_active(deb: Host, put: Put, pause: str) -> None:
    act = await put(deb, "looper", "exit 1", f"Restart=always\n{pause}")
    told = await act("start")
    assert (told["success"], told["active"]) == (False, False), told
    assert "auto-restart" in told["state"] or "loop" in told["state"]
    told = await act("status")
    assert (told["success"], told["active"]) == (True, False), told


@pytest.mark.requirement("fault.R7")
async def test_a_supervised_service_in_a_crash_loop_is_not_active(alpine: Host, put: Put) -> None:
    act = await put(
        alpine, "looper", "sleep 0.2; exit 1", "supervisor=supervise-daemon\nrespawn_delay=0\nrespawn_max=0"
    )
    told = await act("start")
    assert (told["success"], told["active"]) == (False, False), told
    assert "loop" in told["error"]
    assert (await act("status"))["active"] is False
    kept = await put(alpine, "supervised", STAYS, "supervisor=supervise-daemon")
    assert (await kept("start"))["active"] is True


@pytest.mark.requirement("fault.R7")
async def test_a_unit_that_stays_up_after_one_crash_is_active_and_tells_of_it(deb: Host, put: Put) -> None:
    once = "[ -e /srv/once.program.ran ] && exec sleep 100000; touch /srv/once.program.ran; exit 1"
    act = await put(deb, "once", once, "Restart=always\nRestartSec=100ms")
    told = await act("start")
    assert (told["success"], told["active"]) == (True, True), told
    with anyio.fail_after(20):
        while (told := await act("status")).get("restarts") != 1:
            await anyio.sleep(0.1)
    assert told["active"] is True


@pytest.mark.requirement("fault.N2")
async def test_a_task_that_ran_to_its_end_is_no_failure_and_one_whose_condition_fails_is(deb: Host, put: Put) -> None:
    act = await put(deb, "task", "exit 0", "Type=oneshot")
    told = await act("start")
    assert (told["success"], told["active"]) == (True, False), told
    act = await put(deb, "unmet", STAYS, "[Unit]\nConditionPathExists=/no/such")
    told = await act("start")
    assert (told["success"], told["active"]) == (False, False), told
    assert "condition" in told["error"]


@pytest.mark.requirement("fault.N2")
async def test_what_is_disabled_and_stopped_already_is_success_on_every_init(each: Host, put: Put) -> None:
    act = await put(each, "stayer", STAYS)
    for action in ("enable", "enable", "disable", "disable", "stop"):
        told = await act(action)
        assert (told["success"], told["error"]) == (True, None), (action, told)
        assert told["enabled"] is (action == "enable")


@pytest.mark.requirement("fault.N2")
async def test_an_exit_code_that_lies_does_not_decide(sysv: Host, put: Put) -> None:
    wrong = (
        SYSV.format("liar", "")
        .replace(" ;;\nstop)", "; exit 1 ;;\nstop)")
        .replace(" ;;\nrestart)", "; exit 1 ;;\nrestart)")
    )
    act = await put(sysv, "liar", STAYS, wrong)
    for action, active in (("start", True), ("stop", False)):
        told = await act(action)
        assert (told["success"], told["active"]) == (True, active), told
    does_nothing = SYSV.format("idler", "").replace("start) start-stop-daemon", "start) exit 0; start-stop-daemon")
    told = await (await put(sysv, "idler", STAYS, does_nothing))("start")
    assert (told["success"], told["active"]) == (False, False), told


@pytest.mark.requirement("fault.N2")
async def test_a_script_without_status_is_told_as_unknown(sysv: Host, put: Put) -> None:
    told = await (await put(sysv, "silent", STAYS, "#!/bin/sh\nexit 0\n"))("start")
    assert (told["success"], told["active"]) == (True, None)
    told = await (await put(sysv, "broken", STAYS, "#!/bin/sh\necho sorry\nexit 5\n"))("start")
    assert (told["success"], told["active"]) == (False, None)
    assert "sorry" in told["error"]
