"""The long-lived objects of one server process, opened together and closed in the right order. It has no verbs."""

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from mcp_ssh.blobs.blobs import Blobs
from mcp_ssh.config import models as configuration
from mcp_ssh.config.edit import differences, needs_restart, running
from mcp_ssh.config.models import Config
from mcp_ssh.errors import InvalidInput, ShuttingDown
from mcp_ssh.policy import CallLimits, Rate, expect_tools
from mcp_ssh.sessions.elicitation import ConnectingCall
from mcp_ssh.sessions.login_planner import Resolver, aliases
from mcp_ssh.sessions.open import open_session
from mcp_ssh.sessions.registry import SessionRegistry
from mcp_ssh.sessions.session import Session
from mcp_ssh.sessions.target import Connect
from mcp_ssh.ssh.connection.sharing import Links
from mcp_ssh.ssh.hostkeys.store import HostKeys
from mcp_ssh.ssh.running_calls import Calls
from mcp_ssh.ssh.wire.kill import StopResult, combine
from mcp_ssh.store import RetentionPolicy, Store
from mcp_ssh.tool import Call, Caller

log = logging.getLogger(__name__)

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


def _stopping(stops: Sequence[StopResult]) -> ShuttingDown:
    details = {"stopped": combine(stops).as_field()} if stops else {}
    return ShuttingDown(
        "this server is stopping", hint="look at the machine before repeating the call", details=details
    )


def _scan_rate(per_minute: Callable[[], int]) -> Rate:
    return Rate("scans or connections without a login", "security.max_scans_per_minute", per_minute)


SETTLED_S = 0.1
"""A file that changed more recently than this may change again without a new time; it is read at each call."""


@dataclass
class ConfigState:
    """The config in force: an immutable object that is replaced as a whole, by `config_set` in `turn` or by `refresh`.

    Attributes:
        folder: Where `config.json` is.
        config: What is in force. Areas that are read at start keep their values, options of the command line included.
        started: What the file said when the server started.
        version: Which version of the file was read last; see `config.file_version`.
        wanted: What the file says, where it was changed or read again; in force in full after the next start.
        tools: The names of all tools, once they are known: a config that names others is refused.
        listeners: What has to know the config in force when it changes.
    """

    folder: Path
    config: Config
    started: Config
    version: tuple[int, ...]
    wanted: Config | None = None
    tools: Collection[str] | None = None
    turn: anyio.Lock = field(default_factory=anyio.Lock)
    listeners: list[Callable[[Config], None]] = field(default_factory=list[Callable[[Config], None]])
    _reported: Config | None = None
    _loading: anyio.Lock = field(default_factory=anyio.Lock)
    _settled: bool = True

    @property
    def reported(self) -> Config:
        """The config that `config_set` or `config_reload` last told a caller of."""
        return self._reported or self.started

    async def refresh(self) -> None:
        """Read `config.json` again if another process, or an editor, changed it: a policy holds from the next call on.

        A file that is gone or cannot be used changes nothing; the log says so.
        """
        if self._settled and configuration.file_version(self.folder) == self.version:
            return
        async with self._loading:
            version = configuration.file_version(self.folder)
            if self._settled and version == self.version:
                return
            known, self.version = self.version, version
            self._settled = not version or time.time_ns() - version[-1] > SETTLED_S * 1e9
            try:
                load = partial(configuration.load, self.folder, required=True)
                fresh = await anyio.to_thread.run_sync(load)
                self.expect(fresh)
            except InvalidInput as error:
                if version != known:
                    log.warning("%s; the previous config stays in force", error.message)
            else:
                self._put_in_force(fresh)

    def adopt(self, wanted: Config) -> list[str]:
        """Put a config in force that a caller has set or read again, and name the keys that wait for the next start."""
        self._reported = wanted
        self._put_in_force(wanted)
        return needs_restart(differences(self.started, wanted))

    def _put_in_force(self, wanted: Config) -> None:
        self.wanted = wanted
        self.config = running(self.config, wanted)
        for listener in self.listeners:
            listener(self.config)

    def expect(self, config: Config) -> None:
        """Check a config beyond what its models check.

        Raises:
            InvalidInput: It asks for consent for a tool that does not exist.
        """
        if self.tools is not None:
            expect_tools(config.security, self.tools)


@dataclass(frozen=True)
class App:
    """What tools and transports share."""

    home: Path
    live: ConfigState
    store: Store
    blobs: Blobs
    hostkeys: HostKeys
    sessions: SessionRegistry
    read_only: bool = False
    links: Links = field(default_factory=Links)
    resolvers: list[Resolver] = field(default_factory=list[Resolver])
    limits: CallLimits = field(default_factory=lambda: CallLimits(64, 0))
    scans: Rate = field(default_factory=lambda: _scan_rate(lambda: 30))
    calls: Calls = field(default_factory=lambda: Calls(_stopping))

    @property
    def config(self) -> Config:
        """The config as it is now."""
        return self.live.config

    def asking(self, call: Call) -> ConnectingCall:
        """What opens a session for a call, and has a person asked for what is missing."""

        def connect(wanted: Connect) -> Awaitable[Session]:
            return open_session(
                call.caller,
                wanted,
                host_keys=self.hostkeys,
                current=lambda: self.config,
                blobs=self.blobs,
                tasks=self.store.tasks,
                links=self.links,
                named=self.find_named_target,
            )

        return ConnectingCall(call, connect, self.hostkeys, self.read_only)

    async def find_named_target(self, caller: Caller, name: str) -> Mapping[str, Any] | None:
        """What `session_connect` takes to reach the machine that a name means to a caller, if it means one."""
        for resolve in self.resolvers:
            if (wanted := await resolve(caller, name)) is not None:
                return wanted
        return None

    def apply(self, config: Config) -> None:
        """Give the parts of the app that keep their own limits those of a config."""
        security, ssh = config.security, config.ssh
        self.hostkeys.set_policy(security.host_keys, reject_unknown=security.reject_unknown_hosts)
        self.limits.set_bounds(security.max_calls_at_once, security.max_calls_per_minute)
        self.sessions.set_bounds(ssh.max_concurrent_connections, ssh.idle_minutes * 60)

    async def active_caller_ids(self) -> set[str]:
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
    version = configuration.file_version(folder)
    started = configuration.load(folder)
    settings = config or started
    store = await Store.open(folder, RetentionPolicy(settings.logging.history_rows, settings.logging.history_days))
    blobs = Blobs(folder)
    await blobs.open()
    hostkeys = HostKeys(
        managed=folder / "known_hosts",
        read_only=known_hosts_files(),
        policy=settings.security.host_keys,
        reject_unknown=settings.security.reject_unknown_hosts,
    )
    live = ConfigState(folder, settings, started, version)
    app = App(
        home=folder,
        live=live,
        store=store,
        blobs=blobs,
        hostkeys=hostkeys,
        sessions=SessionRegistry(settings.ssh.max_concurrent_connections, settings.ssh.idle_minutes * 60),
        read_only=read_only,
        limits=CallLimits(settings.security.max_calls_at_once, settings.security.max_calls_per_minute),
        scans=_scan_rate(lambda: live.config.security.max_scans_per_minute),
        resolvers=[store.connections.resolve, aliases(lambda: live.config, hostkeys)],
    )
    live.listeners.append(app.apply)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(app.sessions.tend, app.active_caller_ids)
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
