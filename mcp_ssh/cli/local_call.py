"""Calls made in this process, as the owner of the machine it runs on; a person at the terminal can be asked."""

import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mcp_ssh.cli.terminal import Failure, ask, has_person, show_progress
from mcp_ssh.shell_command import quote

if TYPE_CHECKING:
    from mcp_ssh.app import App
    from mcp_ssh.errors import HostKeyUnconfirmed
    from mcp_ssh.tool import Caller, Question, TransportName

KEY_FIELDS = ("host", "port", "key_type", "public_key", "fingerprint_sha256")
"""What `hostkey_accept` takes of the `details.host_key` of a refused connection."""


def _owner() -> "Caller":
    from mcp_ssh.tool import Caller, Role

    return Caller(id="cli", role=Role.ADMIN, owner=True)


@dataclass
class TerminalCall:
    """A call from the command line."""

    caller: "Caller" = field(default_factory=_owner)
    door: "TransportName" = "cli"
    confirms: bool = True

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Show how far it is, on a terminal."""
        show_progress(done, total, message)

    async def need(self, question: "Question") -> Mapping[str, Any] | None:
        """Ask; `None` where nobody is there."""
        return await ask(question.message, question.fields) if has_person() and not question.known else None


@contextlib.asynccontextmanager
async def local_app() -> "AsyncGenerator[App]":
    """Everything a call in this process needs, under the same configuration rules as a server's.

    Raises:
        InvalidInput: The configuration is wrong; names the key.
    """
    from mcp_ssh.app import open_app
    from mcp_ssh.tools import REGISTRY

    async with open_app() as app:
        app.live.tools = REGISTRY
        app.live.expect(app.live.config)
        yield app


async def connect(app: "App", arguments: Mapping[str, Any], call: TerminalCall) -> str:
    """Open a session; the person at the terminal is asked once about an unknown host key.

    Returns:
        The session's id.

    Raises:
        HostKeyUnconfirmed: The key is unknown or changed, and nobody accepted it.
    """
    from mcp_ssh.dispatch import dispatch
    from mcp_ssh.tools import REGISTRY
    from mcp_ssh.toolsets import lookup

    opened = await dispatch(app, lookup(REGISTRY, "session_connect"), arguments, call)
    return str(opened.model_dump()["session_id"])


def how_to_trust(refusal: "HostKeyUnconfirmed") -> Failure:
    """The refusal with the command that accepts the key, since a person has nothing else to paste."""
    key = refusal.details["host_key"]
    if key["reason"] != "unknown":
        return Failure(refusal.message, refusal.hint)
    accepted = json.dumps({name: key[name] for name in KEY_FIELDS} | {"confirm": True})
    return Failure(
        refusal.message,
        "compare the fingerprint with the machine's own by another way; if they agree:"
        f" ssh-steward call hostkey_accept {quote(accepted)}",
    )
