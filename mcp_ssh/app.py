"""The long-lived objects of one server process, opened together and closed in the right order. It has no verbs."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

from mcp_ssh import config as configuration
from mcp_ssh.config import Config
from mcp_ssh.errors import ShuttingDown
from mcp_ssh.policy import CallLimits, expect_tools
from mcp_ssh.ssh.asking import Asking
from mcp_ssh.ssh.calls import Calls
from mcp_ssh.ssh.connect import open_session
from mcp_ssh.ssh.hostkeys import HostKeys
from mcp_ssh.ssh.kill import Stopped, combine
from mcp_ssh.ssh.links import Links
from mcp_ssh.ssh.login import Resolver, aliases
from mcp_ssh.ssh.pool import Sessions
from mcp_ssh.ssh.session import Session
from mcp_ssh.ssh.wanted import Connect
from mcp_ssh.store import Kept, Store
from mcp_ssh.store.blobs import Blobs
from mcp_ssh.tool import Call, Caller

SWEEP_S = 60.0
"""How often expired blobs are looked for."""


def known_hosts_files() -> list[Path]:
    """The files of the server's owner and of the machine, as OpenSSH names them; they are only read."""
    return [Path.home() / ".ssh/known_hosts", Path("/etc/ssh/ssh_known_hosts")]


async def _sweep(blobs: Blobs) -> None:
    """Remove expired blobs, for as long as the server lives."""
    while True:
        await anyio.sleep(SWEEP_S)
        await blobs.sweep()


def _stopping(stops: Sequence[Stopped]) -> ShuttingDown:
    details = {"stopped": combine(stops).shown()} if stops else {}
    return ShuttingDown(
        "this server is stopping", hint="look at the machine before repeating the call", details=details
    )


@dataclass
class Live:
    """The config that counts now, an object that never changes but is replaced by another, in `turn`.

    Attributes:
        config: What counts. Keys that are read at start keep what they had then, options of the command line included.
        started: What the file said when the server started.
        wanted: What the file says, where it was changed or read again; counts in full once the server starts anew.
        tools: The names of all tools, once whoever calls them has said so: a config that names others will not do.
    """

    config: Config
    started: Config
    wanted: Config | None = None
    tools: Collection[str] | None = None
    turn: anyio.Lock = field(default_factory=anyio.Lock)

    def expect(self, config: Config) -> None:
        """See that a config will do, beyond what its models say.

        Raises:
            InvalidInput: It has consent asked for a tool that is none.
        """
        if self.tools is not None:
            expect_tools(config.security, self.tools)


@dataclass(frozen=True)
class App:
    """What tools and doors share."""

    home: Path
    live: Live
    store: Store
    blobs: Blobs
    hostkeys: HostKeys
    sessions: Sessions
    read_only: bool = False
    links: Links = field(default_factory=Links)
    resolvers: list[Resolver] = field(default_factory=list[Resolver])
    limits: CallLimits = field(default_factory=lambda: CallLimits(64, 0))
    calls: Calls = field(default_factory=lambda: Calls(_stopping))

    @property
    def config(self) -> Config:
        """The config as it is now."""
        return self.live.config

    def asking(self, call: Call) -> Asking:
        """What opens a session for a call, and has a person asked for what is missing."""

        def connect(wanted: Connect) -> Awaitable[Session]:
            return open_session(
                call.caller,
                wanted,
                host_keys=self.hostkeys,
                config=self.config,
                blobs=self.blobs,
                tasks=self.store.tasks,
                links=self.links,
                named=self.named,
            )

        return Asking(call, connect, self.hostkeys, self.read_only)

    async def named(self, caller: Caller, name: str) -> Mapping[str, Any] | None:
        """What `session_connect` takes to reach the machine that a name means to a caller, if it means one."""
        for resolve in self.resolvers:
            if (wanted := await resolve(caller, name)) is not None:
                return wanted
        return None

    async def admitted(self) -> set[str]:
        """The ids of the remote callers that may still come: those with a token, and the one where none is needed."""
        return {"local"} | {token.id for token in await self.store.tokens.list()}


@contextlib.asynccontextmanager
async def open_app(
    home: Path | None = None, config: Config | None = None, *, read_only: bool = False
) -> AsyncGenerator[App]:
    """Open everything a server process needs, and close it in order: calls, sessions, blobs, store.

    Args:
        home: Folder of config and state; by default the one `MCP_SSH_HOME` names.
        config: Instead of the folder's `config.json`.
        read_only: Refuse every tool that changes machines.

    Raises:
        InvalidInput: The config is wrong; names the key.
    """
    folder = home or configuration.home()
    started = configuration.load(folder)
    settings = config or started
    store = await Store.open(folder, Kept(settings.logging.history_rows, settings.logging.history_days))
    blobs = Blobs(folder)
    await blobs.open()
    hostkeys = HostKeys(
        managed=folder / "known_hosts",
        read_only=known_hosts_files(),
        policy=settings.security.host_keys,
        reject_unknown=settings.security.reject_unknown_hosts,
    )
    live = Live(settings, started)
    app = App(
        home=folder,
        live=live,
        store=store,
        blobs=blobs,
        hostkeys=hostkeys,
        sessions=Sessions(settings.ssh.max_concurrent_connections, settings.ssh.idle_minutes * 60),
        read_only=read_only,
        limits=CallLimits(settings.security.max_calls_at_once, settings.security.max_calls_per_minute),
        resolvers=[store.connections.resolve, aliases(lambda: live.config, hostkeys)],
    )
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(app.sessions.tend, app.admitted)
            group.start_soon(_sweep, blobs)
            try:
                yield app
            finally:
                with anyio.CancelScope(shield=True):
                    await app.calls.close()
                    await app.sessions.close_all()
                group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await blobs.close()
            await store.close()
