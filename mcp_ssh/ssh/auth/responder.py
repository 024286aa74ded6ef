"""What a login says when the machine asks: a password once, answers in order, and nothing it was not given."""

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import SecretStr

SHOWN_CHARS = 200
SHOWN_PROMPTS = 4
LOOKED_AT_CHARS = 2000
"""How much of a text of the machine is searched: a longer one could take minutes, in which nobody else is served."""

# Of a password that counts once, too: "One-time password (OATH) for `ops':".
_CODE = re.compile(
    r"\bcode\b|passcode|one.?time|\botp\b|token|einmal|usage unique|un solo uso|одноразов"
    r"|动态|動態|一次性|验证码|驗證碼",
    re.I,
)
_PASSWORD = re.compile(r"pass(?!phrase)|contrase|senha|wachtwoord|has[lł]o|пароль|密码|密碼", re.I)
_CHANGE = re.compile(
    r"(new|current|old|retype|repeat|again)\W.*pass(?!code)|change your pass|pass\w* (has )?expired|required to change",
    re.I,
)


class AuthResponder:
    """The answers of one attempt to log in.

    The password is used once, whichever way it is asked for: a refused one that is tried a second time through another
    method counts twice where accounts are locked.

    Attributes:
        unanswered: Questions of the machine that nothing was given for.
        used: Some of the answers went to the machine.
        wants_new_password: The machine let the password pass, and demands another before it continues.
    """

    def __init__(self, password: SecretStr | None, answers: Sequence[SecretStr]) -> None:
        self._password = password
        self._answers = list(answers)
        self._given = bool(password or answers)
        self._answered = bool(answers)
        self._password_missed = False
        self._conversed = False
        self.unanswered: list[str] = []
        self.used = False
        self.wants_new_password = False

    def password(self) -> str | None:
        """The password, the first time; not where PAM has asked for a code, which it would only be taken for."""
        if any(map(_for_code, self.unanswered)):
            return None
        taken, self._password = self._password, None
        self._password_missed = self._password_missed or (taken is None and not self._given)
        return taken.get_secret_value() if taken else None

    @property
    def missing_secret(self) -> Literal["password", "interactive_answers"] | None:
        """What the machine asked for and could have been given; `None` where it refused what it got."""
        if not all(map(_for_password, self.unanswered)):
            return None if self._answered else "interactive_answers"
        return "password" if self._password_missed or (self.unanswered and not self._given) else None

    def may_converse(self) -> bool:
        """Whether the machine may ask questions: once, while there is an answer; or nothing was given, to hear them."""
        if self._conversed:
            return False
        self._conversed = True
        return bool(self._answers or self._password) or not self._given

    def reply(self, said: str, prompts: Sequence[tuple[str, bool]]) -> list[str] | None:
        """Answers to some prompts; `None` ends the conversation.

        Args:
            said: What stands above the prompts.
            prompts: Each with whether what is typed may be seen.
        """
        if any(_CHANGE.search(text[:LOOKED_AT_CHARS]) for text in (said, *(prompt for prompt, _ in prompts))):
            self.wants_new_password = True
            return None
        replies = [self._answer(prompt, seen=seen) for prompt, seen in prompts]
        return None if self.unanswered else [each for each in replies if each is not None]

    def _answer(self, prompt: str, *, seen: bool) -> str | None:
        if not seen and self._password and _for_password(prompt):
            return self.password()
        if self._answers:
            self.used = True
            return self._answers.pop(0).get_secret_value()
        if len(self.unanswered) < SHOWN_PROMPTS:
            shown = "".join(each if each.isprintable() else " " for each in prompt)
            self.unanswered.append(shown.strip()[:SHOWN_CHARS])
        return None


def _for_code(prompt: str) -> bool:
    asked, _, _ = prompt.partition(" for ")  # what follows may be any account's name
    return bool(_CODE.search(asked))


def _for_password(prompt: str) -> bool:
    return bool(_PASSWORD.search(prompt)) and not _for_code(prompt)
