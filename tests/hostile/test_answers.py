"""Large and hostile answers of machines: bounded in memory and rows, and nobody else waits for them."""

import contextlib
import threading
from pathlib import Path

import anyio
import pytest

from mcp_ssh.app import open_app
from mcp_ssh.config.models import Config
from mcp_ssh.errors import RemoteFailed, TimedOut
from mcp_ssh.linux.lines import LINE_LIMIT, ROW_LIMIT
from mcp_ssh.linux.system import facts
from mcp_ssh.linux.system.processes import TEXT_BYTES, parse_processes
from mcp_ssh.sessions.query import ask, parse_answer
from mcp_ssh.sessions.session import ANSWER_LIMIT
from mcp_ssh.sessions.target import Connect
from mcp_ssh.shell_command import command
from mcp_ssh.ssh.demo.host import demo_host
from mcp_ssh.ssh.exec.answer_budget import BUDGET_BYTES, AnswerBudget, answer_budget
from mcp_ssh.ssh.pty.screen import Screen
from tests.support.bystander import bystander
from tests.support.doors import DirectCall, caller
from tests.support.files_host import ShellHost, host, shell

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


@pytest.mark.requirement("fault.S3.rows")
async def test_answers_that_one_caller_keeps_open_hold_up_no_other_callers_answer() -> None:
    budget = AnswerBudget(8 * MIB)
    with budget.room("greedy") as first, budget.room("greedy") as second, budget.room("other") as third:
        for room in (second, first):
            with anyio.move_on_after(0.05):
                for _ in range(64):
                    await room.take(MIB // 8)
        assert first.taken == 8 * MIB, "the eldest never waits"
        with anyio.fail_after(5):
            await third.take(MIB // 2)
        with anyio.move_on_after(0.05) as waiting:
            await third.take(MIB)
        assert waiting.cancelled_caught, "more than its sixteenth waits"


@pytest.mark.requirement("fault.S3.rows")
async def test_two_callers_answers_do_not_hold_up_a_third_callers_short_one() -> None:
    budget = AnswerBudget(8 * MIB)
    with contextlib.ExitStack() as stack:
        for caller in ("one", "two", "one", "two"):
            room = stack.enter_context(budget.room(caller))
            with anyio.move_on_after(0.05):
                for _ in range(64):
                    await room.take(MIB // 8)
        with anyio.fail_after(5), budget.room("third") as short:
            await short.take(ANSWER_LIMIT)


@pytest.mark.requirement("fault.S3.rows")
async def test_a_call_that_waits_for_our_memory_does_not_say_that_the_machine_is_silent(tmp_path: Path) -> None:
    trusting = Config.model_validate({"security": {"host_keys": "accept-new"}})
    async with demo_host() as machine, open_app(tmp_path / "state", trusting) as app:
        login = {"host": machine.host, "port": machine.port, "username": machine.username, "password": machine.password}
        session = await app.asking(DirectCall(caller())).open(Connect.model_validate(login))
        flood = command("head", "-c", "4000000", "/dev/zero")
        with answer_budget().room("another") as eldest:
            await eldest.take(BUDGET_BYTES)
            with answer_budget().room(session.caller_id) as room, pytest.raises(TimedOut, match="no memory") as failure:
                await session.run(flood, timeout_s=1, limit=8 * MIB, room=room)
        assert "did not answer" not in failure.value.message
        with answer_budget().room(session.caller_id) as room:
            assert len((await session.run(flood, limit=8 * MIB, room=room)).stdout) == 4_000_000


@pytest.mark.requirement("fault.S3.rows")
async def test_callers_that_give_up_do_not_pile_up_parsers() -> None:
    running, most, go_on = 0, 0, threading.Event()
    lock = threading.Lock()

    def parse(said: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go_on.wait(20)
        with lock:
            running -= 1
        return said

    try:
        for number in range(20):
            with anyio.move_on_after(0.02):
                await parse_answer(parse, number, MIB)
    finally:
        go_on.set()
    assert most == 4
    with anyio.fail_after(10):
        assert await parse_answer(parse, 7, MIB) == 7, "the next call finds a parser"


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
    found = facts.parse_disks({"df": lines[: facts.DISKS_BYTES], "mounts": ""})
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
