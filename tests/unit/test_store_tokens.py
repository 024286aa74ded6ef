"""Tokens: shown once, kept as a hash, gone everywhere the moment they are revoked."""

import asyncio
import re
import sqlite3
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_ssh.errors import Conflict, InvalidInput, NotFound
from mcp_ssh.store import Store, TokenInfo
from mcp_ssh.store.sqlite.database import SQLiteDatabase
from mcp_ssh.store.tokens import Tokens
from mcp_ssh.tool import Role

REVOKE = """
import asyncio, sys
from pathlib import Path
from mcp_ssh.store import Store

async def main():
    store = await Store.open(Path(sys.argv[1]))
    print((await store.tokens.revoke(sys.argv[2])).id)
    await store.close()

asyncio.run(main())
"""


async def test_a_new_token_is_found_by_its_secret_and_by_nothing_else(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    token, secret = await store.tokens.create("ci", Role.OPERATOR)
    assert re.fullmatch(r"mcpssh_[A-Za-z0-9_-]{43}", secret)
    assert re.fullmatch(r"[0-9a-f]{12}", token.id)
    assert (token.name, token.role, token.last_used_at) == ("ci", Role.OPERATOR, None)
    assert await store.tokens.find(secret) == token
    for wrong in ("", token.id, "ci", secret[:-1], secret + "x", secret.upper(), "mcpssh_" + "\ud800", "x" * 10**6):
        assert await store.tokens.find(wrong) is None
    await store.close()


async def test_a_secret_is_in_no_byte_of_the_folder_and_in_no_repr(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    token, secret = await store.tokens.create("ci", Role.ADMIN)
    preset = "preset-" + "p" * 20
    await store.tokens.preset(preset)
    await store.tokens.find(secret)
    await store.tokens.find(preset)
    await store.history.flush()

    def assert_nowhere() -> None:
        for each in tmp_path.rglob("*"):
            content = each.read_bytes()
            assert secret.encode() not in content
            assert secret.removeprefix("mcpssh_").encode() not in content
            assert preset.encode() not in content

    assert (tmp_path / "state.db-wal").stat().st_size
    assert_nowhere()
    assert secret not in repr((token, store.tokens, vars(store.tokens), await store.tokens.list()))
    assert preset not in repr((vars(store.tokens), await store.tokens.list()))
    await store.close()
    assert_nowhere()


async def test_a_revocation_by_another_process_holds_from_the_next_look_up(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    token, secret = await store.tokens.create("ci", Role.VIEWER)
    assert await store.tokens.find(secret) is not None
    with anyio.fail_after(30):
        done = await anyio.run_process([sys.executable, "-c", REVOKE, str(tmp_path), "ci"])
    assert done.stdout.decode().strip() == token.id
    assert await store.tokens.find(secret) is None
    await store.close()


async def test_a_token_is_revoked_by_id_or_name_and_its_name_is_free_again(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    first, first_secret = await store.tokens.create("one", Role.VIEWER)
    assert await store.tokens.revoke(first.id) == first
    second, second_secret = await store.tokens.create("one", Role.ADMIN)
    assert await store.tokens.find(first_secret) is None
    assert await store.tokens.find(second_secret) == second
    assert (await store.tokens.revoke("one")).id == second.id
    assert await store.tokens.list() == []
    with pytest.raises(NotFound, match="'one'"):
        await store.tokens.revoke("one")
    await store.close()


async def test_two_tokens_cannot_have_one_name(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    _, secret = await store.tokens.create("one", Role.VIEWER)
    with pytest.raises(Conflict, match="'one'"):
        await store.tokens.create("one", Role.ADMIN)
    found = await store.tokens.find(secret)
    assert found is not None
    assert found.role is Role.VIEWER
    await store.close()


@pytest.mark.parametrize("name", ["", " ", "a ", "a\nb", "x" * 65, "env", "0123456789ab", "a\x1b[31m"])
async def test_a_name_that_cannot_be_told_apart_or_shown_is_refused(tmp_path: Path, name: str) -> None:
    store = await Store.open(tmp_path)
    with pytest.raises(InvalidInput):
        await store.tokens.create(name, Role.VIEWER)
    assert await store.tokens.list() == []
    await store.close()


async def test_the_time_of_use_is_kept_but_written_once_a_minute_at_most(tmp_path: Path) -> None:
    opened = await SQLiteDatabase.open(tmp_path)
    now = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
    tokens = Tokens(opened, lambda: now)
    _, secret = await tokens.create("one", Role.VIEWER)

    async def use_and_look() -> str | None:
        await tokens.find(secret)
        await opened.flush()
        return (await tokens.list())[0].last_used_at

    assert await use_and_look() == "2026-11-22T12:00:00.000Z"
    now += timedelta(seconds=59)
    assert await use_and_look() == "2026-11-22T12:00:00.000Z"
    now += timedelta(seconds=2)
    assert await use_and_look() == "2026-11-22T12:01:01.000Z"
    await opened.close()


async def test_a_second_use_within_the_minute_writes_nothing(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    _, secret = await store.tokens.create("one", Role.VIEWER)
    await store.tokens.find(secret)
    await store.history.flush()
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await store.tokens.find(secret)
        with anyio.fail_after(2):
            await store.history.flush()  # a write would have to wait for the other one's lock
        other.execute("ROLLBACK")
    await store.close()


@pytest.mark.parametrize("looks", [True, False], ids=["looks for commits", "twin: does not look"])
async def test_a_known_token_is_not_asked_for_again_until_somebody_else_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: bool
) -> None:
    store, other = await Store.open(tmp_path), await Store.open(tmp_path)
    made, secret = await store.tokens.create("one", Role.VIEWER)
    await store.tokens.find(secret)
    await store.history.flush()  # its use is noted, which is a commit, too
    asked: list[str] = []
    read = SQLiteDatabase.read

    async def counted(self: SQLiteDatabase, sql: str, values: Any = ()) -> Any:
        asked.append(sql)
        return await read(self, sql, values)

    monkeypatch.setattr(SQLiteDatabase, "read", counted)
    if not looks:
        monkeypatch.setattr(SQLiteDatabase, "changed", lambda _: 1)
    found = [await store.tokens.find(secret) for _ in range(5)]
    assert [each and each.id for each in found] == [made.id] * 5
    assert len(asked) == 1
    await other.tokens.revoke("one")
    assert (await store.tokens.find(secret) is None) is looks
    await store.close()
    await other.close()


async def test_a_token_revoked_while_it_was_looked_up_is_not_known_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = await Store.open(tmp_path), await Store.open(tmp_path)
    _, secret = await store.tokens.create("one", Role.VIEWER)
    read = SQLiteDatabase.read

    async def revoked_meanwhile(self: SQLiteDatabase, sql: str, values: Any = ()) -> Any:
        rows = await read(self, sql, values)
        monkeypatch.setattr(SQLiteDatabase, "read", read)
        await other.tokens.revoke("one")
        assert await store.tokens.find(secret) is None
        return rows

    monkeypatch.setattr(SQLiteDatabase, "read", revoked_meanwhile)
    assert await store.tokens.find(secret) is not None  # it was there when the look-up began
    assert await store.tokens.find(secret) is None
    await store.close()
    await other.close()


async def test_a_look_up_takes_less_than_a_millisecond(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    secrets_ = [(await store.tokens.create(f"t{each}", Role.VIEWER))[1] for each in range(50)]
    for each in secrets_:
        await store.tokens.find(each)
    taken: list[float] = []
    for each in secrets_ * 4:
        began = time.perf_counter()
        assert await store.tokens.find(each) is not None
        taken.append(time.perf_counter() - began)
    assert sorted(taken)[len(taken) // 4] < 0.001  # the fastest quarter: this machine may be busy
    await store.close()


async def test_a_preset_token_is_admin_is_listed_and_stays_in_this_process(tmp_path: Path) -> None:
    store, other = await Store.open(tmp_path), await Store.open(tmp_path)
    secret = "sixteen-chars-ok"
    made = await store.tokens.preset(secret)
    assert (made.id, made.role) == ("env", Role.ADMIN)
    found = await store.tokens.find(secret)
    assert found is not None
    assert (found.id, found.last_used_at is None) == ("env", False)
    assert [each.id for each in await store.tokens.list()] == ["env"]
    assert await other.tokens.find(secret) is None
    assert await other.tokens.list() == []
    with pytest.raises(Conflict, match="not stored"):
        await store.tokens.revoke("env")
    await store.close()
    await other.close()


@pytest.mark.parametrize(
    "secret", ["", "fifteen-chars-x", "has spaces in the middle", "ümlaut-ümlaut-ümlaut", "a\n" * 10]
)
async def test_a_preset_token_that_is_weak_or_cannot_be_sent_is_refused(tmp_path: Path, secret: str) -> None:
    store = await Store.open(tmp_path)
    with pytest.raises(InvalidInput, match="MCP_SSH_TOKEN") as caught:
        await store.tokens.preset(secret)
    assert not secret or secret not in str(caught.value.payload())
    assert await store.tokens.find(secret) is None
    await store.close()


async def test_the_first_start_gets_one_admin_token_and_later_ones_none(tmp_path: Path) -> None:
    store, other = await Store.open(tmp_path), await Store.open(tmp_path)
    first = await store.tokens.ensure_admin()
    assert first is not None
    token, secret = first
    assert (token.name, token.role) == ("admin", Role.ADMIN)
    assert await other.tokens.find(secret) == token
    assert await other.tokens.ensure_admin() is None
    assert await store.tokens.ensure_admin() is None
    await store.close()
    await other.close()


async def test_two_processes_starting_at_once_make_one_admin_token(tmp_path: Path) -> None:
    stores = [await Store.open(tmp_path) for _ in range(4)]
    made = await asyncio.gather(*(store.tokens.ensure_admin() for store in stores))
    assert [each is not None for each in made].count(True) == 1
    assert len(await stores[0].tokens.list()) == 1
    for store in stores:
        await store.close()


async def test_a_preset_token_makes_the_first_admin_token_needless(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    await store.tokens.preset("sixteen-chars-ok")
    assert await store.tokens.ensure_admin() is None
    assert [each.id for each in await store.tokens.list()] == ["env"]
    await store.close()


def test_a_token_shown_as_json_has_exactly_the_public_fields() -> None:
    assert set(TokenInfo.model_fields) == {"id", "name", "role", "created_at", "last_used_at", "hosts"}
