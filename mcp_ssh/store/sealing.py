"""Secrets sealed with a key of this state folder, so that `state.db` alone gives none of them away.

The key is kept in the OS keyring where the extra `keyring` is installed and a real keyring answers, else in the 0600
file `secrets.key` beside the database. Which of the two it was is decided once, when the first secret is sealed; a
mark of the key in the database tells a wrong key from a damaged secret.
"""

import base64
import binascii
import hashlib
import hmac
import importlib
import json
import logging
import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import anyio
import anyio.to_thread
from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr

from mcp_ssh.errors import Conflict
from mcp_ssh.store.database import Database, Row

log = logging.getLogger(__name__)

FILE = "secrets.key"
SERVICE = "mcp-ssh"
KEYRING_LIMIT_S = 10.0
"""A keyring may wait for a person to unlock it, who may not be there."""
MIN_KEYRING_PRIORITY = 1.0
"""Below it are keyrings that keep secrets in plain text, and the one that keeps nothing."""

KeyLocation = Literal["keyring", "file"]


class _Kept(NamedTuple):
    """Where the key is: in the keyring under a name, or in a file; and its mark."""

    place: KeyLocation
    name: str
    mark: str


def _kept_of(row: Row) -> _Kept:
    return _Kept(row["place"], row["name"], row["mark"])


@dataclass(frozen=True)
class _Key:
    """The key, and where it came from."""

    kept: _Kept
    text: str = field(repr=False)


class SecretBox:
    """Seals and opens the secrets of one state folder."""

    def __init__(self, folder: Path, database: Database) -> None:
        self._folder = folder
        self._database = database
        self._key: _Key | None = None

    async def close_up(self, values: Mapping[Any, SecretStr], bound_to: str) -> bytes:
        """The values as bytes that only this folder's key opens, and only for what they are bound to.

        Args:
            values: Secrets by name.
            bound_to: What they are for, such as `user@host:port`: who changes that in the database gets nothing.

        Raises:
            Conflict: The key of the secrets that are stored already is missing or is another one.
        """
        plain = {"for": bound_to, "values": {name: value.get_secret_value() for name, value in values.items()}}
        key = await self._sealing_key()
        return Fernet(key.text).encrypt(json.dumps(plain).encode())

    async def open(self, sealed: bytes, bound_to: str) -> dict[str, SecretStr]:
        """The values that were sealed for this.

        Raises:
            Conflict: The key is missing or another one, or the database was changed by somebody else's hand.
        """
        kept = await self._load_stored()
        if kept is None:
            raise _wrong("state.db does not say which key its secrets were sealed with")
        try:
            plain = cast("dict[str, Any]", json.loads(Fernet((await self._opening_key(kept)).text).decrypt(sealed)))
        except (InvalidToken, ValueError) as error:
            raise _wrong("a saved secret is damaged") from error
        if plain["for"] != bound_to:
            raise _wrong("a saved secret was sealed for another account or machine")
        return {name: SecretStr(value) for name, value in plain["values"].items()}

    async def derive_key(self, purpose: str) -> bytes:
        """A key for another purpose, which follows from this folder's key and does not tell it.

        Raises:
            Conflict: The key is missing, or another one.
        """
        key = await self._sealing_key()
        return hmac.new(key.text.encode(), f"mcp-ssh {purpose}".encode(), hashlib.sha256).digest()

    async def place(self) -> KeyLocation | None:
        """Where the key is, once it has proved to be the right one; `None` as long as nothing was ever sealed.

        Raises:
            Conflict: It is missing, or another one.
        """
        kept = await self._load_stored()
        return None if kept is None else (await self._opening_key(kept)).kept.place

    async def _load_stored(self) -> _Kept | None:
        rows = await self._database.read("SELECT place, name, mark FROM sealing_key")
        return _kept_of(rows[0]) if rows else None

    async def _opening_key(self, kept: _Kept) -> _Key:
        if self._key is None or self._key.kept != kept:
            self._key = _Key(kept, await _read_key(self._folder, kept))
        return self._key

    async def _sealing_key(self) -> _Key:
        kept = await self._load_stored()
        if kept is not None:
            try:
                return await self._opening_key(kept)
            except Conflict:
                if await self._in_use():
                    raise
                await self._forget(kept)
        return await self._opening_key(await self._make_key())

    async def _in_use(self) -> bool:
        return bool(await self._database.read("SELECT 1 FROM connections WHERE sealed IS NOT NULL LIMIT 1"))

    async def _forget(self, kept: _Kept) -> None:
        """A lost key that nothing is sealed with any more makes room for a new one."""
        async with self._database.transaction() as transaction:
            await transaction.execute(
                "DELETE FROM sealing_key WHERE mark = ? AND NOT EXISTS"
                " (SELECT 1 FROM connections WHERE sealed IS NOT NULL)",
                (kept.mark,),
            )

    async def _make_key(self) -> _Kept:
        """A key of our own making, or of the process that was faster."""
        ours = await _new(self._folder)
        async with self._database.transaction() as transaction:
            await transaction.execute("INSERT INTO sealing_key VALUES (1, ?, ?, ?) ON CONFLICT DO NOTHING", ours)
            [row] = await transaction.read("SELECT place, name, mark FROM sealing_key")
        theirs = _kept_of(row)
        if theirs.name != ours.name and ours.place == "keyring":
            await _in_thread(lambda: _keyring_delete(ours.name))
        return theirs


def _wrong(message: str) -> Conflict:
    return Conflict(
        message,
        hint=f"put the {FILE} that belongs to state.db back into the state folder; if it is lost, remove the saved"
        " connections that have secrets and add them again",
    )


def _mark(key: str) -> str:
    """Tells one key from another, and says nothing of it."""
    return hmac.new(key.encode(), b"mcp-ssh sealing key", hashlib.sha256).hexdigest()[:32]


async def _in_thread(work: Any) -> Any:
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)


async def _read_key(folder: Path, kept: _Kept) -> str:
    """The key that is kept there.

    Raises:
        Conflict: There is none, or not the right one.
    """
    if kept.place == "file":
        key = await anyio.to_thread.run_sync(lambda: _read_file(folder / FILE))
    else:
        key = await _from_keyring(kept.name)
    if not hmac.compare_digest(_mark(key), kept.mark):
        raise _wrong(f"the key in {_where(kept.place)} is not the one the saved secrets were sealed with")
    return key


def _where(place: KeyLocation) -> str:
    return FILE if place == "file" else "the keyring"


async def _from_keyring(name: str) -> str:
    key: str | None = None
    with anyio.move_on_after(KEYRING_LIMIT_S):
        key = await _in_thread(lambda: _keyring_get(name))
    if key is None:
        raise Conflict(
            "the OS keyring did not return the key of the saved secrets; is it locked?",
            hint="unlock the keyring of this account and install the extra `keyring`; if the key is lost, remove the"
            " saved connections that have secrets and add them again",
        )
    return key


async def _new(folder: Path) -> _Kept:
    """A fresh key in the keyring, else in the file; a key file that is there already is taken as it is."""
    if not await anyio.to_thread.run_sync((folder / FILE).exists):
        key, name = Fernet.generate_key().decode(), f"sealing key {secrets.token_hex(8)}"
        works = False
        with anyio.move_on_after(KEYRING_LIMIT_S):
            works = await _in_thread(lambda: _keyring_set(name, key))
        if works:
            return _Kept("keyring", name, _mark(key))
        await anyio.to_thread.run_sync(lambda: _write_file(folder / FILE, key))
    key = await anyio.to_thread.run_sync(lambda: _read_file(folder / FILE))
    return _Kept("file", FILE, _mark(key))


def _write_file(path: Path, key: str) -> None:
    """Put the key there, 0600 and whole from its first moment on; a file that is there already stays."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(fresh, path)
    finally:
        fresh.unlink()


def _read_file(path: Path) -> str:
    """The key in the file; one that others may read is closed to them.

    Raises:
        Conflict: No file, not readable, not a key.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            log.warning("%s was open to other users; now it is not", FILE)
            path.chmod(0o600)
        text = path.read_text("ascii").strip()
        if len(base64.b64decode(text, altchars=b"-_", validate=True)) == 32:
            return text
    except OSError as error:
        raise _wrong(f"{FILE} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, binascii.Error):
        pass
    raise _wrong(f"{FILE} holds no key")


def _keyring() -> Any | None:
    """The keyring module, where it has a keyring that is worth the name."""
    try:
        module: Any = importlib.import_module("keyring")
        return module if module.get_keyring().priority >= MIN_KEYRING_PRIORITY else None
    except Exception as error:  # noqa: BLE001 backends raise what they like, and the file is as good
        log.debug("no keyring: %s", type(error).__name__)
        return None


def _keyring_get(name: str) -> str | None:
    with suppress(Exception):
        if (module := _keyring()) is not None:
            return cast("str | None", module.get_password(SERVICE, name))
    return None


def _keyring_set(name: str, key: str) -> bool:
    """Whether the keyring took the key and gives it back."""
    with suppress(Exception):
        if (module := _keyring()) is not None:
            module.set_password(SERVICE, name, key)
            return module.get_password(SERVICE, name) == key
    return False


def _keyring_delete(name: str) -> None:
    with suppress(Exception):
        if (module := _keyring()) is not None:
            module.delete_password(SERVICE, name)
