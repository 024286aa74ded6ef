"""`session_connect` with the name of a saved connection, or with a name that is none."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import AuthFailed, ConnectFailed, InvalidInput
from mcp_ssh.tool import Caller, Role
from mcp_ssh.tools import command, connection, session
from tests.support.asking_host import AskingHost, asking_host
from tests.support.cli_kit import run
from tests.support.doors import DirectCall

ALICE, BOB = (DirectCall(Caller(name, Role.OPERATOR)) for name in ("alice", "bob"))


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[App]:
    monkeypatch.setenv("HOME", str(tmp_path))
    security = {"host_keys": "accept-new", "allow_local_targets": True}
    async with open_app(tmp_path / "state", Config.model_validate({"security": security})) as app:
        yield app


async def saved(app: App, host: AskingHost, **more: Any) -> None:
    given = {"name": "web", "host": "127.0.0.1", "port": host.port, "username": "ada", "password": host.password}
    await dispatch(app, connection.add, {**given, **more}, ALICE)


@pytest.mark.requirement("fault.N10")
async def test_a_saved_name_as_host_opens_that_machine_with_what_was_saved(app: App) -> None:
    async with asking_host(password="pw-ada") as host:
        await saved(app, host)
        opened = await dispatch(app, session.connect, {"host": "web"}, ALICE)
        assert (opened.host, opened.username, host.passwords) == ("127.0.0.1", "ada", ["pw-ada"])
        said = await dispatch(app, command.run_command, {"session_id": "web", "command": "echo hi"}, ALICE)
        assert said.stdout == "hi\n"
        assert host.logins == 1  # the session has the name, so using it opened no second one


@pytest.mark.requirement("fault.N10")
async def test_what_the_call_gives_comes_before_what_was_saved_and_secrets_stay_with_their_account(app: App) -> None:
    async with asking_host(password="pw-ada") as host:
        await saved(app, host)
        for other in ({"username": "eve"}, {"port": host.port + 1}):
            with pytest.raises(InvalidInput, match="nothing to log in with"):
                await dispatch(app, session.connect, {"host": "web", **other}, ALICE)
        with pytest.raises(AuthFailed):
            await dispatch(app, session.connect, {"host": "web", "password": "mine"}, ALICE)
        assert host.passwords == ["mine"]
        opened = await dispatch(app, session.connect, {"host": "web", "username": "eve", "password": "pw-ada"}, ALICE)
        assert opened.username == "eve"


@pytest.mark.requirement("fault.N10")
async def test_a_name_that_is_none_and_anothers_name_are_told_as_unknown(app: App, tmp_path: Path) -> None:
    async with asking_host(password="pw-ada") as host:
        await saved(app, host)
        for who, name in ((ALICE, "nosuch"), (BOB, "web")):
            for more in ({}, {"username": "a", "password": "b"}):
                with pytest.raises(ConnectFailed, match=f"no saved connection or alias of yours is called '{name}'"):
                    await dispatch(app, session.connect, {"host": name, "retries": 1, **more}, who)
        assert host.passwords == []
    done = await run("exec", "nosuch", "--", "id", home=tmp_path)
    assert done.code == 255
    assert "no saved connection or alias of yours is called 'nosuch'" in done.failure
