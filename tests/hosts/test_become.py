"""Acting as another account on real hosts: whose rights a command has, and what becomes of the password."""

import base64
import functools
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.shell_command import Command
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.ssh.exec import stop
from mcp_ssh.ssh.wire import become
from mcp_ssh.ssh.wire.become import BecomeTarget
from mcp_ssh.ssh.wire.command import build_envelope
from mcp_ssh.ssh.wire.kill import StopResult
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import command, file, session
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault, Way
from tests.support.machine import login, number, outside, processes, trust


class On:
    """A session through a door, on which commands run as another account."""

    def __init__(self, way: Way, host: Host, user: str) -> None:
        self.way, self.host, self.user = way, host, user
        self.session_id = ""

    async def exec(self, text: str, become: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        arguments = {"command": text, "session_id": self.session_id, **more}
        if become is not None:
            arguments["become"] = become
        return await self.way.call(command.run_command, arguments)

    async def refused(self, become: dict[str, Any], text: str = "id -un", **more: Any) -> Fault:
        with pytest.raises(Fault) as fault:
            await self.exec(text, become, **more)
        assert fault.value.payload["hint"]
        return fault.value


async def failures(host: Host) -> int:
    """How many wrong passwords the machine's log says sudo was given."""
    log = "journalctl -q -o cat _COMM=sudo" if host.name == "deb" else "cat /var/log/messages"
    return int(await outside(host, f"{log} | grep -c ': 1 incorrect password attempt' || true"))


async def open_on(app: App, way: Way, host: Host, user: str) -> On:
    await trust(app, host)
    on = On(way, host, user)
    on.session_id = (await way.call(session.connect, login(host, user)))["session_id"]
    return on


@pytest.fixture
async def ops(app: App, host: Host) -> On:
    """An account that may become root with its password."""
    return await open_on(app, Direct(app), host, "ops")


@pytest.fixture
async def nopass(app: App, host: Host) -> On:
    """An account that may become root without one."""
    return await open_on(app, Direct(app), host, "nopass")


@pytest.fixture
async def dev(app: App, host: Host) -> On:
    """An account that sudo does not know."""
    return await open_on(app, Direct(app), host, "dev")


@pytest.fixture(params=["sudo", "su"])
def by(request: pytest.FixtureRequest, host: Host) -> dict[str, Any]:
    return {"method": request.param, "password": host.password}


@pytest.mark.requirement("become")
async def test_a_command_runs_as_root_with_its_streams_and_exit_code(
    app: App, way: Way, host: Host, by: dict[str, Any]
) -> None:
    ops = await open_on(app, way, host, "ops")
    answer = await ops.exec("id -un; echo err >&2; exit 3", by)
    assert (answer["stdout"], answer["stderr"], answer["exit_code"]) == ("root\n", "err\n", 3)
    assert (await ops.exec("id -un"))["stdout"] == "ops\n"


@pytest.mark.requirement("become")
async def test_folder_environment_and_input_reach_the_command_unchanged(ops: On, by: dict[str, Any]) -> None:
    odd = "a'b\"c $(id) `id` \\ \n*"
    answer = await ops.exec('pwd; printf %s "$ODD"; cat', by, cwd="/usr", env={"ODD": odd}, stdin="in\nput")
    assert answer["stdout"] == f"/usr\n{odd}in\nput"
    with pytest.raises(Fault) as fault:
        await ops.exec("pwd", by, cwd="/no such")
    assert fault.value.code == "not_found"


@pytest.mark.requirement("become")
async def test_no_variable_of_ours_takes_the_place_of_one_given(ops: On, by: dict[str, Any]) -> None:
    names = ["line", "name", "shell", "SHELL", "_x", "LC_ALL", "HOME"]
    answer = await ops.exec(
        " ".join(["printf", "'%s\\n'", *(f'"${each}"' for each in names)]), by, env={each: f"={each}" for each in names}
    )
    assert answer["stdout"] == "".join(f"={each}\n" for each in names)
    clean = await ops.exec('echo "${line-no} ${name-no} ${shell-no}"', by)
    assert clean["stdout"] == "no no no\n"


@pytest.mark.requirement("become")
async def test_only_the_command_has_the_callers_input(ops: On, by: dict[str, Any]) -> None:
    assert (await ops.exec("cat; echo end", by))["stdout"] == "end\n"
    for words in ("-n", "--", "x y", "'", '"', "\\\\", "$HOME", "!"):
        answer = await ops.exec("cat; : " + words if words not in "'\"" else "cat", by, stdin=words)
        assert answer["stdout"] == words


@pytest.mark.requirement("become")
async def test_any_bytes_come_through(ops: On, by: dict[str, Any]) -> None:
    answer = await ops.exec(r"printf '\377\376\000ok'; head -c 3000000 /dev/zero", by, encoding="base64")
    assert base64.b64decode(answer["stdout"]).startswith(b"\xff\xfe\0ok\0")
    big = "x" * 3_000_000
    assert (await ops.exec("wc -c", by, stdin=big))["stdout"].strip() == "3000000"


@pytest.mark.requirement("become")
async def test_a_signal_is_named_under_sudo(ops: On) -> None:
    answer = await ops.exec("kill -TERM $$", {"password": ops.host.password})
    assert (answer["exit_code"], answer["signal"]) == (143, "TERM")


@pytest.mark.requirement("become")
async def test_the_shell_and_home_are_the_other_accounts(ops: On, by: dict[str, Any]) -> None:
    by = by | {"user": "dash"}
    answer = await ops.exec('echo "$HOME $0"; id -un', by)
    shell = ops.host.shell_of("dash")
    assert answer["stdout"] == f"/home/dash {shell}\ndash\n"
    nologin = await ops.exec("id -un", {"password": ops.host.password, "user": "nobody"})
    assert nologin["stdout"] == "nobody\n"


@pytest.mark.requirement("become")
async def test_the_language_of_the_command_is_not_touched(ops: On, by: dict[str, Any]) -> None:
    plain = (await ops.exec('echo "${LC_ALL-unset}"'))["stdout"]
    assert (await ops.exec('echo "${LC_ALL-unset}"', by))["stdout"] == plain


@pytest.mark.requirement("become.nopass")
async def test_no_password_is_needed_where_sudo_asks_for_none(nopass: On) -> None:
    assert (await nopass.exec("id -un; cat", {}, stdin="mine"))["stdout"] == "root\nmine"
    # One that is given is not used, and goes nowhere.
    answer = await nopass.exec("id -un; cat", {"password": "not-the-password"}, stdin="mine")
    assert (answer["stdout"], answer["stderr"]) == ("root\nmine", "")


@pytest.mark.requirement("become.nopass")
async def test_becoming_oneself_changes_nothing(dev: On) -> None:
    assert (await dev.exec("id -un", {"user": "dev"}))["stdout"] == "dev\n"


@pytest.mark.requirement("become.input")
async def test_what_sudo_remembers_changes_nothing(ops: On) -> None:
    await outside(ops.host, "echo 'Defaults:ops timestamp_type=global' >/etc/sudoers.d/remembered")
    try:
        await outside(ops.host, f"echo '{ops.host.password}' | sudo -S -p '' true", user="ops")
        assert (await ops.exec("id -un; cat", {}, stdin="mine"))["stdout"] == "root\nmine"
        given = {"password": ops.host.password}
        assert (await ops.exec("id -un; cat", given, stdin="mine"))["stdout"] == "root\nmine"
        assert (await ops.refused({"password": "wrong"})).code == "permission_denied"
    finally:
        await outside(ops.host, "rm /etc/sudoers.d/remembered")
    await outside(ops.host, "sudo -K", user="ops")


@pytest.mark.requirement("become.refused")
async def test_a_wrong_password_is_tried_once(ops: On, by: dict[str, Any]) -> None:
    before = await failures(ops.host)
    fault = await ops.refused(by | {"password": "wrong"})
    assert fault.code == "permission_denied"
    assert "refused the password" in fault.payload["message"]
    assert await failures(ops.host) == before + (by["method"] == "sudo")
    assert (await ops.exec("id -un", by))["stdout"] == "root\n"


@pytest.mark.requirement("become.refused")
async def test_a_missing_password_says_that_sudo_was_tried_without(ops: On, dev: On) -> None:
    for on in (ops, dev):
        fault = await on.refused({})
        assert fault.code == "permission_denied"
        assert "sudo -n" in fault.payload["message"]
    assert (await ops.refused({"method": "su"})).code == "permission_denied"


@pytest.mark.requirement("become.refused")
async def test_an_account_that_may_not_is_told(dev: On) -> None:
    fault = await dev.refused({"password": dev.host.password})
    assert (fault.code, "may not use sudo" in fault.payload["message"]) == ("permission_denied", True)


@pytest.mark.requirement("become.refused")
async def test_what_the_machine_lacks_is_named(ops: On) -> None:
    host = ops.host
    for method in ("sudo", "su"):
        fault = await ops.refused({"method": method, "user": "nosuch", "password": host.password})
        assert fault.code in {"not_found", "permission_denied"}, fault
    path = (await outside(host, "command -v sudo")).strip()
    await outside(host, f"mv {path} {path}.away")
    try:
        fault = await ops.refused({"password": host.password})
        assert (fault.code, "not installed" in fault.payload["message"]) == ("unsupported", True)
    finally:
        await outside(host, f"mv {path}.away {path}")


@pytest.mark.requirement("become.refused")
async def test_a_sudo_that_allows_only_some_commands_or_wants_a_terminal_says_so(app: App, deb: Host) -> None:
    dev = await open_on(app, Direct(app), deb, "dev")
    rules = "/etc/sudoers.d/test-become"
    try:
        await outside(deb, f"echo 'dev ALL=(ALL) NOPASSWD: /usr/bin/id' >{rules}")
        assert "certain commands" in (await dev.refused({"password": deb.password})).payload["message"]
        await outside(deb, f"printf 'dev ALL=(ALL) NOPASSWD: ALL\nDefaults:dev requiretty\n' >{rules}")
        fault = await dev.refused({})
        assert (fault.code, "terminal" in fault.payload["message"]) == ("unsupported", True)
    finally:
        await outside(deb, f"rm -f {rules}")


@pytest.mark.requirement("become.doas")
async def test_doas_works_without_a_password_only(app: App, deb: Host) -> None:
    nopass = await open_on(app, Direct(app), deb, "nopass")
    assert (await nopass.exec("id -un; cat", {"method": "doas"}, stdin="mine"))["stdout"] == "root\nmine"
    ops = await open_on(app, Direct(app), deb, "ops")
    assert (await ops.refused({"method": "doas"})).code == "unsupported"
    assert (await ops.refused({"method": "doas", "password": deb.password})).code == "invalid_input"
    dev = await open_on(app, Direct(app), deb, "dev")
    assert (await dev.refused({"method": "doas"})).code == "permission_denied"


@pytest.mark.requirement("become.files")
async def test_a_file_of_root_is_written_as_root(app: App, way: Way, host: Host) -> None:
    ops = await open_on(app, way, host, "ops")
    path = "/root/written by become"
    written = {"session_id": ops.session_id, "path": path, "content": "new\n", "permissions": "600"}
    with pytest.raises(Fault) as fault:
        await way.call(file.write, written)
    assert fault.value.code == "permission_denied"
    answer = await way.call(file.write, written | {"become": {"password": host.password}})
    assert (answer["size_bytes"], answer["permissions"]) == (4, "0600")
    assert await outside(host, f"cat '{path}'; stat -c %U '{path}'; rm '{path}'") == "new\nroot\n"


@pytest.mark.requirement("become", "file.remove", "file.rmdir")
async def test_folders_of_root_are_made_filled_and_removed_as_root(app: App, way: Way, host: Host) -> None:
    """Over REST the password is in the body of DELETE too, never in an address."""
    ops = await open_on(app, way, host, "ops")

    async def as_root(tool: AnyTool, **arguments: Any) -> dict[str, Any]:
        become = {"password": host.password}
        return await way.call(tool, {"session_id": ops.session_id, "become": become, **arguments})

    folder = "/root/of become"
    await outside(host, f"rm -rf '{folder}'")
    await as_root(file.mkdir, path=folder)
    await as_root(file.upload, remote_path=f"{folder}/f", raw_content="1")
    await as_root(file.copy, src=f"{folder}/f", dst=f"{folder}/g")
    await as_root(file.move, src=f"{folder}/g", dst=f"{folder}/h")
    assert (await as_root(file.download, remote_path=f"{folder}/h", return_content=True))["content"] == "MQ=="
    for tool, path in ((file.remove, f"{folder}/f"), (file.rmdir, folder)):
        with pytest.raises(Fault) as fault:
            await way.call(tool, {"session_id": ops.session_id, "path": path})
        assert fault.value.code in {"permission_denied", "not_found"}
    await as_root(file.remove, path=f"{folder}/f")
    assert await outside(host, f"ls -A '{folder}'; stat -c %U '{folder}'") == "h\nroot\n"
    assert (await as_root(file.rmdir, path=folder))["count"] == 1
    assert await outside(host, f"test ! -e '{folder}' && echo gone") == "gone\n"


@pytest.mark.requirement("become.login_password")
async def test_the_password_of_the_login_serves_for_sudo_too(app: App, deb: Host) -> None:
    await trust(app, deb)
    on = On(Direct(app), deb, "ops")
    with_password = {"host": deb.ip, "username": "ops", "password": deb.password}
    on.session_id = (await on.way.call(session.connect, with_password))["session_id"]
    assert (await on.exec("id -un", {"use_login_password": True}))["stdout"] == "root\n"
    assert (await on.refused({})).code == "permission_denied"
    by_key = await open_on(app, Direct(app), deb, "ops")
    assert (await by_key.refused({"use_login_password": True})).code == "invalid_input"


SHAPES = {
    "simple": "sleep {n}",
    "ignores TERM": "trap '' TERM; while :; do sleep {n}; done",
    "double fork": "(setsid sh -c 'sleep {n} & sleep {n} &' &); sleep {n}",
    "stopped": "sleep {n} & kill -STOP $!; kill -STOP $$; wait",
    "child that outlives its shell": "setsid sleep {n} & exit 0",
}


@pytest.mark.requirement("become.kills")
async def test_nothing_of_another_account_survives_a_timeout(ops: On, by: dict[str, Any]) -> None:
    for account in ("root", "dash"):
        for shape, text in SHAPES.items():
            n = number()
            answer = await ops.exec(f"echo early; {text.format(n=n)}", by | {"user": account}, timeout=1.0)
            found = (answer["status"], answer["stopped"], answer["stdout"])
            assert found == ("timed_out", True, "early\n"), (account, shape, answer)
            assert await processes(ops.host, n) == [], (account, shape)


@pytest.mark.requirement("become.kills")
async def test_nothing_of_root_survives_a_cancelled_call(ops: On, by: dict[str, Any]) -> None:
    n = number()
    async with anyio.create_task_group() as group:
        group.start_soon(functools.partial(ops.exec, SHAPES["ignores TERM"].format(n=n), by))
        with anyio.fail_after(10):
            # Before that there is a sudo with the number in its command line.
            while not any(line.split()[1] == "sleep" for line in await processes(ops.host, n)):
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()
    assert await processes(ops.host, n) == []


@pytest.mark.requirement("become.kills")
async def test_a_command_that_nobody_waits_for_any_more_is_not_started(host: Host) -> None:
    path = f"/tmp/started-{number()}"
    sent = build_envelope(f"touch {path}", shell="posix", acting=BecomeTarget("root", "sudo"))  # noqa: S604 it starts nothing
    answer = await anyio.to_thread.run_sync(lambda: host.ssh(sent.text, user="nopass", stdin="a line\n"))
    assert (answer.returncode, "begin" in answer.stdout) == (1, True)
    assert await outside(host, f"ls -d {path} 2>/dev/null || true") == ""
    answer = await anyio.to_thread.run_sync(lambda: host.ssh(sent.text, user="nopass", stdin=f"{sent.cookie}\n"))
    assert (answer.returncode, await outside(host, f"rm {path} && echo there")) == (0, "there\n")


async def test_without_the_secret_what_root_runs_survives(ops: On, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: the login account cannot end it, and it is not said that it did."""
    ran = stop._run  # pyright: ignore[reportPrivateUsage]

    async def as_login(link: Connection, command: Command, acting: BecomeTarget | None, calls: int) -> list[StopResult]:
        return await ran(link, command, None, calls) if acting is None else [StopResult(ended=None)] * calls

    monkeypatch.setattr(stop, "_run", as_login)
    n = number()
    answer = await ops.exec(SHAPES["double fork"].format(n=n), {"password": ops.host.password}, timeout=1.0)
    assert answer["stopped"] in {False, "unknown"}
    living = await processes(ops.host, n)
    assert living
    await anyio.to_thread.run_sync(lambda: ops.host.console(["kill", "-KILL", *(each.split()[0] for each in living)]))


@pytest.mark.requirement("become.refused")
async def test_a_program_that_never_asks_is_given_up_at_the_deadline(app: App, deb: Host) -> None:
    ops = await open_on(app, Direct(app), deb, "ops")
    await outside(
        deb, "mv /usr/bin/su /usr/bin/su.away; printf '#!/bin/sh\\nexec cat\\n' >/usr/bin/su; chmod +x /usr/bin/su"
    )
    try:
        fault = await ops.refused({"method": "su", "password": deb.password}, timeout=0.7)
        assert (fault.code, fault.payload["details"]) == ("timed_out", {"stopped": True})
    finally:
        await outside(deb, "mv /usr/bin/su.away /usr/bin/su")


@pytest.mark.requirement("become.refused")
async def test_a_program_that_wants_something_else_is_given_up_soon(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(become, "ENTRY_LIMIT_S", 0.5)
    ops = await open_on(app, Direct(app), deb, "ops")
    asks = "#!/bin/sh\\nprintf 'Verification code: ' >&2; exec cat\\n"
    await outside(deb, f'mv /usr/bin/su /usr/bin/su.away; printf "{asks}" >/usr/bin/su; chmod +x /usr/bin/su')
    try:
        fault = await ops.refused({"method": "su", "password": deb.password}, timeout=600)
        assert fault.code == "permission_denied"
        assert "Verification code" in fault.payload["details"]["said"]
    finally:
        await outside(deb, "mv /usr/bin/su.away /usr/bin/su")
