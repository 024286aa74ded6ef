"""Interactive shells: what is typed arrives, nothing that is printed is lost, and closing ends all they started."""

import json
from typing import Any

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import Conflict, NotFound, Refused
from mcp_ssh.mcp_server import build_server
from mcp_ssh.sessions import shell_exec
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.ssh.pty import shell as engine
from mcp_ssh.ssh.wire.kill import StopResult
from mcp_ssh.tool import Role
from mcp_ssh.tools import REGISTRY, command, session, shell
from mcp_ssh.toolsets import parse
from tests.fleet.hosts import Host
from tests.support.doors import Direct, DirectCall, Fault, Way, caller, open_rest
from tests.support.hostile import HOSTILE
from tests.support.machine import SOAK, connected, login, number, opened, outside, processes, started, trust
from tests.support.mcp_client import ERAS, Person
from tests.support.policy import ruled
from tests.support.shell_room import Room, room


@pytest.mark.requirement("shell.talk", "shell.exec", "shell.close", "shell.list", "shell.resize", "shell.screen")
async def test_a_shell_by_every_door(way: Way, app: App, host: Host) -> None:
    here = Room(way, await opened(way, app, host))
    made = await here(shell.open_shell, "work", columns=100, rows=30, cwd="/tmp")
    assert made == {"status": "open", "shell": "work", "columns": 100, "rows": 30}
    sent = await here(shell.send, "work", command="stty size; pwd; printf 'Name: '; read name; echo \"<$name>\"")
    assert sent["status"] == "sent"
    asked = await here.asks("question", "work")
    assert asked["waiting_input"]["prompt"] == "Name:"
    assert "30 100\n/tmp\n" in asked["output"]
    again = await here(shell.read, "work", offset=sent["offset"], wait_s=0)
    assert "30 100\n/tmp\nName: " in again["output"]
    assert again["lines"] == again["output"].count("\n")
    await here(shell.send, "work", command="two words")
    assert "<two words>" in await here.says("<two words>", "work")
    await here(shell.resize, "work", columns=72, rows=20)
    ran = await here(shell.run_in_shell, "work", command="stty size; cd /; X='a b'; false")
    assert (ran["status"], ran["exit_code"], ran["output"]) == ("completed", 1, "20 72\n")
    ran = await here(shell.run_in_shell, "work", command='pwd; echo "$X"')
    assert (ran["exit_code"], ran["output"]) == (0, "/\na b\n")
    mark = number()
    await here(shell.send, "work", command=f"sleep {mark}")
    await started(host, mark)
    await here(shell.key, "work", key="ctrl+c")
    assert (await here.asks("shell", "work"))["status"] == "open"
    await here(shell.send, "work", command="clear; printf '\\033[5;10Hhere\\n'")
    await here.asks("shell", "work")
    drawn = await here(shell.screen, "work")
    assert (drawn["screen"].split("\n")[4], drawn["rows"], drawn["columns"]) == ("         here", 20, 72)
    listed = await way.call(shell.list_shells, here.on)
    assert (listed["count"], listed["shells"]["work"]["status"]) == (1, "open")
    assert await here(shell.close, "work") == {"status": "closed", "shell": "work", "stopped": True}
    with pytest.raises(Fault) as gone:
        await here(shell.read, "work")
    assert gone.value.status in {None, 404}


@pytest.mark.requirement("shell.exec", "shell.shells")
@pytest.mark.parametrize("user", ["fish", "zsh", "tcsh"])
async def test_other_shells_too(app: App, auth: Host, user: str) -> None:
    here = await room(app, auth, user)
    await here(shell.send, command="echo hel'l'o")
    await here.says("\nhello\n")
    if user == "tcsh":
        with pytest.raises(Fault, match="tcsh has the prompt"):
            await here(shell.run_in_shell, command="echo a")
        return
    ran = await here(
        shell.run_in_shell,
        command="cd /tmp; echo 'a!b\\'; sh -c 'exit 7'" if user == "zsh" else "cd /tmp; sh -c 'exit 7'",
    )
    assert (ran["status"], ran["exit_code"]) == ("completed", 7)
    assert (await here(shell.run_in_shell, command="pwd"))["output"] == "/tmp\n"


@pytest.mark.requirement("shell.exec")
@pytest.mark.parametrize("user", ["dev", "dash"])
async def test_a_command_means_in_a_shell_what_it_says(app: App, host: Host, user: str) -> None:
    """bash and dash on Debian, BusyBox ash on Alpine: nothing of it completes, recalls or ends a line."""
    here = await room(app, host, user)
    host.console(["rm", "-f", "/tmp/pwned"])
    for word in HOSTILE if SOAK else HOSTILE[::3]:
        quoted = "'" + word.replace("'", "'\\''") + "'"
        ran = await here(shell.run_in_shell, command=f"printf '<%s>' {quoted}; (exit 9)")
        shown = word.replace("\r", "").replace("\x1b[31m", "").strip("\n")
        assert (ran["status"], ran["exit_code"]) == ("completed", 9), word
        if word not in {"\r", "\n touch /tmp/pwned\n", "EOF\n"}:
            assert ran["output"] == f"<{shown}>", word
    assert host.console(["test", "-e", "/tmp/pwned"]).returncode == 1


@pytest.mark.requirement("shell.exec")
async def test_a_command_that_does_not_end_is_told_apart(app: App, deb: Host) -> None:
    here = await room(app, deb, "dash")
    ran = await here(shell.run_in_shell, command="if")
    assert (ran["status"], ran["exit_code"]) == ("interrupted", None)
    ran = await here(shell.run_in_shell, command="printf 'Sure? [y/N] '; read yes; echo $yes")
    assert (ran["status"], ran["waiting_input"]["kind"]) == ("waiting_input", "confirm")
    with pytest.raises(Fault, match="not at its prompt"):
        await here(shell.run_in_shell, command="echo no")
    await here(shell.send, command="y")
    assert " exit 0]" in await here.says(" exit 0]")
    ran = await here(shell.run_in_shell, command="echo begun; sleep 1000", timeout=1)
    assert (ran["status"], ran["output"]) == ("running", "begun\n")
    await here(shell.key, key="CTRL+C")
    await here.asks("shell")
    ran = await here(shell.run_in_shell, command="exit 5")
    assert (ran["status"], ran["exit_code"]) == ("ended", 5)
    with pytest.raises(Fault, match="too long"):
        await here(shell.run_in_shell, command="x" * 2000)


@pytest.mark.requirement("shell.lossless")
async def test_no_line_is_lost_between_reads(app: App, host: Host) -> None:
    here = await room(app, host)
    last = 100_000 if SOAK else 20_000
    await here(shell.send, command=f"stty -echo; seq 1 {last}; echo e''nd")
    said = await here.says("\nend\n", max_output_bytes=5000)
    numbers = [int(line) for line in said.split("\n") if line.isdigit()]
    assert numbers == list(range(1, last + 1))


@pytest.mark.requirement("shell.lossless")
async def test_what_is_too_old_is_counted(app: App, deb: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_ssh.ssh.pty.scrollback.KEPT", 10_000)
    here = await room(app, deb)
    sent = await here(shell.send, command="seq 1 20000; echo e''nd")
    await here.says("\nend\n")
    read = await here(shell.read, offset=sent["offset"], wait_s=0)
    assert read["offset"] == sent["offset"] + read["dropped"]
    assert read["output"].split("\n")[-3:-1] == ["20000", "end"]
    assert read["next_offset"] - read["offset"] <= 10_000


@pytest.mark.requirement("shell.names")
async def test_shells_are_apart_and_their_callers_own(app: App, deb: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    here = await room(app, deb)
    for name in ("a", "b"):
        await here(shell.open_shell, name)
        await here(shell.run_in_shell, name, command=f"cd /; X={name}")
    assert [(await here(shell.run_in_shell, name, command="echo $X"))["output"] for name in ("a", "b")] == [
        "a\n",
        "b\n",
    ]
    with pytest.raises(Fault, match="already"):
        await here(shell.open_shell, "a")
    admin = DirectCall(caller("admin", Role.ADMIN, owner=False))
    with pytest.raises(NotFound):
        await dispatch(app, shell.read, {**here.on, "shell": "a"}, admin)
    assert (await dispatch(app, shell.list_shells, here.on, admin)).count == 0
    monkeypatch.setattr(engine, "MOST", 2)
    with pytest.raises(Fault, match="has 2 shells"):
        await here(shell.open_shell, "c")
    assert (await here.way.call(session.disconnect, here.on))["status"] == "disconnected"


@pytest.mark.requirement("shell.waiting")
async def test_programs_that_ask_are_seen_to_wait(app: App, host: Host) -> None:
    here = await room(app, host)
    for line, kind, prompt in (
        ("printf 'Go on? [Y/n] '; read x", "confirm", "Go on? [Y/n]"),
        ("stty -echo; printf 'Password: '; read x; stty echo", "password", "Password:"),
        ("seq 1 200 >/tmp/shell-pages; less /tmp/shell-pages", "pager", None),
        ("sh", "shell", None),
    ):
        await here(shell.send, command=line)
        if kind == "pager":
            await here(shell.send, command=" ", enter=False)
        asked = (await here.asks(kind))["waiting_input"]
        assert prompt in {None, asked["prompt"]}
        assert "shell_" in asked["next"]
        await here(shell.send, command="q" if kind == "pager" else "n", enter=kind != "pager")
    await outside(host, "rm -f /tmp/shell-pages")


@pytest.mark.requirement("shell.screen")
async def test_full_screen_programs_are_drawn(app: App, deb: Host) -> None:
    here = await room(app, deb)
    await here(shell.send, command="top -d 60")
    with anyio.fail_after(20):
        while "load average" not in (await here(shell.screen))["screen"]:
            await here(shell.read, wait_s=1)
    drawn = (await here(shell.screen))["screen"].split("\n")
    assert drawn[0].startswith("top - ")
    assert any(line.split()[:2] == ["PID", "USER"] for line in drawn)
    await here(shell.send, command="q", enter=False)
    await here.asks("shell")


@pytest.mark.requirement("shell.close")
async def test_closing_ends_all_that_was_started_in_it(app: App, host: Host) -> None:
    here = await room(app, host)
    for how in ("close", "disconnect"):
        mark = number()
        await here(shell.send, command=f"setsid sleep {mark} & sleep {mark}")
        await started(host, mark)
        if how == "close":
            assert (await here(shell.close))["stopped"] is True
        else:
            await here.way.call(session.disconnect, here.on)
        assert not await processes(host, mark)


@pytest.mark.requirement("shell.close")
async def test_the_negative_control_without_the_sweep_leaves_processes_behind(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object, **__: object) -> StopResult:
        return StopResult(ended=None)

    here = await room(app, deb)
    mark = number()
    await here(shell.send, command=f"setsid sleep {mark} &")
    await started(deb, mark)
    monkeypatch.setattr(Connection, "stop", nothing)
    assert (await here(shell.close))["stopped"] == "unknown"
    assert await processes(deb, mark)
    await outside(deb, f"pkill -f 'sleep {mark}'")


@pytest.mark.requirement("shell.close")
async def test_what_root_runs_in_it_ends_too(app: App, deb: Host) -> None:
    here = await room(app, deb, "nopass")
    mark = number()
    await here(shell.send, command="sudo -i")
    await here.says("root@deb")
    ran = await here(shell.run_in_shell, command="id -un; exit_code() { return 3; }; exit_code")
    assert (ran["output"], ran["exit_code"]) == ("root\n", 3)
    await here(shell.send, command=f"sleep {mark}")
    await started(deb, mark)
    assert (await here(shell.close))["stopped"] is True
    assert not await processes(deb, mark)


@ERAS
@pytest.mark.requirement("shell.secret", "mcp.secrets")
async def test_a_person_answers_a_password_prompt_past_the_model(app: App, deb: Host, mode: str) -> None:
    from mcp import Client

    person = Person(secret=deb.password)
    session_id = await connected(app, deb, "ops", DirectCall(caller()))
    server = build_server(app, REGISTRY, parse("all", read_only=False), caller=caller())
    log: list[str] = []
    async with Client(server, mode=mode, elicitation_callback=person) as client:

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            answer = await client.call_tool(tool, {"session_id": session_id, **arguments})
            log.append(json.dumps(arguments) + answer.model_dump_json())
            assert not answer.is_error, answer.content
            return dict(answer.structured_content or {})

        await call("shell_send", command="sudo -k; sudo -i")
        with anyio.fail_after(20):
            while (asked := await call("shell_read", wait_s=3)).get("waiting_input", {}).get("kind") != "password":
                pass
        assert "shell_secret" in asked["waiting_input"]["next"]
        await call("shell_secret")
        with anyio.fail_after(20):
            while "root@deb" not in (await call("shell_read", wait_s=3))["output"]:
                pass
        assert (await call("shell_exec", command="id -un"))["output"] == "root\n"
    assert person.asked == ["secret"]
    assert deb.password not in "\n".join(log)
    rows = await app.store.history.list(50)
    assert deb.password not in "\n".join(map(str, rows))


@pytest.mark.requirement("shell.secret")
async def test_a_secret_goes_only_where_it_is_asked_for_and_not_shown(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control is in it: without the look at the terminal the secret stands in the output."""
    monkeypatch.setattr(shell_exec, "PROMPT_LIMIT_S", 1.0)
    here = await room(app, deb)
    await here(shell.open_shell)
    with pytest.raises(Fault, match="nothing in the shell"):
        await here(shell.secret, secret="hunter2")
    await here(shell.send, command="printf 'Password: '; read x")
    await here.asks("password")
    with pytest.raises(Fault, match="shows what is typed"):
        await here(shell.secret, secret="hunter2")
    with pytest.raises(Fault, match="one line"):
        await here(shell.secret, secret="two\nlines")

    async def never(*_: object) -> bool:
        return False

    monkeypatch.setattr(shell_exec, "shows_typing", never)
    with pytest.raises(Fault, match="nobody can be asked"):
        await here(shell.secret)
    await here(shell.secret, secret="hunter2")
    assert "hunter2" in await here.says("hunter2")


@pytest.mark.requirement("shell.documented")
async def test_the_documented_addresses_are_of_one_shell_that_opens_by_itself(app: App, host: Host) -> None:
    await trust(app, host)
    async with open_rest(app) as client:
        await client.post("/session/connect", json=login(host, "dev"))
        assert (await client.get("/command/read")).status_code == 404
        sent = await client.post("/command/shell", json={"command": "echo one; echo two; cat"})
        assert {name: sent.json()[name] for name in ("status", "command")} == {
            "status": "sent", "command": "echo one; echo two; cat",
        }  # fmt: skip
        said, lines = "", 0
        with anyio.fail_after(20):
            while "one\ntwo\n" not in said:
                read = (await client.get("/command/read", params={"timeout": 2})).json()
                said, lines = said + read["output"], lines + read["lines"]
        assert lines == said.count("\n")
        assert (await client.get("/command/read", params={"timeout": 0.1})).json()["output"] == ""
        pressed = await client.post("/command/key", json={"key": "Ctrl+D"})
        assert (pressed.json()["status"], pressed.json()["key"]) == ("sent", "ctrl+d")
        wrong = await client.post("/command/key", json={"key": "f13"})
        assert (wrong.status_code, "pagedown" in wrong.text) == (400, True)


@pytest.mark.requirement("shell.environment", "quoting.tools")
async def test_a_shell_starts_where_and_with_what_it_should(app: App, host: Host) -> None:
    here = await room(app, host)
    value = "a 'b' $HOME \\ ščř\n" + "x" * 5000
    app.sessions.find(caller(), here.on["session_id"]).environment["WANTED"] = value
    await here(shell.open_shell, cwd="/usr/lib")
    assert "xxxx" not in (await here(shell.read, wait_s=0))["output"]
    ran = await here(shell.run_in_shell, command='printf %s "$WANTED" | wc -c; pwd; stty -a | grep -c " echo "')
    assert ran["output"].split() == [str(len(value.encode())), "/usr/lib", "1"]
    host.console(["rm", "-f", "/tmp/pwned"])
    for word in ("/no/such/folder", *HOSTILE[::5]):
        with pytest.raises(Fault) as missing:
            await here(shell.open_shell, "other", cwd=f"no{word}")
        assert missing.value.code == "not_found"
    assert host.console(["test", "-e", "/tmp/pwned"]).returncode == 1


@pytest.mark.requirement("shell.lost")
async def test_a_lost_link_ends_shells_and_leaves_what_they_said(app: App, deb: Host) -> None:
    here = await room(app, deb)
    await here(shell.send, command="echo last wor''ds")
    await here.says("last words\n")
    connection = app.sessions.find(caller(), here.on["session_id"]).link.connection
    await outside(deb, "pkill -KILL -u dev sshd")
    with anyio.fail_after(10):
        await connection.wait_closed()
    read = await here(shell.read, offset=0)
    assert (read["status"], "last words" in read["output"]) == ("lost", True)
    with pytest.raises(Fault) as lost:
        await here(shell.send, command="x")
    assert lost.value.code == "connect_failed"
    assert (await here(shell.close))["stopped"] == "unknown"


@pytest.mark.requirement("shell.channels")
@pytest.mark.parametrize("door", ["two_sessions", "limits"])
async def test_commands_run_beside_shells_where_a_machine_gives_few_channels(app: App, auth: Host, door: str) -> None:
    way = Direct(app)
    there = {**login(auth, "dev"), "port": auth.ports[door]}
    with pytest.raises(Fault) as unknown:
        await way.call(session.connect, there)
    key = unknown.value.payload["details"]["host_key"]
    given = ("host", "port", "key_type", "public_key", "fingerprint_sha256")
    await app.hostkeys.accept(*(key[each] for each in given))
    here = Room(way, {"session_id": (await way.call(session.connect, there))["session_id"]})
    await here(shell.open_shell)
    assert (await way.call(command.run_command, {**here.on, "command": "echo beside"}))["stdout"] == "beside\n"
    assert (await here(shell.run_in_shell, command="echo within"))["output"] == "within\n"
    assert (await here(shell.close))["stopped"] is True


@pytest.mark.requirement("shell.policy")
async def test_where_a_list_says_what_may_run_there_is_no_shell(mcp_home: Any, deb: Host) -> None:
    """The negative control is in it: with shell_open on the list, a shell opens."""
    for listed, may in ((["true"], False), (["true", "shell_open", "shell_close"], True)):
        async with ruled(mcp_home, hosts=[{"hosts": [deb.ip], "allow_commands": listed}]) as app:
            who = DirectCall(caller())
            on = {"session_id": await connected(app, deb, "dev", who)}
            for tool, arguments in (
                (shell.open_shell, {}),
                (shell.send, {"command": "true"}),
                (shell.key, {"key": "tab"}),
            ):
                if may and tool is not shell.key:
                    await dispatch(app, tool, {**on, **arguments}, who)
                else:
                    with pytest.raises(Refused):
                        await dispatch(app, tool, {**on, **arguments}, who)


@pytest.mark.requirement("shell.exec")
async def test_one_command_at_a_time_in_a_shell(app: App, deb: Host) -> None:
    here = await room(app, deb)
    await here(shell.open_shell)
    live = app.sessions.find(caller(), here.on["session_id"]).shells.find("stdio", "default")
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: here(shell.run_in_shell, command="sleep 1"))
        with anyio.fail_after(10):
            while not live.turn.locked():
                await anyio.sleep(0.01)
        with pytest.raises(Conflict):
            await dispatch(app, shell.run_in_shell, {**here.on, "command": "true"}, DirectCall(caller()))
