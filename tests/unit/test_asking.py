"""What is missing at a login is asked of a person, in both eras: once, past the model, and never tried twice."""

import base64
import json
import math
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import asyncssh
import pytest
from mcp import Client, types

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, SecurityConfig
from mcp_ssh.dispatch import dispatch
from mcp_ssh.mcp_server import build_server
from mcp_ssh.mcp_server.elicitation import McpCall
from mcp_ssh.tool import Caller, Question, Role
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import ToolsetSelection
from tests.support import toys
from tests.support.asking_host import AskingHost, asking_host
from tests.support.doors import DirectCall
from tests.support.toy_kit import OWNER, Person, error

TRUSTING = Config(security=SecurityConfig(host_keys="accept-new"))


@pytest.fixture(params=["legacy", "2026-07-28"])
def mode(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def app(mcp_home: Path) -> AsyncIterator[App]:
    async with open_app(mcp_home, TRUSTING) as opened:
        yield opened


async def connect(
    app: App, host: AskingHost, mode: str, person: Person | None, *, caller: Caller = OWNER, **more: Any
) -> types.CallToolResult:
    server = build_server(app, REGISTRY, ToolsetSelection(), caller=caller)
    async with Client(server, mode=mode, elicitation_callback=person) as client:
        return await client.call_tool(
            "session_connect", {"host": "127.0.0.1", "port": host.port, "username": "ada", **more}
        )


def key() -> str:
    """A key that the machine does not know."""
    return base64.b64encode(asyncssh.generate_private_key("ssh-ed25519").export_private_key()).decode()


@pytest.mark.requirement("mcp.asking")
async def test_a_password_that_the_machine_wants_is_asked_for_and_sent_once(app: App, mode: str) -> None:
    person = Person(password="pw-ada")
    async with asking_host(password="pw-ada") as host:
        result = await connect(app, host, mode, person)
        assert not result.is_error, result.content
        assert (host.passwords, host.logins) == (["pw-ada"], 1)
    (form,) = person.asked
    assert "ada on 127.0.0.1 port" in form.message
    assert "pw-ada" not in result.model_dump_json()


@pytest.mark.requirement("mcp.asking_once")
async def test_a_wrong_password_is_final_in_both_eras(app: App, mode: str) -> None:
    person = Person(password="not-it")
    async with asking_host(password="pw-ada") as host:
        refused = error(await connect(app, host, mode, person))
        assert host.passwords == ["not-it"]
    assert refused["code"] == "auth_failed"
    assert len(person.asked) == 1
    assert "not-it" not in json.dumps(refused)


@pytest.mark.requirement("mcp.asking_once")
async def test_the_repeated_call_begins_with_its_answers(app: App, mode: str) -> None:
    async with asking_host(password="pw-ada", code="123456") as host:
        person = Person(password="pw-ada", answer_1="pw-ada", answer_2="123456")
        assert not (await connect(app, host, mode, person, key_content=key())).is_error
        assert host.conversations == 2  # one to hear the questions, one to answer them


async def test_the_negative_control_that_forgets_them_fails_at_the_machine_once_more(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    need = McpCall.need

    async def forgetful(self: McpCall, question: Question) -> Any:
        return None if question.known else await need(self, question)

    monkeypatch.setattr(McpCall, "need", forgetful)
    async with asking_host(password="pw-ada", code="123456") as host:
        person = Person(password="pw-ada", answer_1="pw-ada", answer_2="123456")
        await connect(app, host, "2026-07-28", person, key_content=key())
        assert host.conversations == 3


@pytest.mark.requirement("mcp.asking")
async def test_what_the_machine_asks_for_at_login_is_put_to_the_person_in_its_words(app: App, mode: str) -> None:
    person = Person(answer_1="pw-ada", answer_2="123456")
    async with asking_host(password="pw-ada", code="123456", key=False) as host:
        result = await connect(app, host, mode, person, key_content=key())
        assert not result.is_error, result.content
        # Before anybody was asked there was nothing to answer.
        assert [each for each in host.answers if any(each)] == [("pw-ada", "123456")]
    titles = [each["title"] for each in person.asked[-1].requested_schema["properties"].values()]
    assert titles == ["Password:", "Code:"]


@pytest.mark.requirement("mcp.asking")
async def test_the_passphrase_of_a_key_is_asked_for(app: App, mode: str, tmp_path: Path) -> None:
    place = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-f", place, "-N", "open sesame"], check=True)
    async with asking_host(key=True) as host:
        good = await connect(app, host, mode, Person(key_passphrase="open sesame"), key_path=str(place))
        assert not good.is_error, good.content
        wrong = error(await connect(app, host, mode, Person(key_passphrase="nope"), key_path=str(place)))
        assert host.logins == 1
    assert "key_passphrase" in wrong["message"]


@pytest.mark.requirement("mcp.asking")
@pytest.mark.parametrize("person", [Person("decline"), Person(password=""), Person("cancel"), None])
async def test_nothing_is_sent_where_nobody_answers(app: App, mode: str, person: Person | None) -> None:
    async with asking_host(password="pw-ada") as host:
        refused = error(await connect(app, host, mode, person))
        assert (host.passwords, host.logins) == ([], 0)
    expected = "invalid_input" if person is None or person.action == "cancel" else "refused"
    assert refused["code"] == expected


@pytest.mark.requirement("mcp.asking")
async def test_who_gives_a_password_is_asked_for_none(app: App, mode: str) -> None:
    person = Person(password="other")
    async with asking_host(password="pw-ada") as host:
        assert error(await connect(app, host, mode, person, password="wrong"))["code"] == "auth_failed"
        assert host.passwords == ["wrong"]
    assert person.asked == []


@pytest.mark.requirement("mcp.asking_hostkey")
async def test_a_new_host_key_is_accepted_by_a_person_who_saw_its_fingerprint(mcp_home: Path, mode: str) -> None:
    person = Person(trust=True, password="pw-ada")
    async with open_app(mcp_home) as app, asking_host(password="pw-ada") as host:
        declined = error(await connect(app, host, mode, Person(trust=False, password="pw-ada")))
        assert (declined["code"], host.passwords, await app.hostkeys.list()) == ("refused", [], [])
        assert not (await connect(app, host, mode, person)).is_error
        assert host.passwords == ["pw-ada"]
        fingerprint = host.host_key.get_fingerprint()
        assert [each.fingerprint_sha256 for each in await app.hostkeys.list()] == [fingerprint]
        assert any(fingerprint in form.message for form in person.asked)


@pytest.mark.requirement("mcp.asking_hostkey")
async def test_a_changed_host_key_is_not_asked_about(mcp_home: Path, mode: str) -> None:
    person = Person(trust=True, password="pw-ada")
    async with open_app(mcp_home) as app:
        async with asking_host(password="pw-ada") as host:
            assert not (await connect(app, host, mode, person)).is_error
        asked = len(person.asked)
        async with asking_host(password="pw-ada") as other:
            key = (await app.hostkeys.list())[0]
            (mcp_home / "known_hosts").write_text(
                f"[127.0.0.1]:{other.port} {key.key_type} {key.key_base64}\n", encoding="ascii"
            )
            refused = error(await connect(app, other, mode, person, password="pw-ada"))
            assert (refused["code"], other.passwords) == ("host_key_unconfirmed", [])
    assert "CHANGED" in refused["message"]
    assert len(person.asked) == asked


@pytest.mark.requirement("mcp.asking_hostkey")
@pytest.mark.parametrize("way", ["viewer", "read-only", "no client that asks"])
async def test_who_may_accept_no_host_key_is_not_asked_about_one(mcp_home: Path, mode: str, way: str) -> None:
    caller = Caller("v", Role.VIEWER) if way == "viewer" else OWNER
    person = None if way == "no client that asks" else Person(trust=True)
    config = Config(security=SecurityConfig(allow_local_targets=True))
    async with open_app(mcp_home, config, read_only=way == "read-only") as app, asking_host(password="pw-ada") as host:
        refused = error(await connect(app, host, mode, person, caller=caller, password="pw-ada"))
        assert (refused["code"], host.passwords, await app.hostkeys.list()) == ("host_key_unconfirmed", [], [])
    assert person is None or person.asked == []


class Thinking(DirectCall):
    """A person in the same task, who looks at the deadline."""

    def __init__(self) -> None:
        super().__init__(OWNER)
        self.deadlines: list[float] = []

    async def need(self, question: Question) -> dict[str, Any]:
        self.deadlines.append(anyio.current_effective_deadline())
        return {"name": "ada", "secret": "x"}


async def test_the_time_a_person_takes_is_not_the_calls(app: App) -> None:
    thinking = Thinking()
    await dispatch(app, toys.login, {"user": "ada"}, thinking)
    assert thinking.deadlines == [math.inf, math.inf]
