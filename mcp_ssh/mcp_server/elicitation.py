"""A call that came through MCP: its progress, and its questions to a person in both eras of the protocol."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import anyio
from mcp import MCPError, types
from mcp.server import ServerRequestContext
from mcp.types.version import MODERN_PROTOCOL_VERSIONS

from mcp_ssh.tool import Caller, InputRequired, Question, TransportName

Context = ServerRequestContext[Any, Any]

ANSWER_LIMIT_S = 600.0
"""How long a person may think; afterwards nobody has answered. The SDK's seal on a repeated call lasts as long."""

PROGRESS_LIMIT_S = 2.0
"""How long a client may leave one message unread before its progress is no longer reported."""


class AskFirst(InputRequired):
    """The client has to ask, and then to repeat the call; carries what to tell it."""

    def __init__(self, result: types.InputRequiredResult) -> None:
        super().__init__("the client has to ask first")
        self.result = result


class McpCall:
    """A `Call` through MCP.

    Since 2026-07-28 a server cannot ask in the middle of a call: the call ends with the question, and the client
    repeats it with the answer. What was asked and answered so far travels with it in a state that the SDK seals for us,
    so clients neither read nor forge it. The state names each question by its digest: when it has changed meanwhile, as
    when another host key is offered, the old answer counts for nothing. Older clients are asked on the spot.
    """

    def __init__(
        self, context: Context, params: types.InputResponseRequestParams, caller: Caller, door: TransportName
    ) -> None:
        self.caller = caller
        self.door: TransportName = door
        self._context = context
        self._responses = params.input_responses or {}
        state: dict[str, Any] = json.loads(params.request_state) if params.request_state else {}
        self._asked: dict[str, list[str]] = state.get("asked", {})
        self._answered: dict[str, dict[str, Any] | None] = state.get("answered", {})
        self._keys: dict[str, str] = state.get("keys", {})
        self._take_answers()
        self._done = float("-inf")
        self._listened_to = True

    @property
    def confirms(self) -> bool:
        """MCP callers are models: a person confirms what they do."""
        return True

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell the client, where it asked to be told. Only increases are sent; a client that left is not an error."""
        if not self._listened_to or not done > self._done:
            return
        self._done = done
        with anyio.move_on_after(PROGRESS_LIMIT_S) as limit:
            try:
                await self._context.session.report_progress(done, total, message)
            except (anyio.ClosedResourceError, anyio.BrokenResourceError, MCPError):
                self._listened_to = False
        if limit.cancelled_caught:
            self._listened_to = False

    async def need(self, question: Question) -> Mapping[str, Any] | None:
        """The person's answer; empty where they declined, `None` where nobody can be asked or nobody answered.

        Raises:
            AskFirst: The client has to ask and repeat the call.
        """
        if question.known:
            return self._answered.get(self._keys.get(question.key, ""))
        if not _can_ask(self._context.session.client_capabilities):
            return None
        if self._context.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return self._answers_of_repeat(question)
        return await self._asked_now(question)

    def _take_answers(self) -> None:
        """What was answered to the questions with which the call ended before."""
        for key, (digest, *names) in self._asked.items():
            response = self._responses.get(key)
            if isinstance(response, types.ElicitResult):
                self._answered[digest] = _answer(names, response)
                self._keys[key] = digest

    def _answers_of_repeat(self, question: Question) -> Mapping[str, Any] | None:
        digest = _digest(question)
        if digest in self._answered:
            return self._answered[digest]
        state = {
            "asked": {question.key: [digest, *question.fields]},
            "answered": self._answered,
            "keys": self._keys,
        }
        form = types.ElicitRequest(
            params=types.ElicitRequestFormParams(message=question.message, requested_schema=_form(question))
        )
        raise AskFirst(types.InputRequiredResult(input_requests={question.key: form}, request_state=json.dumps(state)))

    async def _asked_now(self, question: Question) -> Mapping[str, Any] | None:
        with anyio.move_on_after(ANSWER_LIMIT_S):
            try:
                response = await self._context.session.elicit_form(
                    question.message, _form(question), related_request_id=self._context.request_id
                )
            except MCPError:
                # No way back to this client, or it will not ask after all: the same as one that cannot.
                return None
            return _answer([*question.fields], response)
        return None


def _can_ask(capabilities: types.ClientCapabilities | None) -> bool:
    """Whether the client shows forms. One that names no kind at all means forms: the first version had nothing else."""
    asks = capabilities.elicitation if capabilities else None
    return asks is not None and (asks.form is not None or asks.url is None)


def _form(question: Question) -> dict[str, Any]:
    required = [name for name, each in question.fields.items() if "default" not in each]
    return {"type": "object", "properties": dict(question.fields), "required": required}


def _digest(question: Question) -> str:
    asked = json.dumps([question.key, question.message, _form(question)], sort_keys=True)
    return hashlib.sha256(asked.encode("ascii")).hexdigest()


def _answer(names: Sequence[str], response: types.ElicitResult) -> dict[str, Any] | None:
    if response.action == "cancel":
        return None
    given = (response.content or {}) if response.action == "accept" else {}
    return {name: value for name, value in given.items() if name in names}
