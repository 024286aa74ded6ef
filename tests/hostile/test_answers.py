"""Large and hostile answers of machines: bounded in memory and rows, and nobody else waits for them."""

from pathlib import Path

import anyio
import pytest

from mcp_ssh.commandline import command
from mcp_ssh.errors import RemoteFailed
from mcp_ssh.probes import vitals
from mcp_ssh.probes.lines import LINE_LIMIT, ROW_LIMIT
from mcp_ssh.probes.processes import TEXT_BYTES, parse_processes
from mcp_ssh.probes.screen import Screen
from mcp_ssh.ssh.reading import AnswerBudget, ask
from mcp_ssh.ssh.session import ANSWER_LIMIT
from tests.support.bystander import bystander
from tests.unit.files_host import ShellHost, host, shell

__all__ = ["host", "shell"]

MIB = 1024 * 1024


@pytest.mark.requirement("fault.S3.screen")
@pytest.mark.parametrize(
    "hostile",
    [("a" + "\u0301" * 30_000).encode(), ("a" + "\u0301\x1b[m" * 15_000).encode(), b"\x1b[2J" * 30_000],
    ids=["accents", "accents between sequences", "cleared again and again"],
)  # fmt: skip
async def test_a_hostile_screen_is_drawn_while_others_go_on(hostile: bytes) -> None:
    screen = Screen(200, 60)
    async with bystander():
        await anyio.to_thread.run_sync(screen.feed, hostile)
    screen.feed(b"\x1b[2J\x1b[Hafterwards")
    assert screen.line == "afterwards"


@pytest.mark.requirement("fault.S3.screen")
def test_a_letter_keeps_the_accents_that_writing_needs() -> None:
    screen = Screen(80, 24)
    screen.feed("e\u0301 q\u0323\u0307\u0302 end".encode())
    assert screen.rows[0] == "\u00e9 q\u0323\u0307\u0302 end"


@pytest.mark.requirement("fault.S3.rows")
async def test_answers_of_all_callers_together_stay_within_the_budget() -> None:
    budget = AnswerBudget(8 * MIB)
    most = 0

    async def read(caller: str) -> None:
        nonlocal most
        with budget.room(caller) as room:
            for _ in range(32):
                await room.take(MIB // 8)
                most = max(most, budget.taken)
                await anyio.sleep(0)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(read, f"caller{number % 3}")
    assert budget.taken == 0
    assert 4 * MIB <= most <= 8 * MIB + 4 * MIB  # the eldest never waits


@pytest.mark.requirement("fault.S3.rows")
async def test_one_callers_answers_leave_room_for_others() -> None:
    budget = AnswerBudget(8 * MIB)
    with budget.room("greedy") as first, budget.room("greedy") as second, budget.room("other") as third:
        await first.take(4 * MIB)
        with anyio.move_on_after(0.05) as waiting:
            await second.take(MIB)
        assert waiting.cancelled_caught
        with anyio.fail_after(5):
            await third.take(4 * MIB)


async def test_a_caller_that_gives_up_waiting_takes_nothing_with_it() -> None:
    budget = AnswerBudget(MIB)
    with budget.room("one") as first:
        await first.take(MIB)
        with anyio.move_on_after(0.02), budget.room("two") as second:
            await second.take(MIB)
        assert budget.taken == MIB
    assert budget.taken == 0


@pytest.mark.requirement("fault.S3.rows")
def test_four_megabytes_of_df_are_refused_and_not_parsed() -> None:
    lines = "/dev/a 1 1 1 1% /mnt\n" * 200_000
    found = vitals.parse_disks({"df": lines[: vitals.DISKS_BYTES], "mounts": ""})
    assert found.truncated
    assert len(found.disks) == 1


@pytest.mark.requirement("fault.S3.rows")
async def test_a_machine_that_answers_with_more_than_the_tool_takes_is_an_error(host: ShellHost) -> None:
    flood = command("sh", "-c", "head -c 4000000 /dev/zero")
    with pytest.raises(RemoteFailed, match="more"):
        await ask(host, flood, lambda said: said.stdout, limit=ANSWER_LIMIT)  # pyright: ignore[reportArgumentType]


async def test_an_answer_without_form_is_the_machines_fault(host: ShellHost) -> None:
    with pytest.raises(RemoteFailed, match="form"):
        await ask(host, command("echo", "x"), lambda said: int(said.stdout))  # pyright: ignore[reportArgumentType]


@pytest.mark.requirement("fault.S3.parsers")
async def test_others_go_on_while_a_large_answer_is_parsed(host: ShellHost, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_bytes(b"/proc/1/stat:1 (a) S 1 " + b"1 " * 1_000_000 + b"\n" + b"/proc/2/stat:x\n" * 60_000)
    said.chmod(0o644)
    tmp_path.chmod(0o755)

    def parse(text: str) -> int:
        return len(
            parse_processes(
                {"uptime": "1.0", "ticks": "100", "memory": "", "stat": text, "status": text, "commands": text,
                 "accounts": text}
            ).rows
        )  # fmt: skip

    async with bystander():
        rows = await ask(
            host,  # pyright: ignore[reportArgumentType]
            command("cat", str(said)),
            lambda output: parse(output.stdout.decode()),
            limit=4 * TEXT_BYTES,
        )
    assert rows == 1


def test_the_limits_of_a_line_and_of_rows_hold() -> None:
    assert (LINE_LIMIT, ROW_LIMIT) == (4096, 10_000)


@pytest.mark.requirement("fault.C9.paging")
async def test_a_long_folder_is_listed_once_for_all_its_pages(host: ShellHost) -> None:
    folder = host.home / "long"
    folder.mkdir()
    for number in range(300):
        (folder / f"{number:04}").touch()
    host.round_trips = 0
    names: list[str] = []
    offset: int | None = 0
    while offset is not None:
        page = await host.list("long", limit=20, offset=offset)
        names += [each.name for each in page.items]
        offset = page.next_offset
    assert names == [f"{number:04}" for number in range(300)]
    assert host.round_trips == 1
    (folder / "new").touch()
    assert (await host.list("long", limit=20)).total == 301
