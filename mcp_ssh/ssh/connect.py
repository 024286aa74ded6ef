"""Opening a session: look-up, connecting, host key, login and the first channel, all within one deadline."""

import contextlib
import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import anyio

from mcp_ssh.config import Config
from mcp_ssh.errors import ConnectFailed, TimedOut, Unsupported
from mcp_ssh.policy import LocalFolders, Rules, matches, rules_for
from mcp_ssh.ssh.dial import Dialer, NetworkFailed, new_password_wanted
from mcp_ssh.ssh.failures import lost
from mcp_ssh.ssh.hostkeys import HostKeys
from mcp_ssh.ssh.link import Link
from mcp_ssh.ssh.links import Links, Standing
from mcp_ssh.ssh.login import Login, Logins, Resolver
from mcp_ssh.ssh.session import Account, Limits, Session
from mcp_ssh.ssh.wanted import Connect
from mcp_ssh.ssh.wire import POSIX_SHELLS, Shell
from mcp_ssh.store.blobs import Blobs
from mcp_ssh.store.tasks import Tasks
from mcp_ssh.tool import Caller

if TYPE_CHECKING:
    import asyncssh

log = logging.getLogger(__name__)

FEATURES = ("sftp", "shell", "exec", "background_tasks", "tunnels")

_SFTP_INIT = b"\0\0\0\5\1\0\0\0\3"
"""SSH_FXP_INIT of version 3, and below the kind of its answer (draft-ietf-secsh-filexfer-02, 4)."""
_SFTP_VERSION = b"\2"

# Any shell reads this line; a forced command or a menu does not answer with the mark.
_MARK = "mcp-ssh account"
_SAID = re.compile(rb"^" + _MARK.encode() + rb" ?(.*)\n", re.M)
_ANSWER_LIMIT = 256 * 1024
_ASK = f"exec sh -c 'echo \"{_MARK} $SHELL\"'"
_EXPIRED = re.compile(rb"password change required|you must change your password", re.I)


async def open_session(
    caller: Caller,
    wanted: Connect,
    *,
    host_keys: HostKeys,
    config: Config,
    blobs: Blobs,
    tasks: Tasks,
    links: Links,
    named: Resolver | None = None,
) -> Session:
    """Connect, log in and learn what the account may do; where the caller has logged in alike, go over that link.

    Network failures are tried again, with the delay doubled each time, as long as the deadline allows. A refused login
    or host key is final: trying again could lock the account.

    Raises:
        InvalidInput: The wish cannot be carried out as it stands; nothing was sent.
        TimedOut: The deadline passed.
        ConnectFailed: No such name, no route, refused, or no common algorithm.
        AuthFailed: The machine refused the login, or demands a new password first.
        HostKeyUnconfirmed: The host key is unknown or changed.
        Refused: The host key is revoked, or the caller may not log in this way.
    """
    timeout_s = wanted.timeout or config.ssh.timeout
    where = f"{wanted.host or config.auth.default_host}"
    try:
        with anyio.fail_after(timeout_s):
            login, alias = await Logins(caller, config, host_keys, named).wanted(wanted)
            where = login.where
            standing = await links.take(caller.id, login, partial(_linked, login, config, wanted))
    except TimeoutError as error:
        raise TimedOut(
            f"{where} was not reached and logged in to within {timeout_s:g} s",
            hint="check host and port, and that a firewall lets this machine through; raise `timeout` for a slow link",
        ) from error
    link, account = standing.link, standing.account
    session = Session(
        caller_id=caller.id,
        host=login.host,
        port=login.port,
        username=login.username,
        link=link,
        account=account,
        limits=Limits(
            config.security.max_output_kb * 1024,
            config.sftp.max_file_size_mb * 1024 * 1024,
            LocalFolders(
                blobs.state_folder,
                tuple(map(Path, config.sftp.local_folders)),
                config.sftp.transfer_quota_mb * 1024 * 1024,
            ),
            config.ssh.task_output_mb * 1024 * 1024,
            config.ssh.task_keep_days,
        ),
        blobs=blobs,
        tasks=tasks,
        expires=not caller.owner,
        login_password=login.password,
        rules=_rules(link, login, wanted, config),
    )
    session.alias = alias
    return session


def _rules(link: Link, login: Login, wanted: Connect, config: Config) -> Rules:
    """What counts for the machine by any of its names: as given, as looked up, and its address."""
    peer: Any = link.connection.get_extra_info("peername")
    address = str(peer[0]) if peer else ""
    return rules_for([wanted.host or "", login.host, login.host_key_alias or "", address], config.security)


async def _linked(login: Login, config: Config, wanted: Connect) -> Standing:
    dialer = Dialer(login, config)
    try:
        connection = await _persistently(dialer.dial, wanted)
        try:
            link = Link(connection, dialer.dial, dialer.closed, widens=login.asks_nobody)
            account = await _account(link, login)
            link.shell = account.shell
            link.spares.allowed = account.shell == "posix" and not matches(login.host, config.ssh.plain_exec_hosts)
            return Standing(link, account, await login.host_keys.load())
        except BaseException:
            connection.abort()
            raise
    except BaseException:
        with anyio.CancelScope(shield=True):
            await dialer.closed()
        raise


async def _persistently(
    dial: Callable[[], Awaitable["asyncssh.SSHClientConnection"]], wanted: Connect
) -> "asyncssh.SSHClientConnection":
    delay_s = wanted.retry_delay
    for left in reversed(range(wanted.retries)):
        try:
            return await dial()
        except NetworkFailed as failure:
            if not left or not failure.passing:
                raise ConnectFailed(failure.message, hint=failure.hint, details=failure.details) from failure
            log.info("connecting failed; %d more tries", left)
        await anyio.sleep(delay_s)
        delay_s *= 2
    raise AssertionError("retries is at least 1")


async def _account(link: Link, login: Login) -> Account:
    """What the account is: one command to ask its shell, and one request to see whether it has SFTP, side by side."""
    found: dict[str, Any] = {}

    async def ask() -> None:
        found["shell"] = await _shell(link, login)

    async def try_sftp() -> None:
        found["sftp"] = await _has_sftp(link)

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            group.start_soon(try_sftp)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
    shell: Shell | None = found["shell"]
    features = tuple(each for each in FEATURES if (found["sftp"] if each == "sftp" else shell not in {None, "forced"}))
    return Account(shell or "forced", features)


async def _shell(link: Link, login: Login) -> Shell | None:
    from mcp_ssh.ssh.channel import STDERR

    try:
        channel = await link.open(_ASK)
    except Unsupported:
        return None
    answer = b""
    try:
        with contextlib.suppress(OSError):  # it may have closed its side already
            channel.write_eof()
        while len(answer) < _ANSWER_LIMIT and (chunk := await channel.read()):
            answer += chunk
            if (found := _SAID.search(answer)) is not None:
                name = PurePosixPath(found[1].decode("utf-8", "replace")).name
                return "posix" if name in POSIX_SHELLS else "fish" if name == "fish" else "other"
        complaint = await channel.read(STDERR)
    finally:
        channel.close()
    if _EXPIRED.search(complaint):
        raise new_password_wanted(login)
    if not link.alive:
        raise lost()
    return "forced"


async def _has_sftp(link: Link) -> bool:
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
