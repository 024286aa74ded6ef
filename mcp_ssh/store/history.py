"""History: who called what, on which machine, with which outcome."""

import itertools
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mcp_ssh.store.database import Database, Statement, Transaction, iso, utc_now
from mcp_ssh.store.history_chain import COVERED, ChainCheck, HashChain
from mcp_ssh.store.redaction import MAX_ARGUMENTS_BYTES, arguments_text, cut_text, redact

__all__ = ["ChainCheck", "History", "HistoryRow", "RetentionPolicy", "arguments_text", "redact"]

TRIM_EVERY_ROWS = 1000
TRIM_STEP_ROWS = 500
"""How many rows one transaction drops, so that other writers wait for a short time only."""
TRIM_STEPS = 10
"""How many such transactions follow one batch of new rows; the next batch continues."""
WAIT_S = 2.0
MAX_LISTED = 1000
_WORD_BYTES = 512
_COLUMNS = COVERED
_INSERT = f"INSERT INTO history (seq, {', '.join(_COLUMNS)}, mac) VALUES (?, {', '.join('?' * len(_COLUMNS))}, ?)"  # noqa: S608


def _as_text(arguments: object) -> object:
    return arguments_text(cast("Mapping[str, Any]", arguments)) if isinstance(arguments, Mapping) else arguments


def _as_utc(moment: object) -> object:
    return iso(datetime.fromisoformat(moment)) if isinstance(moment, str) else moment


class HistoryRow(BaseModel):
    """One call. Arguments given as a mapping are redacted and turned into text."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(default_factory=lambda: secrets.token_hex(8), description="Names this call, in the log too.")
    at: Annotated[str, BeforeValidator(_as_utc)] = Field(
        default_factory=lambda: iso(utc_now()), description="When it ended, UTC."
    )
    caller: str = Field(description="Id of the caller: a token's, `stdio` or `local`.")
    door: str = Field(description="The door it came through.")
    tool: str = Field(description="The tool's name.")
    target: str | None = Field(default=None, description="user@host:port of the machine; unset where it was none.")
    arguments: Annotated[str, BeforeValidator(_as_text)] = Field(
        default="{}", description="Arguments as JSON text, secrets hidden, cut at 4 KiB."
    )
    outcome: str = Field(description="`ok`, the error's code, or `cancelled`.")
    duration_ms: float = Field(ge=0, description="Milliseconds from the call's arrival to its result.")
    detail: str | None = Field(
        default=None, description="What the call has done, in words; unset where it failed or changes nothing."
    )


@dataclass(frozen=True)
class RetentionPolicy:
    """How much of the history is kept."""

    rows: int = 100_000
    days: float = 90.0


class History:
    """The record of calls: the newest so many, at most so many days old, each sealed together with the one before."""

    def __init__(
        self,
        database: Database,
        chain: HashChain,
        kept: RetentionPolicy | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._database = database
        self._chain = chain
        self._kept = kept or RetentionPolicy()
        self._now = now
        self._until_trim = 0

    async def record(self, row: HistoryRow) -> None:
        """Have a row written soon, also while its call is being cancelled; never fails the call it records.

        It waits only while a thousand others do, and no longer than two seconds.
        """
        statement = Statement(_INSERT, _values(row), sealing=self)
        await self._database.write(statement, wait_s=WAIT_S)

    async def ready(self) -> None:
        """Get the key of the seals."""
        await self._chain.key()

    async def linked(self, transaction: Transaction, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Rows with their numbers and seals."""
        self._until_trim -= len(rows)
        return await self._chain.linked(transaction, rows)

    async def settle(self) -> None:
        """Note which row is the last; now and then drop what is too old."""
        await self._chain.settle()
        if self._until_trim < 0:
            # The first row of a process trims too, else a folder used by short-lived processes only would grow.
            self._until_trim = TRIM_EVERY_ROWS
            for _ in range(TRIM_STEPS):
                async with self._database.transaction() as transaction:
                    more = await self._trim(transaction)
                if not more:
                    return
            self._until_trim = -1

    async def verify(self) -> ChainCheck:
        """Compare all rows with their seals."""
        return await self._chain.verify()

    async def flush(self) -> None:
        """Wait until every recorded row is in the database."""
        await self._database.flush()

    async def list(
        self, limit: int, caller: str | None = None, tool: str | None = None, since: datetime | None = None
    ) -> "list[HistoryRow]":
        """The newest rows, newest first, of one caller or tool, or from a time on, where given; a thousand at most."""
        return [row for _, row in await self.page(limit, caller=caller, tool=tool, since=since)]

    async def page(
        self,
        limit: int,
        *,
        caller: str | None = None,
        tool: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
    ) -> "list[tuple[int, HistoryRow]]":
        """The newest rows that fit, newest first, each with its number.

        Args:
            limit: How many rows, a thousand at most.
            caller: Rows of this caller only.
            tool: Rows of this tool only.
            since: Rows from this time on.
            until: Rows before this time.
            before: Rows with a smaller number: the last number of one page gives the next page.
        """
        wanted: list[tuple[str, Any]] = [
            ("caller = ?", caller),
            ("tool = ?", tool),
            ("at >= ?", since and iso(since)),
            ("at < ?", until and iso(until)),
            ("seq < ?", before),
        ]
        given = [(condition, value) for condition, value in wanted if value is not None]
        where = f"WHERE {' AND '.join(condition for condition, _ in given)}" if given else ""
        rows = await self._database.read(
            f"SELECT seq, {', '.join(_COLUMNS)} FROM history {where} ORDER BY seq DESC LIMIT ?",  # noqa: S608
            (*(value for _, value in given), max(0, min(limit, MAX_LISTED))),
        )
        return [(int(row["seq"]), HistoryRow.model_validate({each: row[each] for each in _COLUMNS})) for row in rows]

    async def _trim(self, transaction: Transaction) -> bool:
        """Drop some of what is beyond the kept number or age, from the old end only; says whether there may be more."""
        [newest] = await transaction.read("SELECT max(seq) AS seq FROM history")
        oldest = await transaction.read("SELECT seq, at FROM history ORDER BY seq LIMIT ?", (TRIM_STEP_ROWS,))
        first_kept = int(newest["seq"] or 0) - self._kept.rows
        start = iso(self._now() - timedelta(days=self._kept.days))
        gone = [*itertools.takewhile(lambda row: int(row["seq"]) <= first_kept or str(row["at"]) < start, oldest)]
        if not gone or not await self._chain.drop(transaction, int(gone[-1]["seq"])):
            return False
        return len(gone) == TRIM_STEP_ROWS


def _values(row: HistoryRow) -> tuple[Any, ...]:
    """A row's values, bounded and encodable, so that no caller's text can make a whole batch fail."""
    values: list[Any] = []
    for column in _COLUMNS:
        value = getattr(row, column)
        if isinstance(value, str):
            value = cut_text(value, MAX_ARGUMENTS_BYTES if column == "arguments" else _WORD_BYTES)
        values.append(value)
    return tuple(values)
