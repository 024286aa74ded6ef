"""What every request passes before any route sees it; the routes come from the tables."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.datastructures import Headers

from mcp_ssh.errors import InvalidInput, ToolError
from mcp_ssh.tool import Caller, Risk, Role
from mcp_ssh.tools import REGISTRY
from rest_bridge.api.route import Route
from rest_bridge.families.registry import FAMILIES
from rest_bridge.http.auth import identify_for
from rest_bridge.http.middleware import HostOriginPolicy
from tests.support.rest_kit import Rest, rest_server

pytestmark = pytest.mark.requirement("http.refusals")
ROUTES = [route for family in FAMILIES for route in family.routes]
MCP_PATHS = ("/mcp", "/mcp/all", "/mcp/readonly", "/mcp/x/session")
PUBLIC = (
    "/", "/docs", "/docs/init.js", "/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/redoc", "/redoc/init.js",
    "/redoc/redoc.standalone.js", "/openapi.json", "/guide", "/prompts", "/llms.txt",
)  # fmt: skip
OVER = b" " * (4 * 1024 * 1024 + 1)
JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


def address(route: Route) -> str:
    names = {"session_id": "0123456789ab", "blob_id": "0" * 32, "task_id": "task_x", "shell": "default"}
    return route.path.format_map({name: names.get(name, f"{{{name}}}") for name in route.placeholders})


GUARDED = [
    *((each.method, address(each)) for each in ROUTES),
    *(("POST", path) for path in MCP_PATHS),
    *(("GET", path) for path in MCP_PATHS),
    *(("DELETE", path) for path in MCP_PATHS),
    ("GET", "/nowhere"),
    ("OPTIONS", "/command/exec"),
    ("GET", "/.well-known/oauth-protected-resource"),
]
EVERYTHING = [*GUARDED, *(("GET", path) for path in PUBLIC)]
guarded = pytest.mark.parametrize(("method", "path"), GUARDED, ids=lambda each: each.strip("/") or "root")
everything = pytest.mark.parametrize(("method", "path"), EVERYTHING, ids=lambda each: each.strip("/") or "root")
changing = pytest.mark.parametrize(
    "route", [each for each in ROUTES if each.tool.risk is not Risk.READ], ids=lambda each: each.address
)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def rest(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Rest]:
    async with rest_server(tmp_path_factory.mktemp("home"), REGISTRY, FAMILIES) as server:
        yield server


def bare(answer: httpx2.Response) -> None:
    """No answer invites other pages, may be kept, or be taken for something else."""
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert answer.headers["cache-control"].startswith("no-store")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "Traceback" not in answer.text


def said(answer: httpx2.Response) -> dict[str, Any]:
    """An error's code and message, in whichever dialect it came."""
    body = answer.json()
    return body["error"]["data"] if "jsonrpc" in body else {"code": body["code"], "message": body["detail"]}


@guarded
@pytest.mark.parametrize("token", [None, "mcpssh_" + "x" * 43, "x" * 2000])
async def test_no_token_or_a_wrong_one_is_401(rest: Rest, method: str, path: str, token: str | None) -> None:
    async with rest.client(token) as client:
        answer = await client.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert said(answer)["code"] == "unauthenticated"
    bare(answer)


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", "Basic {admin}")],
        [("Authorization", "{admin}")],
        [("Authorization", "Bearer")],
        [("Authorization", "Bearer {admin}"), ("Authorization", "Bearer {admin}")],
        [("Cookie", "jwt={admin}")],
        [("X-Api-Key", "{admin}")],
    ],
)
async def test_a_token_counts_as_one_bearer_header_alone(rest: Rest, headers: list[tuple[str, str]]) -> None:
    async with rest.client(None) as client:
        filled = [(name, value.format(admin=rest.admin)) for name, value in headers]
        answer = await client.get(f"/session/list?token={rest.admin}", headers=filled)
    assert answer.status_code == 401


async def test_bearer_may_be_written_in_any_case(rest: Rest) -> None:
    async with rest.client(None, Authorization=f"bearer {rest.admin}") as client:
        assert (await client.get("/session/list")).status_code == 200


async def test_a_revoked_token_is_refused_from_the_next_request_on(rest: Rest) -> None:
    token, secret = await rest.app.store.tokens.create("short-lived", Role.VIEWER)
    async with rest.client(secret) as client:
        assert (await client.get("/session/list")).status_code == 200
        await rest.app.store.tokens.revoke(token.id)
        assert (await client.get("/session/list")).status_code == 401


@pytest.mark.parametrize("path", PUBLIC)
async def test_what_explains_the_server_needs_no_token(rest: Rest, path: str) -> None:
    async with rest.client(None) as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    bare(answer)


@changing
async def test_a_viewer_changes_nothing(rest: Rest, route: Route) -> None:
    async with rest.client("viewer") as client:
        answer = await client.request(route.method, address(route), **acceptable(route))
    assert answer.status_code == 403
    assert f"needs the role {route.tool.role.name.lower()}" in answer.json()["detail"]


def acceptable(route: Route) -> dict[str, Any]:
    """Arguments that the tool's model takes."""
    samples: dict[str, Any] = {
        "public_key": "ssh-ed25519 AAAA", "fingerprint_sha256": "SHA256:x", "src": "/tmp/x", "dst": "/tmp/y",
        "schedule": "@daily", "ip": "192.0.2.1", "entry": "@daily true", "mode": "644",
    }  # fmt: skip
    # One of several is needed, which a schema does not say.
    chosen = {"/file/upload": {"raw_content": ""}, "/file/download": {"return_content": True}}.get(route.path, {})
    needed = [each for each in route.fields(confirm=False).values() if each.required and each.place != "path"]
    in_body = {each.wire: samples.get(each.wire, plainest(each.schema)) for each in needed if each.place == "body"}
    in_query = {each.wire: samples.get(each.wire, plainest(each.schema)) for each in needed if each.place == "query"}
    return {"params": in_query, **({"json": in_body | chosen} if route.method in {"POST", "PUT"} else {})}


def plainest(schema: Mapping[str, Any]) -> Any:
    """A value that a schema takes."""
    if "enum" in schema:
        return schema["enum"][0]
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
    return {
        "integer": max(least, 1),
        "number": max(least, 1),
        "boolean": True,
        "array": ["x"] * schema.get("minItems", 0),
    }.get(schema.get("type"), "x")


@everything
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8754", "127.0.0.1.evil.example", "", "[::2]:8754"])
async def test_a_foreign_host_header_is_421(rest: Rest, method: str, path: str, host: str) -> None:
    async with rest.client(Host=host) as client:
        answer = await client.request(method, path)
    assert answer.status_code == 421
    assert said(answer)["code"] == "misdirected"
    bare(answer)


@everything
@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:3000", "https://127.0.0.1:8754", "http://localhost:8754"],
)
async def test_a_page_from_elsewhere_is_403(rest: Rest, method: str, path: str, origin: str) -> None:
    async with rest.client(Origin=origin) as client:
        answer = await client.request(method, path)
    assert answer.status_code == 403
    assert said(answer)["code"] == "refused"
    bare(answer)


@everything
async def test_a_body_over_the_limit_is_413_by_its_announced_length(rest: Rest, method: str, path: str) -> None:
    async with rest.client(**JSON) as client:
        answer = await client.request(method, path, content=OVER)
    assert answer.status_code == 413
    assert said(answer)["code"] == "too_large"
    bare(answer)


@pytest.mark.parametrize(
    ("method", "path"),
    [*((each.method, address(each)) for each in ROUTES), *(("POST", path) for path in MCP_PATHS)],
)
async def test_a_body_over_the_limit_is_413_while_it_streams(rest: Rest, method: str, path: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 65536
            yield b" " * 65536

    async with rest.client(**JSON) as client:
        answer = await client.request(method, path, content=endless())
    assert answer.status_code == 413
    assert sent < len(OVER) + 2 * 65536
    bare(answer)


async def test_the_limit_is_the_configured_one(tmp_path: Path) -> None:
    async with rest_server(tmp_path, max_body_mb=0.001) as rest, rest.client() as client:
        fits = await client.post("/session/say", json={"text": "a" * 900})
        over = await client.post("/session/say", json={"text": "a" * 1100})
    assert (fits.status_code, over.status_code) == (200, 413)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8754", "LOCALHOST", "[::1]:8754", "[::1]", "127.0.0.1:80"])
async def test_this_machines_names_are_answered(rest: Rest, host: str) -> None:
    async with rest.client(Host=host) as client:
        assert (await client.get("/session/list")).status_code == 200


async def test_a_page_of_this_server_is_answered_without_cors(rest: Rest) -> None:
    async with rest.client(Origin="http://127.0.0.1:8754") as client:
        answer = await client.get("/session/list")
        preflight = await client.options("/session/list", headers={"Access-Control-Request-Method": "POST"})
    assert answer.status_code == 200
    assert preflight.status_code == 405
    bare(answer)
    bare(preflight)


def judged(names: HostOriginPolicy, host: str, origin: str | None = None) -> str:
    headers = Headers({"host": host, **({"origin": origin} if origin else {})})
    try:
        names.check(headers)
    except ToolError as error:
        return error.code
    return "ok"


def test_configured_hosts_and_origins_are_answered() -> None:
    names = HostOriginPolicy("10.0.0.5", ["ssh.example.org", "alt.example.org:8443"], ["https://ops.example.org/"])
    assert judged(names, "ssh.example.org") == "ok"
    assert judged(names, "SSH.example.org:443") == "ok"
    assert judged(names, "alt.example.org:8443") == "ok"
    assert judged(names, "alt.example.org") == "misdirected"
    assert judged(names, "10.0.0.5:8754") == "ok"
    assert judged(names, "ssh.example.org", "https://ops.example.org") == "ok"
    assert judged(names, "ssh.example.org", "https://ssh.example.org") == "refused"


def test_a_wildcard_address_is_no_name_of_this_server() -> None:
    assert judged(HostOriginPolicy("0.0.0.0", [], []), "0.0.0.0:8754") == "misdirected"
    assert judged(HostOriginPolicy("::", [], []), "[::]:8754") == "misdirected"
    assert judged(HostOriginPolicy("::", [], []), "[::1]:8754") == "ok"


def test_two_host_headers_are_refused() -> None:
    headers = Headers(raw=[(b"host", b"127.0.0.1"), (b"host", b"127.0.0.1")])
    with pytest.raises(ToolError, match="Host header"):
        HostOriginPolicy("127.0.0.1", [], []).check(headers)


async def test_without_tokens_everyone_on_loopback_is_the_local_admin(tmp_path: Path) -> None:
    async with rest_server(tmp_path, auth_mode="none") as rest, rest.client(None) as client:
        answer = await client.post("/session/say", json={"text": "a"})
        foreign = await client.post("/session/say", json={"text": "a"}, headers={"Origin": "http://evil.example"})
    assert answer.json()["caller"] == "local"
    assert foreign.status_code == 403


@pytest.mark.parametrize(
    ("bound", "proxy"), [("1.1.1.1", False), ("10.0.0.5", False), ("::", False), ("127.0.0.1", True)]
)
async def test_without_tokens_no_other_address_is_served(rest: Rest, bound: str, proxy: bool) -> None:
    server = rest.app.config.server.model_copy(update={"auth_mode": "none", "behind_proxy": proxy})
    with pytest.raises(InvalidInput, match="auth_mode none"):
        identify_for(server, rest.app.store.tokens, bound)


async def test_a_fingerprint_of_another_key_is_400_as_documented(rest: Rest) -> None:
    offered = {
        "host": "web1", "port": 22, "key_type": "ssh-ed25519",
        "public_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJDuuZmgPJSKkSgLJRL8BqaRprK2Nsmg0ii/UrnsVLEy",
        "fingerprint_sha256": "SHA256:" + "A" * 43,
    }  # fmt: skip
    async with rest.client() as client:
        answer = await client.post("/api/remote/known-hosts/accept", json=offered)
        known = (await client.get("/api/remote/known-hosts/list")).json()
    assert answer.status_code == 400
    assert "fingerprint" in answer.json()["detail"]
    assert known == {"entries": []}


async def test_a_fault_before_the_route_is_answered_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(secret: str) -> None:
        raise RuntimeError(f"the disk of /home/me is gone, {secret}")

    async with rest_server(tmp_path) as rest, rest.client() as client:
        monkeypatch.setattr(rest.app.store.tokens, "find", find)
        answer = await client.post("/session/say", json={"text": "a"})
    assert answer.status_code == 500
    assert answer.json()["detail"] == "internal server error"
    bare(answer)


async def test_a_websocket_is_closed(rest: Rest) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await rest.http({"type": "websocket", "path": "/mcp", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_the_caller_of_a_request_is_its_token(rest: Rest) -> None:
    token = next(each for each in await rest.app.store.tokens.list() if each.name == "an-admin")
    identify = identify_for(rest.app.config.server, rest.app.store.tokens, "127.0.0.1")
    caller = await identify(Headers({"authorization": f"Bearer {rest.admin}"}))
    assert caller == Caller(token.id, Role.ADMIN)
    assert not caller.owner
