"""What the history says of calls on a real machine, whichever transport they came through."""

from typing import Any

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.errors import ConnectFailed
from mcp_ssh.ssh.pty.shell import Shell
from mcp_ssh.store.history import HistoryRow
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import command, file, firewall, setup, shell, system, tunnel
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault, Way
from tests.support.machine import number, opened, outside
from tests.support.shell_room import room

FOLDER = "/tmp/audit-rows"


async def rows(app: App, count: int) -> list[tuple[str, str, str | None]]:
    """Tool, outcome and words of the newest calls, oldest first; rows are written a moment after the answer."""
    with anyio.fail_after(10):
        while len(found := await app.store.history.page(count)) < count:
            await anyio.sleep(0.02)
    return [(row.tool, row.outcome, row.detail) for _, row in reversed(found)]


@pytest.mark.requirement("history.command")
async def test_the_history_says_what_was_done_and_what_was_not(app: App, way: Way, alpine: Host) -> None:
    await outside(alpine, f"rm -rf {FOLDER}")
    on: dict[str, Any] = await opened(way, app, alpine, "root")
    before = len(await app.store.history.page(100))
    await way.call(file.mkdir, {**on, "path": FOLDER})
    await way.call(system.chmod, {**on, "path": FOLDER, "mode": "0700", "dry_run": True})
    with pytest.raises(Fault):
        await way.call(file.remove, {**on, "path": f"{FOLDER}/none"})
    await way.call(system.kill, {**on, "pid": 4_194_303})
    assert (await rows(app, before + 4))[-4:] == [
        ("file_mkdir", "ok", f"made sure of the folder {FOLDER}"),
        ("system_chmod", "ok", f"dry run, nothing was changed: gave {FOLDER} the mode 0700"),
        ("file_remove", "not_found", None),
        ("system_kill", "ok", "failed: sent TERM to the process 4194303"),
    ]
    assert await outside(alpine, f"stat -c %a {FOLDER}; rmdir {FOLDER}") == "755\n"


async def last_row(app: App) -> HistoryRow:
    """The row of the newest call."""
    await app.store.history.flush()
    [(_, row)] = await app.store.history.page(1)
    return row


async def told(app: App, tool: AnyTool, arguments: dict[str, Any]) -> str | None:
    """Call a tool, and return the words of its row."""
    await Direct(app).call(tool, arguments)
    row = await last_row(app)
    assert row.tool == tool.name
    return row.detail


@pytest.mark.requirement("history.command")
async def test_a_command_is_not_told_as_run_where_it_was_ended_or_may_still_run(app: App, deb: Host) -> None:
    on: dict[str, Any] = await opened(Direct(app), app, deb, "nopass")
    slow = f"sleep {number()}"
    run = command.run_command
    assert await told(app, run, {**on, "command": "true"}) == "ran: true"
    assert await told(app, run, {**on, "command": "id", "become": {}}) == "as root, ran: id"
    ended = await told(app, run, {**on, "command": slow, "timeout": 0.5})
    assert ended == f"ended after its timeout: {slow}"
    started = await Direct(app).call(command.background, {**on, "command": slow})
    task = {**on, "task_id": started["task_id"]}
    assert await told(app, command.task_cancel, task) == f"ended the task {started['task_id']}"
    again = await told(app, command.task_cancel, task)
    assert again in {
        f"ended the task {started['task_id']}",
        f"nothing to change: the task {started['task_id']} had ended",
    }
    assert await told(app, shell.run_in_shell, {**on, "command": "true"}) == "ran in the shell default: true"
    runs = await told(app, shell.run_in_shell, {**on, "command": slow, "timeout": 0.5})
    assert runs == f"may still run in the shell default: {slow}"
    assert await told(app, shell.close, on) == "closed the shell default"


@pytest.mark.requirement("history.command")
async def test_rules_tunnels_packages_and_looks_are_told_from_their_results(app: App, deb: Host) -> None:
    on: dict[str, Any] = await opened(Direct(app), app, deb, "root")
    rule = {**on, "target": "DROP", "protocol": "all", "source": "10.9.9.9", "destination": "10.77.0.11"}
    added = "added a rule to INPUT: DROP all from 10.9.9.9/32 to 10.77.0.11/32"
    assert await told(app, firewall.rule_add, rule) == added
    assert await told(app, firewall.rule_add, rule) == f"nothing to change: {added}"
    removed = await told(app, firewall.rule_delete, {**on, "chain": "INPUT", "rule_num": 1, "ip_version": "ipv4"})
    text = "-A INPUT -s 10.9.9.9/32 -d 10.77.0.11/32 -j DROP"
    assert removed == f"removed rule 1 of INPUT (ipv4): {text}"
    assert await told(app, tunnel.close_all, on) == "nothing to change: no tunnel was open"
    leads = {**on, "local_port": 0, "remote_host": "127.0.0.1", "remote_port": 22}
    assert "port 0 " not in (words := str(await told(app, tunnel.local, leads)))
    assert words.startswith("opened a tunnel from 127.0.0.1 port ")
    assert words.endswith(" here to 127.0.0.1 port 22")
    assert await told(app, tunnel.close_all, on) == "closed all tunnels: 1"
    gone = await told(app, setup.remove, {**on, "packages": ["no-such-package-zz"]})
    assert gone == "nothing to change: asked for the removal of no-such-package-zz"
    planned = str(await told(app, setup.requirements, {**on, "dry_run": True, "update_first": False}))
    assert planned.startswith("dry run, nothing was changed: asked for the installation of the default set: ")
    assert await told(app, system.service, {**on, "service": "ssh", "action": "status"}) is None


@pytest.mark.requirement("history.command")
@pytest.mark.parametrize("tool", [shell.send, shell.run_in_shell])
async def test_what_is_typed_at_a_password_prompt_is_in_no_row(app: App, deb: Host, tool: AnyTool) -> None:
    here = await room(app, deb)
    await here(shell.send, command="read -s -p 'Password: ' x")
    assert (await last_row(app)).detail == "typed in the shell default: read -s -p 'Password: ' x"
    await here.asks("password")
    if tool is shell.send:
        await here(tool, command="hunter2")
    else:
        with pytest.raises(Fault, match="not at its prompt"):
            await here(tool, command="hunter2")
    row = await last_row(app)
    assert row.tool == tool.name
    assert row.detail == ("typed in the shell default: ***" if tool is shell.send else None)
    assert '"command": "***"' in row.arguments
    assert "hunter2" not in row.model_dump_json()
    if tool is shell.send:
        await here.asks("shell")
        assert (await here(shell.run_in_shell, command="echo $x"))["output"] == "hunter2\n"
        assert (await last_row(app)).detail == "ran in the shell default: echo $x"


@pytest.mark.requirement("history.command")
async def test_it_is_in_no_row_where_the_call_fails_either(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await room(app, deb)
    await here(shell.send, command="read -s -p 'Password: ' x")
    await here.asks("password")

    async def lost(*_: object) -> int:
        raise ConnectFailed("the connection is lost")

    monkeypatch.setattr(Shell, "type", lost)
    with pytest.raises(Fault, match="lost"):
        await here(shell.send, command="hunter2")
    row = await last_row(app)
    assert (row.tool, row.outcome, row.detail) == ("shell_send", "connect_failed", None)
    assert "hunter2" not in row.model_dump_json()


@pytest.mark.requirement("history.command")
async def test_it_is_in_no_row_where_the_shell_has_ended(app: App, deb: Host) -> None:
    here = await room(app, deb)
    await here(shell.open_shell, "s1")
    pid = (await here(shell.run_in_shell, "s1", command="echo $$"))["output"].strip()
    await here(shell.send, "s1", command="read -s -p 'Password: ' x")
    await here.asks("password", "s1")
    await outside(deb, f"kill -9 {pid}")
    with anyio.fail_after(10):
        while (await here(shell.read, "s1", wait_s=1))["status"] == "open":
            pass
    with pytest.raises(Fault):
        await here(shell.send, "s1", command="hunter2")
    row = await last_row(app)
    assert (row.tool, row.detail) == ("shell_send", None)
    assert row.outcome != "ok"
    assert "hunter2" not in row.model_dump_json()


@pytest.mark.requirement("history.command")
async def test_what_the_terminal_shows_is_told(app: App, deb: Host) -> None:
    """The negative control: what only looks like a password prompt hides nothing from the history."""
    here = await room(app, deb)
    await here(shell.send, command="printf 'Password: '; read x")
    await here.asks("password")
    await here(shell.send, command="not a secret")
    row = await last_row(app)
    assert row.detail == "typed in the shell default: not a secret"
    assert "not a secret" in row.arguments
