"""The errors of a connection that is gone, and of an account that may not do as asked."""

import struct
from typing import Any

from mcp_ssh.errors import ConnectFailed, Unsupported


class NetworkFailed(ConnectFailed):
    """The network came in the way.

    `passing` says whether it may be better in a moment, `answered` whether anything answered for the machine.
    """

    def __init__(
        self, message: str, *, passing: bool = True, answered: bool = True, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, hint="check host and port, and that the machine is up", details=details)
        self.passing = passing
        self.answered = answered


MALFORMED = (ValueError, LookupError, ArithmeticError, TypeError, AssertionError, struct.error)
"""What asyncssh lets pass of its own errors when a machine sends bytes that are not SSH."""


def protocol_violation(where: str) -> ConnectFailed:
    """The error of a machine that does not keep to the protocol."""
    return ConnectFailed(
        f"{where} breaks the SSH protocol: it sent a message that cannot be read",
        hint="check that an SSH server listens on this port; no other tool of this server helps",
    )


def connection_lost() -> ConnectFailed:
    """The error of a connection that is gone."""
    return ConnectFailed(
        "the connection to the machine is lost",
        hint="open a new session with session_connect; a command that was running may still run: look before repeating",
    )


def unknown_whether_run() -> ConnectFailed:
    """The error of a connection that was gone before the machine said that it began with the command."""
    return ConnectFailed(
        "the connection to the machine was lost as the command was handed over; whether it ran is unknown",
        hint="open a new session with session_connect, and look at the machine before repeating",
        details={"ran": "unknown"},
    )


def no_commands() -> Unsupported:
    """The error of an account that may not run commands."""
    return Unsupported(
        "this account may not run commands: the machine refused the request",
        hint="log in with an account that has a shell",
    )


def no_terminal() -> Unsupported:
    """The error of an account that gets no terminal."""
    return Unsupported(
        "the machine gives this account no terminal (PermitTTY in sshd_config, or no-pty in authorized_keys)",
        hint="use command_exec or command_background, which need none",
    )
