"""The port of the store: what its modules ask of a database, whichever engine it is.

SQL here is the subset that SQLite and PostgreSQL share, with a `?` for each value. Times are text, as `iso` writes it.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol


def iso(moment: datetime) -> str:
    """Return a moment as UTC in fixed width, so that text order is time order."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class AlreadyExists(Exception):
    """A row has a value that another row has in a column, or columns, declared unique."""


class Row(Protocol):
    """One row of a result; `dict(row)` gives all of it."""

    def keys(self) -> Iterable[str]:
        """Return the names of the columns."""
        ...

    def __getitem__(self, name: str, /) -> Any:
        """Return the value of a column."""
        ...


class Transaction(Protocol):
    """A write transaction. Its methods raise what those of `Database` raise."""

    async def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run a query, or a change with RETURNING, and return its rows."""
        ...

    async def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Make a change and return the number of changed rows.

        Raises:
            AlreadyExists: The change violates a uniqueness constraint.
        """
        ...

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        """Make the same change with the values of each row.

        Raises:
            AlreadyExists: A row violates a uniqueness constraint.
        """
        ...


class WriteHook(Protocol):
    """Computes values of changes that `Database.write` takes, where they depend on what is committed before."""

    async def ready(self) -> None:
        """Get what it needs, before the transaction begins."""
        ...

    async def linked(self, transaction: Transaction, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Return the values to write instead, inside the transaction."""
        ...

    async def settle(self) -> None:
        """Do what follows the commit."""
        ...


@dataclass(frozen=True)
class Statement:
    """One change and its values; where it has a `sealing`, that replaces the values of all such changes of a batch."""

    sql: str
    values: Sequence[Any]
    sealing: WriteHook | None = None


class Database(Protocol):
    """The database of a store. Any number of processes may use it at once.

    Every method that waits for the database raises `TimedOut` where it stays busy, `Internal` where it cannot be used
    and `ShuttingDown` after `close`.
    """

    async def read(self, sql: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run a query and return its rows, as last committed by any process."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Begin a write transaction: the end of the block commits it, an exception in the block rolls it back.

        A transaction may lock out every other one, so the block awaits nothing slow.
        """
        ...

    async def write(self, statement: Statement, *, wait_s: float = 0.0) -> None:
        """Queue a change that nobody waits for; the database commits it soon, together with others.

        It never raises for the state of the disk: what the change reports has already happened.

        Args:
            statement: The change.
            wait_s: How long to wait while the queue is full, also while being cancelled; what is not taken by then is
                logged. With 0 the change is dropped in silence.
        """
        ...

    def changed(self) -> int | None:
        """Return a number that differs after every commit of any process; `None` where that cannot be told at once."""
        ...

    async def flush(self) -> None:
        """Wait until all changes given to `write` are committed."""
        ...

    async def close(self) -> None:
        """Commit what is queued, then close; safe to call twice, and while being cancelled."""
        ...
