"""A small registry and tables of its own for the tests of `rest_bridge`, and an HTTP client in this process."""

import contextlib
import datetime
import ipaddress
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mcp.server.auth.middleware.auth_context import get_access_token
from pydantic import Field

from mcp_ssh import errors
from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.errors import ToolError
from mcp_ssh.params import OnSession, Params, Result
from mcp_ssh.tool import Call, Registry, Risk, Role, tool
from mcp_ssh.toolsets import ToolsetSelection
from rest_bridge.api.route import Family, Route, Shape
from rest_bridge.app import build
from rest_bridge.families.ssh_api.family import SSH_API
from rest_bridge.families.viewer.family import VIEWER
from rest_bridge.server import Tls, serve

BASE = "http://127.0.0.1:8754"


class Words(OnSession):
    text: str = Field(min_length=1, description="What to say.")
    count: int = Field(default=1, ge=0, description="How often.")
    ratio: float | None = Field(default=None, description="Of what.")
    loud: bool = Field(default=False, description="Whether to shout.")
    tags: list[str] = Field(default_factory=list, description="What it is about.")
    names: dict[str, str] | None = Field(default=None, description="Who is meant.")


class Said(Result):
    arguments: dict[str, Any] = Field(description="What arrived.")
    caller: str = Field(description="Whose call it was.")
    door: str = Field(description="Through which door.")
    confirms: bool = Field(description="Whether the door confirms.")
    principal: str | None = Field(description="The user that the MCP SDK sees.")


async def _said(params: Params, call: Call) -> Said:
    await call.progress(1, 2, "half")
    seen = get_access_token()
    return Said(
        arguments=params.model_dump(mode="json"),
        caller=call.caller.id,
        door=call.door,
        confirms=call.confirms,
        principal=seen.client_id if seen else None,
    )


@tool(Risk.READ, room="rest_kit")
async def say(app: App, params: Words, call: Call) -> Said:
    """Say what arrived."""
    return await _said(params, call)


@tool(Risk.CHANGE, room="rest_kit")
async def change(app: App, params: Words, call: Call) -> Said:
    """Change nothing, but be a tool that might."""
    return await _said(params, call)


class Kind(Params):
    kind: str = Field(description="Which error.")


@tool(Risk.READ, room="rest_kit")
async def fail(app: App, params: Kind, call: Call) -> Said:
    """Fail in the given way."""
    if params.kind == "HostKeyUnconfirmed":
        raise errors.HostKeyUnconfirmed(
            "the host key of web1 is unknown",
            hint="compare it, then accept it",
            details={
                "code": "HOST_KEY_CONFIRMATION_REQUIRED",
                "message": "Host key verification failed",
                "host_key": {"host": "web1", "port": 22, "reason": "unknown"},
            },
        )
    if params.kind == "crash":
        raise RuntimeError("secret at /home/me/.ssh/id")
    if params.kind == "judged":
        raise errors.InvalidInput("kind must be another", details={"errors": [{"field": "kind", "rule": "another"}]})
    kind: type[ToolError] = getattr(errors, params.kind)
    raise kind("it went wrong", hint="do it otherwise", details={"fact": 1})


class Nothing(Params):
    def time_limit_s(self) -> float:
        return 30.0


@dataclass
class Hanging:
    """What became of the calls of `hang`."""

    began: anyio.Event
    cancelled: anyio.Event


HANGING = Hanging(anyio.Event(), anyio.Event())


@tool(Risk.READ, room="rest_kit")
async def hang(app: App, params: Nothing, call: Call) -> Said:
    """Wait until it is cancelled."""
    HANGING.began.set()
    try:
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        HANGING.cancelled.set()
        raise
    raise AssertionError


class Odd(Result):
    text: str = Field(description="Text that UTF-8 cannot carry.")


@tool(Risk.READ, room="rest_kit")
async def odd(app: App, params: Nothing, call: Call) -> Odd:
    """Answer with a file name that is not UTF-8."""
    return Odd(text="caf\udce9 ü")


class Short(Result):
    said: str = Field(description="The text.")


def _shorter(result: dict[str, Any]) -> dict[str, Any]:
    return {"said": result["arguments"]["text"]}


REGISTRY = Registry([say, change, fail, hang, odd])

FAMILIES = (
    Family(
        SSH_API,
        (
            Route("POST", "/session/say", say),
            Route("GET", "/session/say", say, only=("text", "count", "loud", "ratio", "tags", "session_id")),
            Route("GET", "/session/heard/{text}", say, only=("text", "count")),
            Route("GET", "/session/run", say, only=("text", "count"), rename={"cmd": "text", "times": "count"}),
            Route("POST", "/session/fixed", say, fixed={"text": "always"}, shape=Shape(Short, _shorter)),
            Route("POST", "/session/change", change),
            Route("GET", "/session/act", change, only=("text",)),
            Route("POST", "/session/fail", fail),
            Route("GET", "/session/hang", hang),
            Route("POST", "/session/hang", hang),
            Route("GET", "/session/odd", odd),
        ),
    ),
    Family(VIEWER, (Route("POST", "/api/remote/say", say), Route("POST", "/api/remote/fail", fail))),
)


@dataclass
class Rest:
    """A server in this process, and clients for it."""

    app: App
    http: Any
    admin: str
    viewer: str

    def client(self, token: str | None = "admin", **headers: str) -> httpx2.AsyncClient:  # noqa: S107 a role
        """A client with a token of that role, or with that text as token."""
        secret = {"admin": self.admin, "viewer": self.viewer}.get(token or "", token)
        given = {"Authorization": f"Bearer {secret}"} if secret else {}
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.http), base_url=BASE, headers={**given, **headers}, timeout=20
        )


@contextlib.asynccontextmanager
async def rest_server(
    home: Path, registry: Registry = REGISTRY, families: tuple[Family, ...] = FAMILIES, **server: Any
) -> AsyncGenerator[Rest]:
    """A server with an admin's and a viewer's token."""
    security = server.pop("security", {})
    config = Config.model_validate({"server": server, "security": security})
    async with open_app(home, config) as app:
        _, admin = await app.store.tokens.create("an-admin", Role.ADMIN)
        _, viewer = await app.store.tokens.create("a-viewer", Role.VIEWER)
        http = build(app, registry, families, surface=ToolsetSelection(("all",)))
        async with http.router.lifespan_context(http):
            yield Rest(app, http, admin, viewer)


class Served:
    """A server on a socket."""

    def __init__(self, app: App, url: str, token: str, stop: Callable[[], None], ended: anyio.Event) -> None:
        self.app, self.url, self.token, self.stop, self.ended = app, url, token, stop, ended
        self.port = int(url.rpartition(":")[2])
        self.headers = {"Authorization": f"Bearer {token}"}

    def client(self, **options: Any) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.url, headers=self.headers, timeout=20, trust_env=False, **options)


@contextlib.asynccontextmanager
async def serving(home: Path, *, config: Config | None = None, **options: Any) -> AsyncGenerator[Served]:
    ready, ended = anyio.Event(), anyio.Event()
    address: list[str] = []

    def told(url: str) -> None:
        address.append(url)
        ready.set()

    options = {"host": "127.0.0.1", "port": 0, "signals": False, "surface": ToolsetSelection(("all",)), **options}
    async with open_app(home, config or Config()) as app, anyio.create_task_group() as group:
        _, token = await app.store.tokens.create("test", Role.ADMIN)
        scope = anyio.CancelScope()

        async def run() -> None:
            with scope:
                await serve(app, REGISTRY, FAMILIES, **options, on_ready=told)
            ended.set()

        group.start_soon(run)
        with anyio.fail_after(10):
            await ready.wait()
        yield Served(app, address[0], token, scope.cancel, ended)
        scope.cancel()
        with anyio.fail_after(20):
            await ended.wait()


def certificate(folder: Path) -> Tls:
    """A certificate of this machine's, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return Tls(folder / "cert.pem", folder / "key.pem")
