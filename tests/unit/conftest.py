"""A fixture of the tests of MCP: what the toys behind it see."""

import pytest

from tests.support import toys


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> toys.Seen:
    """What no earlier test has touched."""
    fresh = toys.Seen()
    monkeypatch.setattr(toys, "SEEN", fresh)
    return fresh
