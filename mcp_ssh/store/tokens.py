"""Tokens: who may call over HTTP, and as what."""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from mcp_ssh.errors import Conflict, InvalidInput, NotFound
from mcp_ssh.host_patterns import check_patterns
from mcp_ssh.store.database import AlreadyExists, Database, Row, Statement, Transaction, iso, utc_now
from mcp_ssh.tool import Role

PRESET_ID = "env"
MIN_PRESET_CHARS = 16
MAX_SECRET_CHARS = 1024
_USE_NOTED_EVERY = timedelta(minutes=1)
_COLUMNS = "id, name, role, created_at, last_used_at, hosts"
_ID = re.compile(r"[0-9a-f]{12}")


class TokenInfo(BaseModel):
    """A token without its secret, which nobody can get back."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="Twelve hex digits, or `env` for the token of MCP_SSH_TOKEN. Owns sessions and blobs.")
    name: str = Field(description="The name it was given.")
    role: Role = Field(description="What its holder may do.")
    created_at: str = Field(description="When it was made, UTC.")
    last_used_at: str | None = Field(default=None, description="When it was last used, UTC, to the minute.")
    hosts: tuple[str, ...] | None = Field(
        default=None, description="Patterns of the machines it is for; unset where it is for all."
    )


class Tokens:
    """The tokens of a state folder, and the one preset by the environment."""

    def __init__(self, database: Database, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._now = now
        self._preset: tuple[str, TokenInfo] | None = None
        self._known: dict[str, TokenInfo] = {}
        self._known_at: int | None = None

    async def create(self, name: str, role: Role, hosts: Sequence[str] | None = None) -> tuple[TokenInfo, str]:
        """Make a token. Its secret is returned here and never again.

        Args:
            name: What to call it.
            role: What its holder may do.
            hosts: Patterns of the machines it is for; by default all.

        Raises:
            InvalidInput: A name that is empty, too long, unprintable or reserved; a pattern that is none.
            Conflict: A token of that name exists.
        """
        _check_name(name)
        _check_hosts(hosts)
        async with self._database.transaction() as transaction:
            return await self._insert(transaction, name, role, hosts)

    async def find(self, secret: str) -> TokenInfo | None:
        """The token with this secret; `None` where there is none, or no more.

        A token that was found is known until anything at all is committed to the database, by whichever process: a
        revocation holds from the next request on. Looking whether something was costs next to nothing; asking for the
        token again costs as much as all else a short request takes.
        """
        if len(secret) > MAX_SECRET_CHARS:
            return None
        digest = _digest(secret)
        if self._preset is not None and hmac.compare_digest(digest, self._preset[0]):
            return self._use_preset(*self._preset)
        mark = self._database.changed()
        if mark is None or mark != self._known_at:
            self._known.clear()
            self._known_at = mark
        token = self._known.get(digest) or await self._read(digest)
        if token is None:
            return None
        if mark is not None and mark == self._known_at:  # else there was a commit while it was read
            self._known[digest] = token
        await self._note_use(token)
        return token

    async def _read(self, digest: str) -> TokenInfo | None:
        rows = await self._database.read(f"SELECT hash, {_COLUMNS} FROM tokens WHERE hash = ?", (digest,))  # noqa: S608
        if not rows or not hmac.compare_digest(digest, str(rows[0]["hash"])):
            return None
        return _token(rows[0])

    async def list(self) -> "list[TokenInfo]":
        """All tokens, oldest first; the preset one of this process leads."""
        rows = await self._database.read(f"SELECT {_COLUMNS} FROM tokens ORDER BY created_at, id")  # noqa: S608
        return ([self._preset[1]] if self._preset else []) + [_token(row) for row in rows]

    async def revoke(self, id_or_name: str) -> TokenInfo:
        """Make a token worthless, in every process, from its next request on. Its name is free again.

        Raises:
            NotFound: No token has this id or name.
            Conflict: The token of MCP_SSH_TOKEN, which only the environment can take away.
        """
        if id_or_name == PRESET_ID and self._preset is not None:
            raise Conflict(
                "the token of MCP_SSH_TOKEN is not stored", hint="unset MCP_SSH_TOKEN and restart the server"
            )
        async with self._database.transaction() as transaction:
            rows = await transaction.read(
                f"DELETE FROM tokens WHERE id = ? OR name = ? RETURNING {_COLUMNS}",  # noqa: S608
                (id_or_name, id_or_name),
            )
        if not rows:
            raise NotFound(f"no token has the id or name {id_or_name!r}", hint="`ssh-steward token list` shows them")
        return _token(rows[0])

    async def preset(self, secret: str) -> TokenInfo:
        """Accept this secret as an admin token, in this process and its memory alone.

        Raises:
            InvalidInput: It is shorter than 16 characters, or holds what no HTTP header can carry.
        """
        if len(secret) < MIN_PRESET_CHARS or len(secret) > MAX_SECRET_CHARS:
            raise InvalidInput(
                f"MCP_SSH_TOKEN must have {MIN_PRESET_CHARS} to {MAX_SECRET_CHARS} characters",
                hint="python3 -c 'import secrets; print(secrets.token_urlsafe(32))' makes a good one",
            )
        if not all("!" <= each <= "~" for each in secret):
            raise InvalidInput("MCP_SSH_TOKEN must be printable ASCII without spaces")
        token = TokenInfo(id=PRESET_ID, name=PRESET_ID, role=Role.ADMIN, created_at=iso(self._now()))
        self._preset = (_digest(secret), token)
        return token

    async def ensure_admin(self) -> tuple[TokenInfo, str] | None:
        """Where there is no token at all, make one named `admin`; `None` where there is one, preset or stored."""
        if self._preset is not None:
            return None
        async with self._database.transaction() as transaction:
            if await transaction.read("SELECT 1 FROM tokens LIMIT 1"):
                return None
            return await self._insert(transaction, "admin", Role.ADMIN)

    async def _insert(
        self, transaction: Transaction, name: str, role: Role, hosts: Sequence[str] | None = None
    ) -> tuple[TokenInfo, str]:
        secret = f"mcpssh_{secrets.token_urlsafe(32)}"
        bounds = None if hosts is None else tuple(hosts)
        token = TokenInfo(id=secrets.token_hex(6), name=name, role=role, created_at=iso(self._now()), hosts=bounds)
        try:
            await transaction.execute(
                "INSERT INTO tokens (id, name, role, hash, created_at, hosts) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    token.id,
                    token.name,
                    role.name.lower(),
                    _digest(secret),
                    token.created_at,
                    None if bounds is None else json.dumps(bounds),
                ),
            )
        except AlreadyExists as error:
            raise Conflict(f"a token named {name!r} exists", hint="choose another name, or revoke that one") from error
        return token, secret

    def _use_preset(self, digest: str, token: TokenInfo) -> TokenInfo:
        if (now := self._use_to_note(token)) is None:
            return token
        used = token.model_copy(update={"last_used_at": iso(now)})
        self._preset = (digest, used)
        return used

    def _use_to_note(self, token: TokenInfo) -> datetime | None:
        """The time, unless the token's use was noted within the last minute."""
        now = self._now()
        noted = token.last_used_at
        return None if noted and datetime.fromisoformat(noted) > now - _USE_NOTED_EVERY else now

    async def _note_use(self, token: TokenInfo) -> None:
        """Have the time of use written, at most once a minute; dropped under load, for nothing depends on it."""
        if (now := self._use_to_note(token)) is None:
            return
        await self._database.write(
            Statement(
                "UPDATE tokens SET last_used_at = ? WHERE id = ? AND (last_used_at IS NULL OR last_used_at <= ?)",
                (iso(now), token.id, iso(now - _USE_NOTED_EVERY)),
            )
        )


def _digest(secret: str) -> str:
    """A plain hash is right here: 256 random bits cannot be guessed, so a slow or salted one would only cost time."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _token(row: Row) -> TokenInfo:
    return TokenInfo(
        id=row["id"],
        name=row["name"],
        role=Role[str(row["role"]).upper()],
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        hosts=None if row["hosts"] is None else tuple(json.loads(row["hosts"])),
    )


def _check_hosts(hosts: Sequence[str] | None) -> None:
    if hosts is None:
        return
    if not any(each and not each.startswith("!") for each in hosts):
        raise InvalidInput(
            "hosts: name no machine", hint="give at least one pattern such as *.example.org that does not start with !"
        )
    try:
        check_patterns(hosts)
    except ValueError as error:
        raise InvalidInput(
            f"hosts: {error}", hint="give each pattern as a word of its own, without accounts and ports"
        ) from None


def _check_name(name: str) -> None:
    if not name or len(name) > 64 or not name.isprintable() or name != name.strip():
        raise InvalidInput("a token's name has 1 to 64 printable characters, none of them a space at either end")
    if name == PRESET_ID or _ID.fullmatch(name):
        raise InvalidInput(f"{name!r} cannot be a token's name: it reads as an id", hint="choose a word")
