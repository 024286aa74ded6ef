"""The embedded SSH host behaves as sshd does where it matters, and leaves nothing behind."""

import base64
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import asyncssh
import pytest

from mcp_ssh.ssh.demo.host import MAX_CHANNELS, DemoHost, demo_host
from tests.support.cli_kit import alive, needs_proc
from tests.support.demo import connect

LIMIT_S = 10


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The loop of `ssh-steward demo`, whichever the servers use: uvloop's children inherit their pipes twice."""
    return "asyncio"


@pytest.fixture
async def host() -> AsyncIterator[DemoHost]:
    async with demo_host() as running:
        yield running


@pytest.fixture
async def connection(host: DemoHost) -> AsyncIterator[asyncssh.SSHClientConnection]:
    async with connect(host) as connected:
        yield connected


async def until_gone(*pids: int) -> None:
    with anyio.fail_after(LIMIT_S):
        while any(alive(pid) for pid in pids):
            await anyio.sleep(0.02)


async def read_pid(path: Path) -> int:
    """The process id a command wrote to the file."""
    with anyio.fail_after(LIMIT_S):
        while True:
            with contextlib.suppress(OSError, ValueError):
                text = await anyio.Path(path).read_text()
                if text.endswith("\n"):
                    return int(text)
            await anyio.sleep(0.02)


async def test_both_streams_come_apart_with_the_exit_code(connection: asyncssh.SSHClientConnection) -> None:
    done = await connection.run("echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.exit_status) == ("out\n", "err\n", 3)


async def test_a_command_runs_in_the_home_with_an_environment_of_its_own(
    host: DemoHost, connection: asyncssh.SSHClientConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MCP_SSH_TOKEN", "the server's own secret")
    done = await connection.run('echo "$PWD|$HOME|$USER|$LOGNAME|$SHELL|$MCP_SSH_TOKEN|${SSH_CONNECTION%% *}"')
    home = str(host.home)
    assert done.stdout == f"{home}|{home}|{host.username}|{host.username}|/bin/sh||127.0.0.1\n"


async def test_of_the_client_s_environment_only_the_language_gets_in(connection: asyncssh.SSHClientConnection) -> None:
    done = await connection.run('echo "$LC_ALL|$LD_PRELOAD"', env={"LC_ALL": "C.UTF-8", "LD_PRELOAD": "/nowhere.so"})
    assert done.stdout == "C.UTF-8|\n"


async def test_a_signal_that_ends_the_command_is_reported_by_name(connection: asyncssh.SSHClientConnection) -> None:
    done = await connection.run("kill -KILL $$")
    assert done.exit_status == -1
    assert done.exit_signal is not None
    assert done.exit_signal[0] == "KILL"


async def test_a_signal_reaches_the_whole_process_group_past_unread_input(
    host: DemoHost, connection: asyncssh.SSHClientConnection
) -> None:
    command = 'trap "echo got TERM; exit 7" TERM; sleep 600 & echo $! > child; echo ready; wait'
    process = await connection.create_process(command, encoding=None)
    assert await process.stdout.readline() == b"ready\n"
    process.stdin.write(b"x" * 1_000_000)  # nobody reads it
    child = await read_pid(host.home / "child")
    process.terminate()
    done = await process.wait()
    assert (done.stdout, done.exit_status) == (b"got TERM\n", 7)
    await until_gone(child)


async def test_every_byte_of_input_arrives_and_then_its_end(connection: asyncssh.SSHClientConnection) -> None:
    data = bytes(range(256)) * 12_000
    done = await connection.run("cat", input=data, encoding=None)
    assert done.stdout == data


async def test_a_command_that_does_not_read_its_input_does_not_hold_the_client_up(
    host: DemoHost, connection: asyncssh.SSHClientConnection
) -> None:
    waiting = "exec <&-; while [ ! -e go ]; do sleep 0.02; done; echo fine"
    process = await connection.create_process(waiting, encoding=None)
    with anyio.fail_after(LIMIT_S):
        for _ in range(8):
            process.stdin.write(b"x" * 1_000_000)
            await process.stdin.drain()
    (host.home / "go").touch()
    done = await process.wait()
    assert (done.stdout, done.exit_status) == (b"fine\n", 0)


async def test_twenty_megabytes_of_output_arrive_without_loss(
    host: DemoHost, connection: asyncssh.SSHClientConnection
) -> None:
    data = os.urandom(1 << 20) * 20
    (host.home / "big").write_bytes(data)
    done = await connection.run("cat big; cat big >&2", encoding=None)
    assert isinstance(done.stdout, bytes)
    assert isinstance(done.stderr, bytes)
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    assert hashlib.sha256(done.stderr).digest() == hashlib.sha256(data).digest()
    assert done.exit_status == 0


@needs_proc
async def test_output_that_nobody_reads_waits_in_the_command_not_in_memory(
    host: DemoHost, connection: asyncssh.SSHClientConnection
) -> None:
    process = await connection.create_process("echo $$ > pid; exec cat /dev/zero", encoding=None, window=65536)
    pid = await read_pid(host.home / "pid")

    def written() -> int:
        return int(Path(f"/proc/{pid}/io").read_text().partition("wchar: ")[2].split()[0])

    last = -1
    with anyio.fail_after(LIMIT_S):
        while (now := written()) != last:  # it has come to a halt
            last = now
            await anyio.sleep(0.2)
    assert last < 4_000_000
    process.close()
    await process.wait_closed()
    await until_gone(pid)


async def test_closing_the_channel_ends_the_process_group_even_one_that_ignores_term(
    host: DemoHost, connection: asyncssh.SSHClientConnection
) -> None:
    process = await connection.create_process("trap '' TERM HUP; sleep 600 & echo $! > child; echo $$ > shell; wait")
    pids = [await read_pid(host.home / name) for name in ("child", "shell")]
    assert all(alive(pid) for pid in pids)
    process.close()
    await until_gone(*pids)


@needs_proc
async def test_what_a_finished_command_left_running_lives_on_until_the_host_closes() -> None:
    # Each can be found in one way alone: by its session, by its environment, by the folder it stands in.
    left = {
        "session": "env -i sh -c 'echo $$ > session; cd /; exec sleep 600'",
        "environment": "setsid sh -c 'echo $$ > environment; cd /; exec sleep 600'",
        "folder": "env -i setsid sh -c 'echo $$ > folder; exec sleep 600'",
    }
    async with demo_host() as host, connect(host) as connection:
        done = await connection.run("".join(f"{each} >/dev/null 2>&1 </dev/null &\n" for each in left.values()))
        assert done.exit_status == 0
        pids = [await read_pid(host.home / name) for name in left]
        assert all(alive(pid) for pid in pids)
    assert not any(alive(pid) for pid in pids)
    assert not host.home.exists()


async def test_the_host_closes_in_bounded_time_while_commands_run() -> None:
    async with demo_host() as host, connect(host) as connection:
        for number in range(5):
            await connection.create_process(f"trap '' TERM; echo $$ > pid{number}; while :; do sleep 600; done")
        pids = [await read_pid(host.home / f"pid{number}") for number in range(5)]
        (host.home / "locked").mkdir(mode=0)
        began = time.monotonic()
    assert time.monotonic() - began < 5
    assert not any(alive(pid) for pid in pids)
    assert not host.home.exists()


async def test_a_lost_connection_ends_its_commands(host: DemoHost) -> None:
    with contextlib.suppress(asyncssh.Error, OSError):
        async with connect(host) as connection:
            await connection.create_process("echo $$ > pid; exec sleep 600")
            pid = await read_pid(host.home / "pid")
            connection.abort()
    await until_gone(pid)


async def test_only_the_right_password_and_the_right_key_log_in(host: DemoHost) -> None:
    for wrong in ({"password": host.password + "x"}, {"username": "somebody"}, {"password": ""}):
        with pytest.raises(asyncssh.PermissionDenied):
            async with connect(host, **wrong):
                pass
    key = asyncssh.import_private_key(base64.b64decode(host.private_key))
    async with connect(host, password=None, client_keys=[key]) as connection:
        assert (await connection.run("echo in")).stdout == "in\n"
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    with pytest.raises(asyncssh.PermissionDenied):
        async with connect(host, password=None, client_keys=[stranger]):
            pass


async def test_secrets_are_not_in_the_host_s_repr(host: DemoHost) -> None:
    assert host.password not in repr(host)
    assert host.private_key not in repr(host)


async def test_sftp_sees_the_home_and_nothing_above_it(
    host: DemoHost, connection: asyncssh.SSHClientConnection
) -> None:
    (host.home / "note").write_text("hello")
    async with connection.start_sftp_client() as sftp:
        assert await sftp.realpath(".") == "/"
        assert "note" in await sftp.listdir(".")
        assert not await sftp.exists("/../../etc/passwd")
        async with sftp.open("new", "wb") as file:
            await file.write(b"\x00\xff")
    assert (host.home / "new").read_bytes() == b"\x00\xff"


async def test_an_sftp_channel_that_closes_before_its_first_word_does_not_disturb_the_connection(
    connection: asyncssh.SSHClientConnection,
) -> None:
    running = await connection.create_process("cat")
    early = await connection.create_process(subsystem="sftp", encoding=None)
    early.close()
    await early.wait_closed()
    ended = await connection.create_process(subsystem="sftp", encoding=None)
    ended.stdin.write_eof()
    await ended.wait_closed()
    done = await running.communicate("still here\n")
    assert done[0] == "still here\n"


async def test_channels_of_a_connection_are_bounded_and_come_free_again(
    connection: asyncssh.SSHClientConnection,
) -> None:
    open_ones = [await connection.create_process("cat") for _ in range(MAX_CHANNELS)]
    with pytest.raises(asyncssh.ChannelOpenError):
        await connection.create_process("cat")
    for process in open_ones:
        process.stdin.write_eof()
        await process.wait()
    assert (await connection.run("echo again")).stdout == "again\n"


async def test_other_subsystems_terminals_and_forwarding_are_refused(connection: asyncssh.SSHClientConnection) -> None:
    with pytest.raises(asyncssh.ChannelOpenError):
        await connection.create_process(subsystem="netconf")
    with pytest.raises(asyncssh.ChannelOpenError):
        await connection.create_process("tty", term_type="xterm")
    with pytest.raises(asyncssh.ChannelOpenError):
        await connection.open_connection("127.0.0.1", 1)


async def test_without_a_command_the_shell_reads_its_input(connection: asyncssh.SSHClientConnection) -> None:
    done = await connection.run(input="cd /; pwd; exit 4\n")
    assert (done.stdout, done.exit_status) == ("/\n", 4)


async def test_two_hosts_share_nothing(host: DemoHost) -> None:
    async with demo_host() as other:
        assert len({host.port, other.port}) == 2
        assert len({host.fingerprint, other.fingerprint}) == 2
        assert len({host.password, other.password}) == 2
        async with connect(other) as connection:
            (host.home / "mine").touch()
            assert (await connection.run("ls")).stdout == ""
    assert host.home.exists()
