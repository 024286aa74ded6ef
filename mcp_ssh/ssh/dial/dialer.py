"""One way to a machine: the machines before it, its program or its socket, the handshake and the login."""

import contextlib
import copy
import errno
import os
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import anyio

from mcp_ssh.errors import AuthFailed, ConnectFailed, InvalidInput, ToolError
from mcp_ssh.messages.printable import said_details
from mcp_ssh.ssh.auth.login import Agent, Login
from mcp_ssh.ssh.auth.responder import AuthResponder
from mcp_ssh.ssh.dial.algorithms import mismatch
from mcp_ssh.ssh.dial.proxy_command import Proxy
from mcp_ssh.ssh.dial.write_coalescing import Connector
from mcp_ssh.ssh.errors import MALFORMED, NetworkFailed, protocol_violation
from mcp_ssh.ssh.hostkeys.store import HostKeyCheck

if TYPE_CHECKING:
    import asyncssh

# As ssh has them: where PAM wants a code too, the method "password" gives the password for both.
METHODS = ("publickey", "keyboard-interactive", "password")
REASON_CHARS = 400
PROHIBITED = 1
"""Code of a refused channel: SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254, 5.1)."""

CLOSE_LIMIT_S = 2.0


@dataclass(frozen=True)
class DialOptions:
    """How long a machine may take.

    Attributes:
        banner_timeout_s: Until it sends its SSH version.
        login_timeout_s: For the login itself.
    """

    banner_timeout_s: float
    login_timeout_s: float


class Dialer:
    """Makes connections for one login, each over its own hops, with every host key verified.

    A hop is closed and a program ended as soon as the connection that goes through it is lost.
    """

    def __init__(self, login: Login, options: DialOptions) -> None:
        self._login = login
        self._options = options
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
            connection = await self._one(self._login, tunnel)
            self._stay_with(connection)
        except BaseException:
            if tunnel is not None:
                tunnel.abort()
            raise
        else:
            return connection

    def _stay_with(self, connection: "asyncssh.SSHClientConnection") -> None:
        """Connect to this address from now on: a name with several addresses may stand for several machines."""
        addresses = self._login.machine.addresses
        peer: Any = connection.get_extra_info("peername")
        if len(addresses) > 1 and peer and (address := str(peer[0])) in addresses:
            self._login = replace(self._login, machine=replace(self._login.machine, addresses=(address,)))

    async def _hop(self, hop: Login, tunnel: "asyncssh.SSHClientConnection | None") -> "asyncssh.SSHClientConnection":
        try:
            return await self._one(hop, tunnel)
        except ToolError as error:
            error.message += f" (a machine on the way to {self._login.where})"
            error.details.pop("wants", None)  # what a caller gives is for the machine at the end of the way
            if "asked" in error.details:
                error.hint = "nobody can be asked for a machine on the way: have it let the account in by a key alone"
            raise

    async def wait_closed(self) -> None:
        """Wait until nothing is left of the ways that were made: hops and programs."""
        hops, proxies = [*self._hops], [*self._proxies]
        self._hops, self._proxies = set(), set()
        for hop in hops:
            hop.close()
        with anyio.move_on_after(CLOSE_LIMIT_S):
            for hop in hops:
                await hop.wait_closed()
        for proxy in proxies:
            await proxy.terminate()

    async def _one(self, login: Login, tunnel: "asyncssh.SSHClientConnection | None") -> "asyncssh.SSHClientConnection":
        import asyncssh

        trust = await login.host_keys.load()
        check = login.host_keys.client(trust, *login.known_as, login.caller, login.algorithms.host_keys)
        while True:
            attempt = Attempt(login, self._options, tunnel)
            try:
                async with self._through(attempt):
                    return await attempt.connect(check)
            except asyncssh.HostKeyNotVerifiable as refusal:
                check = await login.host_keys.settle(check, refusal)
            except (asyncssh.Error, OSError, *MALFORMED) as error:
                raise await attempt.translate(error) from error

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

    def __init__(self, login: Login, options: DialOptions, tunnel: "asyncssh.SSHClientConnection | None") -> None:
        self.login = login
        self.tunnel = tunnel
        self.proxy: Proxy | None = None
        self._options = options
        self._answers = AuthResponder(login.password, login.answers)
        self._seen: list[asyncssh.SSHClientConnection] = []
        self._way: Connector | None = None
        self._standing = False

    def connection_made(self, connection: "asyncssh.SSHClientConnection") -> None:
        """There is a connection to speak on."""
        self._seen.append(connection)

    def connection_lost(self) -> None:
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
                connection = await self._connect(check, await self._keys(stack))
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
            raise NetworkFailed(f"{self.login.where} {self._silence()}", answered=bool(self._seen))
        self._standing = True
        if self._way is not None:
            self._way.first.clear()
        return taken

    def _silence(self) -> str:
        if self._seen:
            return "accepted the connection but does not speak SSH"
        return f"did not answer within {self.login.connect_timeout_s or 0:g} s (ConnectTimeout)"

    async def _want_version(self, connecting: anyio.CancelScope) -> None:
        limit_s = self.login.connect_timeout_s
        await anyio.sleep(min(limit_s or 600.0, self._options.banner_timeout_s))
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

    async def _connect(self, check: HostKeyCheck, keys: list[Any]) -> "asyncssh.SSHClientConnection":
        import asyncssh

        from mcp_ssh.ssh.dial.client import Client

        login = self.login
        offered = login.algorithms
        options = check.options() | {"client_factory": lambda: Client(check, self._answers, self)}
        if self.tunnel is None:
            given = None if self.proxy is None else self.proxy.socket
            self._way = Connector(given, login.machine.addresses, login.bind_address if given is None else None)
        options["tunnel"] = self.tunnel or self._way
        return await asyncssh.connect(
            login.through or login.host,
            login.port,
            username=login.username,
            client_keys=keys or None,
            preferred_auth=[each for each in METHODS if each not in login.refused_methods],
            host_key_alias=login.host_key_alias,
            config=None,
            agent_path=None,
            gss_auth=False,
            kex_algs=offered.kex,
            encryption_algs=offered.ciphers,
            mac_algs=offered.macs,
            signature_algs=offered.signatures,
            compression_algs=None,
            keepalive_interval=login.keepalive_s,
            keepalive_count_max=3,
            login_timeout=self._options.login_timeout_s,
            **options,
        )

    async def translate(self, error: Exception) -> ToolError:
        """A failure of asyncssh or the network in our words."""
        import asyncssh

        where = self.login.where
        if isinstance(error, asyncssh.PermissionDenied) or "authentication failures" in str(error):
            return self._login_refused()
        if (nothing := self._nothing_in_common(error)) is not None:
            return nothing
        if isinstance(error, asyncssh.ChannelOpenError):
            return self._not_tunnelled(error)
        if self.proxy is not None and isinstance(error, asyncssh.ConnectionLost | OSError):
            how, words = await self.proxy.complaint()
            return NetworkFailed(f"the ProxyCommand for {where} {how}", details=said_details(words))
        if isinstance(error, asyncssh.ConnectionLost):
            return NetworkFailed(f"{where} closed the connection before the login was done")
        if isinstance(error, OSError):
            return _unreachable(error, self.login)
        if not isinstance(error, asyncssh.Error):
            return protocol_violation(where)
        return ConnectFailed(
            f"{where} ended the connection before the login was done",
            hint="`details.said` has the machine's own words; its log says more",
            details=said_details(str(error.reason)),
        )

    def _nothing_in_common(self, error: Exception) -> ConnectFailed | None:
        """The error where the machine has no algorithm that we offer, whichever side noticed it first."""
        import asyncssh

        found = mismatch(bytes(self._way.first), self.login.algorithms) if self._way is not None else None
        if found is None and not isinstance(error, asyncssh.KeyExchangeFailed):
            return None
        kind, theirs = found or ("", [])
        shown = f": its {kind}s are {', '.join(theirs)}"[:REASON_CHARS] if theirs else ""
        message = f"{self.login.where} has no {kind or 'algorithm'} in common with this server{shown}"
        hint = "update the machine's SSH server"
        if "ssh-rsa" in theirs and kind == "host key":
            hint += "; it signs with SHA-1 only, which the owner can allow for it in security.sha1_hosts"
        if self.login.algorithms.left_out:
            named = ", ".join(self.login.algorithms.left_out)[:REASON_CHARS]
            message += f" (~/.ssh/config also names {named}, which this server's policy does not allow)"
        return ConnectFailed(message, hint=hint)

    def _login_refused(self) -> AuthFailed:
        login, asked = self.login, self._answers.unanswered
        if self._answers.wants_new_password:
            return new_password_wanted(login)
        message = f"{login.where} refused the login of {login.username}"
        if asked:
            return AuthFailed(
                f"{message}: it asked {', '.join(map(repr, asked))}, and there was no answer",
                hint="ask the user, and give the answers in order as `interactive_answers`, beside what was given now",
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
        wanted = self._answers.missing_secret
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


def _unreachable(error: OSError, login: Login) -> ToolError:
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    answered = error.errno != errno.ETIMEDOUT
    return NetworkFailed(f"{login.where} cannot be reached: {reason.lower()}", answered=answered)


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
