"""Many callers on two hosts whose links are cut, slowed and lossy, and what must be left of it: nothing."""

import asyncio
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.tools import command
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import SOAK, processes, trust
from tests.support.mixed_load import FOLDER, LoadCaller, Tally, Weather

CALLERS = 64
DURATION_S = float(os.environ.get("MCP_SSH_LOAD_S", "1200" if SOAK else "20"))
SHARED = 16
"""So many of the callers share an identity, and with it one connection, so that they wait for its channels."""

TIME_WAIT = "06"

AT_ONCE = 12
"""Calls at once that show that a connection has its channels still: more than one connection carries."""


async def settled(look: Callable[[], int], at_most: int, what: str) -> None:
    """Wait until a count has come down."""
    with anyio.move_on_after(150):
        while look() > at_most:
            await anyio.sleep(0.1)
    assert look() <= at_most, what


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 the folder of this very process


def connections(host: Host) -> int:
    """How many TCP connections lead to a host, those included whose end it has not acknowledged (proc_pid_net(5)).

    The host's own logins prove nothing: Linux gives a connection up whose end could not be told for 100 s, as happens
    on links that are cut for half of the time, and sshd then keeps its side.
    """
    address = "".join(f"{int(part):02X}" for part in reversed(host.ip.split(".")))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return len([row for row in rows if row[2].startswith(address) and row[3] != TIME_WAIT])


async def leftovers(host: Host) -> list[str]:
    """Names in the callers' folder that no caller gave, but for uploads that a later one goes on with."""
    listed = await anyio.to_thread.run_sync(partial(host.console, ["ls", "-A", FOLDER]))
    return [name for name in listed.stdout.split() if name.startswith(".") and not name.endswith(".part")]


async def expect_all_channels(app: App, each: LoadCaller) -> None:
    """A session still runs as many calls at once as before.

    The deadline is longer than TCP waits until it sends again what the last cut swallowed.
    """
    heard: list[tuple[str, str]] = []
    where = app.sessions.find(each.who.caller, each.session_id)

    async def one(index: int) -> None:
        arguments = {"session_id": each.session_id, "command": f"sleep 0.05; echo {index}", "timeout": 90}
        answer = await dispatch(app, command.run_command, arguments, each.who)
        heard.append((answer.status, answer.stdout.strip()))

    async with anyio.create_task_group() as group:
        for index in range(AT_ONCE):
            group.start_soon(one, index)
    link = where.link
    channels = [(strand.held, strand.open, strand.limit, strand.alive) for strand in link._strands]
    state = f"{each.who.caller.id} on {each.host.name}: connected {where.connected}, held, open and limit {channels}"
    assert sorted(heard) == sorted(("completed", str(index)) for index in range(AT_ONCE)), state


@pytest.mark.requirement("fault.load", "fault.C1", "fault.C5")
async def test_64_callers_on_two_bad_links_lose_nothing(
    app: App, deb: Host, alpine: Host, tmp_path: Path, owner: DirectCall
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    hosts = (deb, alpine)
    for host in hosts:
        await trust(app, host)
        await anyio.to_thread.run_sync(partial(host.console, ["install", "-d", "-m", "0777", FOLDER]))
    before = descriptors(), len(asyncio.all_tasks())

    tally, weather = Tally(), Weather()
    callers = _callers(app, hosts, dice, tmp_path, tally)
    until = anyio.current_time() + DURATION_S
    with anyio.fail_after(DURATION_S + 240):
        async with anyio.create_task_group() as group:
            for host in hosts:
                group.start_soon(weather.change, host, random.Random(dice.random()), until - 5)
            for each in callers:
                group.start_soon(each.work, until)
    print(f"{tally.calls} calls, {dict(tally.codes)}, cuts {dict(weather.cuts)}")

    assert tally.faults == []
    assert tally.codes["ok"] > 3 * CALLERS
    await _expect_healthy(app, callers, dice)
    assert all(map(connections, hosts))
    await app.sessions.close_all()
    for host in hosts:
        await _expect_clean(host, [mark for name, mark in tally.ended if name == host.name])
    await settled(lambda: len(asyncio.all_tasks()), before[1], "tasks are left")
    await settled(descriptors, before[0] + 4, "descriptors are left")


def _callers(app: App, hosts: tuple[Host, ...], dice: random.Random, folder: Path, tally: Tally) -> list[LoadCaller]:
    """Half of them each with an identity of its own, half with one that they share with others."""
    callers: list[LoadCaller] = []
    for index in range(CALLERS):
        shares = index >= CALLERS // 2
        who = DirectCall(caller(f"shared-{index // SHARED}" if shares else f"load-{index}"))
        host = hosts[index // SHARED % 2 if shares else index % 2]
        own = random.Random(dice.random())
        callers.append(LoadCaller(app, who, host, dice=own, folder=folder, tally=tally))
    return callers


async def _expect_healthy(app: App, callers: list[LoadCaller], dice: random.Random) -> None:
    """Each caller reads its files, and some of them run as many calls as a connection ever carried."""
    tested = 0
    for each in callers:
        for _ in range(3):
            await each.read()
        if tested < 8 and (each.session_id is not None or await each.connect()):
            await expect_all_channels(app, each)
            tested += 1
    assert tested == 8
    assert callers[0].tally.faults == []


async def _expect_clean(host: Host, marks: list[int]) -> None:
    """No process whose end was claimed, no connection and no partial file is left."""
    words = set(" ".join(await processes(host, "sleep")).split())
    assert [mark for mark in marks if str(mark) in words] == [], host.name
    await settled(lambda: connections(host), 0, f"connections to {host.name} are left")
    assert await leftovers(host) == [], host.name
