"""Commands handed to a shell that waits: one round trip, never run twice, never mixed, and plain wherever in doubt."""

import math
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ConnectFailed
from mcp_ssh.sessions.session import Session
from mcp_ssh.ssh.connection import warm_shells
from mcp_ssh.ssh.exec.capture import Capture
from mcp_ssh.ssh.wire import command as wire
from mcp_ssh.ssh.wire.kill import StopResult
from mcp_ssh.tools import command, session, shell
from mcp_ssh.tools.file import content
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, Way, caller
from tests.support.machine import login, number, processes, trust
from tests.support.warm import Warm, rc_file, warm

ONE_WAY_MS = 120

KILL_PARENT = 'while read -r name value; do [ "$name" != PPid: ] || kill -KILL "$value"; done </proc/$1/status'


async def round_trips(on: Warm, do: Any) -> int:
    """How many round trips something takes, on a line so slow that little else counts; the least of some tries."""
    counts: list[int] = []
    while len(counts) < 3 and 1 not in counts:
        await on.ready()
        began = anyio.current_time()
        await do()
        counts.append(math.floor((anyio.current_time() - began) / (2 * ONE_WAY_MS / 1000)))
    return min(counts)


@pytest.mark.requirement("exec.warm")
async def test_a_command_and_a_small_file_cost_one_round_trip(app: App, deb: Host) -> None:
    on = await warm(app, deb, "dev")
    who = DirectCall(caller())
    at = {"session_id": on.session.id}
    await anyio.to_thread.run_sync(deb.delay, ONE_WAY_MS)
    await on.run("true")  # TCP learns how slow the line is now
    assert await round_trips(on, lambda: on.run("echo one; pwd")) == 1
    assert await round_trips(on, lambda: on.run("cat", b"given", cwd="/usr", env={"A": "b"})) == 1
    assert await round_trips(on, lambda: dispatch(app, content.read, {**at, "path": "/etc/hostname"}, who)) == 1
    # The negative control: a channel of its own takes one to open, and one for the command.
    assert await round_trips(on, lambda: on.run("echo one; pwd", exact=True)) == 2


@pytest.mark.requirement("exec.warm", "exec.cwd", "exec.env")
async def test_folder_environment_and_input_arrive_and_no_process_list_shows_the_values(app: App, host: Host) -> None:
    on = await warm(app, host, "dev")
    odd = "a'b\"c $(id) `id` \\ \n*"
    said = await on.on_spare('pwd; printf %s "$ODD"; cat; ps -ef >&2', b"in", cwd="/usr", env={"ODD": odd})
    assert said.stdout == f"/usr\n{odd}in".encode()
    assert b"$(id)" not in said.stderr
    assert b"ps -ef" in said.stderr
    assert b"odd" not in said.stderr.lower()


@pytest.mark.requirement("exec.warm")
async def test_through_every_door_a_waiting_shell_answers_and_exact_does_without(
    app: App, way: Way, host: Host
) -> None:
    await trust(app, host)
    session_id = (await way.call(session.connect, login(host, "dev")))["session_id"]
    on = Warm(next(each for each in app.sessions.seen_by(caller()) if each.id == session_id), host, "dev")
    waiting = await on.ready()
    answer = await way.call(command.run_command, {"session_id": session_id, "command": "echo $MCP_SSH_CALL $$; exit 3"})
    assert (answer["stdout"], answer["exit_code"], answer["stderr"]) == (f"{waiting.cookie} {waiting.pid}\n", 3, "")
    waiting = await on.ready()
    arguments = {"session_id": session_id, "command": "echo $MCP_SSH_CALL", "exact": True}
    assert waiting.cookie not in (await way.call(command.run_command, arguments))["stdout"]


@pytest.mark.requirement("exec.warm.twice")
async def test_a_shell_that_ended_before_the_command_is_replaced_in_the_same_call(app: App, host: Host) -> None:
    on = await warm(app, host, "dev")
    waiting = await on.ready()
    await on.console("kill", "-STOP", str(waiting.pid))
    before = on.plain
    said: list[bytes] = []

    async def run() -> None:
        said.append((await on.run("echo ran >>/tmp/mcp-once; cat /tmp/mcp-once; cat", b"my input")).stdout)

    await on.console("rm", "-f", "/tmp/mcp-once")
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        with anyio.fail_after(20):
            while waiting in on.session.link.spares.ready:
                await anyio.sleep(0.01)
        await on.console("kill", "-KILL", str(waiting.pid))
    assert said == [b"ran\nmy input"]
    assert on.plain == before + 1


@pytest.mark.requirement("exec.warm.twice")
async def test_a_shell_that_died_after_it_began_is_not_replaced(app: App, host: Host) -> None:
    on = await warm(app, host, "dev")
    await on.console("rm", "-f", "/tmp/mcp-once")
    said = await on.on_spare("echo ran >>/tmp/mcp-once; kill -KILL $$")
    assert said.code == 137
    assert await on.console("cat", "/tmp/mcp-once") == "ran\n"


@pytest.mark.requirement("exec.warm.twice")
async def test_without_the_second_line_it_would_run_twice(
    app: App, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: it is the second start line that tells a shell that began from one that did not."""
    first, second = wire._WAITING.split("; IFS= read", 1)
    without = f"{first}; IFS= read{second.replace('echo', ': echo')}"
    monkeypatch.setattr(wire, "_WAITING", without)
    on = await warm(app, host, "dev")
    await on.ready()
    await on.console("rm", "-f", "/tmp/mcp-once")
    await on.run("echo ran >>/tmp/mcp-once")
    assert await on.console("cat", "/tmp/mcp-once") == "ran\nran\n"


@pytest.mark.requirement("exec.warm.unknown", "exec.never_twice")
async def test_a_link_lost_at_the_hand_over_leaves_unknown_whether_it_ran(app: App, host: Host) -> None:
    on = await warm(app, host, "dev")
    waiting = await on.ready()
    await on.console("rm", "-f", "/tmp/mcp-once")
    await on.console("kill", "-STOP", str(waiting.pid))
    errors: list[ConnectFailed] = []

    async def run() -> None:
        with pytest.raises(ConnectFailed) as raised:
            await on.run("echo ran >>/tmp/mcp-once")
        errors.append(raised.value)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        with anyio.fail_after(20):
            while waiting in on.session.link.spares.ready:
                await anyio.sleep(0.01)
        # The machine's side of the connection dies while its shell has not begun yet.
        await on.console("sh", "-c", KILL_PARENT, "sh", str(waiting.pid))
    assert errors[0].details == {"ran": "unknown"}
    await on.console("kill", "-CONT", str(waiting.pid))
    await _gone(on, waiting.pid)
    # Its input had arrived, so it may have run: once, and never again by us.
    assert await on.console("cat", "/tmp/mcp-once") in {"", "ran\n"}
    assert on.plain == 1


async def _gone(on: Warm, pid: int) -> None:
    with anyio.fail_after(10):
        while await on.console("sh", "-c", '[ ! -d "/proc/$1" ] || echo there', "sh", str(pid)):
            await anyio.sleep(0.02)


WRITER = "setsid sh -c 'i=0; while [ $i -lt 40 ]; do echo theirs; echo theirs >&2; sleep 0.01; i=$((i + 1)); done'"


@pytest.mark.requirement("exec.warm.apart")
async def test_adjacent_calls_never_see_each_others_bytes(app: App, host: Host) -> None:
    on = await warm(app, host, "dev")
    first: list[bytes] = []

    async def run() -> None:
        said = await on.run(f"{WRITER} & echo first; exit 0")
        first.append(said.stdout + said.stderr)

    await on.ready()
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        for n in range(20):
            said = await on.run(f"echo {n}; echo {n} >&2; cat", b"mine")
            assert (said.stdout, said.stderr) == (f"{n}\nmine".encode(), f"{n}\n".encode())
    assert first[0].count(b"theirs") == 80  # all of it came, and to the call that it was of


async def test_in_one_shared_shell_they_would(host: Host) -> None:
    """The control: one shell for several commands gives the second what a child of the first goes on to write."""
    shared = "mkfifo /tmp/mcp-shared; sh </tmp/mcp-shared & exec 3>/tmp/mcp-shared; rm /tmp/mcp-shared"
    first, second = f"{WRITER} 2>/dev/null & echo done first", "sleep 0.2; echo done second"
    text = f'{shared}; printf "%s\\n" "$1" >&3; sleep 0.1; printf "%s\\n" "$2" >&3; exec 3>&-; wait'
    done = await anyio.to_thread.run_sync(lambda: host.console(["sh", "-c", text, "sh", first, second]))
    assert "theirs" in done.stdout.partition("done first")[2].partition("done second")[0]


@pytest.mark.requirement("exec.warm.fresh")
async def test_a_change_made_through_us_is_seen_by_the_next_command(app: App, deb: Host) -> None:
    on = await warm(app, deb, "dev")
    who = DirectCall(caller())
    async with rc_file(deb, "dev", "export FRESH=0\n"):
        assert (await on.run("echo $FRESH")).stdout == b"0\n"
        for n in range(1, 5):  # several wait by now, where nothing changed
            await _several(on)
            if n % 2:
                path = {"session_id": on.session.id, "path": "~/.bashrc", "content": f"export FRESH={n}\n"}
                await dispatch(app, content.write, path, who)
            else:
                await on.run(f"echo export FRESH={n} >~/.bashrc")
            assert (await on.run("echo $FRESH")).stdout == f"{n}\n".encode()


@pytest.mark.requirement("exec.warm.fresh")
@pytest.mark.parametrize("way", ["task", "key"])
async def test_a_change_made_behind_a_call_is_seen_once_that_is_told(app: App, deb: Host, way: str) -> None:
    on = await warm(app, deb, "dev")
    who, where = DirectCall(caller()), {"session_id": on.session.id}
    change = "echo export FRESH=1 >~/.bashrc"
    async with rc_file(deb, "dev", "export FRESH=0\n"):
        if way == "task":
            begun = await dispatch(app, command.background, {**where, "command": f"sleep 0.5; {change}"}, who)
            asked = {**where, "task_id": begun.task_id, "wait_s": 20}
            assert (await dispatch(app, command.task, asked, who)).status == "completed"
        else:
            await dispatch(app, shell.send, {**where, "command": f"{change}; echo do''ne", "enter": False}, who)
            await on.ready()
            await dispatch(app, shell.key, {**where, "key": "enter"}, who)
            with anyio.fail_after(10):
                while "done" not in (await dispatch(app, shell.read, where, who)).output:
                    await on.ready()
        assert (await on.run("echo $FRESH")).stdout == b"1\n"


async def test_without_renewal_it_would_see_the_old(app: App, deb: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: shells that wait are older than the change."""
    monkeypatch.setattr(Session, "renew_spares", lambda _: None)
    on = await warm(app, deb, "dev")
    async with rc_file(deb, "dev", "export FRESH=0\n"):
        await on.run("true")
        await _several(on)
        await on.run("echo export FRESH=1 >~/.bashrc")
        assert (await on.on_spare("echo $FRESH")).stdout == b"0\n"


async def _several(on: Warm) -> None:
    """Have more than one shell wait, as after calls that followed each other at once."""
    with anyio.fail_after(10):
        while len(on.session.link.spares.ready) < 2:
            await on.run("true")


@pytest.mark.requirement("exec.warm.idle")
async def test_shells_that_wait_end_when_idle_and_with_the_session(
    app: App, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_shells, "IDLE_S", 0.5)
    on = await warm(app, host, "dev")
    waiting = await on.ready()
    await _gone(on, waiting.pid)
    assert len(on.session.link.spares) == 0
    monkeypatch.setattr(warm_shells, "IDLE_S", 30.0)
    waiting, who = await on.ready(), DirectCall(caller())
    assert len(on.session.calls) == 0
    # A shell that cannot even end keeps nobody waiting.
    await on.console("kill", "-STOP", str(waiting.pid))
    with anyio.fail_after(10):
        await dispatch(app, session.disconnect, {"session_id": on.session.id}, who)
    await on.console("kill", "-CONT", str(waiting.pid))
    await _gone(on, waiting.pid)


@pytest.mark.requirement("exec.warm.idle")
async def test_a_shell_that_waits_ends_when_the_link_dies(app: App, host: Host) -> None:
    on = await warm(app, host, "dev")
    waiting = await on.ready()
    await on.console("sh", "-c", KILL_PARENT, "sh", str(waiting.pid))
    await _gone(on, waiting.pid)


@pytest.mark.requirement("exec.warm", "exec.timeout.kills")
@pytest.mark.parametrize("user", ["root", "dev"])
async def test_a_command_in_a_waiting_shell_is_ended_with_all_it_started(app: App, host: Host, user: str) -> None:
    on = await warm(app, host, user)
    await _several(on)
    before = on.plain
    n, m = number(), number()
    out, err = Capture(1024), Capture(1024)
    text = f"echo early; setsid sleep {n} & trap '' TERM; (setsid sh -c 'sleep {m} & sleep {m}' &); sleep {n}"
    ended = await on.session.execute(text, timeout_s=0.4, stdout=out, stderr=err)
    assert (ended.status, ended.stopped, out.whole()) == ("timed_out", StopResult(ended=True), b"early\n")
    assert await processes(host, n) == await processes(host, m) == []
    assert on.plain == before + 1  # for the look that ended it


@pytest.mark.requirement("exec.warm")
async def test_root_and_sudo_work_in_a_waiting_shell(app: App, deb: Host) -> None:
    root = await warm(app, deb, "root")
    assert (await root.on_spare("id -u; cat", b"in")).stdout == b"0\nin"
    free = await warm(app, deb, "nopass")
    assert (await free.on_spare("sudo -n id -u; cat", b"in")).stdout == b"0\nin"
    asked = await warm(app, deb, "ops")
    said = await asked.on_spare("sudo -S -p '' sh -c 'id -u; cat'", f"{deb.password}\nin".encode())
    assert said.stdout == b"0\nin"
