"""Apps whose owner has set rules, what a rule refuses, and a folder on the machine."""

import contextlib
import shlex
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.errors import ToolError
from tests.fleet.hosts import Host
from tests.support.doors import Fault

FOLDER = "/home/dev/of policy"


@contextlib.asynccontextmanager
async def ruled(home: Path, **security: Any) -> AsyncGenerator[App]:
    """An app with this part of the configuration."""
    async with open_app(home, Config.model_validate({"security": security})) as app:
        yield app


async def inside(host: Host, script: str) -> str:
    """What the machine's console says: quicker than a login, and past our code."""
    said = await anyio.to_thread.run_sync(lambda: host.console(["sh", "-c", script]))
    assert said.returncode == 0, said.stderr
    return said.stdout


async def refused(call: Any, code: str = "refused") -> None:
    """The call ends with this error, whichever door it took."""
    with pytest.raises((Fault, ToolError)) as caught:
        await call
    assert caught.value.code == code, caught.value
    if isinstance(caught.value, Fault):
        assert caught.value.status in {None, 403 if code == "refused" else 404}


async def emptied(host: Host) -> None:
    await inside(host, f"rm -rf {shlex.quote(FOLDER)}; mkdir {shlex.quote(FOLDER)}; chown dev {shlex.quote(FOLDER)}")
