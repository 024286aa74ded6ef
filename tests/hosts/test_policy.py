"""The owner's rules on real hosts, through every door: whom a token reaches, what runs, which paths stay."""

import contextlib
import shlex
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import Refused, ToolError
from mcp_ssh.tool import AnyTool, Caller, Role
from mcp_ssh.tools import command, connection, file, firewall, hostkey, session, shell, system, tunnel
from tests.fleet.hosts import Fleet, Host
from tests.support.doors import DirectCall, open_way
from tests.support.machine import connected, login, trust
from tests.support.policy import FOLDER, emptied, inside, refused, ruled

ACCEPT = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28"}
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}


# ---- tokens for some machines only -------------------------------------------------------------------------------


@pytest.fixture
async def both(app: App, fleet: Fleet) -> tuple[Host, Host]:
    await trust(app, fleet.deb)
    await trust(app, fleet.alpine)
    return fleet.deb, fleet.alpine


@pytest.mark.requirement("policy.hosts")
async def test_a_token_reaches_sees_and_uses_its_machines_only(app: App, both: tuple[Host, Host]) -> None:
    """The negative control is in it: an admin without patterns does all of it."""
    mine, other = both
    bound = DirectCall(Caller("bound", Role.ADMIN, hosts=(mine.ip,)))
    free = DirectCall(Caller("free", Role.ADMIN))
    for who, reaches_other in ((free, True), (bound, False)):

        async def tried(tool: AnyTool, who: DirectCall = who, **arguments: Any) -> str:
            try:
                await dispatch(app, tool, arguments, who)
            except ToolError as error:
                return error.code
            return "ok"

        before = DirectCall(Caller(who.caller.id, Role.ADMIN))  # what was open and saved when nothing bound it
        sessions = {host.name: await connected(app, host, "dev", before) for host in both}
        yes, no, hidden = ("ok", "ok", "ok") if reaches_other else ("ok", "refused", "not_found")
        for host, answer, unseen in ((mine, yes, yes), (other, no, hidden)):
            by_password = {"host": host.ip, "username": "ops", "password": host.password}
            assert await tried(session.connect, **by_password) == answer
            assert await tried(hostkey.scan, host=host.ip, port=host.port) == answer
            assert await tried(hostkey.remove, host=host.ip, port=host.port, key_type="ssh-rsa") == answer
            given = {"name": f"{who.caller.id}-{host.name}", "host": host.ip, "username": "dev", "password": "x"}
            assert await tried(connection.add, **given) == answer
            assert await tried(command.run_command, session_id=sessions[host.name], command="true") == unseen
            assert await tried(command.run_command, session_id=f"dev@{host.ip}", command="true") == unseen
            assert await tried(session.status, session_id=sessions[host.name]) == unseen
            saved = {
                "name": f"x-{host.name}-{who.caller.id}",
                "host": host.ip,
                "username": "dev",
                "key_content": mine.key_path.read_text(),
            }
            await dispatch(app, connection.add, saved, before)
            assert await tried(connection.info, connection=str(saved["name"])) == unseen
            assert await tried(command.run_command, session_id=str(saved["name"]), command="true") == unseen
        through = {"session_id": sessions[mine.name], "local_port": 0, "remote_port": 22}
        assert await tried(tunnel.local, **through, remote_host="127.0.0.1") == "ok"
        assert await tried(tunnel.local, **through, remote_host=other.ip) == no
        listed = await dispatch(app, session.list_sessions, {}, who)
        assert {each.host for each in listed.sessions.values()} == ({mine.ip, other.ip} if reaches_other else {mine.ip})
        keys = await dispatch(app, hostkey.list_hostkeys, {}, who)
        assert {each.host for each in keys.entries} == ({mine.ip, other.ip} if reaches_other else {mine.ip})
        query = await dispatch(app, connection.query, {}, who)
        assert {each.host for each in query.connections} == ({mine.ip, other.ip} if reaches_other else {mine.ip})
        await app.sessions.close_all()


@pytest.mark.requirement("policy.hosts")
async def test_an_alias_and_a_jump_host_are_judged_by_the_machines_they_lead_to(
    bastion: Host, inner: Host, mcp_home: Path
) -> None:
    ssh = Path(mcp_home.parent, "home/.ssh")
    ssh.mkdir(mode=0o700)
    (ssh / "config").write_text(
        f"Host in\n HostName {inner.ip}\n User dev\n ProxyJump over\n"
        f"Host over\n HostName {bastion.ip}\n User dev\n"
        f"Host *\n IdentityFile {bastion.key_path}\n UserKnownHostsFile {bastion.known_hosts_path}\n"
    )
    async with ruled(mcp_home, allow_server_identities=["*"]) as app:
        for patterns, answer in (
            ((inner.ip, bastion.ip), None),
            ((inner.ip,), Refused),
            ((bastion.ip,), Refused),
            (("in", "over"), Refused),
        ):
            who = DirectCall(Caller("bound", Role.OPERATOR, hosts=patterns))
            for tool, arguments in (
                (session.connect, {"host": "in"}),
                (command.run_command, {"session_id": "in", "command": "true"}),
            ):
                if answer is None:
                    await dispatch(app, tool, arguments, who)
                else:
                    with pytest.raises(answer):
                        await dispatch(app, tool, arguments, who)
            await app.sessions.close_all()


@pytest.mark.requirement("policy.hosts")
async def test_a_token_with_patterns_is_bound_over_rest_and_mcp(app: App, both: tuple[Host, Host]) -> None:
    mine, other = both
    _, secret = await app.store.tokens.create("bound", Role.OPERATOR, [mine.ip])
    async with http(app, secret) as client:
        for host, good in ((mine, True), (other, False)):
            arguments = {"host": host.ip, "port": host.port, "username": "dev", "password": host.password}
            assert (await client.post("/session/connect", json=arguments)).status_code == (200 if good else 403)
            call = {"name": "session_connect", "arguments": arguments, "_meta": META}
            answer = await client.post(
                "/mcp",
                json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call},
                headers={**ACCEPT, "Mcp-Method": "tools/call", "Mcp-Name": "session_connect"},
            )
            assert answer.status_code == 200, answer.text
            assert ("not for the machine" in answer.text) is not good, answer.text


@contextlib.asynccontextmanager
async def http(app: App, secret: str) -> AsyncGenerator[Any]:
    import httpx2

    from mcp_ssh.tools import REGISTRY
    from rest_bridge.app import build
    from rest_bridge.families.registry import FAMILIES

    serving = build(app, REGISTRY, FAMILIES)
    async with (
        serving.router.lifespan_context(serving),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=serving),
            base_url="http://127.0.0.1:8754",
            headers={"authorization": f"Bearer {secret}"},
            timeout=60,
        ) as client,
    ):
        yield client


# ---- what runs on a machine --------------------------------------------------------------------------------------


@pytest.mark.requirement("policy.commands")
@pytest.mark.requirement("policy.read_only")
@pytest.mark.parametrize("door", ["direct", "mcp", "rest"])
async def test_rules_of_a_machine_hold_through_every_door_and_for_every_role(
    mcp_home: Path, deb: Host, door: str
) -> None:
    mark = f"{FOLDER}/made"
    await emptied(deb)
    touch = f"touch {shlex.quote(mark)}"
    listed = {"hosts": [deb.ip], "allow_commands": ["id *", f"{touch}", "file_mkdir"]}
    denied = {"hosts": ["10.77.*"], "deny_commands": ["touch *", "file_mkdir"]}
    cases: list[tuple[dict[str, Any] | None, list[tuple[AnyTool, dict[str, Any], bool]]]] = [
        (listed, [
            (command.run_command, {"command": "id -un"}, True),
            (command.run_command, {"command": f"id; {touch}"}, False),
            (command.run_command, {"command": f"id $({touch})"}, False),
            (command.run_command, {"command": "id", "env": {"PATH": "/tmp"}}, False),
            (command.run_command, {"command": "id", "cwd": "/"}, False),
            (command.run_command, {"command": touch}, True),
            (file.write, {"path": f"{FOLDER}/other", "content": "x"}, False),
            (file.mkdir, {"path": f"{FOLDER}/dir"}, True),
            (file.stat, {"path": FOLDER}, True),
        ]),
        (denied, [
            (command.run_command, {"command": "id -un"}, True),
            (command.run_command, {"command": f"true && sh -c {shlex.quote(touch)}"}, False),
            (command.run_command, {"command": touch}, False),
            (file.mkdir, {"path": f"{FOLDER}/dir"}, False),
            (file.write, {"path": f"{FOLDER}/other", "content": "x"}, True),
        ]),
        ({"hosts": ["*"], "read_only": True}, [
            (command.run_command, {"command": touch}, False),
            (file.write, {"path": mark, "content": "x"}, False),
            (file.list_folder, {"path": FOLDER}, True),
        ]),
        ({"hosts": ["*", "!10.77.*"], "read_only": True}, [(command.run_command, {"command": touch}, True)]),
    ]  # fmt: skip
    for number, (rule, calls) in enumerate(cases):
        await emptied(deb)
        async with ruled(mcp_home / str(number), hosts=[rule]) as app, open_way(door, app) as way:
            await trust(app, deb)
            session_id = (await way.call(session.connect, login(deb, "dev")))["session_id"]
            for tool, arguments, passes in calls:
                before = await inside(deb, f"ls {shlex.quote(FOLDER)}")
                call = way.call(tool, {"session_id": session_id, **arguments})
                if passes:
                    await call
                else:
                    await refused(call)
                    assert await inside(deb, f"ls {shlex.quote(FOLDER)}") == before


@pytest.mark.requirement("policy.commands")
async def test_a_denied_name_stops_every_kind_of_tool(mcp_home: Path, deb: Host, owner: DirectCall) -> None:
    """Also one that takes a command line, which is compared with the patterns too, and one that only reads."""
    mark = f"{FOLDER}/made"
    touch = f"touch {shlex.quote(mark)}"
    calls: list[tuple[AnyTool, dict[str, Any]]] = [
        (command.run_command, {"command": touch}),
        (command.background, {"command": touch}),
        (shell.send, {"command": touch}),
        (shell.run_in_shell, {"command": touch}),
        (system.cron_add, {"schedule": "@yearly", "command": touch}),
        (file.read, {"path": "/etc/hostname"}),
    ]
    await emptied(deb)
    before = await inside(deb, "crontab -l -u dev 2>&1 || true")
    rule = {"hosts": ["*"], "deny_commands": [tool.name for tool, _ in calls]}
    async with ruled(mcp_home, hosts=[rule]) as app:
        session_id = await connected(app, deb, "dev", owner)
        for tool, arguments in calls:
            await refused(dispatch(app, tool, {"session_id": session_id, **arguments}, owner))
        assert (await dispatch(app, file.stat, {"session_id": session_id, "path": FOLDER}, owner)).type == "dir"
    assert await inside(deb, f"ls {shlex.quote(FOLDER)}; crontab -l -u dev 2>&1 || true") == before


@pytest.mark.requirement("policy.commands")
async def test_who_denies_sudo_denies_become(mcp_home: Path, deb: Host, owner: DirectCall) -> None:
    """The negative control is in it: without the pattern the same calls act as root."""
    for number, (denied, passes) in enumerate(((["su *"], True), (["sudo *"], False), (["sudo touch *"], False))):
        await emptied(deb)
        touch = {"command": f"touch {shlex.quote(f'{FOLDER}/made')}", "become": {"user": "root"}}
        async with ruled(mcp_home / str(number), hosts=[{"hosts": ["*"], "deny_commands": denied}]) as app:
            session_id = await connected(app, deb, "nopass", owner)
            call = dispatch(app, command.run_command, {"session_id": session_id, **touch}, owner)
            if passes:
                assert (await call).exit_code == 0
            else:
                await refused(call)
            made = {"session_id": session_id, "path": f"{FOLDER}/dir", "become": {"user": "root"}}
            call = dispatch(app, file.mkdir, made, owner)
            await (refused(call) if denied == ["sudo *"] else call)
            # What only root may do goes through sudo by itself.
            given = {"session_id": session_id, "path": FOLDER, "owner": "nopass"}
            jobs = {"session_id": session_id, "user": "root"}
            looks = (firewall.rules, {"session_id": session_id})
            for tool, arguments in ((system.chown, given), (system.cron_list, jobs), looks):
                call = dispatch(app, tool, arguments, owner)
                await (refused(call) if denied == ["sudo *"] else call)
        owners = await inside(deb, f"cd {shlex.quote(FOLDER)} && stat -c '%n %U' -- * 2>/dev/null || true")
        assert ("made root" in owners) is passes, owners


@pytest.mark.requirement("policy.commands")
async def test_a_listed_line_is_not_scheduled_unless_scheduling_is_listed(
    mcp_home: Path, deb: Host, owner: DirectCall
) -> None:
    job = {"schedule": "@yearly", "command": "id -un"}
    listed = ["id *"], ["system_cron_add"], ["id *", "system_cron_add"]
    for number, allowed in enumerate(listed):
        async with ruled(mcp_home / str(number), hosts=[{"hosts": ["*"], "allow_commands": allowed}]) as app:
            session_id = await connected(app, deb, "dev", owner)
            call = dispatch(app, system.cron_add, {"session_id": session_id, **job}, owner)
            await (call if allowed == listed[-1] else refused(call))
        jobs = await inside(deb, "crontab -l -u dev 2>/dev/null || true")
        assert ("@yearly id -un" in jobs) is (allowed == listed[-1])
    await inside(deb, "crontab -r -u dev")


@pytest.mark.requirement("policy.commands")
async def test_a_refused_command_is_never_sent(mcp_home: Path, deb: Host, owner: DirectCall) -> None:
    """The link is dead, so that whatever was sent would hang."""
    async with ruled(mcp_home, hosts=[{"hosts": ["*"], "deny_commands": ["reboot"]}]) as app:
        session_id = await connected(app, deb, "dev", owner)
        deb.cut()
        with pytest.raises(Refused):
            await dispatch(app, command.run_command, {"session_id": session_id, "command": "sudo reboot"}, owner)
        deb.restore()


# ---- protected paths ---------------------------------------------------------------------------------------------

PREPARE = f"""rm -rf '{FOLDER}'; mkdir -p '{FOLDER}/keep/in' '{FOLDER}/dir' '{FOLDER}/tree/keep'; cd '{FOLDER}'
echo old > keep/file; echo old > keep/in/deep; echo new > dir/file; echo new > tree/keep/file; echo old > single
ln -s keep link; ln -s '{FOLDER}/single' to-single; ln -s /etc etc; ln -s ../keep dir/up; chown -hR dev ."""
LOOK = f"cd '{FOLDER}' && find . | sort && cat keep/file keep/in/deep single"
PROTECTED = [f"{FOLDER}/keep", f"{FOLDER}/sing*"]


def attempts(local: Path) -> list[tuple[AnyTool, dict[str, Any]]]:
    """What would change a protected path, by each tool and many a way."""
    tree = local / "tree"
    (tree / "keep").mkdir(parents=True)
    (tree / "keep/file").write_text("new")
    inside = local / "inside"
    (inside / "up").mkdir(parents=True)
    (inside / "up/file").write_text("new")
    ways = ["keep/file", "link/file", "dir/../keep/file", "dir/up/in/deep", "single", "to-single", "keep/new"]
    return [
        *((file.write, {"path": f"{FOLDER}/{way}", "content": "new"}) for way in ways),
        (file.write, {"path": "of policy/single", "content": "new", "mode": "append"}),
        *((file.upload, {"remote_path": f"{FOLDER}/{way}", "raw_content": "new"}) for way in ways[:4]),
        *((file.remove, {"path": f"{FOLDER}/{way}"}) for way in ("keep/file", "link/file", "single", "dir/up/file")),
        (file.rmdir, {"path": f"{FOLDER}/keep"}),
        (file.rmdir, {"path": f"{FOLDER}/keep/in"}),
        (file.rmdir, {"path": FOLDER}),
        (file.mkdir, {"path": f"{FOLDER}/keep/new"}),
        (file.mkdir, {"path": f"{FOLDER}/link/a/b", "parents": True}),
        (file.copy, {"src": f"{FOLDER}/dir/file", "dst": f"{FOLDER}/keep/file"}),
        (file.copy, {"src": f"{FOLDER}/dir/file", "dst": f"{FOLDER}/link/new"}),
        (file.copy, {"src": f"{FOLDER}/tree", "dst": FOLDER}),
        (file.copy, {"src": f"{FOLDER}/dir", "dst": f"{FOLDER}/keep/dir"}),
        (file.move, {"src": f"{FOLDER}/keep/file", "dst": f"{FOLDER}/moved"}),
        (file.move, {"src": f"{FOLDER}/keep", "dst": f"{FOLDER}/moved"}),
        (file.move, {"src": FOLDER, "dst": "/home/dev/moved policy"}),
        (file.move, {"src": f"{FOLDER}/dir/file", "dst": f"{FOLDER}/keep/file", "overwrite": True}),
        (file.move, {"src": f"{FOLDER}/dir/file", "dst": f"{FOLDER}/single", "overwrite": True}),
        (file.upload, {"remote_path": FOLDER, "local_path": str(tree)}),
        (file.upload, {"remote_path": f"{FOLDER}/keep/tree", "local_path": str(tree)}),
        (file.upload, {"remote_path": f"{FOLDER}/dir", "local_path": str(inside)}),
    ]


@pytest.mark.requirement("policy.paths")
async def test_protected_paths_are_left_alone_by_every_tool_wherever_links_lead(
    mcp_home: Path, host: Host, owner: DirectCall, tmp_path: Path
) -> None:
    await inside(host, PREPARE)
    before = await inside(host, LOOK)
    async with ruled(mcp_home, protected_paths=PROTECTED) as app:
        session_id = await connected(app, host, "dev", owner)
        for tool, arguments in attempts(tmp_path):
            with pytest.raises(Refused) as refusal:
                await dispatch(app, tool, {"session_id": session_id, **arguments}, owner)
            assert "protected" in refusal.value.message, (tool.name, arguments)
            assert await inside(host, LOOK) == before, (tool.name, arguments)
        free = {"session_id": session_id, "path": f"{FOLDER}/dir/file", "content": "may change"}
        await dispatch(app, file.write, free, owner)
        await dispatch(app, file.remove, {"session_id": session_id, "path": f"{FOLDER}/link"}, owner)
        made = {"session_id": session_id, "path": f"{FOLDER}/dir/a/b", "parents": True}
        await dispatch(app, file.mkdir, made, owner)


@pytest.mark.requirement("policy.paths")
async def test_without_the_guard_each_of_these_calls_does_the_harm(
    app: App, deb: Host, owner: DirectCall, tmp_path: Path
) -> None:
    """The negative control: nothing is protected here, so each call changes what it was kept from."""
    session_id = await connected(app, deb, "dev", owner)
    for tool, arguments in attempts(tmp_path):
        await inside(deb, PREPARE)
        before = await inside(deb, LOOK)
        with contextlib.suppress(ToolError):
            await dispatch(app, tool, {"session_id": session_id, **arguments}, owner)
        after = await inside(deb, f"{LOOK} 2>/dev/null || true")
        assert after != before, (tool.name, arguments)
        await inside(deb, "rm -rf '/home/dev/moved policy'")


@pytest.mark.requirement("policy.paths")
async def test_root_leaves_the_default_paths_alone_and_commands_do_not(app: App, deb: Host, owner: DirectCall) -> None:
    session_id = await connected(app, deb, "root", owner)
    before = await inside(deb, "sha256sum /etc/shadow /etc/sudoers; ls /etc/sudoers.d")
    for path in (
        "/etc/shadow",
        "/etc/sudoers",
        "/etc/sudoers.d/new",
        "/etc/../etc/shadow",
        "/proc/self/root/etc/shadow",
    ):
        with pytest.raises(Refused):
            write = {"session_id": session_id, "path": path, "content": "x"}
            await dispatch(app, file.write, write, owner)
    assert await inside(deb, "sha256sum /etc/shadow /etc/sudoers; ls /etc/sudoers.d") == before
    run = {"session_id": session_id, "command": "test -w /etc/shadow"}
    assert (await dispatch(app, command.run_command, run, owner)).exit_code == 0


@pytest.mark.requirement("policy.paths")
async def test_paths_are_protected_over_sftp_alone(
    mcp_home: Path, auth: Host, owner: DirectCall, tmp_path: Path
) -> None:
    jail = "/srv/jail/home/sftponly"
    prepare = f"""cd {jail} && find . -mindepth 1 -delete; mkdir keep dir; echo old > keep/file; echo new > dir/file
    ln -s keep link; chown -hR sftponly ."""
    look = f"cd {jail} && find . | sort && cat keep/file 2>/dev/null"
    (tmp_path / "tree/keep").mkdir(parents=True)
    (tmp_path / "tree/keep/file").write_text("new")
    tries: list[tuple[AnyTool, dict[str, Any]]] = [
        (file.write, {"path": "link/file", "content": "new"}),
        (file.upload, {"remote_path": "link/file", "raw_content": "new"}),
        (file.upload, {"remote_path": ".", "local_path": str(tmp_path / "tree")}),
        (file.remove, {"path": "link/file"}),
        (file.rmdir, {"path": "keep"}),
        (file.mkdir, {"path": "link/new"}),
        (file.move, {"src": "keep", "dst": "moved"}),
        (file.move, {"src": "dir/file", "dst": "link/file", "overwrite": True}),
    ]
    for paths in (["/home/sftponly/keep"], []):
        async with ruled(mcp_home, protected_paths=paths) as app:
            session_id = await connected(app, auth, "sftponly", owner)
            for tool, arguments in tries:
                await inside(auth, prepare)
                before = await inside(auth, look)
                with contextlib.suppress(Refused):
                    await dispatch(app, tool, {"session_id": session_id, **arguments}, owner)
                # The negative control: where nothing is protected, each of them does the harm.
                assert (await inside(auth, f"{look}; true") == before) is bool(paths), (tool.name, paths)
