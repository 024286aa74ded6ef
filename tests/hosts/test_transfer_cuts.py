"""Transfers whose link is cut under them, as by a pulled plug: nothing is closed, everything hangs."""

import asyncio
import functools
import hashlib
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ToolError
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import file, session
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import SOAK, connected
from tests.support.transfers import SUMS, facts, noise, sha256

pytestmark = pytest.mark.requirement("file.transfer.cut")

MIB = 1024 * 1024
BIG = 16 * MIB
"""More than what is on its way and in buffers when the link is cut."""


@dataclass
class Machine:
    """A user of a host, and a folder there with something to be replaced and something to be fetched."""

    host: Host
    user: str
    folder: str
    """As root sees it."""
    path: str
    """As the user sees it."""

    async def run(self, command: str) -> str:
        done = await anyio.to_thread.run_sync(
            functools.partial(self.host.console, ["sh", "-c", f"cd '{self.folder}' && {command}"])
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def plant(self) -> None:
        await anyio.to_thread.run_sync(functools.partial(self.host.console, ["rm", "-rf", self.folder]))
        await anyio.to_thread.run_sync(functools.partial(self.host.console, ["mkdir", self.folder]))
        await self.run(f"head -c {BIG} /dev/urandom > big; mkdir tree old")
        await self.run(f"for n in 1 2 3; do head -c {4 * MIB} /dev/urandom > tree/$n; echo old > old/$n; done")
        await self.run(f"echo old > f; chown -R {self.user}: .")


def machines(*short: str) -> Any:
    """Which machines a test is about: those with a shell and one that has SFTP only; fewer of them outside of soak."""
    return pytest.mark.parametrize("machine", ("deb", "alpine", "sftp") if SOAK else short, indirect=True)


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Machine:
    if request.param == "sftp":
        jailed = "/home/sftponly/cuts"
        return Machine(request.getfixturevalue("auth"), "sftponly", f"/srv/jail{jailed}", jailed)
    return Machine(request.getfixturevalue(request.param), "dev", "/home/dev/cuts", "/home/dev/cuts")


@pytest.fixture
async def quick(mcp_home: Path) -> AsyncGenerator[App]:
    """Finds a dead link within three seconds."""
    async with open_app(mcp_home, Config.model_validate({"ssh": {"keepalive_interval": 1}})) as opened:
        yield opened


class Four:
    """A file and a folder on their way in each direction."""

    def __init__(self, machine: Machine, here: Path) -> None:
        self.machine, self.here = machine, here
        here.mkdir()
        (here / "tree").mkdir()
        (here / "old").mkdir()
        noise(here / "big", BIG)
        (here / "f").write_text("old\n")
        for number in "123":
            noise(here / "tree" / number, 4 * MIB)
            (here / "old" / number).write_text("old\n")

    def calls(self, **more: object) -> list[tuple[AnyTool, dict[str, object]]]:
        there, here = self.machine.path, self.here
        return [
            (file.upload, {"remote_path": f"{there}/f", "local_path": str(here / "big"), **more}),
            (file.upload, {"remote_path": f"{there}/old", "local_path": str(here / "tree"), **more}),
            (file.download, {"remote_path": f"{there}/big", "local_path": str(here / "f"), **more}),
            (file.download, {"remote_path": f"{there}/tree", "local_path": str(here / "old"), **more}),
        ]

    async def cut(self, app: App, session_id: str, **more: object) -> list[Mapping[str, Any]]:
        """Start all, cut the link while all are moving, and mend it when all have ended; how they did."""
        host, ends = self.machine.host, dict[int, Mapping[str, Any]]()

        async def run(number: int, tool: AnyTool, arguments: dict[str, object]) -> None:
            try:
                await dispatch(app, tool, {"session_id": session_id, **arguments}, DirectCall(caller()))
            except ToolError as error:
                ends[number] = error.payload()

        host.rate(24_000)
        async with anyio.create_task_group() as group:
            for number, (tool, arguments) in enumerate(self.calls(**more)):
                group.start_soon(run, number, tool, arguments)
            with anyio.fail_after(60):
                while not await self.moving():
                    await anyio.sleep(0.02)
            assert not ends
            await anyio.to_thread.run_sync(host.cut)
            group.cancel_scope.deadline = anyio.current_time() + 60
        await anyio.to_thread.run_sync(host.restore)
        await anyio.to_thread.run_sync(host.clear)
        return [ends[number] for number in range(4)]

    async def moving(self) -> bool:
        """Whether a part of each has arrived."""
        there = await self.machine.run("cat .mcp-ssh-*.part | wc -c; ls -A old | grep -c mcp-ssh || :")
        part, tree = map(int, there.split())
        here = [each.stat().st_size for each in self.here.glob(".mcp-ssh-*.part")]
        return (
            part > MIB // 2
            and tree > 0
            and sum(here) > MIB // 2
            and bool(list((self.here / "old").glob(".mcp-ssh-*.part")))
        )

    async def untouched(self) -> None:
        """What was to be replaced is the old one, or for files of a folder maybe the new one, but never a part."""
        assert await self.machine.run("cat f") == "old\n"
        assert (self.here / "f").read_text() == "old\n"
        for number in "123":
            there = await self.machine.run(f"sha256sum < old/{number}")
            assert there.split()[0] in {OLD, sha256(self.here / "tree" / number)}
            here = await self.machine.run(f"sha256sum < tree/{number}")
            assert sha256(self.here / "old" / number) in {OLD, here.split()[0]}
        if self.machine.user == "dev":
            assert await self.machine.run("cat old/1 old/2 old/3") == "old\n" * 3

    async def done(self, app: App, session_id: str) -> None:
        """Make the same calls again, and compare both sides."""
        for tool, arguments in self.calls():
            moved = await dispatch(app, tool, {"session_id": session_id, **arguments}, DirectCall(caller()))
            assert (moved.resumed_bytes or 0) > 0 or moved.count == 3
        if self.machine.user == "sftponly":  # what was cut in a folder file by file has nobody there to remove it
            await self.machine.run("find old -name '.mcp*' -exec touch -t 202001010000 {} +")
            await dispatch(app, file.upload, {"session_id": session_id, **self.calls()[1][1]}, DirectCall(caller()))
        with anyio.fail_after(30):
            while await self.machine.run("ls -A . old | grep -c mcp-ssh || :") != "0\n":
                await anyio.sleep(0.1)
        assert (await self.machine.run("sha256sum < f")).split()[0] == sha256(self.here / "big")
        assert sha256(self.here / "f") == (await self.machine.run("sha256sum < big")).split()[0]
        assert await self.machine.run(f"cd old && {SUMS}") == facts(self.here / "tree", SUMS)
        assert facts(self.here / "old", SUMS) == await self.machine.run(f"cd tree && {SUMS}")
        assert sorted(os.listdir(self.here)) == ["big", "f", "old", "tree"]  # noqa: PTH208


OLD = hashlib.sha256(b"old\n").hexdigest()


@machines("deb", "sftp")
async def test_a_cut_link_ends_transfers_with_the_truth_and_they_go_on_in_a_new_session(
    quick: App, machine: Machine, tmp_path: Path
) -> None:
    await machine.plant()
    four = Four(machine, tmp_path / "here")
    before = asyncio.all_tasks()
    first = await connected(quick, machine.host, machine.user, DirectCall(caller()))
    ends = await four.cut(quick, first)
    for end in ends:
        assert end["code"] == "connect_failed"
        assert "make the same call again" in end["hint"]
    with anyio.fail_after(10):
        while asyncio.all_tasks() - before:
            await anyio.sleep(0.05)
    await four.untouched()
    await four.done(quick, await connected(quick, machine.host, machine.user, DirectCall(caller())))


@machines("alpine")
async def test_a_transfer_ends_at_its_deadline_though_the_link_hangs_and_the_session_goes_on_when_it_is_mended(
    app: App, machine: Machine, tmp_path: Path
) -> None:
    await machine.plant()
    four = Four(machine, tmp_path / "here")
    session_id = await connected(app, machine.host, machine.user, DirectCall(caller()))
    ends = await four.cut(app, session_id, timeout=8)
    for end in ends:
        assert end["code"] == "timed_out"
        assert "make the same call again" in end["hint"]
    await four.untouched()
    await four.done(app, session_id)
    await dispatch(app, session.disconnect, {"session_id": session_id}, DirectCall(caller()))
