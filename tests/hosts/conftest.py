"""Fixtures of tests that have a session on a real host and an empty folder there."""

import functools
from collections.abc import AsyncGenerator
from typing import Any

import anyio.to_thread
import pytest

from mcp_ssh.app import App
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Way
from tests.support.transfers import On, opened


@pytest.fixture
async def on(app: App, way: Way, host: Host) -> On:
    """Through each of the doors."""
    return await opened(way, app, host)


@pytest.fixture
async def direct(app: App, host: Host) -> On:
    """Past them."""
    return await opened(Direct(app), app, host)


@pytest.fixture
async def wrapped(deb: Host) -> AsyncGenerator[Any]:
    """Puts scripts in the place of deb's programs."""
    names = list[str]()

    async def install(name: str, text: str) -> None:
        names.append(f"/usr/local/bin/{name}")
        put = f"cat > {names[-1]} && chmod 755 {names[-1]}"
        await anyio.to_thread.run_sync(functools.partial(deb.console, ["sh", "-c", put], input=f"#!/bin/sh\n{text}\n"))

    try:
        yield install
    finally:
        deb.console(["rm", "-f", *names])
