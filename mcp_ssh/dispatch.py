"""The one path of every call: validate, policy, session, confirm, run within the deadline, history row."""

import difflib
import logging
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
from pydantic import ValidationError

from mcp_ssh.app import App
from mcp_ssh.errors import Internal, InvalidInput, NotFound, Refused, TimedOut, ToolError
from mcp_ssh.params import Becoming, OnSession, Params, Result
from mcp_ssh.policy import allow, expect_reach, expect_target, needs_confirmation
from mcp_ssh.ssh.connect import open_session
from mcp_ssh.ssh.session import Session
from mcp_ssh.ssh.wanted import Connect
from mcp_ssh.store.history import HistoryRow, arguments_text, redact
from mcp_ssh.tool import AnyTool, Asked, Call, Caller, Question, Registry, Risk, model_fields

log = logging.getLogger(__name__)

CONFIRM = {"confirm": {"type": "boolean", "title": "Go ahead?", "description": "Whether this may be done."}}


def lookup(registry: Registry, name: str) -> AnyTool:
    """The tool of that name.

    Raises:
        NotFound: There is none; names those that are spelled nearly so.
    """
    if (tool := registry.get(name)) is not None:
        return tool
    near = difflib.get_close_matches(name, list(registry), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else "list the tools to see their names"
    raise NotFound(f"there is no tool {name[:80]!r}", hint=hint)


async def dispatch(app: App, tool: AnyTool, raw: Mapping[str, Any], call: Call) -> Result:
    """Take a call through the house, and leave a history row of it whatever comes.

    Raises:
        ToolError: Any of the tree; anything else that goes wrong becomes `Internal`, logged with its reference.
    """
    began = time.monotonic()
    outcome, target = "cancelled", None
    try:
        with app.calls.running(), app.limits.admitted(call.caller.id):
            arguments = dict(raw)
            confirmed = _taken_confirm(tool, app, arguments)
            params = validate(tool, arguments)
            allow(tool, call.caller, read_only=app.read_only)
            place, target = await _place(app, tool, params, call)
            if isinstance(place, Session):
                expect_target(call.caller, params)
                place.rules.expect_call(tool, params)
            if needs_confirmation(tool, app.config.security, door_confirms=call.confirms) and not confirmed:
                await _confirm(tool, params, call)
            result = await _run(tool, place, params, call)
        outcome = "ok"
    except ToolError as error:
        outcome = error.code
        raise
    except Asked:
        outcome = "asked"
        raise
    except Exception as error:
        outcome = Internal.code
        raise internal(error, tool.name) from error
    else:
        return result
    finally:
        row = HistoryRow(
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            caller=call.caller.id,
            door=call.door,
            tool=tool.name,
            target=target,
            arguments=arguments_text(raw, tool.params),
            outcome=outcome,
            duration_ms=round((time.monotonic() - began) * 1000, 1),
        )
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await app.store.history.record(row)


def _taken_confirm(tool: AnyTool, app: App, arguments: dict[str, Any]) -> bool:
    """Whether the caller said `confirm: true`; the word is dispatch's, not the tool's."""
    if not tool.confirm and tool.name not in app.config.security.confirm_tools:
        return False
    given = arguments.pop("confirm", False)
    if not isinstance(given, bool):
        raise InvalidInput("confirm: must be true or false", details={"errors": [{"field": "confirm"}]})
    return given


def validate(tool: AnyTool, arguments: Mapping[str, Any]) -> Params:
    """The arguments as the tool's model.

    Raises:
        InvalidInput: Names each field, the rule it breaks, and for an unknown one the nearest known.
    """
    try:
        return tool.params.model_validate(dict(arguments))
    except ValidationError as error:
        errors = [
            {"field": ".".join(map(str, each["loc"])) or "arguments", "rule": _rule(each["type"], each["msg"])}
            for each in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        message = "; ".join(f"{each['field']}: {each['rule']}" for each in errors[:8])
        raise InvalidInput(message, hint=_known(tool, errors), details={"errors": errors[:8]}) from None


def _rule(kind: str, message: str) -> str:
    return {"missing": "is required", "extra_forbidden": "is not an argument of this tool"}.get(
        kind, message.removeprefix("Value error, ")
    )


def _known(tool: AnyTool, errors: list[dict[str, str]]) -> str:
    fields = model_fields(tool.params)
    near = [
        f"{each['field']} → {match[0]}"
        for each in errors
        if each["field"] not in fields and (match := difflib.get_close_matches(each["field"], fields, n=1))
    ]
    named = f"; did you mean {', '.join(near)}?" if near else ""
    return f"{tool.name} takes {', '.join(fields) or 'no arguments'}{named}"


async def _place(app: App, tool: AnyTool, params: Params, call: Call) -> tuple[App | Session, str | None]:
    """Where the tool runs, and the machine's name for the history. A name that stands for a machine connects to it."""
    if tool.where is not Session:
        host = getattr(params, "host", None)
        # What session_connect is given may be an alias; there the machine it stands for is looked at.
        if host and not isinstance(params, Connect):
            expect_reach(call.caller, str(host))
        return app, str(host) if host else None
    name = params.session_id if isinstance(params, OnSession) else None
    session = await app.sessions.find_or_open(call.caller, name, app.resolvers, partial(_connected, app, call.caller))
    return session, session.name


async def _connected(app: App, caller: Caller, arguments: Mapping[str, Any]) -> Session:
    wanted = Connect.model_validate(dict(arguments))
    return await open_session(
        caller,
        wanted,
        host_keys=app.hostkeys,
        config=app.config,
        blobs=app.blobs,
        tasks=app.store.tasks,
        named=app.named,
    )


async def _confirm(tool: AnyTool, params: Params, call: Call) -> None:
    """Have a person agree.

    Raises:
        Refused: They did not, or nobody can be asked and `confirm` was not given.
    """
    shown = redact(params.model_dump(mode="json", exclude_none=True))
    answer = await call.need(Question(key="confirm", message=f"Allow {tool.name}? {shown}", fields=CONFIRM))
    if answer is None:
        raise Refused(
            f"{tool.name} needs a person's consent",
            hint="ask the user, then call again with confirm: true",
        )
    if answer.get("confirm") is not True:
        raise Refused(f"the user declined {tool.name}", hint="do not repeat the call; ask the user what to do instead")


async def _run(tool: AnyTool, place: App | Session, params: Params, call: Call) -> Result:
    limit_s = params.time_limit_s()
    try:
        with anyio.fail_after(limit_s):
            if not isinstance(place, Session):
                return await tool(place, params, call)
            with place.calls.running():
                acting = place.becoming(params.become) if isinstance(params, Becoming) else place
                return await tool(acting, params, call)
    except TimeoutError as error:
        raise TimedOut(f"{tool.name} did not end within {limit_s:g} s", hint="try again with less to do") from error
    finally:
        if isinstance(place, Session):
            place.last_used = time.monotonic()
            if tool.risk is not Risk.READ and not tool.open_world:  # a caller's command is judged where it runs
                place.renew_spares()


def internal(error: Exception, what: str) -> Internal:
    """A fault of ours as callers see it: a reference, and nothing of the inside. The log has the traceback."""
    reference = secrets.token_hex(4)
    log.error("%s failed, reference %s", what, reference, exc_info=error)
    return Internal(
        "this server made a mistake",
        hint="report the reference to the server's owner",
        details={"reference": reference},
    )
