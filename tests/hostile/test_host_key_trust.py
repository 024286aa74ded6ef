"""What one caller trusts, another cannot change; and nobody fills the file of keys or scans without a bound."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import Conflict, InvalidInput, Refused, TooLarge, ToolError, TooMany
from mcp_ssh.ssh.hostkeys import known_hosts
from mcp_ssh.ssh.hostkeys import rights as hostkey_rights
from mcp_ssh.tool import Caller, Role
from mcp_ssh.tools import hostkey, session
from tests.support.doors import DirectCall
from tests.support.hostkeys import ECDSA, KEY, LOOPBACK, OTHER, machine, text

OWNER = DirectCall(Caller("stdio", Role.ADMIN, owner=True))
ADMIN = DirectCall(Caller("admin", Role.ADMIN))
BOUND = DirectCall(Caller("bound", Role.ADMIN, hosts=("*",)))
ALICE, BOB = (DirectCall(Caller(name, Role.OPERATOR)) for name in ("alice", "bob"))
VIEWER = DirectCall(Caller("viewer", Role.VIEWER))


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[App]:
    monkeypatch.setenv("HOME", str(tmp_path))
    async with open_app(tmp_path / "state") as app:
        yield app


def given(key: asyncssh.SSHKey, host: str = "web1", **more: Any) -> dict[str, Any]:
    shown = {"host": host, "port": 22, "key_type": key.get_algorithm(), "public_key": text(key)}
    return {**shown, "fingerprint_sha256": key.get_fingerprint(), **more}


WHICH = {"host": "web1", "port": 22, "key_type": "ssh-ed25519"}


async def trusted(app: App) -> list[tuple[str, str | None]]:
    """Read back by the file itself."""
    data = (app.home / "known_hosts").read_bytes()
    return [(each.key_base64, each.accepted_by) for each in known_hosts.parse(data, "it", managed=True)]


@pytest.mark.requirement("fault.S8")
@pytest.mark.parametrize("first", [OWNER, ADMIN, ALICE])
@pytest.mark.parametrize("thief", [BOB, BOUND])
async def test_a_key_that_another_accepted_is_replaced_and_removed_by_admins_only(
    app: App, first: DirectCall, thief: DirectCall
) -> None:
    await dispatch(app, hostkey.accept, given(KEY), first)
    for key in (OTHER, ECDSA):  # another key of the type, and one of another type, which would be trusted as well
        with pytest.raises(Refused, match="another caller accepted"):
            await dispatch(app, hostkey.accept, given(key), thief)
    with pytest.raises(Refused, match="another caller accepted"):
        await dispatch(app, hostkey.remove, WHICH, thief)
    assert await trusted(app) == [(text(KEY).split()[1], first.caller.id)]
    listed = await dispatch(app, hostkey.list_hostkeys, {}, thief)
    assert [each.accepted_by for each in listed.entries] == [first.caller.id]
    # The negative controls: an admin may do both, and so may who accepted the key.
    await dispatch(app, hostkey.accept, given(OTHER), ADMIN)
    assert await trusted(app) == [(text(OTHER).split()[1], "admin")]
    assert (await dispatch(app, hostkey.remove, WHICH, OWNER)).changed
    await dispatch(app, hostkey.accept, given(KEY), BOB)
    await dispatch(app, hostkey.accept, given(OTHER), BOB)
    assert (await dispatch(app, hostkey.remove, WHICH, BOB)).changed


@pytest.mark.requirement("fault.S8")
async def test_a_key_of_the_owners_own_file_gets_no_second_one_from_an_operator(app: App, tmp_path: Path) -> None:
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/known_hosts").write_text(f"web1 {text(KEY)}\n@cert-authority *.corp {text(KEY)}\n")
    for host in ("web1", "db.corp"):
        with pytest.raises(Refused, match="another caller accepted"):
            await dispatch(app, hostkey.accept, given(ECDSA, host), BOB)
    await dispatch(app, hostkey.accept, given(ECDSA), ADMIN)


@pytest.mark.requirement("fault.S8")
async def test_a_key_accepted_for_the_bare_name_adds_none_to_a_port_that_has_its_own(app: App) -> None:
    await dispatch(app, hostkey.accept, given(KEY, port=2222), ALICE)
    with pytest.raises(Refused, match="another caller accepted"):
        await dispatch(app, hostkey.accept, given(ECDSA, port=2222), BOB)
    await dispatch(
        app, hostkey.accept, given(ECDSA), BOB
    )  # nobody has a key for port 22, which Bob's own machine may be
    shown = ECDSA.get_algorithm(), ECDSA.public_data
    known = await app.hostkeys.load()
    assert known.about("web1", 22).judge(*shown)[0] == "trusted"
    assert known.about("web1", 2222).judge(*shown)[0] == "unknown"
    assert known.about("web1", 2200).judge(*shown)[0] == "trusted", "as with ssh, where no key of the port is known"


@pytest.mark.requirement("fault.S8")
async def test_a_changed_key_asks_for_the_old_fingerprint_where_a_model_calls(app: App) -> None:
    model = DirectCall(BOB.caller, "mcp", confirms=True)
    new = {"confirm": True}
    await dispatch(app, hostkey.accept, given(KEY, **new), model)
    with pytest.raises(InvalidInput, match="replaces: is required"):
        await dispatch(app, hostkey.accept, given(OTHER, **new), model)
    with pytest.raises(Conflict, match="replaces"):
        await dispatch(app, hostkey.accept, given(OTHER, replaces=OTHER.get_fingerprint(), **new), model)
    with pytest.raises(Conflict, match="replaces"):
        await dispatch(app, hostkey.accept, given(OTHER, "new", replaces=KEY.get_fingerprint(), **new), model)
    await dispatch(app, hostkey.accept, given(OTHER, replaces=KEY.get_fingerprint(), **new), model)
    assert await trusted(app) == [(text(OTHER).split()[1], "bob")]
    await dispatch(app, hostkey.accept, given(KEY), BOB)  # a documented REST request needs no undocumented field


@pytest.mark.requirement("fault.S8")
async def test_a_key_stored_at_first_sight_is_of_the_caller_who_saw_it(tmp_path: Path) -> None:
    security = {"host_keys": "accept-new", "allow_local_targets": True}
    async with open_app(tmp_path, Config.model_validate({"security": security})) as app, machine(KEY) as port:
        login = {"host": LOOPBACK, "port": port, "username": "a", "password": "x", "use_config": False}
        await dispatch(app, session.connect, login, BOB)
        assert await trusted(app) == [(text(KEY).split()[1], "bob")]
        with pytest.raises(Refused):
            await dispatch(app, hostkey.remove, {**WHICH, "host": LOOPBACK, "port": port}, ALICE)


@pytest.mark.requirement("fault.S7.known_hosts")
async def test_a_caller_at_its_share_of_keys_holds_up_nobody_else(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostkey_rights, "SHARE_BYTES", 500)
    with pytest.raises(TooMany, match="host keys"):
        for number in range(10):
            await dispatch(app, hostkey.accept, given(KEY, f"web{number}"), BOB)
    count = len(await trusted(app))
    assert 0 < count < 10
    await dispatch(app, hostkey.accept, given(KEY, "other"), ALICE)
    for number in range(10):
        await dispatch(app, hostkey.accept, given(KEY, f"mine{number}"), OWNER)
    await dispatch(app, hostkey.remove, {**WHICH, "host": "web0"}, BOB)
    await dispatch(app, hostkey.accept, given(KEY, "web9"), BOB)
    assert len(await trusted(app)) == count + 11


@pytest.mark.requirement("fault.S7.known_hosts")
async def test_the_bound_of_the_file_is_looked_at_before_it_is_written(app: App) -> None:
    line = f"old {text(KEY)}\n".encode()
    file = app.home / "known_hosts"
    for room, refused, passes in ((hostkey_rights.RESERVED_BYTES - 50, BOB, OWNER), (50, OWNER, None)):
        size = known_hosts.MAX_FILE_BYTES - room
        padding = b"#" + b"x" * 98 + b"\n"
        file.write_bytes((line + padding * (size // 100))[: size - 1] + b"\n")
        before = file.read_bytes()
        with pytest.raises(TooLarge, match="no room"):
            await dispatch(app, hostkey.accept, given(KEY), refused)
        assert file.read_bytes() == before
        assert len((await dispatch(app, hostkey.list_hostkeys, {}, refused)).entries) == 1  # and it is still read
        if passes is not None:
            await dispatch(app, hostkey.accept, given(KEY), passes)
    assert (await dispatch(app, hostkey.remove, {**WHICH, "host": "old"}, OWNER)).changed


# ---- scans -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("fault.S13.scan")
async def test_a_viewer_scans_a_few_ports_a_minute_and_no_more(app: App) -> None:
    app.live.config = Config.model_validate({"security": {"allow_local_targets": True}})
    now = [0.0]
    app.scans._clock = lambda: now[0]
    async with machine(KEY) as port:

        async def scans(who: DirectCall, times: int) -> int:
            done = 0
            for _ in range(times):
                try:
                    await dispatch(app, hostkey.scan, {"host": LOOPBACK, "port": port, "timeout": 5}, who)
                except TooMany:
                    return done
                done += 1
            return done

        assert await scans(VIEWER, 40) == 30
        assert await scans(OWNER, 35) == 35
        assert await scans(BOB, 1) == 1
    login = {"host": LOOPBACK, "port": 9, "username": "a", "password": "x", "retries": 1, "timeout": 5}
    with pytest.raises(TooMany):  # a connection that comes to no login tells as much of a port
        await dispatch(app, session.connect, login, VIEWER)
    codes = [await code(app, login, BOB) for _ in range(35)]
    assert codes == ["connect_failed"] * 29 + ["too_many"] * 6
    now[0] = 60.0
    assert await code(app, login, BOB) == "connect_failed"


async def code(app: App, login: dict[str, Any], who: DirectCall) -> str:
    with pytest.raises(ToolError) as caught:
        await dispatch(app, session.connect, login, who)
    return caught.value.code


@pytest.mark.requirement("fault.S13.scan")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "localhost", "::1", "0.0.0.0", "169.254.169.254"])
async def test_the_servers_own_machine_is_for_admins_unless_the_owner_says_otherwise(app: App, host: str) -> None:
    scan = {"host": host, "port": 9, "timeout": 0.5}
    login = {"host": host, "port": 9, "username": "a", "password": "x", "retries": 1, "timeout": 0.5}
    for who in (BOB, DirectCall(Caller("all", Role.OPERATOR, hosts=("*",)))):
        for tool, arguments in ((hostkey.scan, scan), (session.connect, login)):
            with pytest.raises(Refused, match="this server itself"):
                await dispatch(app, tool, arguments, who)
    named = DirectCall(Caller("named", Role.OPERATOR, hosts=("127.0.0.0/8", "::1", "169.254.169.254", "localhost")))
    for who in (ADMIN, OWNER, named):
        assert await failed(app, scan, who) in {"connect_failed", "timed_out"}
    app.live.config = Config.model_validate({"security": {"allow_local_targets": True}})
    assert await failed(app, scan, BOB) in {"connect_failed", "timed_out"}


async def failed(app: App, scan: dict[str, Any], who: DirectCall) -> str:
    with pytest.raises(ToolError) as caught:
        await dispatch(app, hostkey.scan, scan, who)
    return caught.value.code
