"""One way to a machine: the machines before it, its program or its socket, the handshake and the login."""

import contextlib
import copy
import os
import socket
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import anyio

from mcp_ssh.config import Config
from mcp_ssh.errors import AuthFailed, ConnectFailed, InvalidInput, ToolError
from mcp_ssh.printable import said_details
from mcp_ssh.ssh.answers import Answers
from mcp_ssh.ssh.coalesce import Way
from mcp_ssh.ssh.hostkeys import HostKeyCheck
from mcp_ssh.ssh.login import Agent, Login
from mcp_ssh.ssh.proxy import Proxy

if TYPE_CHECKING:
    import asyncssh

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
# As ssh has them: where PAM wants a code too, the method "password" gives the password for both.
METHODS = ("publickey", "keyboard-interactive", "password")
PROHIBITED = 1
"""Code of a refused channel: SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254, 5.1)."""

CLOSE_LIMIT_S = 2.0


class NetworkFailed(ToolError):
    """The network came in the way; `passing` says whether it may be better in a moment."""

    def __init__(self, message: str, *, passing: bool = True, details: dict[str, Any] | None = None) -> None:
        super().__init__(message, hint="check host and port, and that the machine is up", details=details)
        self.passing = passing


class Dialer:
    """Makes connections for one login, each over its own hops, with every host key verified.

    A hop is closed and a program ended as soon as the connection that goes through it is lost.
    """

    def __init__(self, login: Login, config: Config) -> None:
        self._login = login
        self._config = config
        self._hops: set[asyncssh.SSHClientConnection] = set()
        self._proxies: set[Proxy] = set()

    async def dial(self) -> "asyncssh.SSHClientConnection":
        """One connection, logged in.

        Raises:
            NetworkFailed: It may succeed later.
            ConnectFailed: It will not.
            AuthFailed: A machine refused the login.
            HostKeyUnconfirmed: The host key of a machine is unknown or changed.
        """
        tunnel: asyncssh.SSHClientConnection | None = None
        self._hops = {hop for hop in self._hops if not hop.is_closed()}
        self._proxies = {proxy for proxy in self._proxies if proxy.running}
        try:
            for hop in self._login.hops:
                tunnel = await self._hop(hop, tunnel)
                self._hops.add(tunnel)
            return await self._one(self._login, tunnel)
        except BaseException:
            if tunnel is not None:
                tunnel.abort()
            raise

    async def _hop(self, hop: Login, tunnel: "asyncssh.SSHClientConnection | None") -> "asyncssh.SSHClientConnection":
        try:
            return await self._one(hop, tunnel)
        except ToolError as error:
            error.message += f" (a machine on the way to {self._login.where})"
            error.details.pop("wants", None)  # what a caller gives is for the machine at the end of the way
            if "asked" in error.details:
                error.hint = "nobody can be asked for a machine on the way: have it let the account in by a key alone"
            raise

    async def closed(self) -> None:
        """Wait until nothing is left of the ways that were made: hops and programs."""
        hops, proxies = [*self._hops], [*self._proxies]
        self._hops, self._proxies = set(), set()
        for hop in hops:
            hop.close()
        with anyio.move_on_after(CLOSE_LIMIT_S):
            for hop in hops:
                await hop.wait_closed()
        for proxy in proxies:
            await proxy.gone()

    async def _one(self, login: Login, tunnel: "asyncssh.SSHClientConnection | None") -> "asyncssh.SSHClientConnection":
        import asyncssh

        check = login.host_keys.client(await login.host_keys.load(), *login.known_as)
        while True:
            attempt = Attempt(login, self._config, tunnel)
            try:
                async with self._through(attempt):
                    return await attempt.connect(check)
            except asyncssh.HostKeyNotVerifiable as refusal:
                check = await login.host_keys.settle(check, refusal)
            except (asyncssh.Error, OSError, UnicodeError) as error:
                raise await attempt.translated(error) from error

    @contextlib.asynccontextmanager
    async def _through(self, attempt: "Attempt") -> AsyncGenerator[None]:
        """The program that an attempt goes through, ended where the attempt fails."""
        if attempt.login.proxy_command is None or attempt.tunnel is not None:
            yield
            return
        attempt.proxy = await Proxy.start(attempt.login.proxy_command)
        self._proxies.add(attempt.proxy)
        try:
            yield
        except BaseException:
            attempt.proxy.end()
            raise


class Attempt:
    """One handshake and login."""

    def __init__(self, login: Login, config: Config, tunnel: "asyncssh.SSHClientConnection | None") -> None:
        self.login = login
        self.tunnel = tunnel
        self.proxy: Proxy | None = None
        self._config = config
        self._answers = Answers(login.password, login.answers)
        self._seen: list[asyncssh.SSHClientConnection] = []
        self._standing = False

    def made(self, connection: "asyncssh.SSHClientConnection") -> None:
        """There is a connection to speak on."""
        self._seen.append(connection)

    def lost(self) -> None:
        """The connection is gone: nobody needs what it went through."""
        if self.proxy is not None:
            self.proxy.end()
        if self.tunnel is not None and self._standing:
            self.tunnel.close()

    async def connect(self, check: HostKeyCheck) -> "asyncssh.SSHClientConnection":
        """The connection.

        Raises:
            NetworkFailed: The machine did not say who it is in time.
        """
        connection: asyncssh.SSHClientConnection | None = None
        taken = None
        try:
            async with anyio.create_task_group() as group, contextlib.AsyncExitStack() as stack:
                group.start_soon(self._want_version, group.cancel_scope)
                connection = await self._connected(check, await self._keys(stack))
                group.cancel_scope.cancel()
            taken = connection  # the group's end waits, so the caller can be cancelled with the connection just made
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors
        finally:
            if taken is None:
                # asyncssh leaves a half-open connection to its own timers when it is cancelled.
                for half_open in self._seen:
                    half_open.abort()
        if taken is None:
            raise NetworkFailed(f"{self.login.where} {self._silence()}")
        self._standing = True
        return taken

    def _silence(self) -> str:
        if self._seen:
            return "accepted the connection but does not speak SSH"
        return f"did not answer within {self.login.connect_timeout_s or 0:g} s (ConnectTimeout)"

    async def _want_version(self, connecting: anyio.CancelScope) -> None:
        limit_s = self.login.connect_timeout_s
        await anyio.sleep(min(limit_s or 600.0, self._config.ssh.banner_timeout))
        # Without ConnectTimeout, the deadline alone says how long a network may take over a connection.
        if self._seen or limit_s is not None:
            version = self._seen[0].get_extra_info("server_version") if self._seen else None
            if not version:
                connecting.cancel()

    async def _keys(self, stack: contextlib.AsyncExitStack) -> list[Any]:
        keys: list[Any] = list(self.login.keys)
        if self.login.agent is not None:
            keys += await _agent_keys(self.login.agent, stack)
        return keys

    async def _connected(self, check: HostKeyCheck, keys: list[Any]) -> "asyncssh.SSHClientConnection":
        import asyncssh

        from mcp_ssh.ssh.client import Client

        login, config = self.login, self._config
        disabled = config.security.disabled_algorithms
        options = check.options() | {"client_factory": lambda: Client(check, self._answers, self)}
        if self.tunnel is not None:
            options["tunnel"] = self.tunnel
        elif self.proxy is not None:
            options["tunnel"] = Way(self.proxy.socket)
        else:
            local = (login.bind_address, 0) if login.bind_address else None
            options["tunnel"] = Way(family=login.family, local_addr=local)
        return await asyncssh.connect(
            login.host,
            login.port,
            username=login.username,
            client_keys=keys or None,
            preferred_auth=[each for each in METHODS if each not in login.refused_methods],
            host_key_alias=login.host_key_alias,
            config=None,
            agent_path=None,
            gss_auth=False,
            kex_algs=KEX,
            encryption_algs=[each for each in CIPHERS if each not in disabled.ciphers],
            mac_algs=[each for each in MACS if each not in disabled.macs],
            compression_algs=None,
            keepalive_interval=login.keepalive_s,
            keepalive_count_max=3,
            login_timeout=config.ssh.auth_timeout,
            **options,
        )

    async def translated(self, error: Exception) -> ToolError:
        """A failure of asyncssh or the network in our words."""
        import asyncssh

        where = self.login.where
        if isinstance(error, asyncssh.PermissionDenied) or "authentication failures" in str(error):
            return self._refused()
        if isinstance(error, asyncssh.KeyExchangeFailed):
            return ConnectFailed(
                f"{where} has no algorithm in common with this server",
                hint="update the machine's SSH server",
                details=said_details(error.reason),
            )
        if isinstance(error, asyncssh.ChannelOpenError):
            return self._not_tunnelled(error)
        if self.proxy is not None and isinstance(error, asyncssh.ConnectionLost | OSError):
            return NetworkFailed(f"the ProxyCommand for {where} {await self.proxy.complaint()}")
        if isinstance(error, asyncssh.ConnectionLost):
            return NetworkFailed(f"{where} closed the connection before the login was done")
        if isinstance(error, OSError | UnicodeError):
            return _unreachable(error, self.login)
        return ConnectFailed(
            f"{where} ended the connection before the login was done",
            hint="`details.said` has the machine's own words; its log says more",
            details=said_details(str(getattr(error, "reason", type(error).__name__))),
        )

    def _refused(self) -> AuthFailed:
        login, asked = self.login, self._answers.unanswered
        if self._answers.wants_new_password:
            return new_password_wanted(login)
        message = f"{login.where} refused the login of {login.username}"
        if asked:
            return AuthFailed(
                f"{message}: it asked {', '.join(map(repr, asked))}, and there was no answer",
                hint="ask the user, and give the answers in order as interactive_answers, beside what was given now",
                details={"asked": asked, **self._wants()},
            )
        hint = "check username, password and key; the machine's own log says why. The login is not tried again."
        if self._answers.used:
            hint = (
                "check username, password and answers; a one-time code counts once and not for long, so ask the user"
                " for a new one before you connect again"
            )
        return AuthFailed(message, hint=hint, details=self._wants())

    def _wants(self) -> dict[str, str]:
        """What the machine asked for and was not given: the words of an argument that would help."""
        wanted = self._answers.wanted
        return {"wants": wanted, "account": self.login.account} if wanted else {}

    def _not_tunnelled(self, error: "asyncssh.ChannelOpenError") -> ToolError:
        before = "the machine before it" if self.tunnel is None else self.tunnel.get_extra_info("host")
        if error.code == PROHIBITED:
            return ConnectFailed(
                f"{before} does not let connections through to {self.login.where}",
                hint="AllowTcpForwarding and PermitOpen in its sshd_config decide",
            )
        return NetworkFailed(f"{self.login.where} cannot be reached from {before}", details=said_details(error.reason))


def new_password_wanted(login: Login) -> AuthFailed:
    """The error of an account that must get a new password first."""
    return AuthFailed(
        f"{login.where} let the password of {login.username} pass, but it has expired: the machine demands a new one",
        hint=f"have the user run `ssh -p {login.port} {login.username}@{login.host}` in a terminal and set a new"
        " password, or an administrator run passwd; then connect with it",
        details={"reason": "password_expired"},
    )


def _unreachable(error: Exception, login: Login) -> ToolError:
    if isinstance(error, socket.gaierror):
        return NetworkFailed(f"the name {login.host} is not known", passing=error.errno == socket.EAI_AGAIN)
    if isinstance(error, UnicodeError):
        return InvalidInput(
            "host: not a host name or address", hint="give a name such as web1.example.org, or an address"
        )
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number) if number else type(error).__name__
    return NetworkFailed(f"{login.where} cannot be reached: {reason.lower()}")


async def _agent_keys(agent: Agent, stack: contextlib.AsyncExitStack) -> list[Any]:
    """The keys an agent may offer; it stays connected for as long as the stack is open, since it signs."""
    import asyncssh

    try:
        asked = await stack.enter_async_context(await asyncssh.connect_agent(agent.path))
        pairs = list(await asked.get_keys())
    except (OSError, ValueError, asyncssh.Error) as error:
        if not agent.needed:
            return []
        raise InvalidInput(
            "use_agent: the ssh-agent of this server does not answer",
            hint="start ssh-agent, or use another way to log in",
        ) from error
    offered: list[Any] = []
    for pair in pairs:
        if agent.only is not None and pair.key_public_data not in agent.only:
            continue
        for certificate in agent.certificates:
            if certificate.key.public_data == pair.key_public_data:
                certified = copy.copy(pair)
                certified.set_certificate(certificate)
                offered.append(certified)
        offered.append(pair)
    return offered
