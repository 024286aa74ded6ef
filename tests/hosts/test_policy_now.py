"""The owner's policy as it is now: in every process of the folder, for open sessions, and out of reach of an admin."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ToolError
from mcp_ssh.tool import AnyTool, Caller, Role
from mcp_ssh.tools import command, config, file, session, shell, system, tunnel
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall
from tests.support.machine import connected, login, trust
from tests.support.policy import FOLDER, emptied, inside, refused
from tests.support.servers import serve


@pytest.mark.requirement("fault.S14")
async def test_a_rule_set_at_one_server_holds_at_another_for_a_session_that_is_open_there(
    mcp_home: Path, deb: Host, owner: DirectCall
) -> None:
    """The negative control is in it: once the rule is gone, the same calls make the file."""
    made = f"{FOLDER}/made"
    calls: tuple[tuple[AnyTool, dict[str, Any]], ...] = (
        (command.run_command, {"command": f"touch {shlex.quote(made)}"}),
        (shell.run_in_shell, {"command": f"touch {shlex.quote(made)}"}),
        (file.write, {"path": made, "content": "x"}),
    )
    rules: tuple[dict[str, Any], ...] = (
        {"hosts": ["*"], "read_only": True},
        {"hosts": [deb.ip], "allow_commands": ["uptime"]},
        {"hosts": ["10.77.*"], "deny_commands": ["touch *", "file_write"]},
    )
    await emptied(deb)
    async with open_app(mcp_home) as one, open_app(mcp_home) as other:
        await trust(other, deb)
        on = {"session_id": await connected(other, deb, "dev", owner)}
        await dispatch(other, shell.open_shell, on, owner)
        for rule in rules:
            for value in ([rule], []):
                await dispatch(one, config.set_value, {"key": "security.hosts", "value": value}, owner)
                for tool, given in calls:
                    await inside(deb, f"rm -f {shlex.quote(made)}")
                    call = dispatch(other, tool, {**on, **given}, owner)
                    await (refused(call) if value else call)
                    assert (await inside(deb, f"ls {shlex.quote(FOLDER)}") == "") is bool(value), (rule, tool.name)
        protected = {"key": "security.protected_paths", "value": [FOLDER]}
        await dispatch(one, config.set_value, protected, owner)
        await refused(dispatch(other, file.write, {**on, "path": f"{FOLDER}/x", "content": "x"}, owner))
        await dispatch(one, config.set_value, {"key": "sftp.max_file_size_mb", "value": 1}, owner)
        big = {"path": "/home/dev/big", "content": "x" * (1024 * 1024 + 1)}
        with pytest.raises(ToolError, match="max_file_size_mb"):
            await dispatch(other, file.write, {**on, **big}, owner)


@pytest.mark.requirement("fault.S14")
async def test_a_rule_written_into_the_file_holds_in_a_server_process_that_runs(mcp_home: Path, deb: Host) -> None:
    await emptied(deb)
    async with open_app(mcp_home) as app:
        await trust(app, deb)
    async with serve(mcp_home) as server:
        opened = await server.call("POST", "/session/connect", json=login(deb, "dev"))
        run = {"json": {"command": f"touch {shlex.quote(FOLDER)}/made"}, "params": {"session_id": opened["session_id"]}}
        await server.call("POST", "/command/exec", **run)
        await inside(deb, f"rm {shlex.quote(FOLDER)}/made")
        rule = {"hosts": ["*"], "read_only": True}
        (mcp_home / "config.json").write_text(json.dumps({"security": {"hosts": [rule]}}))
        answer = await server.client.post("/command/exec", **run)
        assert (answer.status_code, await inside(deb, f"ls {shlex.quote(FOLDER)}")) == (403, "")


@pytest.mark.requirement("fault.S9")
async def test_a_bound_admin_opens_no_forward_into_the_server_s_network(app: App, deb: Host) -> None:
    """The negative control: an admin for all machines does."""
    await trust(app, deb)
    for hosts, passes in (((deb.ip,), False), (None, True)):
        who = DirectCall(Caller("guest", Role.ADMIN, hosts=hosts))
        by_password = {"host": deb.ip, "username": "ops", "password": deb.password}
        on = {"session_id": (await dispatch(app, session.connect, by_password, who)).session_id}
        wide = {"local_port": 0, "remote_host": "127.0.0.1", "remote_port": 22, "bind_address": "0.0.0.0"}
        for tool, given in ((tunnel.remote, {"remote_port": 0, "local_port": 22}), (tunnel.local, wide)):
            call = dispatch(app, tool, {**on, **given}, who)
            await (call if passes else refused(call))
        await app.sessions.close_all()


@pytest.mark.requirement("fault.S14")
async def test_a_list_set_later_holds_for_what_an_open_session_carries_already(
    mcp_home: Path, deb: Host, owner: DirectCall
) -> None:
    """The negative control is in it: before the list, the variable and the shell's function decide what runs."""
    folder = "/srv/planted"
    planted = f"mkdir -p {folder}; printf '#!/bin/sh\\necho planted\\n' >{folder}/uptime; chmod -R 755 {folder}"
    await inside(deb, planted)
    async with open_app(mcp_home) as app:
        await trust(app, deb)
        on = {"session_id": await connected(app, deb, "dev", owner)}
        path = {"name": "PATH", "value": f"{folder}:/usr/bin:/bin"}
        await dispatch(app, system.env_set, {**on, **path}, owner)
        await dispatch(app, shell.open_shell, {**on, "shell": "s1"}, owner)
        line = {**on, "command": "uptime"}
        await dispatch(app, shell.run_in_shell, {**on, "shell": "s1", "command": "uptime() { echo planted; }"}, owner)
        calls: tuple[tuple[AnyTool, dict[str, Any]], ...] = (
            (command.run_command, line),
            (shell.run_in_shell, {**line, "shell": "s1"}),
        )
        for tool, given in calls:
            said = (await dispatch(app, tool, given, owner)).model_dump()
            assert said.get("stdout", said.get("output", "")).strip() == "planted"
        rule = {"hosts": ["*"], "allow_commands": ["uptime"]}
        await dispatch(app, config.set_value, {"key": "security.hosts", "value": [rule]}, owner)
        for tool, given in (*calls, (shell.send, {**line, "shell": "s1"}), (command.background, line)):
            await refused(dispatch(app, tool, given, owner))
        await dispatch(app, session.disconnect, on, owner)
        again = {"session_id": await connected(app, deb, "dev", owner), "command": "uptime"}
        assert "load average" in (await dispatch(app, command.run_command, again, owner)).model_dump()["stdout"]
