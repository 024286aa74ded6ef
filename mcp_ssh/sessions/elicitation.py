"""Opening a session for a call, in which a person may be asked for what is missing: a host key, a password, a code.

What they answer goes to the machine, and into nothing that is kept or sent elsewhere. An error says by
`details["wants"]` which argument would help. Each is asked for once; an answer that the machine refuses is final.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from mcp_ssh.errors import AuthFailed, HostKeyUnconfirmed, InvalidInput, Refused, ToolError
from mcp_ssh.sessions.session import Session
from mcp_ssh.sessions.target import Connect
from mcp_ssh.ssh.hostkeys.store import HostKeys
from mcp_ssh.tool import Call, Question, Role

log = logging.getLogger(__name__)

MOST_QUESTIONS = 12
"""More than the hops and secrets of any login."""

UNSEEN = "Your answer goes to the machine; the assistant does not see it."


@dataclass
class ConnectingCall:
    """A call that opens a session.

    Attributes:
        call: Whose call it is, and the way to the person.
        connect: Opens a session with what is known, as `open_session`.
        host_keys: Where a key is stored that the person accepts.
        read_only: Nothing may be stored, so no host key can be accepted.
    """

    call: Call
    connect: Callable[[Connect], Awaitable[Session]]
    host_keys: HostKeys
    read_only: bool

    async def open(self, wanted: Connect) -> Session:
        """Connect, and log in with what was given, or asked for.

        A repeated call begins with what was answered in it before, so that nothing is tried twice.

        Raises:
            Refused: The person declined.
            ToolError: As `open_session`, where nobody can be asked or nothing helps.
        """
        asked: set[str] = set()
        for name in _QUESTIONS:
            if (answer := await self.call.need(Question(name, "", {}, known=True))) is not None:
                asked.add(name)
                wanted = _with(wanted, name, answer)
        for _ in range(MOST_QUESTIONS):
            try:
                return await self.connect(wanted)
            except HostKeyUnconfirmed as error:
                await self._accept(error)
            except (AuthFailed, InvalidInput) as error:
                name = error.details.get("wants")
                if name not in _QUESTIONS or name in asked:
                    raise
                asked.add(name)
                wanted = _with(wanted, name, await self._answer(name, error))
        return await self.connect(wanted)

    async def _accept(self, error: HostKeyUnconfirmed) -> None:
        """Trust the key of a new machine, if a person compares its fingerprint. A changed one stays refused."""
        key = error.details["host_key"]
        if key["reason"] != "unknown" or self.read_only or self.call.caller.role < Role.OPERATOR:
            raise error
        shown = f"{key['key_type']} {key['fingerprint_sha256']}"
        question = Question(
            "host_key",
            f"{key['host']} port {key['port']} is unknown here. It shows the host key {shown}. Compare the fingerprint"
            " with the machine's own by another way. Trust it?",
            {"trust": {"type": "boolean", "title": "Trust this machine"}},
        )
        answer = await self.call.need(question)
        if answer is None:
            raise error
        if answer.get("trust") is not True:
            raise Refused(
                "the user does not trust the host key", hint="do not connect; ask the user what to do instead"
            )
        given = ("host", "port", "key_type", "public_key", "fingerprint_sha256")
        await self.host_keys.accept(*(key[each] for each in given), caller=self.call.caller)
        log.info("a host key was accepted by the person before the client of %s", self.call.caller.id)

    async def _answer(self, name: str, error: ToolError) -> Mapping[str, Any]:
        answer = await self.call.need(_QUESTIONS[name](error.details))
        if answer is None:
            raise error
        return answer


def _password(details: Mapping[str, Any]) -> Question:
    return Question(
        "password",
        f"Password of {details.get('account', 'the account')}? {UNSEEN}",
        {"password": {"type": "string", "title": "Password"}},
    )


def _passphrase(details: Mapping[str, Any]) -> Question:
    del details
    return Question(
        "key_passphrase",
        f"Passphrase of the private key? It opens the key in this server. {UNSEEN}",
        {"key_passphrase": {"type": "string", "title": "Passphrase"}},
    )


def _answers(details: Mapping[str, Any]) -> Question:
    prompts = enumerate(details.get("asked", ()), 1)
    return Question(
        "interactive_answers",
        f"{details.get('account', 'The machine')} asks at login. {UNSEEN}",
        {f"answer_{number}": {"type": "string", "title": prompt or "Answer"} for number, prompt in prompts},
    )


_QUESTIONS = {"password": _password, "key_passphrase": _passphrase, "interactive_answers": _answers}


def _with(wanted: Connect, name: str, answer: Mapping[str, Any]) -> Connect:
    if not any(answer.values()):
        raise Refused(f"the user gave no {name}", hint="ask the user how to log in")
    secrets = [SecretStr(str(value)) for value in answer.values()]
    return wanted.model_copy(update={name: secrets if name == "interactive_answers" else secrets[0]})
