"""The one path of every call: validate, policy, session, confirm, run within the deadline, history row."""

import logging
import math
import secrets
import time
from collections.abc import Mapping, Set
from contextlib import nullcontext
from functools import partial
from typing import Any

import anyio
from pydantic import SecretStr, ValidationError

from mcp_ssh.app import App
from mcp_ssh.audit import audit_text, hidden_arguments, without
from mcp_ssh.errors import (
    Internal,
    InvalidInput,
    OutOfDescriptors,
    PermissionDenied,
    Refused,
    TimedOut,
    ToolError,
)
from mcp_ssh.meanings import Meaning, argument
from mcp_ssh.messages.validation import describe_errors, explain, without_nulls
from mcp_ssh.params import Become, BecomeParams, OnSession, Params, Result
from mcp_ssh.policy import allow, needs_confirmation
from mcp_ssh.sessions.host_lookup import expect_host, expect_target
from mcp_ssh.sessions.session import Session
from mcp_ssh.sessions.target import Connect
from mcp_ssh.ssh.running_calls import recorded_stops
from mcp_ssh.ssh.wire.kill import combine
from mcp_ssh.store.history import HistoryRow, arguments_text, redact
from mcp_ssh.tool import AnyTool, Call, InputRequired, Question, Risk, TransportName, model_fields

log = logging.getLogger(__name__)

CONFIRM = {"confirm": {"type": "boolean", "title": "Go ahead?", "description": "Whether this may be done."}}


async def dispatch(app: App, tool: AnyTool, raw: Mapping[str, Any], call: Call) -> Result:
    """Authorize and run a call, and always record it.

    Raises:
        ToolError: Any of the tree; anything else that goes wrong becomes `Internal`, logged with its reference.
    """
    with hidden_arguments() as hidden:
        return await _dispatch(app, tool, raw, call, hidden)


async def _dispatch(app: App, tool: AnyTool, raw: Mapping[str, Any], call: Call, hidden: Set[str]) -> Result:
    began = time.monotonic()
    outcome, target, done = "cancelled", None, None
    try:
        await app.live.refresh()
        with app.calls.running(), app.limits.admit(call.caller.id):
            arguments = dict(raw)
            confirmed = _taken_confirm(tool, app, arguments)
            params = validate(tool, arguments)
            allow(tool, call.caller, read_only=app.read_only)
            place, target = await _place(app, tool, params, call)
            with place.reserve() if isinstance(place, Session) else nullcontext():
                if isinstance(place, Session):
                    await place.renew_rules()
                    params = await expect_target(call.caller, app.config.security, params)
                    place.rules.expect_call(tool, params, place.environment)
                security = app.config.security
                if needs_confirmation(tool, security, params, door_confirms=call.confirms) and not confirmed:
                    await consent(tool, params.model_dump(mode="json", exclude_none=True), call)
                result = await _run(tool, place, params, call)
        outcome, done = "ok", audit_text(tool, params, result, hidden)
    except InputRequired:
        outcome = "asked"
        raise
    except Exception as error:
        shown = _error_for_caller(error, tool)
        outcome = shown.code
        if shown is error:
            raise
        raise shown from error
    else:
        return result
    finally:
        row = HistoryRow(
            caller=call.caller.id,
            door=call.door,
            tool=tool.name,
            target=target,
            arguments=arguments_text(without(raw, hidden), tool.params),
            outcome=outcome,
            detail=done,
            duration_ms=round((time.monotonic() - began) * 1000, 1),
        )
        await app.store.history.record(row)


def _error_for_caller(error: Exception, tool: AnyTool) -> ToolError:
    """An error as callers see it. Where a lack of descriptors is behind it, the lack counts, and not what it broke."""
    if (lack := OutOfDescriptors.behind(error)) is not None:
        return lack
    return error if isinstance(error, ToolError) else internal(error, tool.name)


def _taken_confirm(tool: AnyTool, app: App, arguments: dict[str, Any]) -> bool:
    """Whether the caller said `confirm: true`; the word is dispatch's, not the tool's."""
    if not tool.confirm and not tool.is_in(app.config.security.confirm_tools):
        return False
    given = arguments.pop("confirm", None)
    if not isinstance(given, bool | None):
        raise InvalidInput("confirm: must be true or false", details={"errors": [{"field": "confirm"}]})
    return given is True


def validate(tool: AnyTool, arguments: Mapping[str, Any]) -> Params:
    """The arguments as the tool's model; null for one that is not required means that it is left out.

    Raises:
        InvalidInput: Names each field, the rule it breaks, and for an unknown one the nearest known.
    """
    try:
        return tool.params.model_validate(without_nulls(tool.input_schema, arguments))
    except ValidationError as error:
        errors, near = explain(error, tool.input_schema, "an argument of this tool")
        named = f"; did you mean {', '.join(near)}?" if near else ""
        hint = f"{tool.name} takes {', '.join(model_fields(tool.params)) or 'no arguments'}{named}"
        raise InvalidInput(
            describe_errors(errors, error.error_count()), hint=hint, details={"errors": errors}
        ) from None


async def _place(app: App, tool: AnyTool, params: Params, call: Call) -> tuple[App | Session, str | None]:
    """Where the tool runs, and the machine's name for the history. A name that stands for a machine connects to it."""
    if tool.where is not Session:
        host = argument(params, Meaning.HOST)
        # What session_connect is given may be an alias; there the machine it stands for is looked at.
        if host and not isinstance(params, Connect):
            await expect_host(call.caller, app.config.security, str(host))
        return app, str(host) if host else None
    name = params.session_id if isinstance(params, OnSession) else None
    if name is None and tool.risk is not Risk.READ and call.door in {"stdio", "mcp"}:
        app.sessions.expect_one_place(call.caller)
    connect, version = partial(_open_session, app, call), app.store.connections.version
    session = await app.sessions.find_or_open(call.caller, name, app.resolvers, connect, version)
    return session, session.name


async def _open_session(app: App, call: Call, arguments: Mapping[str, Any]) -> Session:
    return await app.asking(call).open(Connect.model_validate(dict(arguments)))


async def consent(tool: AnyTool, arguments: Mapping[str, Any], call: Call) -> None:
    """Have a person agree to a call with these arguments.

    Raises:
        Refused: They did not, or nobody can be asked and `confirm` was not given.
    """
    shown = redact(arguments)
    answer = await call.need(Question(key="confirm", message=f"Allow {tool.name}? {shown}", fields=CONFIRM))
    if answer is None:
        raise Refused(
            f"{tool.name} needs a person's consent",
            hint="ask the user, then call again with `confirm: true`",
        )
    if answer.get("confirm") is not True:
        raise Refused(f"the user declined {tool.name}", hint="do not repeat the call; ask the user what to do instead")


async def _run(tool: AnyTool, place: App | Session, params: Params, call: Call) -> Result:
    limit_s = params.time_limit_s()
    try:
        # As anyio.fail_after has it, at half the cost: what is cut short here continues behind the block.
        with anyio.CancelScope(deadline=anyio.current_time() + limit_s) as limit:
            unhurried = _PausableCall(call, limit)
            if not isinstance(place, Session):
                return await tool(place, params, unhurried)
            with place.calls.running():
                if isinstance(params, BecomeParams) and params.become and params.become.user != place.username:
                    return await _as_another(tool, place, params, params.become, unhurried)
                return await tool(place, params, unhurried)
    except TimeoutError as error:
        raise _late(tool, limit_s) from error
    finally:
        # A caller's command is judged where it runs.
        if isinstance(place, Session) and tool.risk is not Risk.READ and not tool.open_world:
            place.renew_spares()
    raise _late(tool, limit_s)


def _late(tool: AnyTool, limit_s: float) -> TimedOut:
    stops = recorded_stops()
    details = {"stopped": combine(stops).as_field()} if stops else {}
    hint = "try again with less to do" if tool.risk is Risk.READ else "look what it changed before you repeat it"
    return TimedOut(f"{tool.name} did not end within {limit_s:g} s", hint=hint, details=details)


async def _as_another(tool: AnyTool, place: Session, params: Params, become: Become, call: Call) -> Result:
    """Run a tool as another account; where that takes a password, and none was given, a person may give it.

    The machine refuses at the first command that acts as the account, so that nothing was changed before. su would take
    no password for a wrong one, so it is asked for before.
    """
    known = Question("become_password", "", {}, known=True)
    asks = become.method == "su" and not place.has_password(become) and place.username != "root"
    answer = await call.need(_become_password(place, become) if asks else known)
    if answer is None:
        try:
            return await tool(place.becoming(become), params, call)
        except PermissionDenied as error:
            if error.details.get("wants") != "become.password":
                raise
            if (answer := await call.need(_become_password(place, become))) is None:
                raise
    given = _with_password(become, answer)
    result = await tool(place.becoming(given), params, call)
    if answer.get("remember") is True and given.password is not None:
        place.remember(become, given.password)
    return result


def _with_password(become: Become, answer: Mapping[str, Any]) -> Become:
    try:
        return Become(user=become.user, method=become.method, password=SecretStr(str(answer.get("password") or "")))
    except ValidationError:
        raise Refused(
            f"the user gave no password for {become.method}, or one that is more than a line",
            hint="ask the user what to do instead",
        ) from None


def _become_password(place: Session, become: Become) -> Question:
    whose = become.user if become.method == "su" else place.username
    return Question(
        "become_password",
        f"Password of {whose} on {place.host}, with which {become.method} lets {place.username} act as {become.user}?"
        " Your answer goes to the machine; the assistant does not see it.",
        {
            "password": {"type": "string", "title": "Password"},
            "remember": {"type": "boolean", "title": "Use it again in this session", "default": False},
        },
    )


class _PausableCall:
    """A call whose deadline stands still while a person is asked."""

    def __init__(self, call: Call, limit: anyio.CancelScope) -> None:
        self.caller = call.caller
        self.door: TransportName = call.door
        self.confirms = call.confirms
        self._call = call
        self._limit = limit

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell how far it is."""
        await self._call.progress(done, total, message)

    async def need(self, question: Question) -> Mapping[str, Any] | None:
        """Ask; the transport limits how long that may take."""
        left_s = self._limit.deadline - anyio.current_time()
        self._limit.deadline = math.inf
        try:
            return await self._call.need(question)
        finally:
            self._limit.deadline = anyio.current_time() + left_s


def internal(error: Exception, what: str) -> Internal:
    """A fault of this server as callers see it: a reference, and nothing of the inside. The log has the traceback."""
    reference = secrets.token_hex(4)
    log.error("%s failed, reference %s", what, reference, exc_info=error)
    return Internal(
        "internal server error",
        hint="report the reference to the server's owner",
        details={"reference": reference},
    )
