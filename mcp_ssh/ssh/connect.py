"""Opening a session: look-up, connecting, host key, login and the first channel, all within one deadline."""

import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import anyio
from pydantic import SecretStr

from mcp_ssh.config import Config
from mcp_ssh.errors import AuthFailed, ConnectFailed, InvalidInput, TimedOut, ToolError, Unsupported
from mcp_ssh.ssh.hostkeys import HostKeyCheck, HostKeys
from mcp_ssh.ssh.link import Link, close_channel
from mcp_ssh.ssh.session import Account, Limits, Session
from mcp_ssh.ssh.wire import POSIX_SHELLS, Shell
from mcp_ssh.store.blobs import Blobs
from mcp_ssh.tool import Caller

if TYPE_CHECKING:
    import asyncssh

log = logging.getLogger(__name__)

# AES-GCM first: in asyncssh it costs half of what ChaCha20 does. Group exchange is left out: its primes keep this
# process busy for most of a second.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
    "hmac-sha1-etm@openssh.com",
    "hmac-sha1",
)
KEX = (
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group14-sha256",
)
FEATURES = ("sftp", "shell", "exec", "background_tasks", "tunnels")

# Any shell reads this line; a forced command or a menu does not answer with the mark.
_MARK = "mcp-ssh account"
_ANSWER_LIMIT = 256 * 1024
_ASK = f"exec sh -c 'echo \"{_MARK} $SHELL\"'"


@dataclass(frozen=True)
class Login:
    """Where to, as whom, and with what."""

    host: str
    port: int
    username: str
    password: SecretStr | None = None
    keys: tuple["asyncssh.SSHKey", ...] = field(default=(), repr=False)
    agent_path: str | None = None
    keepalive: bool = True


@dataclass(frozen=True)
class Attempts:
    """How often a network failure is tried again, and how long in all."""

    retries: int
    delay_s: float
    timeout_s: float


async def open_session(
    caller: Caller, login: Login, attempts: Attempts, *, host_keys: HostKeys, config: Config, blobs: Blobs
) -> Session:
    """Connect, log in and learn what the account may do.

    Network failures are tried again, with the delay doubled each time, as long as the deadline allows. A refused login
    or host key is final: trying again could lock the account.

    Raises:
        TimedOut: The deadline passed.
        ConnectFailed: No such name, no route, refused, or no common algorithm.
        AuthFailed: The machine refused the login.
        HostKeyUnconfirmed: The host key is unknown or changed.
        Refused: The host key is revoked.
    """
    where = f"{login.host} port {login.port}"
    try:
        with anyio.fail_after(attempts.timeout_s):
            dialer = Dialer(login, host_keys, config)
            connection = await _persistently(dialer.dial, attempts)
            link = Link(connection, dialer.dial)
            try:
                account = await _account(link)
            except BaseException:
                connection.abort()
                raise
    except TimeoutError as error:
        raise TimedOut(
            f"{where} was not reached and logged in to within {attempts.timeout_s:g} s",
            hint="check host and port, and that a firewall lets this machine through; raise `timeout` for a slow link",
        ) from error
    link.shell = account.shell
    return Session(
        caller_id=caller.id,
        host=login.host,
        port=login.port,
        username=login.username,
        link=link,
        account=account,
        limits=Limits(
            config.security.max_output_kb * 1024,
            config.sftp.max_file_size_mb * 1024 * 1024,
            (blobs.beside("transfers"), *map(Path, config.sftp.local_folders)),
        ),
        blobs=blobs,
        expires=not caller.owner,
    )


async def _persistently(
    dial: Callable[[], Awaitable["asyncssh.SSHClientConnection"]], attempts: Attempts
) -> "asyncssh.SSHClientConnection":
    delay_s = attempts.delay_s
    for left in reversed(range(attempts.retries)):
        try:
            return await dial()
        except NetworkFailed as failure:
            if not left or not failure.passing:
                raise ConnectFailed(failure.message, hint=failure.hint) from failure
            log.info("connecting failed; %d more tries", left)
        await anyio.sleep(delay_s)
        delay_s *= 2
    raise AssertionError("retries is at least 1")


class NetworkFailed(ToolError):
    """The network came in the way; `passing` says whether it may be better in a moment."""

    def __init__(self, message: str, *, passing: bool = True) -> None:
        super().__init__(message, hint="check host and port, and that the machine is up")
        self.passing = passing


class Dialer:
    """Makes connections for one login, each with its host key verified."""

    def __init__(self, login: Login, host_keys: HostKeys, config: Config) -> None:
        self._login = login
        self._host_keys = host_keys
        self._config = config

    async def dial(self) -> "asyncssh.SSHClientConnection":
        """One connection, logged in.

        Raises:
            NetworkFailed: It may succeed later.
            ConnectFailed: It will not.
            AuthFailed: The machine refused the login.
            HostKeyUnconfirmed: The host key is unknown or changed.
        """
        import asyncssh

        check = self._host_keys.client(await self._host_keys.load(), self._login.host, self._login.port)
        while True:
            try:
                return await self._attempt(check)
            except asyncssh.HostKeyNotVerifiable as refusal:
                check = await self._host_keys.settle(check, refusal)
            except (asyncssh.Error, OSError, UnicodeError) as error:
                raise _translated(error, self._login) from error

    async def _attempt(self, check: HostKeyCheck) -> "asyncssh.SSHClientConnection":
        import asyncssh

        seen: list[asyncssh.SSHClientConnection] = []
        options = check.options()
        make_client = options.pop("client_factory")

        def client_factory() -> asyncssh.SSHClient:
            client = make_client()

            def connection_made(connection: asyncssh.SSHClientConnection) -> None:
                seen.append(connection)

            client.connection_made = connection_made
            return client

        connection: asyncssh.SSHClientConnection | None = None
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._want_version, seen, group.cancel_scope)
                connection = await self._connect(client_factory, options)
                group.cancel_scope.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            if connection is None:
                # asyncssh leaves a half-open connection to its own timers when it is cancelled.
                for half_open in seen:
                    half_open.abort()
        if connection is None:
            where = f"{self._login.host} port {self._login.port}"
            raise NetworkFailed(f"{where} accepted the connection but does not speak SSH")
        return connection

    async def _want_version(self, seen: "list[asyncssh.SSHClientConnection]", connecting: anyio.CancelScope) -> None:
        await anyio.sleep(self._config.ssh.banner_timeout)
        if seen and not seen[0].get_extra_info("server_version"):
            connecting.cancel()

    async def _connect(
        self, client_factory: Callable[[], Any], options: dict[str, Any]
    ) -> "asyncssh.SSHClientConnection":
        import asyncssh

        login, config = self._login, self._config
        disabled = config.security.disabled_algorithms
        keys: list[Any] = list(login.keys)
        if login.agent_path is not None:
            keys += await _agent_keys(login.agent_path)
        return await asyncssh.connect(
            login.host,
            login.port,
            username=login.username,
            password=login.password.get_secret_value() if login.password else None,
            client_keys=keys or None,
            client_factory=client_factory,
            config=None,
            agent_path=None,
            gss_auth=False,
            kex_algs=KEX,
            encryption_algs=[each for each in CIPHERS if each not in disabled.ciphers],
            mac_algs=[each for each in MACS if each not in disabled.macs],
            compression_algs=None,
            keepalive_interval=config.ssh.keepalive_interval if login.keepalive else 0,
            keepalive_count_max=3,
            login_timeout=config.ssh.auth_timeout,
            **options,
        )


async def _agent_keys(path: str) -> list[Any]:
    import asyncssh

    try:
        return list(await (await asyncssh.connect_agent(path)).get_keys())
    except (OSError, ValueError, asyncssh.Error) as error:
        raise InvalidInput(
            "use_agent: the ssh-agent of this server does not answer",
            hint="start ssh-agent, or use another way to log in",
        ) from error


def _translated(error: Exception, login: Login) -> ToolError:
    """A failure of asyncssh or the network in our words."""
    import asyncssh

    where = f"{login.host} port {login.port}"
    if isinstance(error, asyncssh.PermissionDenied) or "authentication failures" in str(error):
        return AuthFailed(
            f"{where} refused the login of {login.username}",
            hint="check username, password and key; the machine's own log says why. The login is not tried again.",
        )
    if isinstance(error, socket.gaierror):
        return NetworkFailed(f"the name {login.host} is not known", passing=error.errno == socket.EAI_AGAIN)
    if isinstance(error, UnicodeError):
        return InvalidInput(
            "host: not a host name or address", hint="give a name such as web1.example.org, or an address"
        )
    if isinstance(error, asyncssh.KeyExchangeFailed):
        return ConnectFailed(
            f"{where} has no algorithm in common with this server: {error.reason}",
            hint="update the machine's SSH server",
        )
    if isinstance(error, asyncssh.ConnectionLost):
        return NetworkFailed(f"{where} closed the connection before the login was done")
    if isinstance(error, OSError):
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        return NetworkFailed(f"{where} cannot be reached: {reason.lower()}")
    return ConnectFailed(f"{where}: {getattr(error, 'reason', type(error).__name__)}")


async def _account(link: Link) -> Account:
    """What the account is: one command to ask its shell, and one request to see whether it has SFTP, side by side."""
    found: dict[str, Any] = {}

    async def ask() -> None:
        found["shell"] = await _shell(link)

    async def try_sftp() -> None:
        found["sftp"] = await _has_sftp(link)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(try_sftp)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    shell: Shell | None = found["shell"]
    features = tuple(each for each in FEATURES if (found["sftp"] if each == "sftp" else shell in {"posix", "other"}))
    return Account(shell or "forced", features)


async def _shell(link: Link) -> Shell | None:
    try:
        channel = await link.open(_ASK)
    except Unsupported:
        return None
    answer = b""
    try:
        channel.write_eof()
        while len(answer) < _ANSWER_LIMIT and (chunk := await channel.read()):
            answer += chunk
    finally:
        await close_channel(channel)
    for line in answer.decode("utf-8", "replace").splitlines():
        if line.startswith(_MARK):
            name = PurePosixPath(line.removeprefix(_MARK).strip()).name
            return "posix" if name in POSIX_SHELLS else "other"
    return "forced"


async def _has_sftp(link: Link) -> bool:
    try:
        channel = await link.open(None, subsystem="sftp")
    except Unsupported:
        return False
    await close_channel(channel)
    return True
