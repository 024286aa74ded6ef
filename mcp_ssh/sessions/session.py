"""A live session: one account on one machine, opened by one caller."""

import asyncio
import contextlib
import copy
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field

import anyio
from pydantic import SecretStr

from mcp_ssh.blobs.blobs import Blobs
from mcp_ssh.errors import Conflict, RemoteFailed, TimedOut
from mcp_ssh.host_patterns import Machine
from mcp_ssh.linux.files.protected_paths import add_protection
from mcp_ssh.linux.system import platform as detect
from mcp_ssh.linux.system.platform import Platform
from mcp_ssh.params import Become
from mcp_ssh.policy import LocalFolders, Rules
from mcp_ssh.shell_command import Command
from mcp_ssh.ssh.connection.account import RemoteAccount
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.ssh.connection.warm_shells import only_looks
from mcp_ssh.ssh.errors import connection_lost
from mcp_ssh.ssh.exec.answer_budget import AnswerRoom
from mcp_ssh.ssh.exec.capture import Capture
from mcp_ssh.ssh.exec.run import CommandResult, CommandRun, Stdin
from mcp_ssh.ssh.pty.shell import Shells
from mcp_ssh.ssh.running_calls import Calls
from mcp_ssh.ssh.wire.become import BecomeTarget, acting_as
from mcp_ssh.ssh.wire.command import CommandEnvelope, build_envelope
from mcp_ssh.ssh.wire.kill import StopResult, combine
from mcp_ssh.store.tasks import TaskTable
from mcp_ssh.tunnels.forward import Tunnels

ANSWER_LIMIT = 64 * 1024
"""The most a command of our own may answer with, in bytes; what needs more is asked through `reading.ask`."""


class AnswerTooLong(RemoteFailed):
    """The machine's answer is longer than it may be."""


@dataclass(frozen=True)
class Output:
    """What a command of our own answered."""

    exit_code: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)

    @property
    def error_text(self) -> str:
        """Standard error as text, its last KiB."""
        return self.stderr[-1024:].decode("utf-8", "replace").strip()


@dataclass(frozen=True)
class Limits:
    """What the config allows on a session."""

    output_bytes: int
    file_bytes: int
    local_folders: LocalFolders
    task_output_bytes: int = 16 * 1024 * 1024
    task_keep_days: int = 7


@dataclass
class Learned:
    """What a session has asked its machine already; shared by the sessions that act as other accounts."""

    platform: Platform | None = None
    turn: anyio.Lock = field(default_factory=anyio.Lock)


def session_closed(stops: Sequence[StopResult]) -> Conflict:
    """The error of a call whose session was closed, after what became of the processes that it had started."""
    if not stops:
        return Conflict("the session was closed before the call ended", hint="open one with session_connect")
    stopped = combine(stops)
    if stopped.ended:
        return Conflict(
            "the session was closed, and the command that the call ran was ended",
            hint="open one with session_connect",
            details={"stopped": True},
        )
    return Conflict(
        "the session was closed; what the call had started may still run",
        hint="open one with session_connect, and look at the machine before repeating",
        details={"stopped": stopped.as_field(), "survivors": stopped.survivors},
    )


class Session:
    """A connected account. Tools get one as the place they run."""

    def __init__(
        self,
        *,
        caller_id: str,
        host: str,
        port: int,
        username: str,
        link: Connection,
        account: RemoteAccount,
        limits: Callable[[], Limits],
        blobs: Blobs,
        tasks: TaskTable,
        expires: bool,
        login_password: SecretStr | None = None,
        rules: Callable[[], Rules] = Rules,
        renew_rules: Callable[[], Awaitable[None]] | None = None,
        machine: Machine | None = None,
        called: tuple[str, ...] = (),
    ) -> None:
        self.id = secrets.token_hex(6)
        self.caller_id = caller_id
        self.host = host
        self.machine = machine or Machine.of([host])
        self.called = called
        """Names by which the machine was asked for, which `security.hosts` may use beside its own."""
        self.port = port
        self.username = username
        self.account = account
        self.blobs = blobs
        self.tasks = tasks
        self.expires = expires
        self.link = link
        self.tunnels = Tunnels(link)
        self.shells = Shells(link)
        self.alias: str | None = None
        self.by_name = False
        self.name_version: str | None = None
        self._reserved = 0
        self.acting: BecomeTarget | None = None
        self._rules = rules
        self._renew_rules = renew_rules
        self._limits = limits
        self._login_password = login_password
        self._learned = Learned()
        self._passwords: dict[tuple[str, str], SecretStr] = {}
        self.environment: dict[str, str] = {}
        self.calls = Calls(session_closed)
        self.last_used = time.monotonic()

    @property
    def last_active(self) -> float:
        """When it was last of use, on the monotonic clock: a call, traffic of a tunnel, or output of a shell."""
        return max(self.last_used, self.tunnels.last_traffic, self.shells.last_output)

    @property
    def in_use(self) -> bool:
        """Whether a call runs on it, or is about to."""
        return bool(self._reserved or len(self.calls))

    @property
    def evictable(self) -> bool:
        """Whether it can give way to another one: nobody notices, since its name opens it again as it was."""
        return self.by_name and not (self.in_use or len(self.tunnels) or len(self.shells) or self.environment)

    @contextlib.contextmanager
    def reserve(self) -> Generator[None]:
        """Keep the session for a call that is about to run on it."""
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1
            self.last_used = time.monotonic()

    async def renew_rules(self) -> None:
        """Judge the machine again where the owner's config has changed, by every name that it uses now."""
        if self._renew_rules is not None:
            await self._renew_rules()

    @property
    def rules(self) -> Rules:
        """What the owner's config allows on this machine now, not when the session was opened."""
        return self._rules()

    @property
    def limits(self) -> Limits:
        """The limits that the config sets now."""
        return self._limits()

    @property
    def connected(self) -> bool:
        """Whether the connection stands; keepalives find a dead one."""
        return self.link.alive

    @property
    def has_shell(self) -> bool:
        """Whether the account runs commands; one that does not may still have SFTP."""
        return "exec" in self.account.features or "sftp" not in self.account.features

    @property
    def name(self) -> str:
        """`user@host`, with the port where it is not 22; IPv6 addresses in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.username}@{host}" + (f":{self.port}" if self.port != 22 else "")

    def becoming(self, become: Become | None) -> "Session":
        """The same session, on which every command runs as another account; itself where that is its own or None.

        Raises:
            InvalidInput: The login password is to be used, and there is none.
            Refused: The owner denies the program that makes it so.
        """
        if become is None or become.user == self.username:
            return self
        self.rules.expect_becoming(become.method)
        other = copy.copy(self)
        kept = self._passwords.get((become.user, become.method))
        other.acting = acting_as(become, self._login_password, kept)
        return other

    async def as_root(self) -> "Session":
        """The session for what only root may do: itself where it is root or acts as somebody, else `sudo -n`.

        Raises:
            Refused: The owner denies sudo on this machine.
        """
        if self.acting is not None or (await self.platform()).uid == 0:
            return self
        return self.becoming(Become())

    @contextlib.asynccontextmanager
    async def on_new_connection(self, limit_s: float) -> AsyncGenerator["Session"]:
        """The session over a connection of its own, just made. After `limit_s` that is gone, whatever runs on it.

        Raises:
            TimedOut: There was none within `limit_s`.
            ToolError: As connecting does.
        """
        until = anyio.current_time() + limit_s
        try:
            with anyio.fail_after(limit_s):
                link = await self.link.dial_unshared()
        except TimeoutError as error:
            raise TimedOut(f"{self.name} did not answer a new connection within {limit_s:g} s") from error
        cut = asyncio.get_running_loop().call_at(until, link.connection.abort)
        other = copy.copy(self)
        other.link = link
        try:
            yield other
        finally:
            cut.cancel()
            link.connection.abort()

    async def platform(self, *, refresh: bool = False) -> Platform:
        """What kind of Linux the machine is: one round trip at first use, then known.

        Args:
            refresh: Ask again, as after something that may have changed the answer.

        Raises:
            RemoteFailed: The machine's shell does not answer as a shell does.
        """
        login = copy.copy(self)
        login.acting = None
        async with self._learned.turn:
            if self._learned.platform is None or refresh:
                first, second = secrets.token_hex(8), secrets.token_hex(8)
                output = await login.run(detect.detect(first, second))
                self._learned.platform = detect.parse(output.stdout, first + second)
            return self._learned.platform

    def has_password(self, become: Become) -> bool:
        """Whether there is a password for becoming the account."""
        given = become.password is not None or become.use_login_password
        return given or (become.user, become.method) in self._passwords

    def remember(self, become: Become, password: SecretStr) -> None:
        """Use a password that proved right again, for as long as the session lives."""
        self._passwords[become.user, become.method] = password

    async def execute(
        self,
        command: str,
        *,
        timeout_s: float,
        stdout: Capture,
        stderr: Capture,
        stdin: Stdin = None,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        exact: bool = False,
    ) -> CommandResult:
        """Run a caller's command as the account's shell reads it; output goes to the captures.

        At the deadline, and when the call is cancelled, every process of the command is ended first. `exact` has it
        run on a channel of its own even where a warm shell waits, as does standard input that comes while it runs.

        Raises:
            ConnectFailed: The connection is gone.
            NotFound: `cwd` does not exist.
            Unsupported: The account may not run commands.
            PermissionDenied: The session acts as an account it may not become.
        """
        env = {**self.environment, **(env or {})}
        streams = stdin is not None and not isinstance(stdin, bytes)
        prepared = build_envelope(
            command, shell=self.account.shell, cwd=cwd, env=env, acting=self.acting, exact=exact or streams
        )
        try:
            return await self._send(prepared, stdin, timeout_s, stdout, stderr)
        finally:
            if not only_looks(command):
                self.renew_spares()

    def renew_spares(self) -> None:
        """Have no shell wait any longer that knows nothing of what may have changed, as the next login would."""
        self.link.spares.renew()

    async def _send(
        self, prepared: CommandEnvelope, stdin: Stdin, timeout_s: float, stdout: Capture, stderr: Capture
    ) -> CommandResult:
        if not self.connected:
            raise connection_lost()
        return await CommandRun(self.link, prepared, stdout, stderr).run(stdin, timeout_s)

    async def run(
        self,
        command: Command,
        *,
        timeout_s: float = 30.0,
        limit: int = ANSWER_LIMIT,
        room: AnswerRoom | None = None,
    ) -> Output:
        """Run a command of our own and return all it says.

        Raises:
            TimedOut: It did not end in time; `details["stopped"]` says what became of it.
            AnswerTooLong: It said more than `limit` bytes.
            ConnectFailed: The connection is gone.
            PermissionDenied: The session acts as an account it may not become.
            Refused: A pattern of the owner denies it on this machine.
        """
        command = self.protect(command)
        stdout, stderr = Capture(limit, room=room), Capture(64 * 1024)
        prepared = build_envelope(command.line(), shell=self.account.shell, acting=self.acting, ours=True)
        ended = await self._send(prepared, command.stdin, timeout_s, stdout, stderr)
        if ended.exit_code is None:
            stopped = ended.stopped.as_field() if ended.stopped else "unknown"
            if room is not None and room.waits:
                raise TimedOut(
                    f"within {timeout_s:g} s this server had no memory free for the rest of the machine's answer, since"
                    " it holds other large answers",
                    hint="try again, with fewer large answers at once",
                    details={"stopped": stopped},
                )
            raise TimedOut(f"the machine did not answer within {timeout_s:g} s", details={"stopped": stopped})
        if stdout.truncated:
            raise AnswerTooLong(f"the machine answered with more than {limit} bytes", hint="narrow the request")
        errors = stderr.whole() if not stderr.truncated else b"".join(stderr.ends())
        return Output(ended.exit_code, stdout.whole(), errors)

    def protect(self, command: Command) -> Command:
        """A command of our own with what is protected on this machine in it.

        Raises:
            Refused: It is a program that a pattern denies here.
        """
        self.rules.expect_program(command.argv)
        return add_protection(command, self.rules.protected)

    async def close(self) -> StopResult | None:
        """End what runs on the session, then its connection, unless other sessions go over it.

        Calls, shells and tunnels end side by side. Nobody can find the session any more, so a caller that leaves
        meanwhile does not leave the rest of it behind.

        Returns:
            What became of the processes of its calls and shells; None where nothing ran.
        """
        stops: list[StopResult] = []

        async def end(close: Callable[[], Awaitable[Sequence[StopResult]]]) -> None:
            stops.extend(await close())

        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                group.start_soon(end, self.calls.close)
                group.start_soon(end, self.shells.close_all)
                group.start_soon(self.tunnels.end)
            if await self.link.leave():
                stops.append(StopResult(ended=None))
        return combine(stops) if stops else None
