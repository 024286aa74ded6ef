"""Saved connections: machines by name, with what it takes to log in."""

import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from mcp_ssh.errors import Conflict, InvalidInput, NotFound
from mcp_ssh.store.database import Database, Row, Statement, iso, utc_now
from mcp_ssh.store.sealing import SecretBox
from mcp_ssh.tool import Caller, Role

SecretName = Literal["password", "key_content", "key_passphrase"]
SECRET_NAMES: tuple[SecretName, ...] = get_args(SecretName)

MAX_NAME_CHARS = 128
PAGE_ROWS = 500
"""How many rows are read from the database at once."""
_PLAIN = ("uuid", "name", "category", "host", "port", "username", "key_path", "use_agent")
_COLUMNS = ("id", *_PLAIN, "secrets", "owner", "created_at", "updated_at", "last_used_at")
_SELECT = f"SELECT {', '.join(_COLUMNS)} FROM connections"  # noqa: S608
_NUMBER = re.compile(r"[1-9][0-9]{0,14}")
_READS_AS_ID = re.compile(r"\d+|[0-9a-f]{12}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class ConnectionTarget(BaseModel):
    """A machine and an account on it, without secrets."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="The name it is called by.")
    category: str | None = Field(default=None, description="What it is filed under.")
    host: str = Field(description="Host name or address.")
    port: int | None = Field(default=None, description="SSH port; unset where the config's default counts.")
    username: str = Field(description="The account.")
    key_path: str | None = Field(default=None, description="Private key file on the machine this server runs on.")
    use_agent: bool = Field(default=False, description="Whether the ssh-agent of this server logs in.")

    @property
    def target(self) -> str:
        """What its secrets are good for."""
        return f"{self.username}@{self.host}:{self.port or ''}"


class SavedConnection(ConnectionTarget):
    """A saved connection as it may be shown: it names its secrets and has none of them."""

    id: int = Field(description="Its number.")
    uuid: str = Field(description="Its id for programs; it stays when the connection is replaced.")
    secrets: tuple[SecretName, ...] = Field(description="Which secrets are kept, sealed.")
    owner: str = Field(description="Id of the caller that saved it.")
    created_at: str = Field(description="When it was saved first, UTC.")
    updated_at: str = Field(description="When it was last replaced, UTC.")
    last_used_at: str | None = Field(description="When it was last connected through, UTC.")


_BEHIND = "(lower(name) > lower(?) OR (lower(name) = lower(?) AND (name > ? OR (name = ? AND id > ?))))"


def _place(number: int, name: str) -> str:
    """A place in the list by name: names of several owners may be equal, numbers are not."""
    return f"{number}:{name}"


def _behind(place: str) -> tuple[str | int, ...]:
    number, _, name = place.partition(":")
    known = number.isascii() and number.isdigit() and len(number) < 16
    return (name,) * 4 + (int(number),) if known else (place,) * 4 + (0,)


class Connections:
    """The saved connections of a state folder.

    Callers below admin see those they saved themselves. A name means the caller's own connection, also to an admin:
    another caller's is reached by its uuid or number only.
    """

    def __init__(self, database: Database, seal: SecretBox, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._seal = seal
        self._now = now
        self._versions: dict[tuple[Caller, str], str | None] = {}
        self._versions_at: int | None = None

    async def add(
        self,
        caller: Caller,
        account: ConnectionTarget,
        secrets: Mapping[SecretName, SecretStr],
        *,
        replace: bool = False,
    ) -> SavedConnection:
        """Save a connection, or replace all of the caller's own with this name; number and uuid stay then.

        Raises:
            InvalidInput: A name that reads as something else.
            Conflict: The name is taken, or the secrets cannot be sealed.
        """
        _check_name(account.name)
        sealed = await self._seal.close_up(secrets, account.target) if secrets else None
        now = iso(self._now())
        plain = (account.category, account.host, account.port, account.username, account.key_path, account.use_agent)
        names = ",".join(each for each in SECRET_NAMES if each in secrets)
        async with self._database.transaction() as transaction:
            rows = await transaction.read(
                "SELECT id, owner, host FROM connections WHERE owner = ? AND name = ?", (caller.owner_id, account.name)
            )
            if not rows:
                await transaction.execute(
                    "INSERT INTO connections (category, host, port, username, key_path, use_agent, secrets, sealed,"
                    " owner, updated_at, uuid, name, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*plain, names, sealed, caller.owner_id, now, str(uuid.uuid4()), account.name, now),
                )
            elif replace and _may_see(caller, rows[0]):
                await transaction.execute(
                    "UPDATE connections SET category = ?, host = ?, port = ?, username = ?, key_path = ?,"
                    " use_agent = ?, secrets = ?, sealed = ?, updated_at = ?, last_used_at = NULL WHERE id = ?",
                    (*plain, names, sealed, now, rows[0]["id"]),
                )
            else:
                raise _name_taken(account.name, mine=_may_see(caller, rows[0]))
            [row] = await transaction.read(f"{_SELECT} WHERE owner = ? AND name = ?", (caller.owner_id, account.name))
        return _connection_of(row)

    async def find(self, caller: Caller, which: str) -> SavedConnection:
        """The caller's own connection of this name, or the one with this number or uuid that it may see.

        Raises:
            NotFound: There is none.
        """
        if (found := await self._find(caller, which)) is not None:
            return found
        known = await self.own_names(caller)
        hint = f"there are {', '.join(known[:20])}" if known else "save one with connection_add"
        raise NotFound(f"there is no saved connection {which[:80]!r}", hint=hint)

    async def query(self, caller: Caller, name: str = "*", category: str | None = None) -> list[SavedConnection]:
        """All connections of `page`."""
        found: list[SavedConnection] = []
        after: str | None = ""
        while after is not None:
            more, after = await self.page(caller, name, category, limit=PAGE_ROWS, after=after)
            found += more
        return found

    async def page(
        self, caller: Caller, name: str = "*", category: str | None = None, *, limit: int, after: str = ""
    ) -> tuple[list[SavedConnection], str | None]:
        """The connections that the caller may see and whose name and category fit, by name, from behind a place on.

        `*` and `?` match as in a shell, letter case is ignored. The second value is the place to go on from, a number
        and a name; `None` at the end.
        """
        conditions: list[tuple[str, tuple[str | int, ...]]] = [(_BEHIND, _behind(after))]
        if caller.role is not Role.ADMIN:
            conditions.append(("owner = ?", (caller.owner_id,)))
        if name != "*":
            conditions.append((r"lower(name) LIKE ? ESCAPE '\'", (_like(name),)))
        if category is not None:
            conditions.append((r"lower(coalesce(category, '')) LIKE ? ESCAPE '\'", (_like(category),)))
        where = " AND ".join(condition for condition, _ in conditions)
        values = [value for _, given in conditions for value in given]
        found: list[SavedConnection] = []
        batch = min(limit + 1, PAGE_ROWS)
        while len(found) <= limit:
            rows = await self._database.read(
                f"{_SELECT} WHERE {where} ORDER BY lower(name), name, id LIMIT ?", (*values, batch)
            )
            # SQL takes a few too many: it does not know the caller's machines, nor letter case beyond ASCII.
            found += [
                _connection_of(row)
                for row in rows
                if _may_see(caller, row)
                and _fits(str(row["name"]), name)
                and (category is None or _fits(str(row["category"] or ""), category))
            ]
            if len(rows) < batch:
                break
            values[:5] = _behind(_place(int(rows[-1]["id"]), str(rows[-1]["name"])))
        return found[:limit], _place(found[limit - 1].id, found[limit - 1].name) if len(found) > limit else None

    async def own_names(self, caller: Caller) -> list[str]:
        """The names that mean a saved connection to this caller."""
        rows = await self._database.read(
            "SELECT name, host FROM connections WHERE owner = ? ORDER BY lower(name), name", (caller.owner_id,)
        )
        return [str(row["name"]) for row in rows if caller.reaches(str(row["host"]))]

    async def remove(self, caller: Caller, which: str) -> SavedConnection:
        """Forget a connection and its secrets.

        Raises:
            NotFound: There is none that this caller may see.
        """
        found = await self.find(caller, which)
        async with self._database.transaction() as transaction:
            await transaction.execute("DELETE FROM connections WHERE id = ?", (found.id,))
        return found

    async def resolve(self, caller: Caller, name: str) -> Mapping[str, Any] | None:
        """What `session_connect` takes to log in through the connection that this word means; `None` if there is none.

        A word is the name of one of the caller's own connections, or the uuid of any that it may see.

        Raises:
            Conflict: Its secrets cannot be opened.
        """
        found = None if name.isdecimal() else await self._find(caller, name)
        if found is None:
            return None
        opened = await self._open_secrets(found)
        await self._database.write(
            Statement("UPDATE connections SET last_used_at = ? WHERE id = ?", (iso(self._now()), found.id))
        )
        optional = {"port": found.port, "key_path": found.key_path, "use_agent": found.use_agent or None}
        given = {each: value for each, value in optional.items() if value is not None}
        return {"host": found.host, "username": found.username, **given, **opened}

    async def version(self, caller: Caller, name: str) -> str | None:
        """What changes whenever a name comes to mean another saved connection; `None` where it means none.

        What was read stays known until any process commits something, as for tokens.
        """
        mark = self._database.changed()
        if mark is None or mark != self._versions_at:
            self._versions.clear()
            self._versions_at = mark
        key = (caller, name)
        if key in self._versions:
            return self._versions[key]
        found = None if name.isdecimal() else await self._find(caller, name)
        version = None if found is None else f"{found.uuid} {found.updated_at}"
        if mark is not None and mark == self._versions_at:  # else something was committed meanwhile
            self._versions[key] = version
        return version

    async def key_place(self) -> Literal["keyring", "file"] | None:
        """Where the key of the secrets is, once it has proved right; `None` where nothing was ever sealed.

        Raises:
            Conflict: It is missing, or another one.
        """
        return await self._seal.place()

    async def _open_secrets(self, saved: SavedConnection) -> dict[str, SecretStr]:
        rows = await self._database.read("SELECT sealed FROM connections WHERE id = ?", (saved.id,))
        sealed = rows[0]["sealed"] if rows else None
        return {} if sealed is None else await self._seal.open(bytes(sealed), saved.target)

    async def _find(self, caller: Caller, which: str) -> SavedConnection | None:
        rows = await self._database.read(
            f"{_SELECT} WHERE (owner = ? AND name = ?) OR uuid = lower(?) OR id = ?",
            (caller.owner_id, which, which, int(which) if _NUMBER.fullmatch(which) else None),
        )
        return next((_connection_of(row) for row in rows if _may_see(caller, row)), None)


def _may_see(caller: Caller, row: Row) -> bool:
    """Its owner may, and admins, as far as their tokens are for the machine."""
    return (caller.role is Role.ADMIN or caller.owner_id == row["owner"]) and caller.reaches(str(row["host"]))


def _fits(text: str, pattern: str) -> bool:
    return fnmatchcase(text.lower(), pattern.lower())


def _like(pattern: str) -> str:
    """A LIKE pattern for `lower(...)` that takes all that a shell's pattern does, and maybe more."""
    plain, bracket, _ = pattern.lower().partition("[")
    words = re.sub(r"([\\%_])", r"\\\1", plain).replace("*", "%").replace("?", "_")
    # How many characters a letter beyond ASCII has in another case differs.
    return re.sub(r"[^\x00-\x7f]+", "%", words) + "%" * bool(bracket)


def _check_name(name: str) -> None:
    if not name or len(name) > MAX_NAME_CHARS or not name.isprintable() or name != name.strip():
        raise InvalidInput(
            f"name: must have 1 to {MAX_NAME_CHARS} printable characters, none of them a space at either end"
        )
    if "@" in name or name.startswith("-") or _READS_AS_ID.fullmatch(name):
        raise InvalidInput(
            "name: must not read as an id, an option or user@host", hint="choose a word such as web1 or prod/db"
        )


def _name_taken(name: str, *, mine: bool) -> Conflict:
    hint = "choose another name, or give `replace: true` to overwrite that one" if mine else "choose another name"
    return Conflict(f"a saved connection {name!r} exists", hint=hint)


def _connection_of(row: Row) -> SavedConnection:
    values: dict[str, Any] = dict(row)
    values["secrets"] = tuple(each for each in SECRET_NAMES if each in str(row["secrets"]).split(","))
    return SavedConnection.model_validate(values)
