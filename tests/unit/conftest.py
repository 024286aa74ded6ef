"""Fixtures of the tests of the MCP door: the eras of its protocol, and what the toys behind it see."""

import pytest

from tests.support import toys


@pytest.fixture(params=["auto", "legacy", "2026-07-28"])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> toys.Seen:
    """What no earlier test has touched."""
    fresh = toys.Seen()
    monkeypatch.setattr(toys, "SEEN", fresh)
    return fresh
