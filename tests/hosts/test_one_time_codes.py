"""Logins for which PAM wants a password and a code that counts once: pam_oath, as administrators set it up."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import AuthFailed
from mcp_ssh.ssh.dial import dialer as dial
from mcp_ssh.tools import command, connection, session
from tests.fleet.hosts import Host
from tests.fleet.ways_in import CODES
from tests.support.doors import DirectCall, Way, caller
from tests.support.machine import journal, mark
from tests.support.mcp_client import ERAS, Model, Person, beside, client_of, kept
from tests.support.ssh_home import know, opened

USERS = pytest.mark.parametrize("user", ["password_code", "code_password"])
DIGITS = 8
FAILURE = "uthentication failure"
"""Of PAM, as sshd tells it in the machine's log; so does pam_unix of the password alone."""
FAILED = "Failed password for"
"""Of the method "password"."""


@dataclass
class Codes:
    """The device of an account, and what its machine has counted."""

    host: Host
    user: str
    secret: bytes
    pressed: int = 0

    def code(self) -> str:
        """The next one (RFC 4226, 5.3)."""
        digest = hmac.digest(self.secret, self.pressed.to_bytes(8), hashlib.sha1)
        self.pressed += 1
        at = digest[-1] & 0xF
        number = int.from_bytes(digest[at : at + 4]) & 0x7FFF_FFFF
        return f"{number % 10**DIGITS:0{DIGITS}}"

    async def taken(self) -> str:
        """The code that the machine took last."""
        read = await anyio.to_thread.run_sync(self.host.console, ["cat", CODES])
        return read.stdout.split("\t")[5]


async def given(host: Host, user: str) -> Codes:
    """A new device for the account, and no other device on the machine."""
    made = Codes(host, user, secrets.token_bytes(20))
    line = f"HOTP/E/{DIGITS}\t{user}\t-\t{made.secret.hex()}\n"
    write = ["sh", "-c", f"umask 077; cat >{CODES}"]
    await anyio.to_thread.run_sync(host.console, write, line)
    return made


@pytest.fixture(autouse=True)
def known(mcp_home: Path, auth: Host) -> None:
    know(auth)


def on(codes: Codes, server: str = "normal", **more: object) -> dict[str, object]:
    host = codes.host
    return {"host": host.ip, "port": host.ports[server], "username": codes.user, "timeout": 25, **more}


async def add(app: App, codes: Codes, password: str) -> None:
    """Save the machine as `box`."""
    saved = {"name": "box", "host": codes.host.ip, "username": codes.user, "password": password}
    await dispatch(app, connection.add, saved, DirectCall(caller()))


async def whoami(way: Way, codes: Codes, server: str, **arguments: object) -> None:
    answer = await way.call(session.connect, on(codes, server, **arguments))
    ran = await way.call(command.run_command, {"session_id": answer["session_id"], "command": "id -un"})
    assert ran["stdout"] == f"{codes.user}\n"


@USERS
@pytest.mark.requirement("ways_in.codes")
async def test_password_and_code_log_in_whichever_pam_asks_for_first(way: Way, auth: Host, user: str) -> None:
    codes = await given(auth, user)
    for server in ("normal", "keyboard_interactive"):
        code = codes.code()
        await whoami(way, codes, server, password=auth.password, interactive_answers=[code])
        assert await codes.taken() == code


@USERS
@pytest.mark.requirement("ways_in.codes")
async def test_answers_alone_are_given_in_their_order(app: App, auth: Host, user: str) -> None:
    codes = await given(auth, user)
    answers = [auth.password, codes.code()]
    await opened(app, **on(codes, interactive_answers=answers if user == "password_code" else answers[::-1]))


@USERS
@pytest.mark.requirement("ways_in.codes")
async def test_a_password_alone_is_told_that_a_code_is_wanted_and_is_no_failed_login(
    app: App, auth: Host, user: str
) -> None:
    codes = await given(auth, user)
    begun = await mark(auth)
    for server in ("normal", "keyboard_interactive"):
        with pytest.raises(AuthFailed, match=r"One-time password \(OATH\)") as error:
            await opened(app, **on(codes, server, password=auth.password))
        assert "interactive_answers" in str(error.value.hint)
    told = (await journal(auth)).partition(begun)[2]
    assert FAILURE not in told
    assert FAILED not in told


async def test_the_negative_control_that_tries_the_method_password_first_fails_with_the_right_one(
    app: App, auth: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "METHODS", ("publickey", "password", "keyboard-interactive"))
    codes = await given(auth, "password_code")
    begun = await mark(auth)
    with pytest.raises(AuthFailed) as error:
        await opened(app, **on(codes, password=auth.password))
    assert "One-time" not in error.value.message
    assert FAILED in (await journal(auth)).partition(begun)[2]


@pytest.mark.requirement("ways_in.codes")
async def test_a_wrong_code_is_refused_in_words_about_codes(app: App, auth: Host) -> None:
    codes = await given(auth, "password_code")
    wrong = "00000000"
    with pytest.raises(AuthFailed) as error:
        await opened(app, **on(codes, password=auth.password, interactive_answers=[wrong]))
    assert "one-time code counts once" in str(error.value.hint)
    assert wrong not in str(error.value.payload())
    assert auth.password not in str(error.value.payload())


@pytest.mark.parametrize(("transport", "mode"), [("stdio", "legacy"), ("http", "2026-07-28")])
@pytest.mark.requirement("ways_in.codes", "mcp.asking", "mcp.secrets")
async def test_password_and_code_are_asked_of_a_person_and_left_nowhere(
    mcp_home: Path, auth: Host, transport: str, mode: str
) -> None:
    codes = await given(auth, "password_code")
    person = Person(password=auth.password, answer_1=codes.code())
    logs = mcp_home.with_name(f"{mcp_home.name}.log")
    begun = await mark(auth)
    async with client_of(transport, mode, mcp_home, person, logs) as client:
        model = Model(client)
        await model.call("session_connect", **on(codes))
        ran = await model.call("command_exec", command="id -un")
    assert ran["stdout"] == "password_code\n"
    assert person.asked == ["password", "answer_1"]
    assert await codes.taken() == person.answers["answer_1"]
    assert FAILURE not in (await journal(auth)).partition(begun)[2]
    for secret in person.answers.values():
        assert secret not in "\n".join(model.log)
        assert secret not in kept(mcp_home, logs)
    assert "id -un" in kept(mcp_home, logs), "the negative control: what was sent as an argument is there"


@ERAS
@pytest.mark.requirement("ways_in.codes", "mcp.asking_once")
async def test_a_name_whose_password_is_saved_asks_for_the_code_alone_and_once(app: App, auth: Host, mode: str) -> None:
    codes = await given(auth, "code_password")
    person = Person(answer_1=codes.code())
    async with beside(app, mode, person) as client:
        model = Model(client)
        await add(app, codes, auth.password)
        for _ in range(2):
            assert (await model.call("command_exec", session_id="box", command="id -un"))["stdout"] == "code_password\n"
    assert person.asked == ["answer_1"]
    assert await codes.taken() == person.answers["answer_1"]


@ERAS
@pytest.mark.requirement("ways_in.codes", "mcp.asking")
async def test_after_the_key_a_person_is_asked_for_password_and_code(app: App, auth: Host, mode: str) -> None:
    codes = await given(auth, "password_code")
    person = Person(password=auth.password, answer_1=codes.code())
    async with beside(app, mode, person) as client:
        await Model(client).call("session_connect", **on(codes, "key_and_questions", key_path=str(auth.key_path)))
    assert person.asked == ["password", "answer_1"]
    assert await codes.taken() == person.answers["answer_1"]


@pytest.mark.requirement("ways_in.codes", "ways_in.jump_trust")
async def test_nobody_is_asked_for_the_code_of_a_machine_on_the_way(app: App, auth: Host) -> None:
    codes = await given(auth, "password_code")
    await add(app, codes, auth.password)
    person = Person(answer_1=codes.code())
    through = {"host": auth.ip, "username": "dev", "password": auth.password, "jump": "box"}
    async with beside(app, "legacy", person) as client:
        result = await client.call_tool("session_connect", through)
    assert result.is_error
    assert person.asked == []
    assert "(a machine on the way to" in result.model_dump_json()
    assert "nobody can be asked for a machine on the way" in result.model_dump_json()


@ERAS
@pytest.mark.requirement("ways_in.codes", "mcp.asking_once")
async def test_a_wrong_code_of_a_person_is_tried_once(app: App, auth: Host, mode: str) -> None:
    codes = await given(auth, "password_code")
    person = Person(answer_1="00000000")
    begun = await mark(auth)
    async with beside(app, mode, person) as client:
        result = await client.call_tool("session_connect", on(codes, password=auth.password))
    assert result.is_error
    assert person.asked == ["answer_1"]
    assert person.answers["answer_1"] not in result.model_dump_json()
    assert (await journal(auth)).partition(begun)[2].count(FAILURE) == 1
