"""Accounts whose login shell, or its rc file, does what few do: what a call says of its end stays true."""

import contextlib
from collections.abc import AsyncGenerator

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import NotFound, RemoteFailed
from mcp_ssh.tools import command, session
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import connected, in_thread, login, number, processes, trust
from tests.support.warm import rc_file

WHO = DirectCall(caller())


@contextlib.asynccontextmanager
async def login_shell(host: Host, user: str, shell: str) -> AsyncGenerator[None]:
    """Give a user of the host another login shell for a while."""
    changed = "/tmp/passwd.$$; cat /tmp/passwd.$$ >/etc/passwd; rm /tmp/passwd.$$"
    set_shell = f"sed 's|^\\({user}:.*:\\)[^:]*$|\\1'\"$0\"'|' /etc/passwd >{changed}"
    before = (await in_thread(host.console, ["sh", "-c", f"grep ^{user}: /etc/passwd"])).stdout.strip().split(":")[-1]
    await in_thread(host.console, ["sh", "-c", set_shell, shell])
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await in_thread(host.console, ["sh", "-c", set_shell, before])


async def run(app: App, session_id: str, text: str, **more: object) -> command.CommandExecResult:
    arguments = {"session_id": session_id, "command": text, **more}
    result = await dispatch(app, command.run_command, arguments, WHO)
    assert isinstance(result, command.CommandExecResult)
    return result


@pytest.mark.requirement("fault.R2")
async def test_in_a_restricted_shell_a_time_limit_ends_the_command(app: App, deb: Host) -> None:
    async with login_shell(deb, "dev", "/bin/rbash"):
        session_id = await connected(app, deb, "dev", WHO)
        plain = await run(app, session_id, "echo well; cd /")
        assert plain.stdout == "well\n"
        assert "restricted" in plain.stderr
        n = number()
        result = await run(app, session_id, f"sleep {n}; echo never", timeout=1)
        assert (result.status, result.stopped) == ("timed_out", True)
        assert await processes(deb, n) == []


@pytest.mark.requirement("fault.R2")
async def test_where_a_restricted_shell_finds_no_program_to_look_with_nobody_claims_an_end(app: App, deb: Host) -> None:
    limit = "PATH=/opt/allowed"
    make = "mkdir -p /opt/allowed && ln -sf /bin/sleep /opt/allowed/sleep"
    await in_thread(deb.console, ["sh", "-c", make])
    async with login_shell(deb, "dev", "/bin/rbash"), rc_file(deb, "dev", limit):
        session_id = await connected(app, deb, "dev", WHO)
        n = number()
        result = await run(app, session_id, f"sleep {n}", timeout=1)
        assert (result.status, result.stopped) == ("timed_out", "unknown")
        await in_thread(deb.console, ["pkill", "-KILL", "-f", f"[s]leep {n}"])


@pytest.mark.requirement("fault.R2")
async def test_of_a_forced_command_nobody_claims_an_end_and_it_is_not_started_again_to_look(
    app: App, deb: Host
) -> None:
    n = number()
    forced = f"#!/bin/sh\necho run >>/tmp/forced-{n}\ncase $2 in 'exec sh'*) echo menu; exit;; esac\nexec sleep {n}\n"
    put = "cat >/usr/local/bin/forced && chmod 755 /usr/local/bin/forced"
    await in_thread(deb.console, ["sh", "-c", put], input=forced)
    async with login_shell(deb, "dev", "/usr/local/bin/forced"):
        session_id = await connected(app, deb, "dev", WHO)
        count = ["sh", "-c", f"wc -l </tmp/forced-{n}"]
        before = int((await in_thread(deb.console, count)).stdout)
        result = await run(app, session_id, "status", timeout=1)
        after = int((await in_thread(deb.console, count)).stdout)
    assert (result.status, result.stopped, after - before) == ("timed_out", "unknown", 1)
    await in_thread(deb.console, ["sh", "-c", f"pkill -KILL -f '[s]leep {n}'; rm /tmp/forced-{n}"])


@pytest.mark.requirement("fault.R4")
@pytest.mark.parametrize("text", ["read -t 1 answer", "read answer", "cat >/dev/null"])
async def test_an_account_whose_rc_file_reads_its_input_is_connected_without_sftp(
    app: App, deb: Host, text: str
) -> None:
    async with rc_file(deb, "dev", text):
        await trust(app, deb)
        with anyio.fail_after(20):
            opened = await dispatch(app, session.connect, login(deb, "dev"), WHO)
        assert "sftp" not in opened.features
        assert "exec" in opened.features
        assert (await run(app, opened.session_id, "echo well")).stdout == "well\n"


async def test_an_account_with_a_quiet_rc_file_keeps_sftp(app: App, deb: Host) -> None:
    async with rc_file(deb, "dev", "sleep 1"):
        await trust(app, deb)
        opened = await dispatch(app, session.connect, login(deb, "dev"), WHO)
        assert {"sftp", "exec"} <= set(opened.features)


@pytest.mark.requirement("fault.R4")
@pytest.mark.parametrize("text", ["exec dash", "exec sleep 3600"])
async def test_where_the_shell_never_answers_the_error_says_that_the_login_worked(
    app: App, deb: Host, text: str
) -> None:
    async with rc_file(deb, "dev", text):
        await trust(app, deb)
        with pytest.raises(RemoteFailed, match=r"the login at .* worked, but the account's shell did not answer"):
            await dispatch(app, session.connect, {**login(deb, "dev"), "timeout": 6}, WHO)
    await in_thread(deb.console, ["pkill", "-KILL", "-f", "[s]leep 3600"])


@pytest.mark.requirement("fault.R9")
async def test_where_an_rc_file_joins_the_streams_nothing_of_ours_is_in_the_output(app: App, deb: Host) -> None:
    async with rc_file(deb, "nopass", "exec 2>&1"):
        session_id = await connected(app, deb, "nopass", WHO)
        for exact in (False, True):
            result = await run(app, session_id, "echo one; echo two >&2", exact=exact)
            assert (result.stdout, result.stderr) == ("one\ntwo\n", "")
        root = await run(app, session_id, "echo one; id -un >&2; printf x", become={"user": "root"})
        assert (root.stdout, root.stderr) == ("one\nroot\nx", "")
        nothing = await run(app, session_id, "exit 1", become={"user": "root"})
        assert (nothing.stdout, nothing.exit_code) == ("", 1)
        for become in (None, {"user": "root"}):
            with pytest.raises(NotFound, match="working folder"):
                await run(app, session_id, "echo one", cwd="/no/such", become=become)
        n = number()
        late = await run(app, session_id, f"echo begun; sleep {n}", timeout=1)
        assert (late.stdout, late.stopped) == ("begun\n", True)


@pytest.mark.requirement("fault.R10")
async def test_a_function_of_the_account_that_is_called_cd_is_not_called(app: App, deb: Host) -> None:
    async with rc_file(deb, "dev", 'cd() { builtin cd "$@" && echo visited; }'):
        session_id = await connected(app, deb, "dev", WHO)
        for exact in (False, True, False):
            assert (await run(app, session_id, "pwd", cwd="/srv", exact=exact)).stdout == "/srv\n"
        assert (await run(app, session_id, "cd /usr")).stdout == "visited\n"  # the caller's own is the account's


@pytest.mark.requirement("fault.R10")
async def test_a_function_of_a_zsh_account_that_is_called_cd_is_not_called(app: App, auth: Host) -> None:
    put = 'printf %s "$1" >/home/zsh/.zshenv'
    await in_thread(auth.console, ["sh", "-c", put, "sh", 'cd() { builtin cd "$@" && echo visited; }'])
    try:
        session_id = await connected(app, auth, "zsh", WHO)
        for exact in (False, True, False):
            assert (await run(app, session_id, "pwd", cwd="/srv", exact=exact)).stdout == "/srv\n"
        with pytest.raises(NotFound, match="working folder"):
            await run(app, session_id, "pwd", cwd="/no/such")
    finally:
        await in_thread(auth.console, ["rm", "-f", "/home/zsh/.zshenv"])


@pytest.mark.requirement("fault.R2")
async def test_a_forced_command_is_not_run_for_each_further_session(app: App, deb: Host) -> None:
    keys, ran = "/home/dev/.ssh/authorized_keys", "/tmp/forced-ran"
    forced = f"""cp {keys} /tmp/keys; touch {ran}; chmod 666 {ran}; sed -i 's|^|command="date >>{ran}" |' {keys}"""

    async def runs() -> int:
        return int((await in_thread(deb.console, ["sh", "-c", f"wc -l <{ran}"])).stdout)

    await in_thread(deb.console, ["sh", "-c", forced])
    try:
        await connected(app, deb, "dev", WHO)
        first = await runs()
        assert first > 0  # the negative control: a channel runs it
        for _ in range(3):
            await connected(app, deb, "dev", WHO)
        assert await runs() == first
    finally:
        await in_thread(deb.console, ["sh", "-c", f"cat /tmp/keys >{keys}; rm /tmp/keys {ran}"])
