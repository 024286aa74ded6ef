"""The connections of this process: sessions of one caller that log in alike share one, which ends with the last."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import anyio

from mcp_ssh.ssh.auth.login import Login
from mcp_ssh.ssh.connection.account import RemoteAccount
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.ssh.hostkeys.known_hosts import Trust

ConnectionKey = tuple[str, Login]
"""Whose it is, and all that decides where a login leads and as whom: account, machine, way, secrets, trust."""


@dataclass(frozen=True)
class SharedConnection:
    """A connection, what the account can do, and the known host keys when it was made."""

    link: Connection
    account: RemoteAccount
    trust: Trust


class Links:
    """Connections by caller and login. None is ever another caller's."""

    def __init__(self) -> None:
        self._standing: dict[ConnectionKey, SharedConnection] = {}
        self._turns: dict[ConnectionKey, anyio.Lock] = {}

    async def take(
        self, caller_id: str, login: Login, make: Callable[[], Awaitable[SharedConnection]]
    ) -> SharedConnection:
        """A connection for one session more, which leaves it in the end: one that stands, or a new one.

        A caller that connects while the same connection is being made waits for it. An open one is shared only if its
        machine answers, so that connecting again gets past a dead one, and if its host key would be believed today.

        Raises:
            ToolError: As `make` does.
        """
        key = (caller_id, login)
        async with self._turn(key):
            # What an agent would offer today only the agent knows, so where it was asked for it is asked.
            found = None if login.agent is not None and login.agent.needed else self._standing.get(key)
            if found is not None and await _has_room(found, login):
                return found
            made = await make()
            made.link.join()
            made.link.ended = partial(self._forget, key, made)
            self._standing[key] = made
            return made

    def _forget(self, key: ConnectionKey, ended: SharedConnection) -> None:
        if self._standing.get(key) is ended:
            del self._standing[key]

    @contextlib.asynccontextmanager
    async def _turn(self, key: ConnectionKey) -> AsyncGenerator[None]:
        lock = self._turns.setdefault(key, anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._turns.pop(key, None)


async def _has_room(found: SharedConnection, login: Login) -> bool:
    """Whether one session more goes over a connection now."""
    shared = False
    if not found.link.join():
        return False
    try:
        shared = await _is_trusted(found, login) and await found.link.answers()
    finally:
        if not shared:
            with anyio.CancelScope(shield=True):
                await found.link.leave()
    return shared


async def _is_trusted(found: SharedConnection, login: Login) -> bool:
    """Whether the machine's key is believed now; where a way leads through others, whether nothing changed at all."""
    trust = await login.host_keys.load()
    if trust is found.trust:
        return True
    key = found.link.connection.get_server_host_key()
    if login.hops or key is None:
        return False
    check = login.host_keys.client(trust, *login.known_as)
    return check.validate_host_public_key(login.host, "", login.port, key)
