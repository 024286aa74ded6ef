"""Fixtures every test may use: an app in a folder of its own, a caller, and the doors to it."""

import os
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config

pytest.register_assert_rewrite("tests.support")  # a kit that fails shows its values, as a test does

from tests.support.doors import DirectCall, Way, caller, open_way  # noqa: E402 # only what comes later is rewritten

pytest_plugins = ["tests.fleet.plugin", "tests.protocol.npm"]

# A run that a shell started in the background ignores these, and what it starts would not be ended by them either.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long one example takes says how busy the machine is, and nothing of the code.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Tests, and the servers they start, run on asyncio's own loop unless they, or whoever runs them, name the other one.
os.environ.setdefault("MCP_SSH_LOOP", "asyncio")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What only `make soak` runs is not among the tests of other runs."""
    only = [] if os.environ.get("MCP_SSH_SOAK") else [each for each in items if each.get_closest_marker("soak")]
    if only:
        config.hook.pytest_deselected(items=only)
        items[:] = [each for each in items if each not in only]


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """asyncssh runs on asyncio alone."""
    return "asyncio", {"use_uvloop": os.environ["MCP_SSH_LOOP"] == "uvloop"}


@pytest.fixture
def mcp_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder of config and state, and a HOME without keys or known hosts."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    state = tmp_path / "state"
    monkeypatch.setenv("MCP_SSH_HOME", str(state))
    return state


@pytest.fixture
async def app(mcp_home: Path) -> AsyncGenerator[App]:
    async with open_app(mcp_home, Config()) as opened:
        yield opened


@pytest.fixture
def owner() -> DirectCall:
    return DirectCall(caller())


@pytest.fixture(params=["direct", "mcp", "rest"])
async def way(request: pytest.FixtureRequest, app: App) -> AsyncGenerator[Way]:
    """Each of the three doors to the app."""
    async with open_way(request.param, app) as opened:
        yield opened


@pytest.fixture(params=["auto", "legacy", "2026-07-28"])
def mode(request: pytest.FixtureRequest) -> str:
    """Each era of the MCP protocol, and whichever of them the two sides agree on."""
    return request.param
