"""Whose background tasks are whose, and as which account they run. What became of them only their machine knows."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from mcp_ssh.store.database import Database, iso, utc_now

FORGET_AFTER = timedelta(days=400)
"""How long a task is remembered after its start: longer than its machine may keep it once it has ended."""


class TaskRow(BaseModel):
    """A task that a caller started.

    Attributes:
        cookie: Its own name; that of its folder may be used again.
        target: Login account and machine.
        account: The account it runs as, where that is not the login account, and `method` how that was become.
    """

    model_config = ConfigDict(frozen=True)

    cookie: str
    task_id: str
    owner: str
    target: str
    account: str | None = None
    method: str | None = None


MOST_LOOKS = 256
"""How many tasks each caller's last look is kept of."""


@dataclass(frozen=True)
class LastLook:
    """Where a caller's last look at a task ended, in bytes of output and of error."""

    cookie: str
    output: int
    error: int


class LastLooks:
    """The last looks of each caller at its tasks, in memory: after a restart a caller sees all output once more."""

    def __init__(self, most: int = MOST_LOOKS) -> None:
        self._most = most
        self._looks: dict[str, OrderedDict[tuple[str, ...], LastLook]] = {}

    def find(self, caller_id: str, task: tuple[str, ...]) -> LastLook | None:
        """Return where the caller's last look at a task ended; the task goes by login, account and id."""
        looks = self._looks.get(caller_id)
        return None if looks is None else looks.get(task)

    def keep(self, caller_id: str, task: tuple[str, ...], look: LastLook) -> None:
        """Keep where a look ended; the caller's oldest is forgotten where there are too many."""
        looks = self._looks.setdefault(caller_id, OrderedDict())
        looks[task] = look
        looks.move_to_end(task)
        if len(looks) > self._most:
            looks.popitem(last=False)


_COLUMNS = ", ".join(TaskRow.model_fields)


class TaskTable:
    """The table of tasks."""

    def __init__(self, database: Database, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._now = now
        self.looks = LastLooks()

    async def add(self, row: TaskRow) -> None:
        """Remember a task that is about to start; those of long ago are forgotten."""
        async with self._database.transaction() as transaction:
            await transaction.execute("DELETE FROM tasks WHERE created_at < ?", (iso(self._now() - FORGET_AFTER),))
            await transaction.execute(
                f"INSERT INTO tasks ({_COLUMNS}, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                (*row.model_dump().values(), iso(self._now())),
            )

    async def forget(self, cookie: str) -> None:
        """Forget a task that never started, or is gone from its machine."""
        async with self._database.transaction() as transaction:
            await transaction.execute("DELETE FROM tasks WHERE cookie = ?", (cookie,))

    async def latest(self, target: str, task_id: str, caller_id: str) -> TaskRow | None:
        """The last task of this name that was started on this login: the caller's own, before any other caller's."""
        own_first = "ORDER BY owner = ? DESC, rowid DESC LIMIT 1"
        rows = await self._database.read(
            f"SELECT {_COLUMNS} FROM tasks WHERE target = ? AND task_id = ? {own_first}",  # noqa: S608
            (target, task_id, caller_id),
        )
        return TaskRow.model_validate(dict(rows[0])) if rows else None

    async def of_others(self, task_id: str, caller_id: str) -> list[str]:
        """The cookies of other callers' tasks of this name, on whatever machine: the last hundred."""
        rows = await self._database.read(
            "SELECT cookie FROM tasks WHERE task_id = ? AND owner <> ? ORDER BY rowid DESC LIMIT 100",
            (task_id, caller_id),
        )
        return [str(row["cookie"]) for row in rows]

    async def owners(self, cookies: Iterable[str]) -> dict[str, str]:
        """The owners of those of these tasks that are known."""
        wanted = list(cookies)
        known: dict[str, str] = {}
        for start in range(0, len(wanted), 500):
            some = wanted[start : start + 500]
            marks = ", ".join("?" * len(some))
            rows = await self._database.read(f"SELECT cookie, owner FROM tasks WHERE cookie IN ({marks})", some)  # noqa: S608
            known.update((str(row["cookie"]), str(row["owner"])) for row in rows)
        return known
