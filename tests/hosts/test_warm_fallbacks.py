"""Where no shell can or may wait, commands take channels of their own, and do what they always did."""

import functools
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, SshConfig
from mcp_ssh.dispatch import dispatch
from mcp_ssh.params import Become
from mcp_ssh.ssh.connection import warm_shells
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.ssh.connection.warm_shells import only_looks
from mcp_ssh.ssh.exec.capture import Capture
from mcp_ssh.tools.file import transfer
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import outside
from tests.support.warm import Warm, rc_file, warm

pytestmark = pytest.mark.requirement("exec.warm.plain")

RC_FILES = {
    "prints a line": "echo welcome\n",
    "prints an error": "echo oops >&2\n",
    "traces": "set -x\n",
    "does not wait for long": "TMOUT=60\n",
    "does not wait for long, for good": "readonly TMOUT=60\n",
    "is restricted": "set -r\n",
    "hides standard error": "exec 2>/dev/null\n",
    "ends": "exit 5\n",
}


async def same_as_ssh(on: Warm, command: str = "echo out; echo err >&2; (exit 3)") -> None:
    said = await on.run(command)
    theirs = await anyio.to_thread.run_sync(functools.partial(on.host.ssh, command, user=on.user))
    assert (said.stdout.decode(), said.code) == (theirs.stdout, theirs.returncode)


@pytest.mark.parametrize("rc", RC_FILES)
async def test_an_account_whose_rc_file_is_in_the_way(
    app: App, deb: Host, rc: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_shells, "START_LIMIT_S", 1.0)
    async with rc_file(deb, "dev", RC_FILES[rc]):
        on = await warm(app, deb, "dev")
        await on.never_ready()
        await same_as_ssh(on)
        await on.never_ready()


async def test_an_account_whose_rc_file_speaks_late(app: App, deb: Host) -> None:
    async with rc_file(deb, "dev", '[ -z "$MCP_SSH_CALL" ]; (sleep 0.3; echo late) &\n'):
        on = await warm(app, deb, "dev")
        waiting = await on.ready()
        with anyio.fail_after(20):
            while waiting.channel.silent:
                await anyio.sleep(0.01)
        before = on.plain
        assert (await on.run("echo mine")).stdout == b"mine\nlate\n"
        assert on.plain == before + 1
        await on.never_ready()


@pytest.mark.parametrize("user", ["fish", "tcsh", "locked"])
async def test_an_account_without_a_posix_shell(app: App, auth: Host, user: str) -> None:
    on = await warm(app, auth, user)
    await on.never_ready()
    assert (await on.run("uptime")).stdout


async def test_a_command_that_is_too_long_exact_or_for_another_account(app: App, host: Host) -> None:
    on = await warm(app, host, "nopass")
    waiting = await on.ready()
    long = f": {'x' * 70_000}; echo $MCP_SSH_CALL"
    for said in (await on.run(long), await on.run("echo $MCP_SSH_CALL", exact=True)):
        assert len(said.stdout) == 33
        assert waiting.cookie.encode() not in said.stdout
    out, err = Capture(1024), Capture(1024)
    root = on.session.becoming(Become())
    await root.execute("id -u; echo $MCP_SSH_CALL", timeout_s=10, stdout=out, stderr=err)
    assert out.whole().startswith(b"0\n")
    assert waiting.cookie.encode() not in out.whole()


async def test_a_machine_that_the_config_names(mcp_home: Path, host: Host) -> None:
    config = Config(ssh=SshConfig(plain_exec_hosts=["10.77.*"]))
    async with open_app(mcp_home, config) as app:
        on = await warm(app, host, "dev")
        await on.never_ready()
        await same_as_ssh(on)


async def test_a_machine_with_one_channel_a_connection(app: App, auth: Host) -> None:
    on = await warm(app, auth, "dev", {"port": auth.ports["limits"]})
    await on.run("true")
    link, spares = on.session.link, on.session.link.spares
    # Where sshd refused a channel at login already, the limit is known, and no spare is ever tried.
    with anyio.fail_after(10):
        while spares.allowed and link.may_spare() and not spares.ready:
            await anyio.sleep(0.002)
    who = DirectCall(caller())
    arguments = {"session_id": on.session.id, "remote_path": "/tmp/mcp-one", "raw_content": "there"}
    with anyio.fail_after(10):
        await dispatch(app, transfer.upload, arguments, who)
    assert await outside(auth, "cat /tmp/mcp-one; rm /tmp/mcp-one", "dev") == "there"
    await on.run("true")
    with anyio.fail_after(10):
        while spares.allowed and link.may_spare():
            assert not spares.ready
            await anyio.sleep(0.002)
    assert len(spares) == 0
    assert (await on.run("echo two")).stdout == b"two\n"


@pytest.mark.requirement("exec.parallel")
async def test_shells_that_wait_leave_room_for_commands_and_for_their_end(app: App, deb: Host) -> None:
    on = await warm(app, deb, "dev")
    ended: list[object] = []

    async def run() -> None:
        out, err = Capture(1024), Capture(1024)
        done = await on.session.execute("sleep 30", timeout_s=0.6, stdout=out, stderr=err)
        ended.append(done.stopped.as_field() if done.stopped else None)

    for _ in range(2):
        with anyio.fail_after(10):
            while len(on.session.link.spares.ready) < 3:
                await on.run("true")
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(run)
    assert ended == [True] * 16
    assert on.session.link.spares.allowed  # the machine never had to refuse a channel


async def test_without_that_room_the_machine_refuses_channels(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: shells that wait are channels, and sshd counts them."""
    monkeypatch.setattr(Connection, "may_spare", lambda _: True)
    monkeypatch.setattr(warm_shells.WarmShells, "leave", lambda *_: None)
    monkeypatch.setattr(warm_shells, "MOST", 12)
    on = await warm(app, deb, "dev")
    with anyio.fail_after(30):
        while on.session.link.spares.allowed:
            await on.run("true")


@pytest.mark.parametrize(
    ("command", "looks"),
    [
        ("true", True),
        ("ls -la /etc/ssh", True),
        ("cat /etc/hostname | tee x", False),
        ("echo X=1 >>.bashrc", False),
        ("ls; rm x", False),
        ("ls\nrm x", False),
        ("cat $(touch x)", False),
        ("usermod -aG wheel me", False),
        ("./ls", False),
        ("true\n", False),
    ],
)
def test_only_what_plainly_looks_keeps_other_shells_waiting(command: str, looks: bool) -> None:
    assert only_looks(command) is looks
