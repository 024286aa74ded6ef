"""Fixtures of tests that have a session on a real host and an empty folder there."""

import pytest

from mcp_ssh.app import App
from tests.doors import Direct, Way
from tests.fleet.hosts import Host
from tests.hosts.transfers import On, opened


@pytest.fixture
async def on(app: App, way: Way, host: Host) -> On:
    """Through each of the doors."""
    return await opened(way, app, host)


@pytest.fixture
async def direct(app: App, host: Host) -> On:
    """Past them."""
    return await opened(Direct(app), app, host)
