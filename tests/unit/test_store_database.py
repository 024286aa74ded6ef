"""The database file: private, shared by processes, migrated once, never left half written."""

import asyncio
import os
import select
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from mcp_ssh.errors import Internal, InvalidInput, ShuttingDown, TimedOut, Unsupported
from mcp_ssh.store import HistoryRow, Store
from mcp_ssh.store.database import Statement
from mcp_ssh.store.sqlite import database
from mcp_ssh.store.sqlite.database import SQLiteDatabase
from mcp_ssh.tool import Role

OPEN_WHEN_TOLD = """
import asyncio, sys
from pathlib import Path
from mcp_ssh.store import HistoryRow, Store
from mcp_ssh.tool import Role

async def main(folder, name):
    sys.stdin.readline()
    store = await Store.open(Path(folder))
    await store.tokens.create(name, Role.VIEWER)
    for each in range(50):
        await store.history.record(HistoryRow(caller=name, door="direct", tool=f"t{each}", outcome="ok", duration_ms=1))
    await store.close()

print("ready", flush=True)
asyncio.run(main(sys.argv[1], sys.argv[2]))
"""

FAIL_WHILE_OPEN = """
import asyncio, sys
from pathlib import Path
from mcp_ssh.store import Store

async def main():
    store = await Store.open(Path(sys.argv[1]))
    raise SystemExit(7)

asyncio.run(main())
"""

WRITE_FOREVER = """
import asyncio, sys
from pathlib import Path
from mcp_ssh.store import HistoryRow, Store

async def main(folder):
    store = await Store.open(Path(folder))
    count = 0
    while True:
        await store.history.record(HistoryRow(caller="c", door="direct", tool="t", outcome="ok", duration_ms=count))
        count += 1
        if count == 3000:
            print("writing", flush=True)

asyncio.run(main(sys.argv[1]))
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def said(child: "subprocess.Popen[str]") -> str:
    """The next line of a child, within half a minute."""
    assert child.stdout is not None
    assert select.select([child.stdout], [], [], 30)[0], "the child said nothing"
    return child.stdout.readline()


def kill_while_writing(folder: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITE_FOREVER, str(folder)], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert said(child) == "writing\n"
        finally:
            child.kill()
    assert child.returncode == -signal.SIGKILL


def rows(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        return connection.execute(sql).fetchall()


async def test_everything_on_disk_is_private_even_under_a_permissive_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = tmp_path / "home"
        store = await Store.open(folder)
        await store.tokens.create("one", Role.VIEWER)
        found = {each.name: mode(each) for each in folder.iterdir()}
        await store.close()
    finally:
        os.umask(before)
    assert mode(folder) == 0o700
    assert found == {"state.db": 0o600, "state.db-wal": 0o600, "state.db-shm": 0o600}


async def test_an_open_folder_that_is_plainly_ours_is_closed_to_others(tmp_path: Path) -> None:
    for name, file in (("empty", None), ("configured", "config.json")):
        folder = tmp_path / name
        folder.mkdir()
        folder.chmod(0o755)
        if file:
            (folder / file).write_text("{}")
        await (await Store.open(folder)).close()
        assert mode(folder) == 0o700


async def test_an_open_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "website").mkdir()
    folder.chmod(0o755)
    with pytest.raises(InvalidInput, match="open to other users") as caught:
        await Store.open(folder)
    assert mode(folder) == 0o755
    assert [each.name for each in folder.iterdir()] == ["website"]
    assert "MCP_SSH_HOME" in (caught.value.hint or "")


async def test_a_file_where_the_folder_should_be_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(InvalidInput, match="cannot be used"):
        await Store.open(tmp_path / "home")


def test_processes_opening_a_fresh_folder_at_once_all_succeed(tmp_path: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN_WHEN_TOLD, str(tmp_path / "home"), f"p{each}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in range(4)
    ]
    try:
        for child in children:
            assert said(child) == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        ended = [(child.communicate(timeout=30)[1], child.returncode) for child in children]
    finally:
        for child in children:
            child.kill()
            child.communicate()
    assert ended == [("", 0)] * 4
    assert rows(tmp_path / "home", "SELECT count(*) FROM tokens") == [(4,)]
    assert rows(tmp_path / "home", "SELECT caller, count(*) FROM history GROUP BY 1") == [
        (f"p{each}", 50) for each in range(4)
    ]


async def test_opening_waits_for_a_process_that_is_making_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.01)
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with anyio.move_on_after(0.3) as waiting:
            await Store.open(tmp_path)
        assert waiting.cancelled_caught
        other.execute("ROLLBACK")
    await (await Store.open(tmp_path)).close()
    assert rows(tmp_path, "PRAGMA journal_mode") == [("wal",)]


async def test_a_process_killed_while_writing_leaves_a_whole_database(tmp_path: Path) -> None:
    kill_while_writing(tmp_path)
    store = await Store.open(tmp_path)
    kept = await store.history.list(5)
    await store.history.record(HistoryRow(caller="c", door="direct", tool="after", outcome="ok", duration_ms=0))
    await store.history.flush()
    assert (await store.history.list(1))[0].tool == "after"
    await store.close()
    assert len(kept) == 5
    assert rows(tmp_path, "PRAGMA integrity_check") == [("ok",)]
    # The kill cut off the newest rows at most: what is there is one run without a gap.
    assert rows(tmp_path, "SELECT count(*) = max(duration_ms) + 1 FROM history WHERE tool = 't'") == [(1,)]


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    await (await Store.open(tmp_path)).close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(Unsupported, match="schema 99") as caught:
        await Store.open(tmp_path)
    assert "upgrade" in (caught.value.hint or "")
    assert rows(tmp_path, "PRAGMA user_version") == [(99,)]


async def test_a_file_that_is_no_database_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"these are not the pages you are looking for" * 100)
    with pytest.raises(Internal, match="not a database"):
        await Store.open(tmp_path)


async def test_a_new_migration_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await Store.open(tmp_path)
    await store.tokens.create("old", Role.VIEWER)
    await store.close()
    added = ("ALTER TABLE history ADD COLUMN chain TEXT",)
    monkeypatch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, added))
    store = await Store.open(tmp_path)
    assert [each.name for each in await store.tokens.list()] == ["old"]
    await store.close()
    assert rows(tmp_path, "SELECT chain FROM history") == []
    assert rows(tmp_path, "PRAGMA user_version") == [(len(database.MIGRATIONS),)]


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await (await Store.open(tmp_path)).close()
    before = rows(tmp_path, "SELECT sql FROM sqlite_schema"), rows(tmp_path, "PRAGMA user_version")
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", (*database.MIGRATIONS, ("CREATE TABLE half (a)", "NO SUCH SQL")))
        with pytest.raises(Internal):
            await Store.open(tmp_path)
    assert (rows(tmp_path, "SELECT sql FROM sqlite_schema"), rows(tmp_path, "PRAGMA user_version")) == before


async def test_a_token_is_found_while_writes_of_ours_wait_for_another_process(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    _, secret = await store.tokens.create("one", Role.VIEWER)
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.tokens.create("two", Role.VIEWER))
        with anyio.fail_after(2):
            for _ in range(20):
                assert await store.tokens.find(secret) is not None
        assert not waiting.done()
        other.execute("ROLLBACK")
        await waiting
    await store.close()


async def test_a_write_lock_held_too_long_is_timed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.05)
    store = await Store.open(tmp_path)
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TimedOut, match="busy"):
            await store.tokens.create("one", Role.VIEWER)
        other.execute("ROLLBACK")
    await store.tokens.create("one", Role.VIEWER)
    await store.close()


async def test_a_write_that_raises_is_rolled_back(tmp_path: Path) -> None:
    opened = await SQLiteDatabase.open(tmp_path)

    async def write_and_fail() -> None:
        async with opened.transaction() as connection:
            await connection.execute("INSERT INTO tokens VALUES ('a', 'a', 'admin', 'a', 'a', NULL, NULL)")
            raise KeyError

    with pytest.raises(KeyError):
        await write_and_fail()
    assert await opened.read("SELECT * FROM tokens") == []
    await opened.close()


@pytest.mark.parametrize("native", [True, False], ids=["asyncio", "anyio"])
async def test_a_write_cancelled_at_any_point_blocks_no_later_one(tmp_path: Path, *, native: bool) -> None:
    opened = await SQLiteDatabase.open(tmp_path)

    async def write(each: int) -> None:
        async with opened.transaction() as connection:
            await connection.execute("INSERT INTO tokens VALUES (?, ?, 'admin', ?, 'a', NULL, NULL)", (str(each),) * 3)
            await connection.execute("UPDATE tokens SET last_used_at = 'x' WHERE id = ?", (str(each),))

    for steps in range(8):
        if native:
            task = asyncio.create_task(write(steps))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(write, steps)
                for _ in range(steps):
                    await asyncio.sleep(0)
                group.cancel_scope.cancel()
        with anyio.fail_after(20):
            await write(100 + steps)
    found = await opened.read("SELECT id, last_used_at FROM tokens")
    assert {str(100 + each) for each in range(8)} <= {row["id"] for row in found}
    assert all(row["last_used_at"] == "x" for row in found)
    await opened.close()


async def test_a_change_that_cannot_be_written_is_logged_and_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    opened = await SQLiteDatabase.open(tmp_path)
    await opened.write(Statement("INSERT INTO nowhere VALUES (?)", ("s3cret",)))
    await opened.flush()
    await opened.write(Statement("INSERT INTO tokens VALUES (?, ?, 'admin', ?, 'a', NULL, NULL)", ("a",) * 3))
    await opened.flush()
    assert len(await opened.read("SELECT * FROM tokens")) == 1
    assert "1 changes are lost" in caplog.text
    assert "s3cret" not in caplog.text
    await opened.close()


async def test_closing_ends_every_thread_and_may_be_repeated(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    store = await Store.open(tmp_path)
    started = [each for each in set(threading.enumerate()) - before if "connection_worker" in each.name]
    await store.close()
    await store.close()
    assert len(started) == 2
    for each in started:
        each.join(5)
        assert not each.is_alive()


def test_a_process_that_fails_before_closing_still_ends(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAIL_WHILE_OPEN, str(tmp_path)], capture_output=True, timeout=30, check=False
    )
    assert done.returncode == 7


async def test_a_closed_store_says_that_the_server_stops(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    await store.close()
    with pytest.raises(ShuttingDown):
        await store.tokens.find("x" * 20)
    with pytest.raises(ShuttingDown):
        await store.tokens.create("one", Role.VIEWER)


async def test_a_failed_open_leaves_no_thread_behind(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"no database" * 1000)
    before = set(threading.enumerate())
    with pytest.raises(Internal):
        await Store.open(tmp_path)
    for each in set(threading.enumerate()) - before:
        if "connection_worker" in each.name:
            each.join(5)
            assert not each.is_alive()
