"""The suite's cases with our own server, as every check runs them: all must be good."""

import pytest

from tests.behaviour.adapters import OURS
from tests.behaviour.cases import ALONE, CONNECTED, On
from tests.behaviour.running import running
from tests.fleet.hosts import Host
from tests.support.machine import SOAK

FLOOD_MB = 200 if SOAK else 32


@pytest.mark.requirement("behaviour")
@pytest.mark.parametrize("user", ["root", "dev"])
async def test_one_server_comes_through_everything_that_goes_wrong(deb: Host, user: str) -> None:
    on = On(OURS, deb, FLOOD_MB)
    adapter = on.adapter(user)
    await adapter.trust()
    found: dict[str, str] = {}
    async with running(adapter, deb) as server:
        for title, (case, account) in CONNECTED.items():
            if account == user:
                outcome = await case(on, server)
                found |= {} if outcome.good else {title: outcome.shown}
    assert found == {}


@pytest.mark.requirement("behaviour")
@pytest.mark.parametrize("title", ALONE)
async def test_it_starts_and_ends_as_it_should(deb: Host, title: str) -> None:
    outcome = await ALONE[title](On(OURS, deb))
    assert outcome.good, outcome.shown
