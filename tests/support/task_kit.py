"""Background tasks as tests drive them, and what the machine itself says of them."""

import functools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.linux.tasks import requests
from mcp_ssh.ssh.connection.connection import Connection
from mcp_ssh.tools import command, session
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Way
from tests.support.machine import login, trust

FOLDER = "~/.local/state/mcp-ssh/tasks"
TIDY = "rm -rf /home/*/.local/state/mcp-ssh /root/.local/state/mcp-ssh /var/tmp/mcp-ssh-*"


class On:
    """A session through a door."""

    def __init__(self, way: Way, host: Host, session_id: str) -> None:
        self.way, self.host, self.session_id = way, host, session_id

    async def start(self, text: str, **more: Any) -> str:
        """Start a task and give its id."""
        return (await self.way.call(command.background, self.given(command=text, **more)))["task_id"]

    async def look(self, task_id: str, **more: Any) -> dict[str, Any]:
        return await self.way.call(command.task, self.given(task_id=task_id, **more))

    async def cancel(self, task_id: str, **more: Any) -> dict[str, Any]:
        return await self.way.call(command.task_cancel, self.given(task_id=task_id, **more))

    async def names(self, **more: Any) -> list[str]:
        listed = await self.way.call(command.tasks, self.given(**more))
        return [each["task_id"] for each in listed["tasks"]]

    async def follow(self, task_id: str, **more: Any) -> tuple[str, str, dict[str, Any]]:
        """All it says until its end, by as many looks as that takes; and the last of them."""
        output, error, offsets = "", "", {"output_offset": 0, "error_offset": 0}
        with anyio.fail_after(60):
            while True:
                seen = await self.look(task_id, wait_s=20, **offsets, **more)
                output, error = output + seen["output"], error + seen["error"]
                offsets = {"output_offset": seen["output_next"], "error_offset": seen["error_next"]}
                if seen["status"] != "running" and not seen.get("more"):
                    return output, error, seen

    def given(self, **arguments: Any) -> dict[str, Any]:
        return {"session_id": self.session_id, **arguments}


async def on(app: App, way: Way, host: Host, user: str = "dev") -> On:
    """A session on a host whose accounts have no tasks."""
    await trust(app, host)
    await console(host, TIDY)
    return On(way, host, (await way.call(session.connect, login(host, user)))["session_id"])


async def directly(app: App, host: Host, user: str = "dev") -> On:
    return await on(app, Direct(app), host, user)


async def console(host: Host, text: str) -> str:
    """What root's shell answers on the machine's console: a road without network and login."""
    said = await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-c", text]))
    assert said.returncode == 0, said.stderr
    return said.stdout


async def until(what: Callable[[], Any]) -> None:
    """Wait until the machine says something."""
    with anyio.fail_after(20):
        while not await what():
            await anyio.sleep(0.05)


def without(monkeypatch: pytest.MonkeyPatch, name: str, *mechanisms: tuple[str, str]) -> None:
    """One of the scripts without what keeps a promise: the other half of a proof."""
    text: str = getattr(requests, name)
    for mechanism, instead in mechanisms:
        assert mechanism in text
        text = text.replace(mechanism, instead)
    monkeypatch.setattr(requests, name, text)


@asynccontextmanager
async def round_trips(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[list[str]]:
    """The channels that are opened meanwhile."""
    opened: list[str] = []
    real = Connection.open

    async def counted(self: Connection, text: str | None, **more: Any) -> Any:
        opened.append(text or "")
        return await real(self, text, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Connection, "open", counted)
        yield opened
