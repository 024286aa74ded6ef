"""`state.db`: one connection that writes, one that reads, and one task that writes what nobody waits for."""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncGenerator, Generator, Iterable, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from itertools import groupby
from pathlib import Path
from threading import Thread
from typing import Any

import aiosqlite
import anyio

from mcp_ssh.errors import Internal, ShuttingDown, TimedOut, Unsupported
from mcp_ssh.private_files import private_file, private_folder
from mcp_ssh.store.database import AlreadyExists, Row, Statement, WriteHook
from mcp_ssh.store.sqlite.migrations import MIGRATIONS
from mcp_ssh.tool import OWNER_ID

log = logging.getLogger(__name__)

NAME = "state.db"
BUSY_TIMEOUT_S = 5.0
WAIT_S = 15.0
"""Longest wait for one of our statements: the busy timeout, and those of the writes in line before it."""
QUEUE_ROWS = 1000
BATCH_ROWS = 200
PAUSE_S = 0.02
"""Changes that nobody waits for are written once none has come for so long, so that the next call is not held up."""
MOST_PAUSES = 5
"""After how many such times they are written at the latest: a commit costs as much as many rows."""
ATTEMPTS = 3
CLOSE_S = 10.0
_NOT_UNIQUE = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID)


class SQLiteTransaction:
    """The writing connection, with its exceptions turned into the house's."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    async def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run a query, or a change with RETURNING, and return its rows."""
        with _translate_errors():
            return list(await self._connection.execute_fetchall(sql, values))

    async def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Make a change and return the number of changed rows."""
        with _translate_errors():
            return (await self._connection.execute(sql, values)).rowcount

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Make the same change with the values of each row."""
        with _translate_errors():
            await self._connection.executemany(sql, rows)


class SQLiteDatabase:
    """`state.db` of one process. Others may have it open too: every write begins immediate.

    Reads have a connection of their own, which in WAL mode waits for no writer: checking a token takes well under a
    millisecond even while another process holds the write lock.
    """

    def __init__(self, writer: aiosqlite.Connection, reader: aiosqlite.Connection, looker: sqlite3.Connection) -> None:
        self._writer = writer
        self._transaction = SQLiteTransaction(writer)
        self._reader = reader
        self._looker = looker
        self._write_lock = asyncio.Lock()
        self._queue: asyncio.Queue[Statement] = asyncio.Queue(QUEUE_ROWS)
        self._hurry = asyncio.Event()  # somebody waits for what is in the queue, or it has a batch
        self._task = asyncio.create_task(self._drain(), name="state.db writer")
        self._closed = False  # takes no more changes
        self._ended = False  # can no longer be used at all

    @classmethod
    async def open(cls, folder: Path) -> "SQLiteDatabase":
        """Open the database of a state folder; makes what is missing and brings an older one up to date.

        Raises:
            InvalidInput: The folder cannot be used or is not private.
            Unsupported: A newer version of this program wrote it.
            Internal: It is damaged.
            TimedOut: Another process kept it locked.
        """
        path = folder / NAME
        await asyncio.to_thread(_prepare, folder, path)
        opened: list[aiosqlite.Connection] = []
        try:
            with _translate_errors():
                async with asyncio.timeout(WAIT_S):
                    writer = await _connect(path, opened)
                    await _use_wal(writer)
                    await writer.execute("PRAGMA synchronous = FULL")
                    await writer.execute("PRAGMA foreign_keys = ON")
                    await _migrate(writer)
                    reader = await _connect(path, opened)
                    await reader.execute("PRAGMA query_only = ON")
                    looker = await asyncio.to_thread(_looker, path)
        except BaseException:
            await _close(opened)
            raise
        return cls(writer, reader, looker)

    def changed(self) -> int | None:
        """Return a number that differs after every commit of any process; `None` where it cannot be read.

        SQLite reads it out of memory that the processes share: two microseconds, where `read` asks a thread.
        """
        try:
            [(version,)] = self._looker.execute("PRAGMA data_version").fetchall()
        except sqlite3.Error:
            return None
        return int(version)

    async def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run a query and return its rows, as last committed by any process."""
        self._expect_open()
        with _translate_errors():
            async with asyncio.timeout(WAIT_S):
                return list(await self._reader.execute_fetchall(sql, values))

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[SQLiteTransaction]:
        """Begin a write transaction: the end of the block commits it, an exception in the block rolls it back.

        It holds the database's one write lock, so nothing slow may be awaited inside.
        """
        self._expect_open()
        with _translate_errors():
            async with asyncio.timeout(WAIT_S), self._write_lock:
                try:
                    await self._writer.execute("BEGIN IMMEDIATE")
                    yield self._transaction
                    await self._writer.commit()
                except BaseException:
                    # aiosqlite runs statements in order: this one ends even a BEGIN we were cancelled out of.
                    with anyio.move_on_after(BUSY_TIMEOUT_S, shield=True), suppress(sqlite3.Error):
                        await self._writer.rollback()
                    raise

    async def write(self, statement: Statement, *, wait_s: float = 0.0) -> None:
        """Queue a change that nobody waits for.

        It never raises for the state of the disk: what the change reports has already happened.

        Args:
            statement: The change.
            wait_s: How long to wait while the queue is full, also while being cancelled; what is not taken by then is
                logged. With 0 the change is dropped in silence.
        """
        if self._closed:
            if wait_s:
                log.error("state.db is closed; one change was not written")
            return
        try:
            self._queue.put_nowait(statement)
        except asyncio.QueueFull:
            if wait_s:
                await self._when_there_is_room(statement, wait_s)
        else:
            if self._queue.qsize() >= BATCH_ROWS:
                self._hurry.set()

    async def flush(self) -> None:
        """Wait until all changes given to `write` are committed.

        Raises:
            TimedOut: They were not, in time.
        """
        with _translate_errors():
            async with asyncio.timeout(CLOSE_S):
                await self._flush()

    async def close(self) -> None:
        """Write what waits in the queue, then close; safe to call twice, and while being cancelled."""
        if self._closed:
            return
        self._closed = True
        with anyio.move_on_after(CLOSE_S, shield=True) as patience:
            await self._flush()
        if patience.cancelled_caught:
            log.error("state.db could not be written; %d changes are lost", self._queue.qsize())
        self._task.cancel()
        with anyio.move_on_after(CLOSE_S, shield=True):
            await asyncio.wait([self._task])
        self._ended = True
        self._looker.close()
        await _close([self._reader, self._writer])

    def _expect_open(self) -> None:
        if self._ended:
            raise ShuttingDown("this server is stopping", hint="try again when it is back")

    async def _when_there_is_room(self, statement: Statement, wait_s: float) -> None:
        taken = False
        try:
            with anyio.move_on_after(wait_s, shield=True):
                await self._queue.put(statement)
                taken = True
        finally:
            if not taken:
                log.error("state.db takes no changes; one was not written")

    async def _flush(self) -> None:
        self._hurry.set()
        await self._queue.join()

    async def _drain(self) -> None:
        while True:
            batch = [await self._queue.get()]
            await self._gather()
            while len(batch) < BATCH_ROWS and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                await self._write(batch)
            finally:
                for _ in batch:
                    self._queue.task_done()
                if self._queue.empty():
                    self._hurry.clear()

    async def _gather(self) -> None:
        for _ in range(MOST_PAUSES):
            before = self._queue.qsize()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), PAUSE_S)
            if self._hurry.is_set() or self._queue.qsize() == before:
                return

    async def _write(self, batch: list[Statement]) -> None:
        sealing = {each.sealing for each in batch if each.sealing is not None}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                for each in sealing:
                    await each.ready()
                async with self.transaction() as transaction:
                    for (sql, seal), group in groupby(batch, key=lambda each: (each.sql, each.sealing)):
                        rows = [each.values for each in group]
                        await transaction.executemany(sql, await seal.linked(transaction, rows) if seal else rows)
            except Exception as error:  # noqa: BLE001 - whatever it is, the task continues with the next batch
                log.warning("state.db: %d changes not written, attempt %d: %s", len(batch), attempt, error)
                await asyncio.sleep(0.1 * attempt)
            else:
                await self._settle(sealing)
                return
        log.error("state.db: %d changes are lost", len(batch))

    async def _settle(self, sealing: Iterable[WriteHook]) -> None:
        for each in sealing:
            try:
                await each.settle()
            except Exception as error:  # noqa: BLE001 - the changes are written; what follows comes with the next ones
                log.warning("state.db: what follows a change was not done: %s", error)


def saved_names(folder: Path) -> list[str]:
    """Return the names of the connections that the server's owner saved: read only, at once, and never failing."""
    try:
        with closing(sqlite3.connect(f"{(folder / NAME).absolute().as_uri()}?mode=ro", uri=True, timeout=0.2)) as db:
            owned = "SELECT name FROM connections WHERE owner IN (?, 'cli') ORDER BY name"
            return [str(name) for (name,) in db.execute(owned, (OWNER_ID,))]
    except (sqlite3.Error, ValueError):
        return []


def _prepare(folder: Path, path: Path) -> None:
    private_folder(folder)
    private_file(path)


async def _connect(path: Path, opened: list[aiosqlite.Connection]) -> aiosqlite.Connection:
    connecting = aiosqlite.connect(path, isolation_level=None, timeout=BUSY_TIMEOUT_S)
    # A process that fails before it closes us must still end. aiosqlite has no public word for this.
    if isinstance(thread := getattr(connecting, "_thread", None), Thread):
        thread.daemon = True
    connection = await connecting
    opened.append(connection)
    connection.row_factory = sqlite3.Row
    return connection


def _looker(path: Path) -> sqlite3.Connection:
    """A connection for what takes no time: it waits for nobody, so it may be used outside a thread of its own."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA query_only = ON")
    return connection


async def _use_wal(connection: aiosqlite.Connection) -> None:
    """Switch to WAL. SQLite does not wait by itself here, so processes opening a fresh file together wait in turn."""
    while True:
        try:
            await connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not _busy(error):
                raise
            await asyncio.sleep(0.02)
        else:
            return


async def _migrate(connection: aiosqlite.Connection) -> None:
    if await _version(connection) == len(MIGRATIONS):
        return
    await connection.execute("BEGIN IMMEDIATE")  # rolled back by closing, which is what follows where a step fails
    version = await _version(connection)  # again, now that no other process can be migrating
    if version > len(MIGRATIONS):
        raise Unsupported(
            f"state.db was written by a newer ssh-steward (schema {version}; this one knows {len(MIGRATIONS)})",
            hint="upgrade ssh-steward, or set MCP_SSH_HOME to another folder",
        )
    for step in MIGRATIONS[version:]:
        for sql in step:
            await connection.execute(sql)
    await connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    await connection.commit()


async def _version(connection: aiosqlite.Connection) -> int:
    rows = list(await connection.execute_fetchall("PRAGMA user_version"))
    return int(rows[0][0])


async def _close(connections: Sequence[aiosqlite.Connection]) -> None:
    with anyio.move_on_after(CLOSE_S, shield=True):
        for each in connections:
            with suppress(sqlite3.Error):
                await each.close()


def _busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


@contextmanager
def _translate_errors() -> Generator[None]:
    """Turn what SQLite raises into the errors of the port."""
    try:
        yield
    except TimeoutError as error:
        raise TimedOut("the state database is busy", hint="try again in a few seconds") from error
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) in _NOT_UNIQUE:
            raise AlreadyExists(str(error)) from error
        if isinstance(error, sqlite3.OperationalError) and _busy(error):
            raise TimedOut("the state database is busy", hint="try again in a few seconds") from error
        raise Internal(
            f"the state database cannot be used: {error}",
            hint="look at the disk and at state.db in the state folder; a damaged one can be moved away",
        ) from error
