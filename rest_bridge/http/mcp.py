"""The MCP endpoints: fixed paths, each with its own choice of tools, all over one registry and one `App`."""

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from mcp.server import Server
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_ssh.app import App
from mcp_ssh.errors import ToolError
from mcp_ssh.mcp_server import build_server
from mcp_ssh.tool import Registry
from mcp_ssh.toolsets import ToolsetSelection, toolsets
from rest_bridge.api.request import ClientGone, announces_body, read_body
from rest_bridge.errors import ErrorFormat
from rest_bridge.http.mcp_sessions import McpSessions


def _json_rpc(error: ToolError) -> dict[str, Any]:
    """An error before any MCP message was read, so it answers none by id."""
    return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": error.message, "data": error.payload()}}


MCP = ErrorFormat(
    name="mcp",
    title="MCP",
    about="The Model Context Protocol; not in the OpenAPI document.",
    prefixes=("/mcp",),
    body=_json_rpc,
    schema={"type": "object"},
)


class McpEndpoints:
    """Every MCP path of this server."""

    def __init__(self, app: App, registry: Registry, surface: ToolsetSelection, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._sessions = McpSessions()
        surfaces = {
            "/mcp": surface,
            "/mcp/all": ToolsetSelection(("all",), app.read_only),
            "/mcp/readonly": ToolsetSelection(("all",), read_only=True),
            **{f"/mcp/x/{each}": ToolsetSelection((each,), app.read_only) for each in toolsets(registry)},
        }
        self._managers = {
            path: _manager(build_server(app, registry, surface), limit_bytes) for path, surface in surfaces.items()
        }

    def routes(self) -> list[Route]:
        """One route a path, where the SDK finds the user to whom it binds requests that are continued."""
        return [
            Route(path, _Whole(self._sessions.count_sessions(_endpoint(manager)), self._limit_bytes))
            for path, manager in self._managers.items()
        ]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """Serve, for as long as the application lives."""
        async with contextlib.AsyncExitStack() as stack:
            for manager in self._managers.values():
                await stack.enter_async_context(manager.run())
            yield


def _endpoint(manager: StreamableHTTPSessionManager) -> ASGIApp:
    return AuthContextMiddleware(StreamableHTTPASGIApp(manager))


class _Whole:
    """Takes the whole body before the SDK sees the request: to the SDK a client that left is an error with a traceback.

    Args:
        app: The endpoint of the SDK.
        limit_bytes: The largest body.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not announces_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        try:
            body = await read_body(receive, self._limit_bytes)
        except ClientGone:
            return
        arrived: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Message:
            return arrived.pop() if arrived else await receive()

        await self._app(scope, again, send)


def _manager(server: Server[Any], limit_bytes: int) -> StreamableHTTPSessionManager:
    return StreamableHTTPSessionManager(
        server,
        # Plain JSON would take progress and questions from older clients; newer ones get it where nothing streams.
        json_response=False,
        max_request_body_size=limit_bytes,
        max_sessions=None,  # `McpSessions` bounds them for each caller, and over all endpoints
        # The gate has checked Host and Origin, by one rule for every path.
        security_settings=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
