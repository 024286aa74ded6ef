"""Tools about tools: find one by words, call one that is not listed, call one on many machines.

What they call goes through dispatch under its own name, once a machine: policy, consent, deadline and history are those
of the inner tool.
"""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Annotated, Any, cast

import anyio
from pydantic import ConfigDict, Field

from mcp_ssh.app import App
from mcp_ssh.dispatch import consent, dispatch, validate
from mcp_ssh.errors import InvalidInput, NotFound, Refused, ToolError
from mcp_ssh.messages.validation import without_nulls
from mcp_ssh.params import MODEL_OUTPUT, OnSession, Params, Result, ShellText
from mcp_ssh.policy import needs_confirmation
from mcp_ssh.tool import AnyTool, Call, Caller, Question, Registry, Risk, TransportName, tool
from mcp_ssh.toolsets.arguments import argument_schema, decode_arguments
from mcp_ssh.toolsets.search import lookup, rank_tools
from mcp_ssh.toolsets.selection import ToolsetSelection

MOST_SESSIONS = 1000
MOST_OUTPUT = 64 * 1024
"""Bytes of output in one answer, however many sessions it is from."""
LEAST_OUTPUT = 512
"""Bytes of output of one session, as long as that is within the bytes of all of them."""
SIZES = {"max_output_bytes", "max_bytes", "length"}
"""What tools call the bytes they return at most: of many answers, each gets a part of what one would get."""


@dataclass
class MetaToolContext:
    """What one call through these tools may reach.

    Attributes:
        app: The server.
        tools: The tools, those that are not listed among them.
        entered: A call of an inner tool began, so that the history has it.
    """

    app: App
    tools: Registry
    entered: bool = field(default=False, init=False)

    async def dispatch(self, inner: AnyTool, arguments: Mapping[str, Any], call: Call) -> Result:
        """Call the inner tool as if it had been called itself."""
        self.entered = True
        return await dispatch(self.app, inner, arguments, call)

    def decode(self, inner: AnyTool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The inner tool's arguments, texts in place of other values understood."""
        return decode_arguments(argument_schema(inner, self.app.config.security.confirm_tools), arguments)


class Search(Params):
    query: str = Field(
        default="",
        max_length=200,
        description="Words for what you want to do, such as `free disk space`. Empty: all names.",
    )
    names: list[str] = Field(
        default_factory=list, max_length=8, description="Tools whose arguments you want in full, as JSON Schema."
    )
    limit: int = Field(default=8, ge=1, le=50, description="The most tools to name.")


class ToolMatch(Result):
    name: str = Field(description="The tool.")
    does: str = Field(description="What it does.")
    arguments: str = Field(description="Its arguments; those with ? may be left out.")
    call_with: str = Field(description="The tool that calls it.")


class ToolDetails(Result):
    name: str = Field(description="The tool.")
    description: str = Field(description="All about it.")
    arguments: dict[str, Any] = Field(description="JSON Schema of its arguments.")


class Found(Result):
    tools: list[ToolMatch] = Field(default_factory=list[ToolMatch], description="The tools that fit, best first.")
    full: list[ToolDetails] = Field(
        default_factory=list[ToolDetails], description="The tools that were named, in full."
    )
    names: list[str] = Field(default_factory=list[str], description="All names, where nothing was asked for.")


@tool(Risk.READ, room="tool")
async def search(reach: MetaToolContext, params: Search, call: Call) -> Found:
    """Find a tool for what you want to do: there are more than those listed here.

    Answers names, what they do and their arguments. Give `names` for a tool's arguments in full, then call it through
    tool_call_readonly where it only reads, else tool_call.
    """
    found = Found()
    if params.names:
        found.full = [_full(reach, lookup(reach.tools, name)) for name in params.names]
    if params.query:
        found.tools = [_match(each) for each in islice(rank_tools(reach.tools, params.query), params.limit)]
    if not params.query and not params.names:
        found.names = sorted(reach.tools)
    return found


def _match(each: AnyTool) -> ToolMatch:
    fields = each.params.model_fields
    return ToolMatch(
        name=each.name,
        does=each.description.partition("\n")[0],
        arguments=", ".join(name if info.is_required() else f"{name}?" for name, info in fields.items()),
        call_with="tool_call_readonly" if each.risk is Risk.READ else "tool_call",
    )


def _full(reach: MetaToolContext, each: AnyTool) -> ToolDetails:
    schema = argument_schema(each, reach.app.config.security.confirm_tools)
    return ToolDetails(name=each.name, description=each.description, arguments=schema)


ToolName = Annotated[str, Field(min_length=1, max_length=64, description="The tool, as tool_search names it.")]
Arguments = Annotated[dict[str, Any], Field(default_factory=dict, description="Its arguments.")]


class One(Params):
    name: ToolName
    arguments: Arguments


class ToolCallResult(Result):
    model_config = ConfigDict(extra="allow", json_schema_extra={"description": "What the tool answers."})


@tool(Risk.READ, room="tool", idempotent=False, open_world=True)
async def call_readonly(reach: MetaToolContext, params: One, call: Call) -> ToolCallResult:
    """Call a tool that only reads and is not listed here, found by tool_search.

    It answers what the tool answers. One that changes anything is refused; tool_call takes it.
    """
    inner = lookup(reach.tools, params.name)
    if inner.risk is not Risk.READ:
        raise Refused(f"{inner.name} does not only read", hint="call it through tool_call")
    return cast("ToolCallResult", await reach.dispatch(inner, reach.decode(inner, params.arguments), call))


@tool(Risk.DESTROY, room="tool", name="call", open_world=True)
async def call_tool(reach: MetaToolContext, params: One, call: Call) -> ToolCallResult:
    """Call any tool that is not listed here, found by tool_search.

    It answers what the tool answers, and asks for consent where the tool does.
    """
    inner = lookup(reach.tools, params.name)
    return cast("ToolCallResult", await reach.dispatch(inner, reach.decode(inner, params.arguments), call))


class Several(Params):
    name: ToolName
    sessions: list[ShellText] = Field(
        min_length=1,
        max_length=MOST_SESSIONS,
        description="Session ids, or names of saved connections and ~/.ssh/config: one call on each.",
    )
    arguments: Arguments
    at_once: int = Field(default=8, ge=1, le=32, description="Calls that run at the same time.")


class SessionOutcome(Result):
    sessions: list[str] = Field(description="Where it came out so.")
    result: dict[str, Any] = Field(default_factory=dict, description="What the tool answered there.")
    error: dict[str, Any] = Field(default_factory=dict, description="Or the error, where it failed.")


class Outcomes(Result):
    succeeded: int = Field(description="Number of sessions where it succeeded.")
    failed: int = Field(description="Number where it failed.")
    outcomes: list[SessionOutcome] = Field(
        description="What came out, equal outcomes together; durations are left out."
    )


@tool(Risk.DESTROY, room="tool", open_world=True)
async def call_many(reach: MetaToolContext, params: Several, call: Call) -> Outcomes:
    """Call one tool on several machines at once, such as one command on ten servers.

    One machine's failure does not stop the others. Consent is asked once for all of them; where a machine asks for
    something else, such as a password, call the tool there alone.
    """
    inner, arguments = await _prepare(reach, params, call)
    places = list(dict.fromkeys(params.sessions))
    found: dict[str, dict[str, Any]] = {}
    turns = anyio.Semaphore(min(params.at_once, reach.app.sessions.room(call.caller)))

    async def on(place: str) -> None:
        async with turns:
            try:
                result = await reach.dispatch(inner, {**arguments, "session_id": place}, NonInteractiveCall(call))
            except ToolError as error:
                found[place] = {"error": error.payload()}
            else:
                shown = result.model_dump(mode="json", exclude_unset=True)
                found[place] = {"result": {name: value for name, value in shown.items() if name != "duration_ms"}}
        await call.progress(len(found), len(places), f"{place}: {'failed' if 'error' in found[place] else 'done'}")

    async with anyio.create_task_group() as group:
        for place in places:
            group.start_soon(on, place)
    return _collapse({place: found[place] for place in places}, partial(_content, reach.app, call))


async def _prepare(reach: MetaToolContext, params: Several, call: Call) -> tuple[AnyTool, dict[str, Any]]:
    """The tool, and arguments that hold for every machine, once the person who has to agree did.

    Raises:
        InvalidInput: The tool runs on no machine, or the arguments are wrong; nothing was called.
        Refused: Nobody agreed.
    """
    inner = lookup(reach.tools, params.name)
    if not issubclass(inner.params, OnSession):
        raise InvalidInput(f"name: {inner.name} does not run on a session", hint="call it through tool_call")
    arguments = without_nulls(inner.input_schema, reach.decode(inner, params.arguments))
    if "session_id" in arguments:
        raise InvalidInput("arguments: must not name a session_id", hint="give the sessions in `sessions`")
    await _check_distinct(reach.app, params.sessions, call.caller)
    plain = {name: value for name, value in arguments.items() if name != "confirm"}
    checked = validate(inner, {**plain, "session_id": params.sessions[0]})
    security = reach.app.config.security
    if needs_confirmation(inner, security, checked, door_confirms=call.confirms):
        if arguments.get("confirm") is not True:
            await consent(inner, {"sessions": params.sessions, **plain}, call)
        arguments["confirm"] = True
    number = len(params.sessions)
    share = max(MODEL_OUTPUT // number, min(LEAST_OUTPUT, MOST_OUTPUT // number))
    for name in SIZES & inner.params.model_fields.keys():
        arguments.setdefault(name, share)
    return inner, arguments


async def _check_distinct(app: App, names: Sequence[str], caller: Caller) -> None:
    """See that no two names mean one session, or one saved connection: the call would run twice there."""
    meant: dict[str, str] = {}
    found = app.sessions.find_each(caller, dict.fromkeys(names))
    for name in dict.fromkeys(names):
        session = found.get(name)
        known = await app.store.connections.version(caller, name)
        for key in [each for each in (known, session and session.id, session and session.name_version) if each]:
            if (other := meant.setdefault(key, name)) != name:
                raise InvalidInput(f"sessions: {other!r} and {name!r} are the same session", hint="leave one out")


def _content(app: App, call: Call, blob_id: str) -> str:
    """Return what tells a blob's content from another's: its SHA-256, or its id where not all of it was kept."""
    try:
        return app.blobs.describe(call.caller, blob_id).sha256 or blob_id
    except NotFound:
        return blob_id


def _key(outcome: Mapping[str, Any], content: Callable[[str], str]) -> str:
    """Return what equal outcomes have in common: long outputs are equal by their content, not by their blobs' ids."""
    result: dict[str, Any] = outcome.get("result", {})
    blobs = {name: content(value) for name, value in result.items() if name.endswith("_blob") and value}
    if any(f"{stream}_bytes" in result and f"{stream}_blob" not in blobs for stream in ("stdout", "stderr")):
        return secrets.token_hex(16)  # what was cut and is kept nowhere is not known to be equal
    return json.dumps({**outcome, "result": {**result, **blobs}}, sort_keys=True)


def _collapse(found: Mapping[str, dict[str, Any]], content: Callable[[str], str]) -> Outcomes:
    together: dict[str, SessionOutcome] = {}
    for place, outcome in found.items():
        key = _key(outcome, content)
        if key in together:
            together[key].sessions.append(place)
        else:
            together[key] = SessionOutcome(sessions=[place], **outcome)
    failed = sum("error" in outcome for outcome in found.values())
    return Outcomes(succeeded=len(found) - failed, failed=failed, outcomes=list(together.values()))


class NonInteractiveCall:
    """A call in which nobody is asked: one of several, since an answer would run the others again, or a look by us."""

    def __init__(self, call: Call) -> None:
        self.caller = call.caller
        self.door: TransportName = call.door
        self.confirms = call.confirms

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say nothing: what it is a part of counts."""

    async def need(self, question: Question) -> Mapping[str, Any] | None:
        """Ask nobody."""
        del question
        return None


TOOLS = Registry((search, call_readonly, call_tool, call_many))
"""The tools of this module."""


def brought(surface: ToolsetSelection) -> Registry:
    """Those of them that an endpoint lists."""
    return Registry(
        each for each in TOOLS.values() if surface.reaches_all and (not surface.read_only or each.risk is Risk.READ)
    )
