"""A running server, called over MCP as any client calls it."""

import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit, urlunsplit

from mcp_ssh.cli.terminal import Failure, usage
from mcp_ssh.host_patterns import leads_here

if TYPE_CHECKING:
    from mcp import Client
    from mcp.client import session

CONNECT_LIMIT_S = 30.0
CALL_LIMIT_S = 3700.0
"""A call may take an hour (`timeout` of command_exec), and the time to end what it started."""

CLEANUP_LIMIT_S = 5.0

ProgressHandler = Callable[[float, float | None, str | None], None]


@dataclass(frozen=True)
class Reply:
    """What a tool answered: its result, or where `ok` is false its error as `code`, `message`, `hint`, `details`."""

    ok: bool
    body: dict[str, Any]


def endpoint(address: str) -> str:
    """The MCP endpoint that an address means; a server's bare address means the one with all tools.

    Raises:
        Failure: It is not an HTTP address.
    """
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise usage(f"{address[:80]!r} is not the address of a server", "such as http://127.0.0.1:8754")
    return urlunsplit(parts._replace(path="/mcp/all")) if parts.path in {"", "/"} else address


@contextlib.asynccontextmanager
async def connect_client(
    address: str, token: str | None, ask: "session.ElicitationFnT | None" = None
) -> AsyncGenerator["Client"]:
    """An MCP client of the server, with its token.

    Args:
        address: The endpoint.
        token: The bearer token; it is sent to this address alone.
        ask: Puts the server's questions to a person, where one is there.

    Raises:
        Failure: The server cannot be reached, or does not let us in.
    """
    import httpx2
    from mcp import Client, MCPError
    from mcp.client.streamable_http import streamable_http_client

    refusals: list[int] = []

    async def note(response: httpx2.Response) -> None:
        if response.status_code >= 400:
            refusals.append(response.status_code)

    http = httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {token}"} if token else {},
        timeout=httpx2.Timeout(CONNECT_LIMIT_S, read=CALL_LIMIT_S),
        event_hooks={"response": [note]},
        # A proxy of the environment must not see what stays on this machine.
        trust_env=not leads_here(urlsplit(address).hostname or ""),
    )
    try:
        async with http:
            client = Client(streamable_http_client(address, http_client=http), elicitation_callback=ask)
            async with client:
                yield client
    except* httpx2.TransportError as errors:
        raise _unreachable(address, errors.exceptions[0]) from None
    except* MCPError as errors:
        raise _connection_failure(address, refusals, errors) from None


def _unreachable(address: str, error: BaseException) -> Failure:
    del error
    return Failure(f"no answer from {address}", "is `ssh-steward serve` running there?")


def _connection_failure(address: str, refusals: list[int], errors: "BaseExceptionGroup[Any]") -> Failure:
    status = refusals[-1] if refusals else None
    if status == 401:
        return Failure(
            f"{address} refused the token",
            "set MCP_SSH_TOKEN; the server's owner makes one with `ssh-steward token add NAME`",
        )
    if status is not None:
        return Failure(f"{address} answered with HTTP status {status}", "is it the address of an ssh-steward server?")
    return Failure(f"{address}: {errors.exceptions[0]}")


async def call(
    client: "Client", tool: str, arguments: Mapping[str, Any], on_progress: ProgressHandler | None = None
) -> Reply:
    """Call a tool."""

    async def report(progress: float, total: float | None, message: str | None) -> None:
        if on_progress is not None:
            on_progress(progress, total, message)

    answer = await client.call_tool(tool, dict(arguments), progress_callback=report)
    if not answer.is_error:
        return Reply(ok=True, body=dict(answer.structured_content or {}))
    return Reply(ok=False, body=_error("".join(part.text for part in answer.content if part.type == "text")))


async def call_in_the_end(client: "Client", tool: str, arguments: Mapping[str, Any]) -> None:
    """Call a tool while cleaning up: within a bound, even while being cancelled, and whatever it answers."""
    import anyio

    with anyio.CancelScope(shield=True), anyio.move_on_after(CLEANUP_LIMIT_S), contextlib.suppress(Exception):
        await client.call_tool(tool, dict(arguments))


def _error(text: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(text)
        if isinstance(found, dict) and "message" in found:
            return cast("dict[str, Any]", found)
    return {"code": "error", "message": text or "the server refused without giving a reason"}
