"""A client of server-sent events, and the server of this process on a socket of its own."""

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2

from mcp_ssh.app import App
from mcp_ssh.tool import Role
from mcp_ssh.tools import REGISTRY
from rest_bridge.families.registry import FAMILIES
from rest_bridge.server import serve

PATH = "/system/tail/stream"


@dataclass
class Seen:
    """An event as it came."""

    name: str
    id: str | None
    data: dict[str, Any]


class Reader:
    """Takes the events of an answer one by one, as an EventSource does."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines
        self.comments: list[str] = []
        self.last_id = ""

    async def next(self) -> Seen:
        fields: dict[str, str] = {}
        with anyio.fail_after(30):
            async for line in self._lines:
                if line.startswith(":"):
                    self.comments.append(line)
                elif line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    self.last_id = fields.get("id", self.last_id)
                    return Seen(fields["event"], fields.get("id"), json.loads(fields["data"]))
        raise EOFError

    async def text(self, wanted: str) -> None:
        """Take events until the wanted text has come, and nothing but that."""
        came = ""
        while came != wanted:
            event = await self.next()
            assert event.name == "content", event
            came += event.data["content"]
            assert wanted.startswith(came), (came, wanted)

    async def over(self) -> bool:
        """Whether the answer ends now."""
        try:
            await self.next()
        except EOFError:
            return True
        return False


class Server:
    """The address, and clients with a token."""

    def __init__(self, app: App, url: str) -> None:
        self.app, self.url = app, url

    async def token(self, role: Role, name: str = "", hosts: tuple[str, ...] | None = None) -> str:
        return (await self.app.store.tokens.create(name or f"a-{role.name}", role, hosts))[1]

    @contextlib.asynccontextmanager
    async def client(self, token: str | None) -> AsyncGenerator[httpx2.AsyncClient]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        async with httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=40, trust_env=False) as client:
            yield client


@contextlib.asynccontextmanager
async def served(app: App) -> AsyncGenerator[Server]:
    ready = anyio.Event()
    address: list[str] = []

    def told(url: str) -> None:
        address.append(url)
        ready.set()

    async with anyio.create_task_group() as group:

        async def run() -> None:
            await serve(app, REGISTRY, FAMILIES, host="127.0.0.1", port=0, signals=False, on_ready=told)

        group.start_soon(run)
        with anyio.fail_after(10):
            await ready.wait()
        yield Server(app, address[0])
        group.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def stream(client: httpx2.AsyncClient, last: str = "", **params: Any) -> AsyncGenerator[Reader]:
    headers = {"last-event-id": last} if last else {}
    async with client.stream("GET", PATH, params=params, headers=headers) as answer:
        if answer.status_code != 200:
            await answer.aread()
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/event-stream"
        yield Reader(answer.aiter_lines())
