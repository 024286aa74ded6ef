"""Our side of a login as asyncssh asks for it. Imports asyncssh; it is itself imported on first use."""

from collections.abc import Sequence
from typing import Protocol

import asyncssh

from mcp_ssh.ssh.auth.responder import AuthResponder
from mcp_ssh.ssh.hostkeys.verify import HostKeyCheck


class ConnectionObserver(Protocol):
    """Who wants to know what becomes of the connection."""

    def connection_made(self, connection: asyncssh.SSHClientConnection) -> None:
        """It is there."""
        ...

    def connection_lost(self) -> None:
        """It is gone."""
        ...


class Client(asyncssh.SSHClient):
    """Answers asyncssh's questions: about the host key from a check, about the login from the answers."""

    def __init__(self, check: HostKeyCheck, answers: AuthResponder, watcher: ConnectionObserver) -> None:
        self._check = check
        self._answers = answers
        self._watcher = watcher

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        """There is a connection."""
        self._watcher.connection_made(conn)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        del exc
        self._watcher.connection_lost()

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Whether this is the machine."""
        return self._check.validate_host_public_key(host, addr, port, key)

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Whether this authority speaks of the machine."""
        return self._check.validate_host_ca_key(host, addr, port, key)

    def password_auth_requested(self) -> str | None:
        """The password."""
        return self._answers.password()

    def password_change_requested(self, prompt: str, lang: str) -> tuple[str, str]:
        """No new password: that is for a person to choose."""
        del prompt, lang
        self._answers.wants_new_password = True
        return NotImplemented

    def kbdint_auth_requested(self) -> str | None:
        """Whether the machine may ask; the way of asking is its choice."""
        return "" if self._answers.may_converse() else None

    def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        """Answers to its questions."""
        del lang
        return self._answers.reply(f"{name}\n{instructions}", prompts)
