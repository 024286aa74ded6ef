"""The seal on the history: what is altered, added, removed, swapped or cut off shows; what is honest does not."""

import contextlib
import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_ssh.store import ChainCheck, HistoryRow, RetentionPolicy, Store, history
from mcp_ssh.store import history_chain as chain_module
from mcp_ssh.store.history_chain import COVERED, FILE
from tests.support.cli_kit import run

COLUMNS = ", ".join(COVERED)


def row(number: int) -> HistoryRow:
    return HistoryRow(
        caller="stdio",
        door="stdio",
        tool="command_exec",
        target="root@deb",
        arguments=json.dumps({"command": f"echo {number}"}),
        outcome="ok",
        duration_ms=number + 0.1,
    )


@contextlib.asynccontextmanager
async def opened(folder: Path, kept: RetentionPolicy | None = None) -> AsyncGenerator[Store]:
    store = await Store.open(folder, kept)
    try:
        yield store
    finally:
        await store.close()


async def write(folder: Path, count: int, kept: RetentionPolicy | None = None) -> None:
    async with opened(folder, kept) as store:
        for number in range(count):
            await store.history.record(row(number))


async def verdict(folder: Path) -> ChainCheck:
    async with opened(folder) as store:
        return await store.history.verify()


def tamper(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / "state.db")) as connection, connection:
        for each in statements:
            connection.execute(each)


@pytest.mark.requirement("history.verify")
async def test_an_honest_history_verifies_over_restarts_and_processes(tmp_path: Path) -> None:
    assert await verdict(tmp_path) == ChainCheck()
    for _ in range(3):
        await write(tmp_path, 5)
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        for number in range(20):
            await (one, other)[number % 2].history.record(row(number))
    assert await verdict(tmp_path) == ChainCheck(checked=35)


@pytest.mark.requirement("history.verify")
@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (["UPDATE history SET arguments = '{}' WHERE seq = 4"], ["row 4 (command_exec"]),
        (["UPDATE history SET outcome = 'refused' WHERE seq = 10"], ["row 10 (command_exec"]),
        (["UPDATE history SET duration_ms = 3.0 WHERE seq = 1"], ["row 1 (command_exec"]),
        (["DELETE FROM history WHERE seq = 4"], ["row 4 is missing"]),
        (["DELETE FROM history WHERE seq IN (4, 5, 6)"], ["rows 4 to 6 are missing"]),
        (["DELETE FROM history WHERE seq <= 3"], ["rows 1 to 3 are missing"]),
        (["DELETE FROM history WHERE seq > 8"], ["rows 9 to 10 are missing"]),
        (["DELETE FROM history"], ["rows 1 to 10 are missing"]),
        (
            [
                "UPDATE history SET seq = 99 WHERE seq = 3",
                "UPDATE history SET seq = 3 WHERE seq = 7",
                "UPDATE history SET seq = 7 WHERE seq = 99",
            ],
            ["row 3 (", "row 7 ("],
        ),
        (
            [
                "DELETE FROM history WHERE seq = 4",
                "UPDATE history SET seq = seq - 1 WHERE seq > 4",
                "UPDATE sqlite_sequence SET seq = 9",
            ],
            ["row 4 (", "row 10 is missing"],
        ),
        (
            [f"INSERT INTO history SELECT 11, {COLUMNS}, mac FROM history WHERE seq = 10"],  # noqa: S608
            ["row 11 ("],
        ),
        (
            [f"INSERT INTO history SELECT 11, {COLUMNS}, NULL FROM history WHERE seq = 10"],  # noqa: S608
            ["row 11 (command_exec"],
        ),
        (["UPDATE history SET mac = (SELECT mac FROM history WHERE seq = 9) WHERE seq = 10"], ["row 10 ("]),
        (["DELETE FROM history_start"], ["where the chain starts is missing"]),
        (
            ["DELETE FROM history WHERE seq < 5", "UPDATE history_start SET seq = 4"],
            ["where the chain starts was changed"],
        ),
        (["DELETE FROM history", "DELETE FROM history_start"], ["where the chain starts is missing"]),
    ],
)
@pytest.mark.parametrize("later", [False, True], ids=["at-once", "after-more-calls"])
async def test_tampering_shows_and_names_the_row(
    tmp_path: Path, statements: list[str], named: list[str], later: bool
) -> None:
    """Also when honest calls followed: they neither heal nor hide it."""
    await write(tmp_path, 10)
    tamper(tmp_path, *statements)
    if later:
        await write(tmp_path, 3)
    found = (await verdict(tmp_path)).problems
    for each in named:
        assert any(each in problem for problem in found), found


@pytest.mark.requirement("history.verify")
@pytest.mark.parametrize("later", [False, True])
async def test_a_head_that_was_removed_together_with_the_end_shows(tmp_path: Path, later: bool) -> None:
    await write(tmp_path, 10)
    tamper(tmp_path, "DELETE FROM history WHERE seq > 8", "UPDATE sqlite_sequence SET seq = 8")
    (tmp_path / FILE).unlink()
    if later:
        await write(tmp_path, 4)
    [problem] = (await verdict(tmp_path)).problems
    assert problem == "row 9 is missing" if later else problem.startswith("history.head is missing")


@pytest.mark.requirement("history.verify")
async def test_a_cut_off_end_stays_seen_when_the_numbers_are_set_back_too(tmp_path: Path) -> None:
    await write(tmp_path, 10)
    tamper(tmp_path, "DELETE FROM history WHERE seq > 8", "UPDATE sqlite_sequence SET seq = 8")
    await write(tmp_path, 4)
    assert (await verdict(tmp_path)).problems == ["rows 9 to 10 are missing"]


@pytest.mark.requirement("history.verify")
async def test_a_head_that_somebody_else_wrote_is_none(tmp_path: Path) -> None:
    await write(tmp_path, 10)
    head = json.loads((tmp_path / FILE).read_text())
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        [(mac,)] = connection.execute("SELECT mac FROM history WHERE seq = 8").fetchall()
    (tmp_path / FILE).write_text(json.dumps({**head, "seq": 8, "mac": mac}))
    tamper(tmp_path, "DELETE FROM history WHERE seq > 8")
    assert "history.head was changed" in (await verdict(tmp_path)).problems[0]


@pytest.mark.requirement("history.verify")
async def test_a_crash_between_rows_and_head_is_no_tampering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await write(tmp_path, 3)

    def killed(*_: Any) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(chain_module, "write_head", killed)
        await write(tmp_path, 4)
    assert await verdict(tmp_path) == ChainCheck(checked=7, behind=4)
    await write(tmp_path, 1)
    assert await verdict(tmp_path) == ChainCheck(checked=8)


@pytest.mark.requirement("history.trim")
async def test_rows_that_are_dropped_for_age_or_number_leave_a_chain_that_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "TRIM_EVERY_ROWS", 5)
    for _ in range(6):
        await write(tmp_path, 10, RetentionPolicy(rows=15))
    kept = await verdict(tmp_path)
    assert kept.problems == []
    assert 15 <= kept.checked <= 30
    tamper(tmp_path, "UPDATE history SET at = '2020-01-01T00:00:00.000Z'")
    assert (await verdict(tmp_path)).problems
    await write(tmp_path, 1)
    assert await verdict(tmp_path) == ChainCheck(checked=1)


@pytest.mark.requirement("history.verify")
async def test_rows_from_before_there_were_seals_are_counted_apart(tmp_path: Path) -> None:
    await write(tmp_path, 3)
    tamper(tmp_path, "UPDATE history SET mac = NULL", "DELETE FROM history_start")
    (tmp_path / FILE).unlink()
    await write(tmp_path, 2)
    assert await verdict(tmp_path) == ChainCheck(checked=2, unsealed=3)


@pytest.mark.requirement("history.verify")
async def test_a_lost_key_shows_and_new_rows_are_sealed_with_another(tmp_path: Path) -> None:
    await write(tmp_path, 3)
    (tmp_path / "secrets.key").unlink()
    await write(tmp_path, 2)
    found = await verdict(tmp_path)
    assert found.checked == 2
    assert len(found.problems) == 3
    assert all("older than the chain" in each for each in found.problems)


async def test_the_head_is_private_and_tells_no_key(tmp_path: Path) -> None:
    await write(tmp_path, 3)
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    key = (tmp_path / "secrets.key").read_text().strip()
    assert key not in (tmp_path / FILE).read_text()


async def test_verifying_while_calls_are_made_and_rows_dropped_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "TRIM_EVERY_ROWS", 7)
    async with opened(tmp_path, RetentionPolicy(rows=20)) as writing, opened(tmp_path) as reading:
        done = anyio.Event()

        async def call() -> None:
            for number in range(150):
                await writing.history.record(row(number))
                await anyio.lowlevel.checkpoint()
            done.set()

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            while not done.is_set():
                assert (await reading.history.verify()).problems == []


@pytest.mark.requirement("history.command")
async def test_the_command_lists_filters_and_verifies(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    await write(state, 3)
    async with opened(state) as store:
        await store.history.record(row(7).model_copy(update={"caller": "anna", "tool": "file_read"}))

    async def ids(*words: str) -> list[str]:
        answer = await run("history", *words, "--json", home=tmp_path)
        assert answer.code == 0, answer.err
        return [each["tool"] for each in json.loads(answer.out)]

    assert await ids() == ["file_read", *["command_exec"] * 3]
    assert await ids("--limit", "1") == ["file_read"]
    assert await ids("--caller", "anna", "--since", "1h") == ["file_read"]
    assert await ids("--tool", "command_exec", "--limit", "2") == ["command_exec"] * 2
    assert await ids("--since", "2999-01-01") == []
    table = await run("history", home=tmp_path)
    assert "root@deb" in table.out
    assert (await run("history", "--since", "yesterday", home=tmp_path)).code == 2

    good = await run("history", "verify", home=tmp_path)
    assert (good.code, "4 rows are as they were written" in good.err) == (0, True)
    tamper(state, "DELETE FROM history WHERE seq = 2")
    bad = await run("history", "verify", "--json", home=tmp_path)
    assert bad.code == 1
    assert json.loads(bad.out)["problems"] == ["row 2 is missing"]


@pytest.mark.requirement("history.command")
async def test_the_command_shows_what_a_call_has_done(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    async with opened(state) as store:
        await store.history.record(row(1).model_copy(update={"detail": "opened port 443/tcp for any"}))
        await store.history.record(row(2))
    listed = json.loads((await run("history", "--json", home=tmp_path)).out)
    assert [each["detail"] for each in listed] == [None, "opened port 443/tcp for any"]
    assert (await run("history", home=tmp_path)).out.count("opened port 443/tcp for any") == 1
