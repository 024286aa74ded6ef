"""An SSH host inside this process, to try everything on: loopback only, random credentials, and a home of its own.

It is not a sandbox: what it runs, it runs as you, with your rights; only the home folder is its own. A command runs as
sshd would run it, `/bin/sh -c TEXT` in a session of its own. It ends with its channel, and what it left running ends
with the host.
"""

import base64
import contextlib
import getpass
import hmac
import logging
import os
import secrets
import shutil
import signal
import stat
import tempfile
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import asyncssh
from asyncssh.constants import OPEN_CONNECT_FAILED
from asyncssh.sftp import MIN_SFTP_VERSION, run_sftp_server

from mcp_ssh.ssh.demo.process import Child, group_exists, left_behind

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 32
MAX_CHANNELS = 10
"""Commands at once on one connection, as sshd's MaxSessions has it by default (sshd_config(5))."""

LOGIN_LIMIT_S = 20
CLOSE_LIMIT_S = 5.0
_SWEEPS = 50
_PAUSE_S = 0.02


@dataclass(frozen=True)
class DemoHost:
    """How to reach the host, and as whom. Password and key are valid until it closes.

    Attributes:
        private_key: The key that may log in, as base64 of its file: what `session_connect` takes as `key_content`.
        public_key: The host key, as a line of known_hosts has it after the name.
        fingerprint: Of the host key, as OpenSSH writes it.
        home: The home folder of commands and the root of SFTP; removed at the end.
    """

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    private_key: str = field(repr=False)
    public_key: str
    fingerprint: str
    home: Path


@contextlib.asynccontextmanager
async def demo_host(port: int = 0) -> AsyncGenerator[DemoHost]:
    """Run the host for as long as the block lasts; then close connections, end commands, and remove the home.

    Raises:
        OSError: The port is taken.
    """
    home = await anyio.to_thread.run_sync(lambda: Path(tempfile.mkdtemp(prefix="mcp-ssh-demo-")).resolve())
    try:
        host_key, user_key = await anyio.to_thread.run_sync(
            lambda: [asyncssh.generate_private_key("ssh-ed25519", comment="") for _ in range(2)]
        )
        house = _House(home, user_key.public_data)
        async with anyio.create_task_group() as group:
            house.group = group
            listener = await _listen(house, host_key, port)
            try:
                yield DemoHost(
                    host="127.0.0.1",
                    port=listener.get_port(),
                    username=house.username,
                    password=house.password,
                    private_key=base64.b64encode(user_key.export_private_key()).decode(),
                    public_key=host_key.export_public_key().decode().strip(),
                    fingerprint=host_key.get_fingerprint(),
                    home=home,
                )
            finally:
                with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_LIMIT_S):
                    await _close(listener, house)
                group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_remove, home)


async def _listen(house: "_House", host_key: asyncssh.SSHKey, port: int) -> asyncssh.SSHAcceptor:
    return await asyncssh.listen(
        "127.0.0.1",
        port,
        server_factory=lambda: _Visitor(house),
        server_host_keys=[host_key],
        encoding=None,
        login_timeout=LOGIN_LIMIT_S,
        allow_pty=False,
        line_editor=False,
        agent_forwarding=False,
        x11_forwarding=False,
        gss_host=None,
    )


async def _close(listener: asyncssh.SSHAcceptor, house: "_House") -> None:
    listener.close()
    connections = list(house.connections)
    for connection in connections:
        connection.abort()
    for connection in connections:
        await connection.wait_closed()
    await listener.wait_closed()
    await house.idle()
    await _sweep(house)


async def _sweep(house: "_House") -> None:
    """End what commands left running, until two looks in a row find nothing: a process may be forking meanwhile."""
    clean = 0
    for _ in range(_SWEEPS):
        found = await anyio.to_thread.run_sync(left_behind, house.mark, house.home, frozenset(house.sessions))
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        clean = 0 if found else clean + 1
        if clean == 2:
            return
        await anyio.sleep(_PAUSE_S)


def _remove(home: Path) -> None:
    """Remove the home, with the folders a command may have locked. Blocks: run it in a thread."""
    for folder, names, _ in os.walk(home):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.chmod(stat.S_IRWXU)
    shutil.rmtree(home, ignore_errors=True)


def _login_name() -> str:
    """The name of the account that commands really run as."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "demo"  # a container may run us under a uid that has no name


class _House:
    """What all connections share: who may enter, and what runs.

    Attributes:
        mark: In the environment of every command, so that it is found wherever it went.
        sessions: Session ids of commands that run, or ended and left others running.
    """

    group: anyio.abc.TaskGroup

    def __init__(self, home: Path, user_key: bytes) -> None:
        self.home = home
        self.username = _login_name()
        self.password = secrets.token_urlsafe(18)
        self.user_key = user_key
        self.mark = f"MCP_SSH_DEMO={secrets.token_hex(8)}"
        self.connections: set[asyncssh.SSHServerConnection] = set()
        self.sessions: set[int] = set()
        self._running = 0
        self._idle = anyio.Event()

    async def idle(self) -> None:
        """Wait until no command is attended to any more; with every connection closed that is soon."""
        if self._running:
            self._idle = anyio.Event()
            await self._idle.wait()

    def environment(self, channel: "_Channel") -> dict[str, str]:
        """The environment of a command: nothing of ours but PATH; of the client's what sshd usually lets in."""
        sent = {name: value for name, value in channel.env.items() if name == "LANG" or name.startswith("LC_")}
        here, peer = channel.get_extra_info("sockname"), channel.get_extra_info("peername")
        mark, _, value = self.mark.partition("=")
        return sent | {
            "HOME": str(self.home),
            "PATH": os.environ.get("PATH") or os.defpath,
            "USER": self.username,
            "LOGNAME": self.username,
            "SHELL": "/bin/sh",
            "SSH_CLIENT": f"{peer[0]} {peer[1]} {here[1]}",
            "SSH_CONNECTION": f"{peer[0]} {peer[1]} {here[0]} {here[1]}",
            mark: value,
        }

    def serve(self, channel: "_Channel") -> None:
        """Run what the channel asks for, in a task of the host's own."""
        self._running += 1
        self.group.start_soon(self._serve, channel)

    async def _serve(self, channel: "_Channel") -> None:
        try:
            await (self._run(channel) if channel.subsystem is None else self._transfer(channel))
        except Exception as error:  # noqa: BLE001 one channel that fails must not end the others
            log.warning("a channel of the demo host failed: %s", type(error).__name__)
            channel.close()
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def _run(self, channel: "_Channel") -> None:
        if channel.get_extra_info("peername") is None:
            return  # the client has left already
        words = ["/bin/sh"] if channel.command is None else ["/bin/sh", "-c", channel.command]
        try:
            child = await Child.start(words, self.home, self.environment(channel))
        except (OSError, ValueError) as error:  # too many processes; a command with a NUL in it
            channel.report(126, f"sh: {error}\n")
            return
        self.sessions.add(child.pid)
        channel.on_signal = child.deliver
        try:
            status = await child.attend(channel)
        finally:
            with anyio.CancelScope(shield=True):
                await child.end()
            if not group_exists(child.pid):
                self.sessions.discard(child.pid)
        if status is not None:
            channel.report(status)

    async def _transfer(self, channel: "_Channel") -> None:
        server = asyncssh.SFTPServer(channel.channel, chroot=os.fsencode(self.home))
        reader = asyncssh.SSHReader[bytes](channel, channel.channel)
        writer = asyncssh.SSHWriter[bytes](channel, channel.channel)
        with contextlib.suppress(asyncssh.Error, EOFError, OSError):  # the client left
            await run_sftp_server(server, reader, writer, MIN_SFTP_VERSION)
        channel.close()


class _Visitor(asyncssh.SSHServer):
    """One connection: its login, and its channels, which are bounded."""

    def __init__(self, house: _House) -> None:
        self._house = house
        self._connection: asyncssh.SSHServerConnection | None = None
        self._channels = 0

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        if len(self._house.connections) >= MAX_CONNECTIONS:
            conn.abort()
        else:
            self._house.connections.add(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._connection is not None:
            self._house.connections.discard(self._connection)

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        known = hmac.compare_digest(username.encode(), self._house.username.encode())
        return hmac.compare_digest(password.encode(), self._house.password.encode()) and known

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return username == self._house.username and key.public_data == self._house.user_key

    def session_requested(self) -> "_Channel":
        if self._channels >= MAX_CHANNELS:
            raise asyncssh.ChannelOpenError(OPEN_CONNECT_FAILED, "open failed")
        self._channels += 1
        return _Channel(self._house, self._release_channel)

    def _release_channel(self) -> None:
        self._channels -= 1


class _Channel(asyncssh.SSHServerProcess[bytes]):
    """A channel with a command, a shell or SFTP on it."""

    def __init__(self, house: _House, on_close: Callable[[], None]) -> None:
        def start(process: asyncssh.SSHServerProcess[bytes]) -> None:
            del process  # it is this one
            house.serve(self)

        super().__init__(start, None, MIN_SFTP_VERSION, allow_scp=False)
        self._house = house
        self._on_close = on_close
        self.on_signal: Callable[[str], None] | None = None

    def subsystem_requested(self, subsystem: str) -> bool:
        return subsystem == "sftp"

    def session_started(self) -> None:
        # SFTP runs in our task: in one of asyncssh's, a client that leaves before it says anything would be an
        # error of the server, which ends the whole connection.
        if self.subsystem == "sftp":
            self._house.serve(self)
        else:
            super().session_started()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._on_close()

    def signal_received(self, signal: str) -> None:
        """Pass the signal on at once, past whatever input still waits."""
        if self.on_signal is not None:
            self.on_signal(signal)

    def break_received(self, msec: int) -> bool:
        del msec
        return False

    def terminal_size_changed(self, width: int, height: int, pixwidth: int = 0, pixheight: int = 0) -> None:
        """Nothing: there is no terminal here."""
        del width, height, pixwidth, pixheight

    def report(self, status: int, error: str = "") -> None:
        """Say how the command ended, and close the channel; a negative status is a signal's number."""
        with contextlib.suppress(OSError):  # closed meanwhile: nobody listens
            if error:
                self.stderr.write(error.encode())
            if status < 0:
                self.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
            else:
                self.exit(status)
