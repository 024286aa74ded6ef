"""What a login says when it is asked."""

import re
import time

import pytest
from pydantic import SecretStr

from mcp_ssh.ssh.auth.responder import AuthResponder

PROMPT = [("(ops@host) Password: ", False)]


def of(password: str | None = None, *answers: str) -> AuthResponder:
    return AuthResponder(SecretStr(password) if password else None, [SecretStr(each) for each in answers])


@pytest.mark.requirement("ways_in.password_once")
def test_a_password_is_said_once_by_whichever_method() -> None:
    first = of("secret")
    assert (first.password(), first.password()) == ("secret", None)
    assert not first.may_converse()
    second = of("secret")
    assert second.may_converse()
    assert second.reply("", PROMPT) == ["secret"]
    assert second.password() is None
    assert not second.may_converse()


@pytest.mark.requirement("ways_in.password_once")
def test_a_second_question_for_the_password_ends_the_conversation() -> None:
    answers = of("secret")
    assert answers.reply("", PROMPT) == ["secret"]
    assert answers.reply("Sorry, try again.", PROMPT) is None
    assert answers.unanswered == ["(ops@host) Password:"]


@pytest.mark.requirement("ways_in.questions")
def test_the_password_answers_its_question_and_the_answers_the_others() -> None:
    answers = of("secret", "123456", "yes")
    assert answers.reply("", [("Password:", False), ("Verification code:", False)]) == ["secret", "123456"]
    assert answers.reply("Welcome", []) == []
    assert answers.reply("", [("Continue?", True)]) == ["yes"]
    assert answers.unanswered == []


@pytest.mark.requirement("ways_in.questions")
def test_the_password_is_not_an_answer_to_other_questions() -> None:
    for prompt in (("Verification code: ", False), ("Password (will be shown): ", True), ("Enter passphrase: ", False)):
        answers = of("secret")
        assert answers.reply("", [prompt]) is None
        assert answers.unanswered == [prompt[0].strip()]


@pytest.mark.requirement("ways_in.codes")
@pytest.mark.parametrize(
    "prompt",
    [
        "One-time password (OATH) for `ops': ",
        "Enter PASSCODE: ",
        "Enter the current passcode: ",
        "Passcode or option (1-3): ",
        "Your OTP password:",
        "Einmalpasswort: ",
        "Mot de passe à usage unique : ",
        "Contraseña de un solo uso: ",
        "Verification code: ",
    ],
)
def test_a_question_for_a_code_never_gets_the_password(prompt: str) -> None:
    alone = of("secret")
    assert alone.reply("", [(prompt, False)]) is None
    assert alone.missing_secret == "interactive_answers"
    assert alone.password() is None, "the other method hands it to whatever is asked"
    both = of("secret", "12345678")
    assert both.reply("", [(prompt, False)]) == ["12345678"]
    assert both.reply("", PROMPT) == ["secret"]


def test_the_negative_control_that_knows_no_codes_gives_the_password_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_ssh.ssh.auth.responder._CODE", re.compile("(?!)"))
    assert of("secret").reply("", [("One-time password (OATH) for `ops': ", False)]) == ["secret"]


@pytest.mark.parametrize(
    "prompt", ["Passwort: ", "Password for otp@EXAMPLE.ORG: ", "Password for token: ", "Contraseña:"]
)
def test_a_question_for_the_password_gets_it_whatever_the_account_is_called(prompt: str) -> None:
    assert of("secret", "12345678").reply("", [(prompt, False)]) == ["secret"]


@pytest.mark.requirement("ways_in.expired")
@pytest.mark.parametrize(
    ("said", "prompt"),
    [
        ("You are required to change your password immediately (administrator enforced).", "Current password: "),
        ("", "New password: "),
        ("", "(current) UNIX password: "),
        ("Password expired. Change your password now.", "Password: "),
        ("", "Retype new password: "),
    ],
)
def test_a_demand_for_a_new_password_is_seen_and_nothing_is_said(said: str, prompt: str) -> None:
    answers = of("secret", "more")
    assert answers.reply(said, [(prompt, False)]) is None
    assert answers.wants_new_password


def test_questions_of_a_strange_machine_are_shown_short_and_plain() -> None:
    answers = of()
    assert answers.may_converse()
    assert answers.reply("", [("\x1b[31mgive\n" + "x" * 10_000, False)] * 50) is None
    assert len(answers.unanswered) == 4
    assert all(len(each) <= 200 and each.isprintable() for each in answers.unanswered)


def test_no_text_of_a_machine_takes_long_to_be_searched() -> None:
    """All of one that a packet can hold took two minutes, in which a server answered nobody."""
    began = time.process_time()
    AuthResponder(None, ()).reply("new " * 2**16, [("new " * 2**16, False)])
    assert time.process_time() - began < 5
