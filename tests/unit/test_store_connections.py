"""Saved connections: kept across processes, seen by who saved them, their secrets in no byte of the disk."""

import base64
import json
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import Conflict, InvalidInput, NotFound, Refused
from mcp_ssh.store import Store, saved_names
from mcp_ssh.store.connections import ConnectionTarget, SavedConnection
from mcp_ssh.store.sqlite.database import SQLiteDatabase
from mcp_ssh.store.sqlite.migrations import MIGRATIONS
from mcp_ssh.tool import Caller, Role
from mcp_ssh.tools import connection
from tests.support.doors import DirectCall, caller, open_way

ADMIN = Caller("stdio", Role.ADMIN, owner=True)
ANNA = Caller("anna", Role.OPERATOR)
BERT = Caller("bert", Role.OPERATOR)
PASSWORD = "correct-horse-battery-staple"


@asynccontextmanager
async def stored(folder: Path) -> AsyncGenerator[Store]:
    store = await Store.open(folder)
    try:
        yield store
    finally:
        await store.close()


def account(name: str = "web1", **changes: object) -> ConnectionTarget:
    return ConnectionTarget.model_validate({"name": name, "host": "192.0.2.7", "username": "ops", **changes})


def new_key() -> str:
    import asyncssh

    return asyncssh.generate_private_key("ssh-ed25519").export_private_key("openssh").decode()


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.requirement("connection.saved")
async def test_a_connection_is_there_for_every_process_until_it_is_removed(tmp_path: Path) -> None:
    secrets = {"password": SecretStr(PASSWORD)}
    async with stored(tmp_path / "s") as one, stored(tmp_path / "s") as other:
        made = await one.connections.add(ADMIN, account(category="prod/web", port=2222), secrets)
        assert made.id == 1
        for which in ("web1", "1", made.uuid, made.uuid.upper()):
            assert await other.connections.find(ADMIN, which) == made
        assert await other.connections.resolve(ADMIN, "web1") == {
            "host": "192.0.2.7",
            "port": 2222,
            "username": "ops",
            **secrets,
        }
        await other._database.flush()
        assert (await one.connections.find(ADMIN, "web1")).last_used_at is not None
        assert await other.connections.resolve(ADMIN, "web2") is None
        assert await other.connections.resolve(ADMIN, "1") is None
        assert saved_names(tmp_path / "s") == ["web1"]
        await other.connections.remove(ADMIN, "web1")
        assert await one.connections.query(ADMIN) == []
        with pytest.raises(NotFound, match="web1"):
            await one.connections.remove(ADMIN, "web1")
        again = await one.connections.add(ADMIN, account(), {})
        assert again.id == 2


@pytest.mark.requirement("connection.saved")
async def test_a_name_is_taken_until_it_is_replaced_and_then_number_and_uuid_stay(tmp_path: Path) -> None:
    async with stored(tmp_path / "s") as store:
        made = await store.connections.add(ADMIN, account(), {"password": SecretStr(PASSWORD)})
        with pytest.raises(Conflict, match="exists") as caught:
            await store.connections.add(ADMIN, account(host="elsewhere"), {})
        assert "replace: true" in (caught.value.hint or "")
        new = await store.connections.add(ADMIN, account(host="elsewhere", use_agent=True), {}, replace=True)
        assert (new.id, new.uuid, new.created_at) == (made.id, made.uuid, made.created_at)
        assert new.secrets == ()
        given = await store.connections.resolve(ADMIN, "web1")
        assert given == {"host": "elsewhere", "username": "ops", "use_agent": True}


@pytest.mark.requirement("fault.S1")
async def test_every_name_that_can_be_saved_opens_its_connection_and_a_number_none(tmp_path: Path) -> None:
    async with stored(tmp_path) as store:
        for name in ("²", "①", "web"):
            saved = await store.connections.add(ANNA, account(name), {})
            assert await store.connections.resolve(ANNA, name) == {"host": "192.0.2.7", "username": "ops"}
            assert await store.connections.version(ANNA, name) is not None
            assert await store.connections.resolve(ANNA, str(saved.id)) is None
        for name in ("12", "٣"):
            with pytest.raises(InvalidInput, match="must not read as an id"):
                await store.connections.add(ANNA, account(name), {})


@pytest.mark.requirement("connection.owner")
async def test_a_connection_is_for_who_saved_it_and_for_admins(tmp_path: Path) -> None:
    async with stored(tmp_path / "s") as store:
        saved = store.connections
        await saved.add(ANNA, account("annas"), {"password": SecretStr(PASSWORD)})
        assert [each.name for each in await saved.query(ADMIN)] == ["annas"]
        assert await saved.query(BERT) == []
        assert await saved.resolve(BERT, "annas") is None
        for forbidden in (saved.find(BERT, "annas"), saved.find(BERT, "1"), saved.remove(BERT, "annas")):
            with pytest.raises(NotFound):
                await forbidden


@pytest.mark.requirement("fault.S1")
async def test_a_name_means_the_callers_own_connection_and_others_go_by_uuid_or_number(tmp_path: Path) -> None:
    """Each caller has names of its own; an admin sees all of them and means none by name."""
    async with stored(tmp_path / "s") as store:
        saved = store.connections
        annas = await saved.add(ANNA, account("prod-db", host="192.0.2.66"), {"password": SecretStr(PASSWORD)})
        for which in ("prod-db",):
            assert await saved.resolve(ADMIN, which) is None
            with pytest.raises(NotFound):
                await saved.find(ADMIN, which)
            with pytest.raises(NotFound):
                await saved.remove(ADMIN, which)
        for which in (str(annas.id), annas.uuid):
            assert await saved.find(ADMIN, which) == annas
        assert (await saved.resolve(ADMIN, annas.uuid) or {})["host"] == "192.0.2.66"
        # The name is not taken for anybody else, and replacing one's own leaves Anna's as it was.
        for replace in (False, True):
            admins = await saved.add(ADMIN, account("prod-db", host="192.0.2.1"), {}, replace=replace)
            assert (await saved.resolve(ADMIN, "prod-db") or {})["host"] == "192.0.2.1"
            assert (await saved.resolve(ANNA, "prod-db") or {})["host"] == "192.0.2.66"
        assert await saved.own_names(ADMIN) == saved_names(tmp_path / "s") == ["prod-db"]
        # When each was used last is written a moment later.
        assert _unused(await saved.remove(ADMIN, "prod-db")) == admins
        assert [_unused(each) for each in await saved.query(ADMIN)] == [annas]


def _unused(connection: SavedConnection) -> SavedConnection:
    return connection.model_copy(update={"last_used_at": None})


@pytest.mark.requirement("fault.S1")
async def test_the_owner_has_the_same_names_over_stdio_and_on_the_command_line(tmp_path: Path) -> None:
    async with stored(tmp_path / "s") as store:
        made = await store.connections.add(Caller("cli", Role.ADMIN, owner=True), account(), {})
        assert await store.connections.find(ADMIN, "web1") == made
        with pytest.raises(NotFound):
            await store.connections.find(Caller("token", Role.ADMIN), "web1")


@pytest.mark.requirement("fault.S1")
async def test_connections_saved_by_an_older_version_stay_their_owners(tmp_path: Path) -> None:
    before = MIGRATIONS[:4]
    folder = tmp_path / "s"
    folder.mkdir(mode=0o700)
    with closing(sqlite3.connect(folder / "state.db")) as db:
        for statement in (each for step in before for each in step):
            db.execute(statement)
        for number, owner in ((3, "cli"), (7, "anna"), (9, "stdio")):
            db.execute(
                "INSERT INTO connections (id, uuid, name, host, username, use_agent, secrets, owner, created_at,"
                " updated_at) VALUES (?, ?, ?, 'h', 'u', 1, '', ?, 'x', 'x')",
                (number, f"u{number}", f"n{number}", owner),
            )
        db.execute("DELETE FROM connections WHERE id = 9")
        db.execute(f"PRAGMA user_version = {len(before)}")
        db.commit()
    (folder / "state.db").chmod(0o600)
    async with stored(folder) as store:
        assert (await store.connections.find(ADMIN, "n3")).id == 3
        assert (await store.connections.find(ANNA, "n7")).id == 7
        assert (await store.connections.add(ANNA, account(), {})).id == 10  # a number is never given twice


@pytest.mark.requirement("connection.saved")
@pytest.mark.parametrize(
    "name",
    [
        "",
        " web",
        "web ",
        "a\nb",
        "x" * 129,
        "ops@web1",
        "-web",
        "12",
        "0123456789ab",
        "0b0b0b0b-1111-2222-3333-0123456789ab",
    ],
)
async def test_a_name_that_reads_as_something_else_is_refused(tmp_path: Path, name: str) -> None:
    async with stored(tmp_path / "s") as store:
        with pytest.raises(InvalidInput, match="name"):
            await store.connections.add(ADMIN, account(name), {})


@pytest.mark.requirement("connection.saved")
async def test_names_and_categories_are_found_by_pattern(tmp_path: Path) -> None:
    async with stored(tmp_path / "s") as store:
        for name, category in (("web2", "prod"), ("Web1", "Prod/eu"), ("db", None), ("überall", "test")):
            await store.connections.add(ADMIN, account(name, category=category), {})

        async def names(**wanted: str) -> list[str]:
            return [each.name for each in await store.connections.query(ADMIN, **wanted)]

        assert await names() == ["db", "Web1", "web2", "überall"]
        assert await names(name="WEB?") == ["Web1", "web2"]
        assert await names(category="prod*") == ["Web1", "web2"]
        assert await names(name="*1", category="prod/*") == ["Web1"]
        assert await names(name="web") == []


@pytest.mark.requirement("connection.sealed")
async def test_secrets_are_in_no_byte_of_the_folder_and_in_no_answer(mcp_home: Path) -> None:
    key = new_key()
    given = {
        "name": "web1", "host": "192.0.2.7", "username": "ops", "password": PASSWORD,
        "key_content": base64.b64encode(key.encode()).decode(), "key_passphrase": "open-sesame-77",
    }  # fmt: skip
    hidden = (PASSWORD, key.splitlines()[2], given["key_content"][:60], given["key_passphrase"])
    shown: list[object] = []
    for name in ("direct", "mcp"):
        async with open_app(mcp_home, Config()) as app:
            async with open_way(name, app) as way:
                shown.append(await way.call(connection.add, {**given, "replace": True}))
                shown.append(await way.call(connection.info, {"connection": "web1"}))
                shown.append(await way.call(connection.query, {}))
            found = await app.store.connections.find(ADMIN, "web1")
            arguments = await app.store.connections.resolve(ADMIN, "web1")
            shown += [repr(found), repr(arguments)]
            assert arguments is not None
            assert arguments["key_passphrase"].get_secret_value() == "open-sesame-77"
            await app.store.history.flush()
            shown.append([row.model_dump() for row in await app.store.history.list(20)])
            on_disk = bytes_of(mcp_home)
            for secret in hidden:
                assert secret.encode() not in on_disk
                assert secret not in json.dumps(shown, default=str)
    assert shown[1]["secrets"] == ["password", "key_content", "key_passphrase"]  # pyright: ignore[reportIndexIssue]
    assert b"192.0.2.7" in bytes_of(mcp_home)


@pytest.mark.requirement("connection.sealed")
async def test_a_machine_changed_in_the_database_gets_no_secret(tmp_path: Path) -> None:
    async with stored(tmp_path / "s") as store:
        await store.connections.add(ADMIN, account(), {"password": SecretStr(PASSWORD)})
    with closing(sqlite3.connect(tmp_path / "s/state.db")) as db:
        db.execute("UPDATE connections SET host = 'evil.example.org'")
        db.commit()
    async with stored(tmp_path / "s") as store:
        with pytest.raises(Conflict, match="another account or machine"):
            await store.connections.resolve(ADMIN, "web1")


@pytest.mark.requirement("connection.roles")
async def test_viewers_look_operators_save_and_identities_stay_the_owner_s(app: App, tmp_path: Path) -> None:
    key_file = tmp_path / "id"
    key_file.write_text(new_key())
    viewer = DirectCall(Caller("v", Role.VIEWER))
    anna = DirectCall(ANNA)
    by_password = {"name": "a", "host": "h", "username": "u", "password": PASSWORD}
    by_file = {"name": "b", "host": "h", "username": "u", "key_path": str(key_file)}
    by_agent = {"name": "c", "host": "h", "username": "u", "use_agent": True}
    assert (await dispatch(app, connection.query, {}, viewer)).connections == []
    with pytest.raises(Refused, match="operator"):
        await dispatch(app, connection.add, by_password, viewer)
    with pytest.raises(Refused, match="operator"):
        await dispatch(app, connection.remove, {"connection": "a"}, viewer)
    with pytest.raises(InvalidInput, match="nothing to log in with"):
        await dispatch(app, connection.add, {**by_password, "password": None}, anna)
    await dispatch(app, connection.add, by_password, anna)
    for given in (by_file, by_agent):
        with pytest.raises(Refused, match="owner"):
            await dispatch(app, connection.add, given, anna)
        await dispatch(app, connection.add, given, DirectCall(caller()))


@pytest.mark.requirement("connection.saved")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"host": "ops@h"}, "host"),
        ({"port": 0}, "port"),
        ({"key_path": "/nowhere"}, "key_path"),
        ({"key_content": "bm90IGEga2V5"}, "key_content"),
    ],
)
async def test_what_could_never_log_in_is_refused_and_not_saved(
    app: App, owner: DirectCall, change: dict[str, object], says: str
) -> None:
    given = {"name": "a", "host": "h", "username": "u", "password": PASSWORD, **change}
    with pytest.raises(InvalidInput, match=says):
        await dispatch(app, connection.add, given, owner)
    assert await app.store.connections.query(ADMIN) == []


def test_names_for_completion_never_fail(tmp_path: Path) -> None:
    assert saved_names(tmp_path / "nowhere") == []
    (tmp_path / "state.db").write_bytes(b"no database")
    assert saved_names(tmp_path) == []


@pytest.mark.requirement("fault.C9.connection_query")
async def test_a_query_reads_no_more_rows_than_its_page_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await Store.open(tmp_path)
    async with store._database.transaction() as connection:
        await connection.executemany(
            "INSERT INTO connections (uuid, name, category, host, username, use_agent, secrets, owner, created_at,"
            " updated_at) VALUES (?, ?, ?, 'h', 'u', 0, '', ?, '', '')",
            [
                (f"{n}", f"{'Web' if n % 2 else 'db'}_{n:05}", "prod" if n % 4 else None, "ab"[n % 3 == 0])
                for n in range(10_000)
            ],
        )
    rows_read, read = 0, SQLiteDatabase.read

    async def counted(database: SQLiteDatabase, *given: Any) -> Any:
        nonlocal rows_read
        rows = await read(database, *given)
        rows_read += len(rows)
        return rows

    monkeypatch.setattr(SQLiteDatabase, "read", counted)
    [one], after = await store.connections.page(ADMIN, "WEB?00001", limit=10)
    assert (one.name, after, rows_read) == ("Web_00001", None, 1)
    names, after, rows_read = list[str](), "", 0
    for _ in range(3):
        found, after = await store.connections.page(ADMIN, "db*", "PR*", limit=100, after=after or "")
        names += [each.name for each in found]
    assert names == [f"db_{n:05}" for n in range(10_000) if n % 2 == 0 and n % 4][:300]
    assert rows_read < 3 * 1000
    assert len(await store.connections.query(Caller("a", Role.OPERATOR))) == 6666
    assert len(await store.connections.query(ADMIN)) == 10_000
    await store.close()


@pytest.mark.requirement("fault.C9.connection_query")
async def test_signs_that_sql_reads_otherwise_are_plain_and_case_is_ignored_beyond_ascii(tmp_path: Path) -> None:
    store = await Store.open(tmp_path)
    names = ["a%b", "a_b", "a\\b", "axb", "Ärger", "ärgern", "a[b]", "İzmir", "ﬁle"]
    for each in names:
        await store.connections.add(ADMIN, ConnectionTarget(name=each, host="h", username="u"), {})

    async def fit(pattern: str) -> set[str]:
        return {each.name for each in await store.connections.query(ADMIN, pattern)}

    assert await fit("a%b") == {"a%b"}
    assert await fit("a_b") == {"a_b"}
    assert await fit("a\\b") == {"a\\b"}
    assert await fit("a?b") == {"a%b", "a_b", "a\\b", "axb"}
    assert await fit("ÄRGER*") == {"Ärger", "ärgern"}
    assert await fit("*ZMIR") == {"İzmir"}
    assert await fit("a[x]b") == {"axb"}
    assert await fit("*") == set(names)
    pages, after = list[str](), ""
    while after is not None:
        found, after = await store.connections.page(ADMIN, limit=2, after=after)
        pages += [each.name for each in found]
    assert sorted(pages) == sorted(names)
    await store.close()
