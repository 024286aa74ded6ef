"""Secrets are opened by the key they were sealed with, and by nothing else."""

import sqlite3
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from mcp_ssh.errors import Conflict
from mcp_ssh.store.connections import Connections, ConnectionTarget
from mcp_ssh.store.sealing import FILE, SecretBox
from mcp_ssh.store.sqlite.database import SQLiteDatabase
from mcp_ssh.tool import Caller, Role

pytestmark = pytest.mark.requirement("connection.sealed")

SECRET = {"password": SecretStr("correct horse battery")}
OWNER = Caller("stdio", Role.ADMIN, owner=True)

# A keyring as the real package shows itself: what it keeps is in a file, so that processes share it.
KEYRING = """
import json, pathlib
FILE = pathlib.Path(__file__).with_name("kept.json")
class Backend:
    priority = {priority}
def get_keyring():
    return Backend()
def _kept():
    return json.loads(FILE.read_text()) if FILE.exists() else {{}}
def get_password(service, name):
    return _kept().get(service + name)
def set_password(service, name, value):
    FILE.write_text(json.dumps(_kept() | {{service + name: value}}))
def delete_password(service, name):
    kept = _kept()
    del kept[service + name]
    FILE.write_text(json.dumps(kept))
"""


@asynccontextmanager
async def opened(folder: Path) -> AsyncGenerator[SecretBox]:
    database = await SQLiteDatabase.open(folder)
    try:
        yield SecretBox(folder, database)
    finally:
        await database.close()


def install_keyring(monkeypatch: pytest.MonkeyPatch, folder: Path, priority: float = 5) -> Path:
    folder.mkdir()
    (folder / "keyring.py").write_text(KEYRING.format(priority=priority))
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "keyring", raising=False)
    return folder / "kept.json"


@pytest.fixture(autouse=True)
def no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own keyring, if it has one, is none of a test's business."""
    monkeypatch.setitem(sys.modules, "keyring", None)


async def test_the_key_is_a_file_for_the_owner_alone_made_whole_and_at_the_first_secret(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as seal:
        assert await seal.place() is None
        assert not (tmp_path / "state" / FILE).exists()
        sealed = await seal.close_up(SECRET, "me@web1:")
        assert await seal.place() == "file"
    key = tmp_path / "state" / FILE
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.stat().st_nlink == 1
    assert b"battery" not in sealed
    assert b"battery" in Fernet(key.read_text().strip()).decrypt(sealed)
    async with opened(tmp_path / "state") as again:
        values = await again.open(sealed, "me@web1:")
        assert values["password"].get_secret_value() == "correct horse battery"
        assert "battery" not in repr(values)


async def test_a_key_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as seal:
        sealed = await seal.close_up(SECRET, "a")
    (tmp_path / "state" / FILE).chmod(0o644)
    async with opened(tmp_path / "state") as seal:
        assert await seal.open(sealed, "a") == SECRET
    assert (tmp_path / "state" / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read: No such file"),
        ("", "holds no key"),
        ("not a key\n", "holds no key"),
        ("é\n", "holds no key"),
        (Fernet.generate_key().decode(), "not the one the saved secrets were sealed with"),
    ],
    ids=[
        "none",
        "empty",
        "no key",
        "not ASCII",
        "another key",
    ],  # a key in a test's name would be another one in each worker
)
async def test_another_key_file_is_named_and_nothing_is_made_new(
    tmp_path: Path, content: str | None, says: str
) -> None:
    folder = tmp_path / "state"
    async with opened(folder) as seal:
        sealed = await seal.close_up(SECRET, "a")
        await Connections(seal._database, seal).add(
            OWNER, ConnectionTarget(name="web1", host="h", username="u"), SECRET
        )
    key = (folder / FILE).read_text()
    (folder / FILE).unlink()
    if content is not None:
        (folder / FILE).write_text(content)
    async with opened(folder) as seal:
        for work in (seal.open(sealed, "a"), seal.close_up(SECRET, "a"), seal.place()):
            with pytest.raises(Conflict, match=says) as caught:
                await work
            assert "secrets.key" in (caught.value.hint or "")
            assert str(folder) not in f"{caught.value.payload()}"
    assert ((folder / FILE).read_text() if (folder / FILE).exists() else None) == content
    (folder / FILE).write_text(key)
    async with opened(folder) as seal:
        assert await seal.open(sealed, "a") == SECRET


async def test_a_lost_key_is_replaced_once_nothing_is_sealed_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with opened(folder) as seal:
        await Connections(seal._database, seal).add(
            OWNER, ConnectionTarget(name="web1", host="h", username="u"), SECRET
        )
    (folder / FILE).unlink()
    async with opened(folder) as seal:
        saved = Connections(seal._database, seal)
        with pytest.raises(Conflict):
            await saved.resolve(OWNER, "web1")
        await saved.remove(OWNER, "web1")
        await saved.add(OWNER, ConnectionTarget(name="web1", host="h", username="u"), SECRET)
        given = await saved.resolve(OWNER, "web1")
        assert given is not None
        assert given["password"] == SECRET["password"]


async def test_a_secret_is_good_for_what_it_was_sealed_for_only(tmp_path: Path) -> None:
    async with opened(tmp_path / "state") as seal:
        sealed = await seal.close_up(SECRET, "root@web1:")
        with pytest.raises(Conflict, match="another account or machine"):
            await seal.open(sealed, "root@evil:")
        with pytest.raises(Conflict, match="damaged"):
            await seal.open(sealed[:-10] + b"AAAAAAAAAA", "root@web1:")


async def test_processes_that_seal_their_first_secret_together_agree_on_one_key(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    seals = [await SQLiteDatabase.open(folder) for _ in range(6)]
    try:
        sealed: list[bytes] = []

        async def first(database: SQLiteDatabase) -> None:
            sealed.append(await SecretBox(folder, database).close_up(SECRET, "a"))

        async with anyio.create_task_group() as group:
            for database in seals:
                group.start_soon(first, database)
        for each in sealed:
            assert await SecretBox(folder, seals[0]).open(each, "a") == SECRET
    finally:
        for database in seals:
            await database.close()
    assert [each.name for each in folder.iterdir() if each.name.startswith(FILE)] == [FILE]


async def test_a_keyring_that_works_keeps_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = install_keyring(monkeypatch, tmp_path / "site")
    folder = tmp_path / "state"
    async with opened(folder) as seal:
        sealed = await seal.close_up(SECRET, "a")
        assert await seal.place() == "keyring"
    assert not (folder / FILE).exists()
    async with opened(folder) as seal:
        assert await seal.open(sealed, "a") == SECRET
    kept.unlink()
    async with opened(folder) as seal:
        with pytest.raises(Conflict, match="OS keyring"):
            await seal.open(sealed, "a")


async def test_a_keyring_that_came_later_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "state"
    async with opened(folder) as seal:
        sealed = await seal.close_up(SECRET, "a")
    kept = install_keyring(monkeypatch, tmp_path / "site")
    async with opened(folder) as seal:
        await seal.close_up(SECRET, "b")
        assert await seal.open(sealed, "a") == SECRET
    assert not kept.exists()


async def test_a_keyring_that_keeps_plain_text_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = install_keyring(monkeypatch, tmp_path / "site", priority=0.5)
    async with opened(tmp_path / "state") as seal:
        await seal.close_up(SECRET, "a")
        assert await seal.place() == "file"
    assert not kept.exists()


async def test_of_several_keys_in_the_keyring_only_the_one_in_use_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = install_keyring(monkeypatch, tmp_path / "site")
    folder = tmp_path / "state"
    async with opened(folder) as one, opened(folder) as other:
        sealed = await one.close_up(SECRET, "a")
        assert await other.open(await other.close_up(SECRET, "a"), "a") == SECRET
        assert await other.open(sealed, "a") == SECRET
    assert kept.read_text().count("sealing key") == 1
    with closing(sqlite3.connect(folder / "state.db")) as db:
        assert db.execute("SELECT place FROM sealing_key").fetchall() == [("keyring",)]
