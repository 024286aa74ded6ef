"""The seal on the history: each row's covers the row before, and how far the chain goes is kept beside the database.

A row's `mac` is an HMAC, with a key of its own that follows from the sealing key, of the row and of the mac before it.
`history_start` says after which row the chain starts, and moves when old rows are dropped. The file `history.head` says
which row is the last. So who can write `state.db` and has not the key can neither change, add, drop nor swap rows, nor
cut some off at either end, without `verify` telling. Who has the key as well, or puts an old copy of everything back,
can.

A batch of rows is committed first and the head written after, so that a crash in between leaves the head behind, never
ahead. The head is written under the database's write lock, from its last row: processes that share it take turns.
"""

import contextlib
import hmac
import json
import logging
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.to_thread

from mcp_ssh.errors import ToolError
from mcp_ssh.store.database import Database, Row, Transaction
from mcp_ssh.store.sealing import SecretBox

log = logging.getLogger(__name__)

FILE = "history.head"
RETRY_S = 60.0
"""How long a key that was not there is not asked for again."""
COVERED = ("id", "at", "caller", "door", "tool", "target", "arguments", "outcome", "duration_ms", "detail")
"""The columns that a row's mac covers, beside its number and the mac before."""
_LAST = "SELECT seq, mac FROM history WHERE mac IS NOT NULL ORDER BY seq DESC LIMIT 1"
_START = "SELECT seq, mac, proof FROM history_start"
_ENDS = (
    f"SELECT 'last' AS which, seq, mac, NULL AS proof FROM ({_LAST}) AS newest"  # noqa: S608
    " UNION ALL SELECT 'start', seq, mac, proof FROM history_start"
    " UNION ALL SELECT 'number', seq, NULL, NULL FROM sqlite_sequence WHERE name = 'history'"
)
"""All that the next row depends on, at once: each question is a hand-over to the database's thread and back."""


@dataclass(frozen=True)
class ChainEnd:
    """A row at one end of the chain: its number and mac."""

    seq: int
    mac: str


@dataclass(frozen=True)
class HistoryKey:
    """What seals rows."""

    secret: bytes = field(repr=False)

    def row(self, before: str, seq: int, values: Sequence[Any]) -> str:
        """The mac of a row."""
        return self._mac(["row", before, seq, *values])

    def end(self, which: str, end: ChainEnd) -> str:
        """The proof that an end of the chain was written by us."""
        return self._mac([which, end.seq, end.mac])

    def _mac(self, parts: Sequence[Any]) -> str:
        return hmac.digest(self.secret, json.dumps(parts).encode(), "sha256").hex()


class HashChain:
    """Seals the rows that this process writes."""

    def __init__(self, folder: Path, database: Database, seal: SecretBox) -> None:
        self._path = folder / FILE
        self._database = database
        self._seal = seal
        self._key: HistoryKey | None = None
        self._ask_again = 0.0

    async def key(self) -> HistoryKey | None:
        """The key; `None` where it is lost or its keyring is locked, so that rows go without a seal, and it shows."""
        if self._key is None and time.monotonic() >= self._ask_again:
            try:
                self._key = HistoryKey(await self._seal.derive_key("history"))
            except (ToolError, OSError) as error:
                self._ask_again = time.monotonic() + RETRY_S
                log.warning("the history cannot be sealed: %s", error)
        return self._key

    async def linked(self, transaction: Transaction, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """The rows with their numbers in front and their macs behind; inside the transaction that inserts them."""
        ends = {str(row["which"]): [row] for row in await transaction.read(_ENDS)}
        seq = int(ends["number"][0]["seq"]) if "number" in ends else 0
        if self._key is None:
            return [(seq + index, *row, None) for index, row in enumerate(rows, 1)]
        before = await self._last(transaction, self._key, ends, seq)
        seq, mac, done = max(seq, before.seq), before.mac, list[tuple[Any, ...]]()
        for row in rows:
            seq += 1
            mac = self._key.row(mac, seq, row)
            done.append((seq, *row, mac))
        return done

    async def _last(
        self, transaction: Transaction, key: HistoryKey, ends: Mapping[str, Sequence[Row]], number: int
    ) -> ChainEnd:
        """The row that the next one follows: the database's last, unless the head knows a later one."""
        head = await anyio.to_thread.run_sync(read_head, self._path, key)
        last, start = _end(ends.get("last", [])), _proven_start(ends.get("start", []), key)
        if head is not None and (last is None or last.seq <= head.seq):
            return head
        if start is None:
            start = ChainEnd(number, secrets.token_hex(32))
            await _put_start(transaction, key, start)
            return start
        # Without a head nobody can tell whether the end was cut off: the number that is left out says so for good.
        return (last and ChainEnd(last.seq + (head is None), last.mac)) or start

    async def drop(self, transaction: Transaction, up_to: int) -> bool:
        """Remove the oldest rows, up to this number, and have the chain start behind them; says whether it did."""
        gone = _end(
            await transaction.read(
                "SELECT seq, mac FROM history WHERE seq <= ? AND mac IS NOT NULL ORDER BY seq DESC LIMIT 1", (up_to,)
            )
        )
        if gone is not None and self._key is None:
            return False  # the start cannot be moved now; the rows go another time
        if gone is not None and self._key and _proven_start(await transaction.read(_START), self._key):
            await _put_start(transaction, self._key, gone)
        await transaction.execute("DELETE FROM history WHERE seq <= ?", (up_to,))
        return True

    async def settle(self) -> None:
        """Write down which row is the last, once the rows are committed."""
        if self._key is None:
            return
        async with self._database.transaction() as transaction:
            if (last := _end(await transaction.read(_LAST))) is not None:
                await anyio.to_thread.run_sync(write_head, self._path, self._key, last)

    async def _head(self, key: HistoryKey) -> ChainEnd | None:
        return await anyio.to_thread.run_sync(read_head, self._path, key)

    async def verify(self) -> "ChainCheck":
        """Compare the whole history with its seals."""
        key = await self.key()
        if key is None:
            return ChainCheck(problems=["the key of the seals is not there, so nothing can be checked"])
        for _ in range(5):
            checking = _Checking(self._database, key)
            head = await self._head(key)
            verdict = await checking.run(head, head_exists=self._path.exists())
            # The first rows of all are there a moment before the head is.
            made_since = head is None and await self._head(key) is not None
            if not checking.moved and not made_since:
                return verdict
        return ChainCheck(problems=["the history changed all the time while it was read; try again"])


@dataclass
class ChainCheck:
    """What `verify` found.

    Attributes:
        checked: Rows whose seal is right.
        unsealed: Rows from before there were seals.
        behind: Rows that the head does not know of yet, as after a crash.
        problems: What is wrong, in order; a tampered history has some.
    """

    checked: int = 0
    unsealed: int = 0
    behind: int = 0
    problems: list[str] = field(default_factory=list[str])


class _Checking:
    """One pass over the rows."""

    def __init__(self, database: Database, key: HistoryKey) -> None:
        self._database = database
        self._key = key
        self._verdict = ChainCheck()
        self._start: ChainEnd | None = None
        self._before = ChainEnd(0, "")
        self._at_head: str | None = None
        self.moved = False

    async def run(self, head: ChainEnd | None, *, head_exists: bool) -> ChainCheck:
        """Check everything, the head having been read first: rows written since are behind it."""
        rows = await self._database.read(_START)
        self._start = _proven_start(rows, self._key)
        self._check_start(exists=bool(rows), head=head)
        self._before = self._start or ChainEnd(0, "")
        self._at_head = self._before.mac if head and head.seq == self._before.seq else None
        after = 0
        while batch := await self._database.read(
            f"SELECT seq, mac, {', '.join(COVERED)} FROM history WHERE seq > ? ORDER BY seq LIMIT 500",  # noqa: S608
            (after,),
        ):
            for row in batch:
                self._check(dict(row), head)
            after = int(batch[-1]["seq"])
        self._check_head(head, exists=head_exists)
        self.moved = _proven_start(await self._database.read(_START), self._key) != self._start
        return self._verdict

    def _check_start(self, *, exists: bool, head: ChainEnd | None) -> None:
        if exists and self._start is None:
            self._problem("where the chain starts was changed, or was written with another key")
        elif not exists and head is not None:
            self._problem("where the chain starts is missing: rows were removed from the front")

    def _check(self, row: Mapping[str, Any], head: ChainEnd | None) -> None:
        seq, mac = int(row["seq"]), row["mac"]
        if self._start is None or seq <= self._start.seq:
            if mac is None:
                self._verdict.unsealed += 1
            else:
                self._problem(f"row {_row_label(row)} cannot be checked: it is older than the chain, and has a seal")
            return
        if mac is None:
            self._problem(
                f"row {_row_label(row)} has no seal: it was added by another hand, or while the key was missing"
            )
            self._before = ChainEnd(seq, self._before.mac)
            return
        if seq > self._before.seq + 1:
            self._problem(_missing(self._before.seq + 1, seq - 1))
        elif hmac.compare_digest(str(mac), self._key.row(self._before.mac, seq, [row[each] for each in COVERED])):
            self._verdict.checked += 1
        else:
            self._problem(f"row {_row_label(row)} was altered, or is not where it was written")
        if head is not None:
            self._at_head = str(mac) if seq == head.seq else self._at_head
            self._verdict.behind += seq > head.seq
        self._before = ChainEnd(seq, str(mac))

    def _check_head(self, head: ChainEnd | None, *, exists: bool) -> None:
        if head is None and (exists or self._verdict.checked):
            what = "was changed, or was written with another key" if exists else "is missing"
            self._problem(f"{FILE} {what}, so rows that were removed from the end would not show")
        elif head is not None and head.seq > self._before.seq:
            self._problem(f"{_missing(self._before.seq + 1, head.seq)}: the end was cut off")
        elif head is not None and self._at_head != head.mac:
            self._problem(f"row {head.seq} is not the one that was written there")

    def _problem(self, text: str) -> None:
        if len(self._verdict.problems) < 1000:
            self._verdict.problems.append(text)


def _missing(first: int, last: int) -> str:
    return f"row {first} is missing" if first == last else f"rows {first} to {last} are missing"


def _row_label(row: Mapping[str, Any]) -> str:
    return f"{row['seq']} ({row['tool']}, {row['at']})"


def _end(rows: Sequence[Row]) -> ChainEnd | None:
    return ChainEnd(int(rows[0]["seq"]), str(rows[0]["mac"])) if rows else None


def _proven_start(rows: Sequence[Row], key: HistoryKey) -> ChainEnd | None:
    """Where the chain starts, if we said so."""
    start = _end(rows)
    return start if start and hmac.compare_digest(key.end("start", start), str(rows[0]["proof"])) else None


async def _put_start(transaction: Transaction, key: HistoryKey, start: ChainEnd) -> None:
    await transaction.execute(
        "INSERT INTO history_start VALUES (1, ?, ?, ?) ON CONFLICT (one) DO UPDATE"
        " SET seq = excluded.seq, mac = excluded.mac, proof = excluded.proof",
        (start.seq, start.mac, key.end("start", start)),
    )


def read_head(path: Path, key: HistoryKey) -> ChainEnd | None:
    """The row that was last when the head was written; `None` where there is no head, or none of ours. Blocks."""
    try:
        said = json.loads(path.read_text("ascii"))
        head = ChainEnd(int(said["seq"]), str(said["mac"]))
        return head if hmac.compare_digest(key.end("head", head), str(said["proof"])) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_head(path: Path, key: HistoryKey, last: ChainEnd) -> None:
    """Put the head in its place, whole or not at all, 0600. Blocks."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    text = json.dumps({"seq": last.seq, "mac": last.mac, "proof": key.end("head", last)})
    descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
