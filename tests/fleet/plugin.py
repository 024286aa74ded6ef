"""The pytest plugin: fixtures `fleet`, `host` and one for each host, on real hosts that no packet leaves.

Before anything else each process that runs tests moves into a network of its own, with a loopback and nothing more.
Servers under test started there are on that loopback, the hosts are a hop away, and a test cannot reach anything
outside.

Where the fleet cannot run, tests that ask for it are skipped with the reason. With `CI` set in the environment they
fail instead, so that no green run hides that the hosts were never there.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fleet import build
from tests.fleet.hosts import Fleet, Host, running_fleet
from tests.fleet.namespaces import FleetError, enter_own_network, in_network, reap, why_not
from tests.fleet.table import EVERY, ORDINARY

PREFIX = "fleet: "


@dataclass
class State:
    """The network that this pytest run was started in, or why it cannot have hosts."""

    outside: int = -1
    missing: str = ""


STATE = pytest.StashKey[State]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-fleet", action="store_true", help="skip tests on real SSH hosts; stay in the machine's network"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Leave the machine's network. Here, because no other thread is running yet."""
    state = config.stash[STATE] = State()
    if any(config.getoption(name, False) for name in ("help", "version", "collectonly", "showfixtures", "markers")):
        state.missing = "this pytest run executes no tests"
        return
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return  # pytest-xdist: the workers run the tests, and inherit from here the network that a build needs
    state.missing = "--no-fleet" if config.getoption("--no-fleet") else why_not() or ""
    if state.missing:
        return
    try:
        reap()
        state.outside = enter_own_network()
    except OSError as error:
        state.missing = str(error)


def _tell(config: pytest.Config, line: str) -> None:
    """Say something at once, past pytest's capturing, also from a worker of xdist: a build takes minutes."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        print(line, file=sys.stderr, flush=True)


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """All hosts, started once: the ordinary ones here, the others by the fixtures below.

    What a test does to them stays; these fixtures put links and host keys right. The first test that asks for them
    builds what they start from, in the machine's network.
    """
    state = request.config.stash[STATE]
    cache = None
    if not state.missing:
        try:
            with in_network(state.outside):
                cache = build.ensure(lambda line: _tell(request.config, line))
        except FleetError as error:
            state.missing = str(error)
    if cache is None:
        reason = PREFIX + state.missing
        if os.environ.get("CI"):
            pytest.fail(f"{reason} (in CI that is a failure, not a skip)", pytrace=False)
        pytest.skip(reason)
    with running_fleet(cache, list(ORDINARY)) as fleet:
        yield fleet


@pytest.fixture
def deb(fleet: Fleet) -> Iterator[Host]:
    """Debian under systemd. It answers when the test begins; its link and host keys are put right after it."""
    yield from _healed(fleet.deb)


@pytest.fixture
def alpine(fleet: Fleet) -> Iterator[Host]:
    """Alpine under OpenRC, with BusyBox. The same holds."""
    yield from _healed(fleet.alpine)


@pytest.fixture
def auth(fleet: Fleet) -> Iterator[Host]:
    """Debian with several SSH servers, each of which lets in by another way; see `Host.ports`. The same holds."""
    yield from _healed(fleet.hosts["auth"])


@pytest.fixture
def bastion(fleet: Fleet) -> Iterator[Host]:
    """Debian, and the one way to `inner`. The same holds."""
    yield from _healed(fleet.hosts["bastion"])


@pytest.fixture
def inner(fleet: Fleet, bastion: Host) -> Iterator[Host]:
    """Debian in a network that the tests are not on. The same holds."""
    yield from _healed(fleet.hosts["inner"])


@pytest.fixture(params=ORDINARY)
def host(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Every ordinary host in turn: the test runs once on each."""
    yield from _healed(fleet.hosts[request.param])


@pytest.fixture(params=EVERY)
def every(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[Host]:
    """One host of each family in turn: the test runs once on each."""
    yield from _healed(fleet.hosts[request.param])


@pytest.fixture
def rocky(fleet: Fleet) -> Iterator[Host]:
    """A host with dnf, rpm and firewalld under systemd. The same holds."""
    yield from _healed(fleet.hosts["rocky"])


@pytest.fixture
def suse(fleet: Fleet) -> Iterator[Host]:
    """A host with zypper under systemd. The same holds."""
    yield from _healed(fleet.hosts["suse"])


@pytest.fixture
def arch(fleet: Fleet) -> Iterator[Host]:
    """A host with pacman under systemd. The same holds."""
    yield from _healed(fleet.hosts["arch"])


@pytest.fixture
def sysv(fleet: Fleet) -> Iterator[Host]:
    """Debian with sysvinit. The same holds."""
    yield from _healed(fleet.hosts["sysv"])


def _healed(host: Host) -> Iterator[Host]:
    host.heal()
    try:
        yield host
    finally:
        host.reset()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that were skipped for want of a fleet: they are the ones that prove the most."""
    skipped: list[pytest.TestReport] = terminalreporter.stats.get("skipped", [])
    on_hosts = [report for report in skipped if f"Skipped: {PREFIX}" in str(report.longrepr)]
    if on_hosts:
        terminalreporter.write_sep("=", f"skipped, for want of real SSH hosts: {len(on_hosts)}", yellow=True)
        if missing := terminalreporter.config.stash[STATE].missing:
            terminalreporter.write_line(PREFIX + missing)
        for report in on_hosts:
            terminalreporter.write_line(report.nodeid)
