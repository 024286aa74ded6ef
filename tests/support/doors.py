"""The doors as tests see them: the same tool called directly, over MCP and over REST."""

import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ToolError
from mcp_ssh.tool import AnyTool, Caller, Question, Role, TransportName


def caller(name: str = "stdio", role: Role = Role.ADMIN, *, owner: bool = True) -> Caller:
    return Caller(name, role, owner)


@dataclass
class DirectCall:
    """A call without a door: nobody to ask, nobody to tell."""

    caller: Caller
    door: TransportName = "direct"
    confirms: bool = False

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        pass

    async def need(self, question: Question) -> Mapping[str, Any] | None:
        return None


class Fault(Exception):
    """An error as a door gave it."""

    def __init__(self, payload: Mapping[str, Any], status: int | None = None) -> None:
        super().__init__(json.dumps(payload))
        self.code: str = payload["code"]
        self.payload = payload
        self.status = status


class Way(Protocol):
    """One door, as a test uses it."""

    name: str

    async def call(self, tool: AnyTool, arguments: Mapping[str, Any]) -> dict[str, Any]: ...


class Direct:
    """Dispatch itself."""

    name = "direct"

    def __init__(self, app: App) -> None:
        self.app = app

    async def call(self, tool: AnyTool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        try:
            result = await dispatch(self.app, tool, arguments, DirectCall(caller()))
        except ToolError as error:
            raise Fault(error.payload()) from error
        return result.model_dump(mode="json", exclude_unset=True)


class Mcp:
    """The official client, speaking to the server in this process."""

    name = "mcp"

    def __init__(self, client: Any) -> None:
        self.client = client

    async def call(self, tool: AnyTool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        given = {**arguments, "confirm": True} if tool.confirm else dict(arguments)
        answer = await self.client.call_tool(tool.name, given)
        if answer.is_error:
            raise Fault(json.loads(answer.content[0].text))
        assert answer.structured_content is not None
        return dict(answer.structured_content)


class Rest:
    """HTTP requests to the documented address of the tool."""

    name = "rest"

    def __init__(self, client: Any, confirms: tuple[str, ...] = ()) -> None:
        self.client = client
        self.confirms = confirms

    async def call(self, tool: AnyTool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        from rest_bridge.families.registry import FAMILIES

        route = next(route for family in FAMILIES for route in family.routes if route.tool is tool)
        path, query, body = route.path, {}, {}
        for wire, field in route.fields(confirm=False).items():
            if field.name not in arguments:
                continue
            value = arguments[field.name]
            if field.place == "path":
                path = path.replace(f"{{{wire}}}", str(value))
            elif field.place == "query":
                query[wire] = value
            else:
                body[wire] = value
        sends_body = bool(body) or route.method not in {"GET", "DELETE"}
        unknown = {name: value for name, value in arguments.items() if name not in route.tool.params.model_fields}
        (body if sends_body else query).update(unknown)
        answer = await self.client.request(route.method, path, params=query, json=body if sends_body else None)
        content = answer.json()
        if answer.status_code != 200:
            raise Fault({"code": "none", **content}, answer.status_code)
        return content


@contextlib.asynccontextmanager
async def open_way(name: str, app: App) -> AsyncGenerator[Way]:
    """One of the three doors to an app, called as its administrator."""
    if name == "direct":
        yield Direct(app)
    elif name == "mcp":
        from mcp import Client

        from mcp_ssh.mcp_server import build_server
        from mcp_ssh.tools import REGISTRY
        from mcp_ssh.toolsets import parse

        server = build_server(app, REGISTRY, parse("all", read_only=False), caller=caller())
        async with Client(server, read_timeout_seconds=60) as client:
            yield Mcp(client)
    else:
        async with open_rest(app) as client:
            yield Rest(client)


@contextlib.asynccontextmanager
async def open_rest(app: App, role: Role = Role.ADMIN) -> AsyncGenerator[Any]:
    """An HTTP client with a token, speaking to the application in this process."""
    import httpx2

    from mcp_ssh.tools import REGISTRY
    from rest_bridge.app import build
    from rest_bridge.families.registry import FAMILIES

    _, secret = await app.store.tokens.create(f"test-{role.name.lower()}", role)
    http = build(app, REGISTRY, FAMILIES)
    async with (
        http.router.lifespan_context(http),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=http),
            base_url="http://127.0.0.1:8754",
            headers={"authorization": f"Bearer {secret}"},
            timeout=60,
        ) as client,
    ):
        yield client


async def refused(way: Way, tool: object, arguments: dict[str, object]) -> Fault:
    """The error that the call must end with."""
    import pytest  # benchmarks have the doors, and what they measure has no pytest

    with pytest.raises(Fault) as fault:
        await way.call(tool, arguments)  # type: ignore[arg-type]
    return fault.value
