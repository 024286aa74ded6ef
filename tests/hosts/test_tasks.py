"""Background tasks on real hosts: what they say, how they end, and that nothing is lost, repeated or started twice."""

import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import Conflict, NotFound
from mcp_ssh.linux.tasks import requests
from mcp_ssh.sessions.session import Output, Session
from mcp_ssh.shell_command import Command, command
from mcp_ssh.ssh.errors import connection_lost
from mcp_ssh.tool import Role
from mcp_ssh.tools import command as room
from mcp_ssh.tools import shell
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, Fault, Way, caller
from tests.support.machine import connected, login, number, outside, processes, started, trust
from tests.support.servers import serve
from tests.support.task_kit import FOLDER, TIDY, On, console, directly, on, round_trips, until, without


@pytest.mark.requirement("task.start", "task.look", "task.list", "task.env")
async def test_a_task_is_started_followed_to_its_end_and_listed(app: App, way: Way, host: Host) -> None:
    here = await on(app, way, host)
    value, go = f"a'b $(id) {secrets.token_hex(8)}", f"/tmp/go-{number()}"
    text = f'pwd; cat; echo err >&2; echo "$VALUE"; until [ -e {go} ]; do sleep 0.05; done; echo end; exit 3'
    before = float(await outside(host, "date +%s"))
    name = f"build-{number()}"
    task_id = await here.start(text, task_name=name, cwd="/usr", env={"VALUE": value}, stdin="in\n")
    assert task_id == name
    seen = await here.look(name, wait_s=20, output_offset=10)
    assert (seen["status"], seen["command"]) == ("running", text)
    assert "end_time" not in seen
    assert "exit_code" not in seen
    # The value is in no process list and in no file; neither is what it was given as input.
    assert value not in await console(host, "cat /proc/[0-9]*/cmdline 2>/dev/null || true")
    assert (
        await outside(host, f"grep -rlF -e {value.rsplit(maxsplit=1)[-1]} {FOLDER}/*/[!o]* || true", user="dev") == ""
    )
    await outside(host, f"touch {go}")
    output, error, last = await here.follow(name)
    assert (output, error) == (f"/usr\nin\n{value}\nend\n", "err\n")
    assert (last["status"], last["exit_code"]) == ("completed", 3)
    assert before <= last["start_time"] <= last["end_time"] <= float(await outside(host, "date +%s")) + 1
    assert name in await here.names()
    kept = await outside(host, f"cat {FOLDER}/{name}/output.*; stat -c %a {FOLDER}/{name}", user="dev")
    assert kept == f"{output}700\n"


@pytest.mark.requirement("task.look")
async def test_following_a_task_loses_and_repeats_nothing(app: App, host: Host) -> None:
    here = await directly(app, host)
    text = "i=0; while [ $i -lt 40 ]; do seq 1 200; echo ščř𝄞; echo $i >&2; i=$((i+1)); done; printf '\\377'"
    task_id = await here.start(text)
    output, error, last = await here.follow(task_id, max_output_bytes=1001)
    assert output == ("".join(f"{n}\n" for n in range(1, 201)) + "ščř𝄞\n") * 40 + "�"
    assert error == "".join(f"{n}\n" for n in range(40))
    assert last["invalid_utf8"] is True
    tail = await here.look(task_id, output_offset=-6, error_offset=-3)
    assert (tail["output"], tail["error"]) == ("𝄞\n�", "39\n")
    assert tail["output_from"] == last["output_next"] - 6


@pytest.mark.requirement("task.round_trips")
async def test_starting_and_looking_are_one_round_trip_each(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await directly(app, deb)
    async with round_trips(monkeypatch) as trips:
        task_id = await here.start("echo here")
        assert len(trips) == 1
        seen = await here.look(task_id, wait_s=20)
        assert len(trips) == 2
    assert seen["output"] == "here\n"


@pytest.mark.requirement("task.never_twice")
async def test_a_start_whose_answer_is_lost_is_found_again_and_not_repeated(
    app: App, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, counted = await directly(app, host), f"/home/dev/counted-{number()}"
    await _lost_start(here, monkeypatch, f"echo ran >>{counted}", "once")
    with pytest.raises(Fault) as fault:
        await here.start(f"echo ran >>{counted}", task_name="once")
    assert fault.value.code == "conflict"
    assert (await here.follow("once"))[2]["status"] == "completed"
    assert await outside(host, f"cat {counted}") == "ran\n"
    # Now that its end was told, the name is free.
    await here.start("echo new", task_name="once")
    assert (await here.follow("once"))[0] == "new\n"


async def _lost_start(here: On, monkeypatch: pytest.MonkeyPatch, text: str, name: str) -> None:
    real = Session.run

    async def unheard(self: Session, sent: Command, **more: Any) -> Output:
        await real(self, sent, **more)
        raise connection_lost()

    with monkeypatch.context() as patch:
        patch.setattr(Session, "run", unheard)
        with pytest.raises(Fault) as fault:
            await here.start(text, task_name=name)
    assert (fault.value.code, fault.value.payload["details"]["task_id"]) == ("connect_failed", name)


async def test_without_the_folder_as_a_lock_a_lost_answer_means_two_runs(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control."""
    here, counted = await directly(app, deb), f"/home/dev/counted-{number()}"
    await _lost_start(here, monkeypatch, f"echo ran >>{counted}", "once")
    without(monkeypatch, "START", ('mv -f "./$t_id/seen" "./$t_id/taken" 2>/dev/null || t_stop exists', ":"))
    await here.start(f"echo ran >>{counted}", task_name="once")
    await here.follow("once")
    assert await outside(deb, f"cat {counted}") == "ran\nran\n"


@pytest.mark.requirement("task.start")
async def test_what_cannot_be_started_is_said_and_leaves_nothing(app: App, way: Way, deb: Host) -> None:
    here = await on(app, way, deb)
    for arguments, code in (
        ({"command": "true", "cwd": "/no such"}, "not_found"),
        ({"command": "true", "task_name": "../x"}, "invalid_input"),
        ({"command": "true", "task_name": "-rf"}, "invalid_input"),
        ({"command": ""}, "invalid_input"),
    ):
        with pytest.raises(Fault) as fault:
            await way.call(room.background, here.given(**arguments))
        assert fault.value.code == code, arguments
    with pytest.raises(Fault) as fault:
        await here.look("task_00000000")
    assert (fault.value.code, fault.value.status) == ("not_found", 404 if way.name == "rest" else None)
    assert await here.names(all_on_host=True) == []


SHAPES = {
    "setsid child": "setsid sleep {n} & sleep {n}",
    "double fork": "(setsid sh -c 'sleep {n} & sleep {n} &' &); sleep {n}",
    "ignores TERM": "trap '' TERM; while :; do sleep {n}; done",
    "without environment": "env -i sleep {n} & env -i sleep {n}",
}


@pytest.mark.requirement("task.cancel")
async def test_cancelling_ends_every_process_of_the_task(app: App, host: Host) -> None:
    here = await directly(app, host)

    async def one(shape: str) -> None:
        n = number()
        task_id = await here.start(f"echo early; {SHAPES[shape].format(n=n)}")
        await started(host, n)
        ended = await here.cancel(task_id)
        assert (ended["status"], ended["stopped"]) == ("cancelled", True), shape
        assert await processes(host, n) == [], shape
        seen = await here.look(task_id)
        assert (seen["status"], seen["output"], seen["exit_code"] > 128) == ("cancelled", "early\n", True), shape

    async with anyio.create_task_group() as group:
        for shape in SHAPES:
            group.start_soon(one, shape)
    # A task that had ended may have left something, which is ended, too.
    n = number()
    task_id = await here.start(f"setsid sleep {n} >/dev/null 2>&1 &")
    assert (await here.follow(task_id))[2]["exit_code"] == 0
    assert await processes(host, n)
    ended = await here.cancel(task_id)
    assert (ended["status"], ended["stopped"], await processes(host, n)) == ("completed", True, [])


async def test_without_the_sweep_what_the_task_started_lives_on(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: and it is not said that it has ended."""
    here, n = await directly(app, deb), number()
    task_id = await here.start(SHAPES["setsid child"].format(n=n))
    await started(deb, n)
    monkeypatch.setattr(requests, "ask_cancel", lambda *_: command("true"))
    assert (await here.cancel(task_id))["stopped"] == "unknown"
    assert await processes(deb, n)
    monkeypatch.undo()
    assert (await here.cancel(task_id))["stopped"] is True


@pytest.mark.requirement("task.bounded")
async def test_long_output_is_bounded_on_the_machine_and_offsets_stay_valid(
    app: App, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await directly(app, host)
    keep = _keep(app, 1 << 18)
    task_id = await here.start("seq 1 200000; seq 1 10 >&2")
    _, error, last = await here.follow(task_id)
    whole = "".join(f"{n}\n" for n in range(1, 200_001))
    assert (last["output_next"], error) == (len(whole), "".join(f"{n}\n" for n in range(1, 11)))
    seen = await here.look(task_id, output_offset=7)
    first = seen["output_from"]
    assert seen["output"] == whole[first : seen["output_next"]]
    size = int(await outside(host, f"cat {FOLDER}/{task_id}/output.* | wc -c", user="dev"))
    assert keep <= size <= keep * 5 / 4 + 2 * 16384
    assert first == len(whole) - size
    # The negative control: nothing else keeps the disk from filling up.
    without(monkeypatch, "KEEPER", ('rm -f "$1"\nshift', "shift"))
    task_id = await here.start("seq 1 200000")
    await here.follow(task_id)
    assert int(await outside(host, f"cat {FOLDER}/{task_id}/output.* | wc -c", user="dev")) == len(whole)


def _keep(app: App, size: int) -> int:
    for session in app.sessions.seen_by(caller()):
        session._limits = partial(replace, session.limits, task_output_bytes=size)
    return size


@pytest.mark.requirement("task.bounded")
async def test_a_full_disk_loses_output_but_neither_the_task_nor_its_end(app: App, deb: Host) -> None:
    here = await directly(app, deb)
    await outside(deb, "rm -rf /srv/small/state; mkdir -m 700 /srv/small/state; chown dev /srv/small/state")
    await outside(deb, "mkdir -p ~/.local/state && ln -s /srv/small/state /home/dev/.local/state/mcp-ssh", user="dev")
    try:
        task_id = await here.start("seq 1 400000; echo late >&2; exit 5")
        _, error, last = await here.follow(task_id)
        assert (last["status"], last["exit_code"], last["dropped"]) == ("completed", 5, True)
        assert error in {"", "late\n"}
    finally:
        await outside(deb, "rm -rf /srv/small/state /home/dev/.local/state/mcp-ssh")


@pytest.mark.requirement("task.become")
async def test_a_task_of_another_account_is_followed_and_ended_as_that_account(app: App, host: Host) -> None:
    nopass = await directly(app, host, "nopass")
    n = number()
    task_id = await nopass.start(f"id -un; sleep {n}", become={})
    seen = await nopass.look(task_id, wait_s=20)
    assert (seen["output"], seen["status"]) == ("root\n", "running")
    assert task_id in await outside(host, f"ls {FOLDER}")
    assert await nopass.names() == []
    assert await nopass.names(become={}) == [task_id]
    ended = await nopass.cancel(task_id)
    assert (ended["status"], ended["stopped"], await processes(host, n)) == ("cancelled", True, [])
    ops = await directly(app, host, "ops")
    secret = {"become": {"password": host.password}}
    task_id = await ops.start(f"id -un; cat; sleep {n}", stdin="mine\n", **secret)
    with pytest.raises(Fault) as fault:
        await ops.look(task_id)
    assert fault.value.code == "permission_denied"
    output, wanted = "", "root\nmine\n"
    with anyio.fail_after(20):
        while output != wanted:
            output = (await ops.look(task_id, wait_s=5, output_offset=0, **secret))["output"]
    assert (await ops.cancel(task_id, **secret))["stopped"] is True


@pytest.mark.requirement("task.owner")
async def test_a_task_is_its_callers_and_the_admins(app: App, deb: Host) -> None:
    admin = await directly(app, deb)
    mine, other = (DirectCall(caller(name, Role.OPERATOR, owner=False)) for name in ("one", "two"))
    app.config.security.allow_server_identities.append("*")
    ids = {each.caller.id: await connected(app, deb, "dev", each) for each in (mine, other)}
    task = await dispatch(app, room.background, {"session_id": ids["one"], "command": "sleep 5"}, mine)

    async def asked(tool: Any, who: DirectCall, **more: Any) -> Any:
        return await dispatch(app, tool, {"session_id": ids[who.caller.id], **more}, who)

    for tool in (room.task, room.task_cancel):
        with pytest.raises(NotFound):
            await asked(tool, other, task_id=task.task_id)
    assert (await asked(room.tasks, other, all_on_host=True)).count == 0
    assert (await asked(room.tasks, mine)).count == 1
    assert (await admin.look(task.task_id))["status"] == "running"
    # Where the store is lost nobody's claim is known: whoever has the account finds it with all_on_host.
    [row] = await app.store.tasks._database.read("SELECT cookie FROM tasks")
    await app.store.tasks.forget(row["cookie"])
    assert await admin.names() == []
    assert await admin.names(all_on_host=True) == [task.task_id]
    assert (await admin.cancel(task.task_id))["stopped"] is True


@pytest.mark.requirement("task.owner")
async def test_a_name_is_not_free_because_another_caller_asked_for_it(app: App, deb: Host) -> None:
    app.config.security.allow_server_identities.append("*")
    mine, other = (DirectCall(caller(name, Role.OPERATOR, owner=False)) for name in ("one", "two"))
    on = {each.caller.id: {"session_id": await connected(app, deb, "dev", each)} for each in (mine, other)}
    start = {"task_name": "report", "command": "echo mine"}
    await dispatch(app, room.background, {**on["one"], **start}, mine)
    with anyio.fail_after(10):
        while not (await outside(deb, f"ls {FOLDER}/report/end 2>/dev/null || true", user="dev")):
            await anyio.sleep(0.02)
    with pytest.raises(NotFound):
        await dispatch(app, room.task, {**on["two"], "task_id": "report"}, other)
    with pytest.raises(Conflict):
        await dispatch(app, room.background, {**on["two"], **start, "command": "echo theirs"}, other)
    assert (await dispatch(app, room.task, {**on["one"], "task_id": "report"}, mine)).output == "mine\n"


@pytest.mark.requirement("exec.cwd")
async def test_a_folder_to_run_in_is_the_one_that_is_named(app: App, host: Host) -> None:
    here = await directly(app, host)
    await outside(host, "mkdir ./-", user="dev")
    try:
        for folder, wanted in (("~", "/home/dev\n"), ("~/-", "/home/dev/-\n"), ("-", "/home/dev/-\n")):
            done = await here.way.call(room.run_command, here.given(command="pwd", cwd=folder))
            assert done["stdout"] == wanted
            output, _, _ = await here.follow(await here.start("pwd", cwd=folder))
            assert output == wanted
        await here.way.call(shell.open_shell, here.given(cwd="~/-"))
        assert (await here.way.call(shell.run_in_shell, here.given(command="pwd")))["output"] == wanted
    finally:
        await outside(host, "rmdir ./-", user="dev")


@pytest.mark.requirement("task.clean_up")
async def test_what_ended_long_ago_is_cleaned_up(app: App, host: Host) -> None:
    here = await directly(app, host)
    for name in ("old", "new"):
        await here.start("true", task_name=name)
        await here.follow(name)
    long_ago = f"touch -d @$(($(date +%s) - 9 * 86400)) {FOLDER}/old/end"
    await outside(host, long_ago, user="dev")
    await here.start("sleep 5", task_name="next")
    assert sorted(await here.names()) == ["new", "next"]
    assert (await here.cancel("next"))["stopped"] is True


@pytest.mark.requirement("task.folder")
async def test_where_the_home_cannot_be_written_tasks_are_in_var_tmp(app: App, host: Host) -> None:
    here = await directly(app, host)
    async with closed_home(host) as place:
        task_id = await here.start("echo here")
        assert (await here.follow(task_id))[0] == "here\n"
        assert await outside(host, f"cat {place}/{task_id}/output.*; stat -c %a {place}", user="dev") == "here\n700\n"
        assert await here.names() == [task_id]


@asynccontextmanager
async def closed_home(host: Host) -> AsyncGenerator[str]:
    """A home that its account cannot write to; gives the folder that serves instead."""
    await console(host, "rm -rf /home/dev/.local; chown root /home/dev; install -d -m 700 -o dev /home/dev/private")
    try:
        yield f"/var/tmp/mcp-ssh-{(await console(host, 'id -u dev')).strip()}"
    finally:
        await console(host, f"chown dev /home/dev; rm -rf /home/dev/private; {TIDY}")


TRAPS = {
    "a folder of another account": "mkdir -m 777 {}",
    "a link to a folder of another account": "mkdir -m 777 /var/tmp/mcp-ssh-theirs; ln -s /var/tmp/mcp-ssh-theirs {}",
    "a link to a folder of the account's own": "ln -s /home/dev/private {}",
    "a file": "touch {}",
}


@pytest.mark.requirement("task.folder")
async def test_a_trap_in_var_tmp_is_refused(app: App, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    here = await directly(app, host)
    async with closed_home(host) as place:
        for trap, text in TRAPS.items():
            await console(host, f"{TIDY}; su ops -c '{text.format(place)}'")
            with pytest.raises(Fault) as fault:
                await here.start("echo secret")
            assert fault.value.code == "unsupported", trap
            assert await console(host, f"ls -A /home/dev/private; ls -A {place}/. 2>/dev/null || true") == "", trap
        # The negative control: the other account reads along.
        await console(host, f"{TIDY}; su ops -c '{TRAPS['a folder of another account'].format(place)}'")
        without(monkeypatch, "START", ('[ "$(pwd -P)" = "$t_state" ] && t_ours', "true"))
        await here.start("sleep 0.2", task_name="caught")
        assert await outside(host, f"ls {place}", user="ops") == "caught\n"


@pytest.mark.requirement("task.lost")
async def test_another_process_with_the_tasks_number_is_not_taken_for_it(
    app: App, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await directly(app, host)
    task_id = await here.start("sleep 600")
    seen = (await outside(host, f"cat {FOLDER}/{task_id}/run", user="dev")).split()
    await console(host, f"kill -KILL {seen[2]} {seen[0]}")
    forged = f"1 {seen[1]} 1 {seen[3]} {' '.join(seen[4:])}"
    await outside(host, f"echo {forged} >{FOLDER}/{task_id}/run", user="dev")
    without(monkeypatch, "LOOK", (' && [ "${21}" = "$1" ]', ""))
    assert (await here.look(task_id))["status"] == "running"
    monkeypatch.undo()
    assert (await here.look(task_id))["status"] == "lost"


@pytest.mark.requirement("task.lost")
async def test_after_a_reboot_a_task_is_lost_and_what_it_said_is_not(app: App, deb: Host) -> None:
    here = await directly(app, deb)
    task_id = await here.start("echo before; sleep 600")
    assert (await here.look(task_id, wait_s=20))["output"] == "before\n"
    await anyio.to_thread.run_sync(deb.reboot)
    there = On(here.way, deb, await connected(app, deb, "dev", DirectCall(caller())))
    seen = await there.look(task_id, wait_s=20)
    assert (seen["status"], seen["output"], seen.get("exit_code")) == ("lost", "before\n", None)
    assert (await there.cancel(task_id))["stopped"] is True


@pytest.mark.requirement("task.survives")
async def test_a_task_survives_a_dropped_link(app: App, host: Host) -> None:
    here, go = await directly(app, host), f"/tmp/go-{number()}"
    task_id = await here.start(f"until [ -e {go} ]; do sleep 0.05; done; echo survived")
    await console(host, "pkill -KILL -f '[s]shd: dev'")
    with pytest.raises(Fault) as fault:
        await here.look(task_id, wait_s=20)
    assert fault.value.code == "connect_failed"
    there = On(here.way, host, await connected(app, host, "dev", DirectCall(caller())))
    await outside(host, f"touch {go}")
    assert (await there.follow(task_id))[0] == "survived\n"


@pytest.mark.requirement("task.survives")
async def test_a_task_is_followed_by_a_new_server_after_the_first_was_killed(
    app: App, mcp_home: Path, deb: Host
) -> None:
    await trust(app, deb)
    await console(deb, TIDY)
    go = f"/tmp/go-{number()}"
    line = f"echo before; until [ -e {go} ]; do sleep 0.05; done; echo after; echo err >&2; exit 4"
    async with serve(mcp_home) as server:
        opened = await server.call("POST", "/session/connect", json=login(deb, "dev"))
        begun = await server.call("POST", "/command/background", json={"command": line})
        path = f"/command/task/{begun['task_id']}"
        where = {"session_id": opened["session_id"]}
        seen = await server.call("GET", path, params={**where, "wait_s": 20})
        assert (seen["status"], seen["output"]) == ("running", ["before"])
        server.process.kill()
        await anyio.to_thread.run_sync(server.process.wait)
    await outside(deb, f"touch {go}")
    async with serve(mcp_home) as server:
        await server.call("POST", "/session/connect", json=login(deb, "dev"))
        with anyio.fail_after(20):
            while (seen := await server.call("GET", path, params={"wait_s": 20}))["status"] == "running":
                pass
        documented = {key: seen[key] for key in ("task_id", "command", "status", "output", "error")}
        assert documented == {
            "task_id": begun["task_id"],
            "command": line,
            "status": "completed",
            "output": ["before", "after"],
            "error": ["err"],
        }
        assert seen["exit_code"] == 4
        assert begun["start_time"] == seen["start_time"] <= seen["end_time"]
        listed = await server.call("GET", "/command/tasks")
        assert [each["task_id"] for each in listed["tasks"]] == [begun["task_id"]]


KILLS = "/etc/systemd/logind.conf.d/test-tasks.conf"


@pytest.mark.requirement("task.survives")
async def test_a_task_survives_where_logind_ends_what_a_login_left_or_is_said_not_to(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = "[Login]\nKillUserProcesses=yes\nKillExcludeUsers=nobody\nUserStopDelaySec=0\n"
    await outside(deb, f"mkdir -p {KILLS.rpartition('/')[0]}; printf '{settings}' >{KILLS}")
    await console(deb, "systemctl restart systemd-logind")
    try:
        assert await _after_logout(app, deb, "root") == ("running", False)
        assert await _after_logout(app, deb, "dev") == ("lost", True)
        await console(deb, "loginctl enable-linger dev")
        assert await _after_logout(app, deb, "dev") == ("running", False)
        # The negative control: it is the scope that lets it live.
        without(monkeypatch, "START", ("*true)", "*never)"))
        assert await _after_logout(app, deb, "root") == ("lost", False)
    finally:
        await console(deb, f"rm -f {KILLS}; loginctl disable-linger dev; systemctl restart systemd-logind")


async def _after_logout(app: App, deb: Host, user: str) -> tuple[str, bool]:
    """What became of a task once nobody is logged in any more, and whether that was told before."""
    here, n = await directly(app, deb, user), number()
    begun = await here.way.call(room.background, here.given(command=f"echo $XDG_SESSION_ID; sleep {n}"))
    await started(deb, n)
    login_id = (await here.look(begun["task_id"], wait_s=20))["output"].strip()
    await app.sessions.close_all()

    async def logged_out() -> bool:
        listed = await console(deb, "loginctl list-sessions --no-legend")
        return login_id not in [line.split()[0] for line in listed.splitlines()]

    await until(logged_out)
    there = On(here.way, deb, await connected(app, deb, user, DirectCall(caller())))
    status = (await there.look(begun["task_id"]))["status"]
    await there.cancel(begun["task_id"])
    await app.sessions.close_all()
    return status, "warning" in begun
