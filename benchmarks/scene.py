"""Where benchmarks run: a machine of the fleet, our server in every form, and OpenSSH beside it."""

import asyncio
import contextlib
import functools
import json
import os
import subprocess
import time
from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, SecurityConfig, SshConfig
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import session
from tests.fleet.hosts import Host
from tests.support.doors import Direct
from tests.support.servers import TOKEN, Http, Stdio, serve, stdio

if TYPE_CHECKING:
    import asyncssh

CONFIG = Config(
    security=SecurityConfig(host_keys="accept-new"),
    ssh=SshConfig(max_concurrent_connections=1000, keepalive_interval=30),
)
CIPHER = "aes128-gcm@openssh.com"
USER = "dev"


@dataclass(frozen=True)
class Scene:
    """The machine, a folder in memory, and whether sizes are small, as when somebody works on a benchmark."""

    host: Host
    folder: Path
    quick: bool

    def size(self, full: int, quick: int) -> int:
        """A count or size."""
        return quick if self.quick else full

    @property
    def login(self) -> dict[str, Any]:
        """Arguments of session_connect."""
        return {"host": self.host.ip, "username": USER, "key_path": str(self.host.key_path)}

    @contextlib.asynccontextmanager
    async def api(self) -> AsyncGenerator["Api"]:
        """Our session API without a door, in this process, connected."""
        async with self.app() as app:
            api = Api(app)
            await api.connect(self.login)
            yield api

    @contextlib.asynccontextmanager
    async def app(self) -> AsyncGenerator[App]:
        """Our server's inside."""
        async with open_app(self._home("api"), CONFIG) as app:
            yield app

    @contextlib.asynccontextmanager
    async def stdio(self) -> AsyncGenerator[Stdio]:
        """`ssh-steward stdio` as a process, driven by raw JSON-RPC lines."""
        async with stdio(self._home("stdio"), "--toolsets", "all") as server:
            yield server

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncGenerator["Wire"]:
        """`ssh-steward serve` as a process, and one connection to it."""
        async with serve(self._home("serve")) as server, wire(server) as opened:
            yield opened

    @contextlib.asynccontextmanager
    async def bare(self) -> AsyncGenerator["asyncssh.SSHClientConnection"]:
        """What asyncssh does alone."""
        import asyncssh

        connection = await asyncssh.connect(
            self.host.ip,
            username=USER,
            client_keys=[str(self.host.key_path)],
            known_hosts=None,
            config=None,
            agent_path=None,
        )
        async with connection:
            yield connection

    @contextlib.contextmanager
    def mux(self) -> Generator["Mux"]:
        """OpenSSH with one connection that is kept (ControlMaster)."""
        socket = self.folder / "mux"
        words = self.host.ssh_argv(USER)
        shared = [*words[:-1], "-c", CIPHER, "-S", str(socket), words[-1]]
        with subprocess.Popen([*shared[:-1], "-M", "-N", shared[-1]]) as master:
            try:
                deadline = time.monotonic() + 10
                while not socket.exists() and time.monotonic() < deadline:
                    time.sleep(0.01)
                yield Mux(shared, socket)
            finally:
                master.terminate()

    async def outside(self, command: str, user: str = USER) -> str:
        """Have something done on the machine by the system's ssh."""
        answer = await anyio.to_thread.run_sync(functools.partial(self.host.ssh, command, user=user))
        if answer.returncode:
            raise RuntimeError(answer.stderr)
        return answer.stdout

    @contextlib.contextmanager
    def delayed(self, one_way_ms: float) -> Generator[None]:
        """A link on which a round trip takes twice that long, whatever this machine is busy with."""
        self.host.delay(one_way_ms)
        try:
            yield
        finally:
            self.host.clear()

    def _home(self, name: str) -> Path:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        (home / "config.json").write_text(CONFIG.model_dump_json(exclude_defaults=True), "utf-8")
        return home


@dataclass(frozen=True)
class Mux:
    """OpenSSH's client on a kept connection.

    Attributes:
        argv: Its command line, up to where the command goes.
        socket: Where the kept connection listens.
    """

    argv: list[str]
    socket: Path

    async def run(self, command: str) -> None:
        """A command, as a process of its own."""
        process = await asyncio.create_subprocess_exec(*self.argv, command, stdin=asyncio.subprocess.DEVNULL)
        if await process.wait():
            raise RuntimeError(f"ssh {command!r} failed")

    async def shell(self, line: str) -> None:
        """A line for the local shell, in which `$SSH` is the ssh command with host, `$SOCK` the socket."""
        environment = {**os.environ, "SSH": " ".join(self.argv), "SOCK": str(self.socket)}
        process = await asyncio.create_subprocess_shell(line, env=environment, stdin=asyncio.subprocess.DEVNULL)
        if await process.wait():
            raise RuntimeError(f"{line!r} failed")


class Api:
    """Dispatch, with a session."""

    def __init__(self, app: App) -> None:
        self.app = app
        self._direct = Direct(app)
        self.session_id = ""

    async def connect(self, login: dict[str, Any]) -> None:
        """Open the session that calls go to."""
        self.session_id = (await self._direct.call(session.connect, login))["session_id"]

    async def disconnect(self) -> None:
        """Close it."""
        await self._direct.call(session.disconnect, {"session_id": self.session_id})

    async def call(self, tool: AnyTool, **arguments: Any) -> dict[str, Any]:
        """Call a tool on it."""
        return await self._direct.call(tool, {"session_id": self.session_id, **arguments})


class Wire:
    """One kept HTTP connection, spoken by hand: no client library is in the measurement."""

    def __init__(self, server: Http, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self._reader = reader
        self._writer = writer

    async def post(self, path: str, body: Any = None) -> Any:
        """A request with a JSON body, or GET without one; the answer's JSON."""
        content = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        self._writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].partition("\r\n")[0])
        answer = json.loads(await self._reader.readexactly(length))
        if " 200 " not in head.partition("\r\n")[0]:
            raise RuntimeError(str(answer))
        return answer


@contextlib.asynccontextmanager
async def wire(server: Http) -> AsyncGenerator[Wire]:
    """Connect to a server."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Wire(server, reader, writer)
    finally:
        writer.close()
