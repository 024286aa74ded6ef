"""History: every call is on record, in order, within bounds, and recording never holds a call up."""

import asyncio
import itertools
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_ssh.store import HistoryRow, Store, history
from mcp_ssh.store.history import History, RetentionPolicy
from mcp_ssh.store.history_chain import HashChain
from mcp_ssh.store.sealing import SecretBox
from mcp_ssh.store.sqlite import database
from mcp_ssh.store.sqlite.database import SQLiteDatabase


def row(**given: Any) -> HistoryRow:
    return HistoryRow.model_validate(
        {"caller": "stdio", "door": "stdio", "tool": "command_exec", "outcome": "ok", "duration_ms": 1.5, **given}
    )


async def test_a_recorded_row_reads_back_as_it_was(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    whole = row(target="root@deb:22", arguments='{"command": "id"}', outcome="timed_out", detail="stopped: true")
    bare = row(target=None, detail=None)
    await store.history.record(whole)
    await store.history.record(bare)
    await store.history.flush()
    assert await store.history.list(10) == [bare, whole]
    await store.close()


async def test_rows_are_listed_newest_first_by_caller_and_tool_up_to_the_limit(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    for each in range(6):
        await store.history.record(row(id=str(each), caller="ab"[each % 2], tool="xyz"[each % 3]))
    await store.history.flush()

    async def ids(*arguments: Any, **named: Any) -> str:
        return "".join(each.id for each in await store.history.list(*arguments, **named))

    assert await ids(10) == "543210"
    assert await ids(2) == "54"
    assert await ids(10, caller="a") == "420"
    assert await ids(10, tool="x") == "30"
    assert await ids(10, caller="b", tool="x") == "3"
    assert await ids(10, caller="nobody") == ""
    assert await ids(0) == ""
    assert await ids(-1) == ""
    await store.close()


async def test_a_time_of_any_zone_is_kept_as_utc_of_one_width(tmp_path: Path) -> None:
    assert row(at="2026-11-22T14:00:00+02:00").at == "2026-11-22T12:00:00.000Z"
    assert row(at="2026-11-22T12:00:00.123456+00:00").at == "2026-11-22T12:00:00.123Z"


async def test_arguments_given_as_a_mapping_are_redacted_text(tmp_path: Path) -> None:
    assert row(arguments={"host": "deb", "password": "hunter2"}).arguments == '{"host": "deb", "password": "***"}'


async def test_closing_writes_what_was_recorded(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    for each in range(500):
        await store.history.record(row(id=str(each)))
    await store.close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        ids = [each[0] for each in connection.execute("SELECT id FROM history ORDER BY seq")]
    assert ids == [str(each) for each in range(500)]


async def test_recording_after_closing_neither_fails_nor_hangs(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    await store.close()
    with anyio.fail_after(20):
        await store.history.record(row())


async def test_recording_returns_at_once_while_the_database_is_locked_and_waits_when_the_queue_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "QUEUE_ROWS", 10)
    store = await Store.open(tmp_path)
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        recorded: list[int] = []

        async def record_all() -> None:
            for each in range(40):
                await store.history.record(row(id=str(each)))
                recorded.append(each)

        task = asyncio.create_task(record_all())
        await asyncio.sleep(0)
        assert 0 < len(recorded) <= 10  # as many as the queue holds, in one step of the loop: no waiting
        other.execute("ROLLBACK")
        with anyio.fail_after(10):
            await task
            await store.history.flush()
    assert [each.id for each in await store.history.list(100)] == [str(each) for each in reversed(range(40))]
    await store.close()


async def test_rows_that_come_one_after_the_other_are_one_commit_and_whoever_waits_hurries_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PAUSE_S", 3600)
    commits: list[int] = []
    settle = HashChain.settle

    async def counted(self: HashChain) -> None:
        commits.append(1)
        await settle(self)

    monkeypatch.setattr(HashChain, "settle", counted)
    store = await Store.open(tmp_path)
    for _ in range(50):
        await store.history.record(row())
        await asyncio.sleep(0)
    assert await store.history.list(1) == []
    with anyio.fail_after(30):
        await store.history.flush()
        assert (len(await store.history.list(100)), len(commits)) == (50, 1)
        await store.history.record(row(id="last"))
        await store.close()
    store = await Store.open(tmp_path)
    assert (await store.history.list(1))[0].id == "last"
    await store.close()


async def test_rows_are_written_soon_though_others_keep_coming(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    with anyio.fail_after(30):
        while not await store.history.list(1):
            await store.history.record(row())
    await store.close()


async def test_a_call_cancelled_already_is_still_recorded(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await store.history.record(row(outcome="cancelled"))
    await store.history.flush()
    assert [each.outcome for each in await store.history.list(5)] == ["cancelled"]
    await store.close()


async def test_hostile_text_is_bounded_and_spoils_no_other_row(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    await store.history.record(row(id="before"))
    await store.history.record(
        row(id="x", tool="\ud800\0'; DROP TABLE history; --", target="ä" * 5000, detail="\udfff")
    )
    await store.history.record(row(id="after", arguments="é" * 10_000))
    await store.history.flush()
    after, hostile, before = await store.history.list(10)
    assert (before.id, hostile.id, after.id) == ("before", "x", "after")
    assert hostile.tool == "?\0'; DROP TABLE history; --"
    assert len((hostile.target or "").encode()) <= 512
    assert len(after.arguments.encode()) <= 4096
    assert after.arguments.endswith("…(cut)")
    await store.close()


async def test_rows_beyond_the_number_kept_are_trimmed_from_the_old_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "TRIM_EVERY_ROWS", 9)
    store = await Store.open(tmp_path, RetentionPolicy(rows=20))
    for each in range(101):
        await store.history.record(row(id=str(each)))
    await store.history.flush()
    kept = [int(each.id) for each in await store.history.list(1000)]
    assert kept == list(range(100, 100 - len(kept), -1))
    assert 20 <= len(kept) <= 30
    await store.close()


async def test_rows_older_than_ninety_days_are_trimmed_by_the_first_row_of_a_process(tmp_path: Path) -> None:
    store = await Store.open(tmp_path, RetentionPolicy(days=36_500))
    today = datetime(2026, 11, 22, tzinfo=UTC)
    for days in (91, 89, 0):
        await store.history.record(row(id=str(days), at=(today - timedelta(days=days)).isoformat()))
    await store.close()
    opened = await SQLiteDatabase.open(tmp_path)
    later = History(opened, HashChain(tmp_path, opened, SecretBox(tmp_path, opened)), RetentionPolicy(), lambda: today)
    await later.record(row(id="new", at=today.isoformat()))
    await opened.close()  # the row is written, and what is too old dropped
    store = await Store.open(tmp_path)
    assert [each.id for each in await store.history.list(10)] == ["new", "0", "89"]
    await store.close()


async def test_a_number_is_never_given_to_two_rows(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    for _ in range(3):
        await store.history.record(row())
    await store.close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        connection.execute("DELETE FROM history")
    store = await Store.open(tmp_path)
    await store.history.record(row())
    await store.close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        assert connection.execute("SELECT seq FROM history").fetchall() == [(4,)]


@pytest.mark.requirement("fault.C9.history")
async def test_a_history_is_paged_by_number_and_bounded_by_an_end_time(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    for each in range(10):
        await store.history.record(row(id=str(each), at=f"2026-11-22T12:00:0{each}Z", caller="ab"[each % 2]))
    await store.history.flush()
    pages, before = list[str](), None
    while page := await store.history.page(4, before=before):
        pages.append("".join(each.id for _, each in page))
        before = page[-1][0]
    assert pages == ["9876", "5432", "10"]
    end = datetime(2026, 11, 22, 12, 0, 5, tzinfo=UTC)
    assert "".join(each.id for _, each in await store.history.page(9, until=end, caller="a")) == "420"
    start = datetime(2026, 11, 22, 12, 0, 3, tzinfo=UTC)
    assert "".join(each.id for _, each in await store.history.page(9, since=start, until=end)) == "43"
    await store.close()


@pytest.mark.requirement("fault.C9.trimming")
async def test_a_history_far_over_its_bound_is_trimmed_in_small_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await Store.open(tmp_path, RetentionPolicy(rows=100_000))
    for each in range(12_000):
        await store.history.record(row(id=str(each)))
    await store.close()
    steps, drop = list[int](), HashChain.drop

    async def counted(chain: HashChain, connection: Any, up_to: int) -> Any:
        steps.append(up_to)
        return await drop(chain, connection, up_to)

    monkeypatch.setattr(HashChain, "drop", counted)
    store = await Store.open(tmp_path, RetentionPolicy(rows=100))
    batches = 0
    while len(await store.history.list(1000)) > 103:
        await store.history.record(row(id=f"new {batches}"))
        await store.history.flush()
        batches += 1
        assert batches < 20
    assert max(after - before for before, after in itertools.pairwise([0, *steps])) <= history.TRIM_STEP_ROWS
    # Other writers get the lock between the steps of one batch, and batches between those of others.
    assert batches > 1
    verdict = await store.history.verify()
    assert (verdict.problems, verdict.checked) == ([], len(await store.history.list(1000)))
    await store.close()
