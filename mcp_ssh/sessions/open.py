"""Opening a session: look-up, connecting, host key, login and the first channel, all within one deadline."""

import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import anyio

from mcp_ssh.blobs.blobs import Blobs
from mcp_ssh.config.models import Config
from mcp_ssh.errors import ConnectFailed, RemoteFailed, TimedOut, Unsupported
from mcp_ssh.host_patterns import Machine, restricts
from mcp_ssh.policy import LocalFolders, Rules, rules_for
from mcp_ssh.sessions.host_lookup import identify
from mcp_ssh.sessions.login_planner import Logins, Resolver
from mcp_ssh.sessions.session import Limits, Session
from mcp_ssh.sessions.target import Connect
from mcp_ssh.ssh.auth.login import Login
from mcp_ssh.ssh.connection.account import RemoteAccount
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.ssh.connection.sharing import Links, SharedConnection
from mcp_ssh.ssh.dial.dialer import Dialer, DialOptions, new_password_wanted
from mcp_ssh.ssh.errors import NetworkFailed, connection_lost
from mcp_ssh.ssh.hostkeys.store import HostKeys
from mcp_ssh.ssh.wire.command import BARE_SHELLS, POSIX_SHELLS, ShellKind
from mcp_ssh.store.tasks import TaskTable
from mcp_ssh.tool import Caller

log = logging.getLogger(__name__)

T = TypeVar("T")

FEATURES = ("sftp", "shell", "exec", "background_tasks", "tunnels")

_SFTP_INIT = b"\0\0\0\5\1\0\0\0\3"
"""SSH_FXP_INIT of version 3, and below the kind of its answer (draft-ietf-secsh-filexfer-02, 4)."""
_SFTP_VERSION = b"\2"

# Any shell reads this line; a forced command or a menu does not answer with the mark.
_MARK = "mcp-ssh account"
_RESTRICTED = "restricted"
_SAID = re.compile(rb"^" + _MARK.encode() + rb" ?(.*)\n", re.M)
_ANSWER_LIMIT = 256 * 1024
# A restricted shell refuses the first half, and continues with the second.
_ASK = f'exec sh -c \'echo "{_MARK} $SHELL"\'; echo "{_MARK} {_RESTRICTED}"'
_SFTP_PATIENCE_S = 2.0
"""How much longer than the account's shell SFTP may take to answer: an rc file may read what is meant for it."""
_EXPIRED = re.compile(rb"password change required|you must change your password", re.I)


@dataclass
class _Stage:
    """How far a connection attempt is."""

    logged_in: bool = False


async def open_session(
    caller: Caller,
    wanted: Connect,
    *,
    host_keys: HostKeys,
    current: Callable[[], Config],
    blobs: Blobs,
    tasks: TaskTable,
    links: Links,
    named: Resolver | None = None,
) -> Session:
    """Connect, log in and learn what the account may do; where the caller has logged in alike, go over that link.

    Network failures are tried again, with the delay doubled each time, as long as the deadline allows. A refused login
    or host key is final: trying again could lock the account.

    Raises:
        InvalidInput: The wish cannot be carried out as it stands; nothing was sent.
        TimedOut: The deadline passed, or nothing answered.
        ConnectFailed: No such name, no route, refused, or no common algorithm.
        AuthFailed: The machine refused the login, or demands a new password first.
        HostKeyUnconfirmed: The host key is unknown or changed.
        Refused: The host key is revoked, or the caller may not log in this way.
    """
    config = current()
    timeout_s = wanted.timeout or config.ssh.timeout
    stage = _Stage()
    where = f"{wanted.host or config.auth.default_host}"
    try:
        with anyio.fail_after(timeout_s):
            logins = Logins(caller, config, host_keys, named)
            login, alias = await _persistently(partial(logins.plan_login, wanted), wanted)
            where = login.where
            standing = await links.take(caller.id, login, partial(_make_connection, login, config, wanted, stage))
    except TimeoutError as error:
        if stage.logged_in:
            raise _silent_shell(where) from error
        raise TimedOut(
            f"{where} was not reached and logged in to within {timeout_s:g} s",
            hint="check host and port, and that a firewall lets this machine through; raise `timeout` for a slow link",
        ) from error
    link, account = standing.link, standing.account
    called = tuple(each for each in (wanted.host, login.host_key_alias) if each)
    rules = _CurrentRules(caller, login.machine, called, current)
    session = Session(
        caller_id=caller.id,
        host=login.host,
        port=login.port,
        username=login.username,
        link=link,
        account=account,
        limits=lambda: _limits(current(), blobs),
        blobs=blobs,
        tasks=tasks,
        expires=not caller.owner,
        login_password=login.password,
        rules=rules,
        renew_rules=rules.renew,
        machine=login.machine,
        called=called,
    )
    session.alias = alias
    return session


def _limits(config: Config, blobs: Blobs) -> Limits:
    return Limits(
        config.security.max_output_kb * 1024,
        config.sftp.max_file_size_mb * 1024 * 1024,
        LocalFolders(
            blobs.state_folder,
            tuple(map(Path, config.sftp.local_folders)),
            config.sftp.transfer_quota_mb * 1024 * 1024,
        ),
        config.ssh.task_output_mb * 1024 * 1024,
        config.ssh.task_keep_days,
    )


class _CurrentRules:
    """The rules for a machine by the config in force; they are worked out once for each config.

    Args:
        caller: Who connected.
        machine: What the machine is known by.
        called: Names by which it was asked for.
        current: Gives the config in force.
    """

    def __init__(
        self, caller: Caller, machine: Machine, called: tuple[str, ...], current: Callable[[], Config]
    ) -> None:
        self._caller = caller
        self._machine = machine
        self._called = called
        self._current = current
        self._config = current()
        self._rules = self._work_out(self._config)

    def __call__(self) -> Rules:
        """The rules now."""
        config = self._current()
        if config is not self._config:
            self._config, self._rules = config, self._work_out(config)
        return self._rules

    async def renew(self) -> None:
        """Look up the names in a changed config's patterns, which may be other names of this machine."""
        config = self._current()
        if config is not self._config:
            known = self._machine
            self._machine = await identify(self._caller, config.security, known.names, known.addresses)
            self._config, self._rules = config, self._work_out(config)

    def _work_out(self, config: Config) -> Rules:
        return rules_for(self._machine.with_names(*self._called), config.security)


def _silent_shell(where: str) -> RemoteFailed:
    return RemoteFailed(
        f"the login at {where} worked, but the account's shell did not answer in time",
        hint="look at the account's rc files: one may wait for input, or start another shell; if the link"
        " was lost after the login, connect again",
    )


async def _make_connection(login: Login, config: Config, wanted: Connect, stage: _Stage) -> SharedConnection:
    dialer = Dialer(login, DialOptions(config.ssh.banner_timeout, config.ssh.auth_timeout))
    try:
        connection = await _persistently(dialer.dial, wanted)
        stage.logged_in = True
        try:
            link = Connection(connection, dialer.dial, dialer.wait_closed, widens=login.asks_nobody)
            account = await _account(link, login)
            link.shell = account.shell
            link.spares.allowed = account.shell == "posix" and not restricts(
                login.machine.with_names(wanted.host or ""), config.ssh.plain_exec_hosts
            )
            return SharedConnection(link, account, await login.host_keys.load())
        except BaseException:
            connection.abort()
            raise
    except BaseException:
        with anyio.CancelScope(shield=True):
            await dialer.wait_closed()
        raise


async def _persistently(attempt: Callable[[], Awaitable[T]], wanted: Connect) -> T:
    delay_s = wanted.retry_delay
    for left in reversed(range(wanted.retries)):
        try:
            return await attempt()
        except NetworkFailed as failure:
            if not left or not failure.passing:
                ended = ConnectFailed if failure.answered else TimedOut
                raise ended(failure.message, hint=failure.hint, details=failure.details) from failure
            log.info("connecting failed; %d more tries", left)
        await anyio.sleep(delay_s)
        delay_s *= 2
    raise AssertionError("retries is at least 1")


async def _account(link: Connection, login: Login) -> RemoteAccount:
    """What the account is: one command to ask its shell, and one request to see whether it has SFTP, side by side."""
    found: dict[str, Any] = {"sftp": None}
    patience = anyio.CancelScope()

    async def ask() -> None:
        began = anyio.current_time()
        found["shell"], found["silent"] = await _shell(link, login)
        now = anyio.current_time()
        patience.deadline = now + 2 * (now - began) + _SFTP_PATIENCE_S

    async def try_sftp() -> None:
        with patience:
            found["sftp"] = await _has_sftp(link)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(try_sftp)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    shell: ShellKind | None = found["shell"]
    if found["silent"] and found["sftp"] is None:
        raise _silent_shell(login.where)
    bare = shell is None or shell in BARE_SHELLS
    features = tuple(each for each in FEATURES if (found["sftp"] if each == "sftp" else not bare))
    return RemoteAccount(shell or "forced", features)


async def _shell(link: Connection, login: Login) -> tuple[ShellKind | None, bool]:
    """What the account's shell is, None where it may run nothing; and whether it ended without a word."""
    from mcp_ssh.ssh.connection.channel import STDERR

    try:
        channel = await link.open(_ASK)
    except Unsupported:
        return None, False
    answer = b""
    try:
        with contextlib.suppress(OSError):  # it may have closed its side already
            channel.write_eof()
        while len(answer) < _ANSWER_LIMIT and (chunk := await channel.read()):
            answer += chunk
            if (found := _SAID.search(answer)) is not None:
                return _kind(found[1].decode("utf-8", "replace")), False
        complaint = await channel.read(STDERR)
    finally:
        channel.close()
    if _EXPIRED.search(complaint):
        raise new_password_wanted(login)
    if not link.alive:
        raise connection_lost()
    return "forced", not (answer or complaint)


def _kind(said: str) -> ShellKind:
    name = PurePosixPath(said).name
    if said == _RESTRICTED:
        return "restricted"
    return "posix" if name in POSIX_SHELLS else "fish" if name == "fish" else "other"


async def _has_sftp(link: Connection) -> bool:
    try:
        channel = await link.open(None, subsystem="sftp")
    except Unsupported:
        return False
    try:
        # A proper greeting: some servers take a channel that ends without one for an attack, and hang up.
        with contextlib.suppress(OSError):
            await channel.write(_SFTP_INIT)
        return (await channel.read())[4:5] == _SFTP_VERSION
    finally:
        channel.close()
