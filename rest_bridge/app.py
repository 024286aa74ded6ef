"""The whole HTTP application: documented routes, documentation, MCP endpoints, behind one gate."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.routing import Route as HttpRoute

from mcp_ssh import __version__
from mcp_ssh.app import App
from mcp_ssh.errors import NotFound
from mcp_ssh.tool import Registry, Risk
from mcp_ssh.toolsets import ToolsetSelection, suggest_tools
from rest_bridge.api.endpoint import Endpoint, body_limit
from rest_bridge.api.route import Family, Route
from rest_bridge.docs.guide import guide, llms, prompts_page
from rest_bridge.docs.openapi import document
from rest_bridge.docs.pages import page_routes, text_routes
from rest_bridge.errors import ErrorFormats, WrongMethod
from rest_bridge.http.auth import identify_for
from rest_bridge.http.browsers import ActingGets
from rest_bridge.http.mcp import MCP, McpEndpoints
from rest_bridge.http.middleware import HostOriginPolicy, HttpMiddleware, OpenRequests
from rest_bridge.responses import Answer, refusal


def build(
    app: App,
    registry: Registry,
    families: Sequence[Family],
    *,
    surface: ToolsetSelection | None = None,
    bound: str = "127.0.0.1",
    open_requests: OpenRequests | None = None,
) -> Starlette:
    """The HTTP application of an open `App`; serve it once.

    Args:
        app: What the calls run on.
        registry: The tools that the MCP endpoints offer.
        families: The REST tables.
        surface: What `/mcp` lists; the core tools by default. Its siblings below list what their names say.
        bound: The address the server listens on, as it was configured.
        open_requests: Where answers that stream are noted, for a server that stops.

    Raises:
        InvalidInput: Calls without a token were configured for an address beyond this machine.
    """
    settings = app.config.server
    mcp = McpEndpoints(app, registry, surface or ToolsetSelection(read_only=app.read_only), body_limit(app))
    plain, patterns = _endpoints(app, families)
    pages = [
        _health(),
        _document(document(families, app.config)),
        *page_routes(),
        *text_routes(
            {
                "/guide": partial(guide, registry, families, app.config),
                "/prompts": prompts_page,
                "/llms.txt": llms,
            }
        ),
        *mcp.routes(),
    ]
    every = [route for family in families for route in family.routes]
    gate = Middleware(
        HttpMiddleware,
        plain=plain,
        formats=ErrorFormats([*(each.error_format for each in families), MCP]),
        names=HostOriginPolicy(bound, settings.allowed_hosts, settings.allowed_origins),
        identify=identify_for(settings, app.store.tokens, bound),
        limit_bytes=body_limit(app),
        open_requests=open_requests or OpenRequests(),
        slashless=frozenset(each.path for each in pages),
        streams=frozenset(route.path for route in every if route.stream),
        acting=ActingGets(each.path for each in every if each.method == "GET" and each.tool.risk is not Risk.READ),
    )
    starlette = Starlette(
        routes=[*patterns, *pages],
        middleware=[gate],
        exception_handlers={HTTPException: _astray(families)},
        lifespan=lambda _: mcp.running(),
    )
    # A redirect would be an answer for a path that no table has.
    starlette.router.redirect_slashes = False
    return starlette


def _endpoints(app: App, families: Iterable[Family]) -> tuple[dict[str, Endpoint], list[BaseRoute]]:
    """Addresses without placeholders by path, since one look-up finds them; and routes for those with some."""
    by_path: dict[str, list[Route]] = {}
    for family in families:
        for route in family.routes:
            by_path.setdefault(route.path, []).append(route)
    endpoints = {path: Endpoint(app, routes) for path, routes in by_path.items()}
    patterns = [HttpRoute(path, endpoints.pop(path)) for path, (route, *_) in by_path.items() if route.placeholders]
    return endpoints, [*patterns]


def _health() -> HttpRoute:
    content = {
        "service": "ssh-steward",
        "version": __version__,
        "status": "running",
        "docs": "/docs",
        "openapi": "/openapi.json",
        "guide": "/guide",
        "llms": "/llms.txt",
        "mcp": "/mcp",
    }

    async def health(_: Request) -> Response:
        return Answer(content)

    return HttpRoute("/", health)


def _document(content: Mapping[str, Any]) -> HttpRoute:
    rendered = Answer(content).body

    async def openapi(_: Request) -> Response:
        return Response(rendered, media_type="application/json")

    return HttpRoute("/openapi.json", openapi)


def _astray(families: Iterable[Family]) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Answer for paths without a route, and for methods a page does not have."""
    routes = [route for family in families for route in family.routes]

    async def answer(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 405:
            allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            return refusal(
                request.scope, WrongMethod(f"this path takes {allowed}", hint=f"use {allowed}"), {"Allow": allowed}
            )
        near = _suggest_paths(request.scope["path"], routes)
        hint = f"did you mean {near[0]}?" if near else "/openapi.json lists the routes, /docs shows them"
        return refusal(request.scope, NotFound("there is no such path", hint=hint))

    return answer


def _suggest_paths(path: str, routes: Iterable[Route]) -> list[str]:
    """Return the paths that an unknown one may mean, as tools are suggested: a path is named and judged like a tool."""
    by_path = {
        each.path: replace(each.tool, name=each.path) for each in sorted(routes, key=lambda each: each.tool.risk)
    }
    return [each.name for each in suggest_tools(Registry(by_path.values()), path, most=1)]
