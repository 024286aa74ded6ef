"""What a tool is: one declaration, from which every transport takes its names, schemas, hints and documentation."""

import inspect
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from types import ModuleType
from typing import Any, Generic, Literal, Protocol, TypeVar, cast, get_type_hints

from pydantic import BaseModel

from mcp_ssh.host_patterns import Machine, admits
from mcp_ssh.params import Event, Params, Result


class Risk(IntEnum):
    """What a tool may do to a machine."""

    READ = 0
    CHANGE = 1
    DESTROY = 2


class Role(IntEnum):
    """What a caller may do. A higher role may do all that a lower one may."""

    VIEWER = 0
    OPERATOR = 1
    ADMIN = 2


OWNER_ID = "stdio"
"""The id under which the store keeps what the server's owner saves, over stdio or on the command line."""


@dataclass(frozen=True)
class Caller:
    """Who calls: `id` owns sessions and blobs; `owner` says it is the server's own user (stdio, command line).

    `hosts` are the patterns of the machines it may reach; `None` sets no bounds. A caller with patterns is at most an
    operator, whatever role its token names: an admin decides about all machines.
    """

    id: str
    role: Role
    owner: bool = False
    hosts: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Limit the role of a caller that is bound to hosts."""
        if self.hosts is not None and self.role > Role.OPERATOR:
            object.__setattr__(self, "role", Role.OPERATOR)

    @property
    def owner_id(self) -> str:
        """The id under which the store keeps what it saves: the server's owner has one for both transports."""
        return OWNER_ID if self.owner else self.id

    def reaches(self, machine: Machine | str) -> bool:
        """Whether it may reach, and see, this machine; a name alone is judged without its addresses."""
        if self.hosts is None:
            return True
        return admits(Machine.of([machine]) if isinstance(machine, str) else machine, self.hosts)

    @property
    def oversees(self) -> bool:
        """Whether it sees what other callers have, wherever that is from."""
        return self.role is Role.ADMIN


TransportName = Literal["stdio", "mcp", "rest", "cli", "direct"]


@dataclass(frozen=True)
class Question:
    """Something only a person may answer. `key` names it; the answer is a form of flat fields.

    Attributes:
        known: Nobody is asked: wanted is what was answered under the key already, where the client repeats the call.
    """

    key: str
    message: str
    fields: Mapping[str, dict[str, Any]]
    known: bool = False


class InputRequired(Exception):
    """Raised by `Call.need` to have the client ask a person and repeat the call: no failure, nothing was done yet."""


class Call(Protocol):
    """One call on its way through dispatch; each transport implements it."""

    caller: Caller
    door: TransportName

    @property
    def confirms(self) -> bool:
        """Whether tools that ask for confirmation ask this transport; REST callers are gated by their role alone."""
        ...

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Tell the caller how far the work is, where the transport can."""
        ...

    async def need(self, question: Question) -> Mapping[str, Any] | None:
        """The person's answer; `None` where this client can ask nobody, or where they declined to answer.

        May raise to have the client ask and repeat the call, so nothing on the machine changes before the last `need`.
        """
        ...


W = TypeVar("W")
P = TypeVar("P", bound=Params)
R = TypeVar("R", bound=Result)


AuditCase = tuple[Callable[[Any, Mapping[str, Any]], bool], str | None]
"""A condition on the parameters and the fields of the result, and the text where it holds; None: nothing changed."""
Audit = str | tuple[AuditCase, ...]
"""What a call has done, in words for the history (`mcp_ssh/audit.py`): one text, or the first whose condition holds."""


@dataclass(frozen=True)
class Tool(Generic[W, P, R]):
    """A capability: where it runs, what it takes, what it returns, and what it may do.

    Attributes:
        audit: What a call has done, in words for the history, with names of arguments and of fields of the result.
        aliases: Names that it had before. They can be called and stand in policy, and no list shows them.

    Calling the object calls the function, past all checks; transports go through `dispatch` instead.
    """

    name: str
    room: str
    run: Callable[[W, P, Call], Awaitable[R]] = field(repr=False)
    where: type[W]
    params: type[P]
    result: type[R]
    risk: Risk
    role: Role
    idempotent: bool
    open_world: bool
    confirm: bool
    title: str
    description: str
    audit: Audit | None = None
    aliases: tuple[str, ...] = ()

    def is_in(self, names: Container[str]) -> bool:
        """Whether a list of names means it, by its name or by one that it had before."""
        return any(each in names for each in (self.name, *self.aliases))

    async def __call__(self, where: W, params: P, call: Call) -> R:
        """Run the tool's function itself."""
        return await self.run(where, params, call)

    @cached_property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments, without the noise of generated titles, references resolved."""
        schema = plain_schema(self.params.model_json_schema())
        if self.confirm:
            schema.setdefault("properties", {})["confirm"] = dict(CONFIRM_SCHEMA)
        return schema

    @cached_property
    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of the result."""
        return plain_schema(self.result.model_json_schema(mode="serialization"))


CONFIRM_SCHEMA: Mapping[str, Any] = {
    "type": "boolean",
    "default": False,
    "description": "Set true only after the user agreed to exactly this call.",
}

AnyTool = Tool[Any, Any, Any]


class Events(Protocol):
    """Where the events of a stream go."""

    async def begin(self) -> None:
        """From here on the caller sees a stream; what goes wrong before is an answer like any other call's."""
        ...

    async def send(self, event: Event, event_id: str) -> None:
        """Send an event; waits while the caller takes no more.

        Args:
            event: What to tell.
            event_id: By which the stream can be gone on with behind it.
        """
        ...


class _Unheard:
    """Nobody listens."""

    async def begin(self) -> None:
        """Nobody waits for it."""

    async def send(self, event: Event, event_id: str) -> None:
        """Nobody hears it."""


@dataclass(frozen=True)
class ToolStream(Generic[W, P, R]):
    """The streaming form of a tool: it sends events until it is done or the caller leaves.

    Attributes:
        tool: The form as a tool of the same name, risk and role, so that every check is the tool's own.
        run: The function.
        events: The kinds of events, beside the end.
        resumes: The argument that takes the id of the last event a caller has seen.
    """

    tool: Tool[W, P, R]
    run: Callable[[W, P, Call, Events], Awaitable[R]] = field(repr=False)
    events: tuple[type[Event], ...]
    resumes: str

    def into(self, events: Events) -> Tool[W, P, R]:
        """The tool whose events go there, for dispatch."""

        async def run(where: W, params: P, call: Call) -> R:
            return await self.run(where, params, call, events)

        return replace(self.tool, run=run)


def _read_signature(function: Callable[..., Any], *last: type[Any]) -> tuple[type[Any], type[Params], Any, str]:
    """Where, params, result and description of a tool function; wrong ones fail at import."""
    name = f"{function.__module__}.{function.__name__}"
    hints = get_type_hints(function)
    parameters = list(inspect.signature(function).parameters)
    if [hints.get(each) for each in parameters[2:]] != [Call, *last]:
        raise TypeError(f"{name}: a tool takes where it runs, its parameters and the call, a stream its events, too")
    where, params = hints[parameters[0]], hints[parameters[1]]
    if not issubclass(params, Params):
        raise TypeError(f"{name}: the second parameter must be a Params model")
    text = inspect.getdoc(function)
    if not text or not text.partition("\n")[0].endswith("."):
        raise TypeError(f"{name}: the docstring's first line must be a sentence ending in a period")
    return where, params, hints["return"], text


def _needed_role(risk: Risk, role: Role | None) -> Role:
    if role is not None:
        return role
    return Role.VIEWER if risk is Risk.READ else Role.OPERATOR


def tool(
    risk: Risk,
    *,
    room: str,
    name: str | None = None,
    role: Role | None = None,
    idempotent: bool | None = None,
    open_world: bool = False,
    confirm: bool = False,
    audit: Audit | None = None,
    aliases: tuple[str, ...] = (),
) -> Callable[[Callable[[W, P, Call], Awaitable[R]]], Tool[W, P, R]]:
    """Declare the function below as a tool. Its public name is the room's name and its own, such as `file_read`.

    Args:
        risk: READ, CHANGE or DESTROY; decides the hints and, unless `role` is given, who may call it.
        room: The noun it belongs to, which is also the toolset that it is listed with.
        name: Its own name, where that is not the function's.
        role: The least role that may call it, where it differs from the risk's.
        idempotent: Calling it twice leaves everything as calling it once does; by default true of what only reads.
        open_world: It can reach beyond the machine it was given (an arbitrary command can).
        confirm: A person has to agree to each call, through the transports that can ask.
        audit: What a call has done, such as `opened port {port}[ for {source}]` (`audit.texts_of`). Where a result
            cannot tell, it says what was asked.
        aliases: Public names that it had before.
    """

    def declare(function: Callable[[W, P, Call], Awaitable[R]]) -> Tool[W, P, R]:
        where, params, result, text = _read_signature(function)
        own = name or function.__name__
        if not issubclass(result, Result):
            raise TypeError(f"{function.__module__}.{function.__name__}: a tool returns one Result model")
        return Tool(
            name=f"{room}_{own}",
            room=room,
            run=function,
            where=where,
            params=cast("type[P]", params),
            result=cast("type[R]", result),
            risk=risk,
            role=_needed_role(risk, role),
            idempotent=risk is Risk.READ if idempotent is None else idempotent,
            open_world=open_world,
            confirm=confirm,
            title=f"{room.capitalize()}: {own.replace('_', ' ')}",
            description=text,
            audit=audit,
            aliases=aliases,
        )

    return declare


def stream(
    bounded: AnyTool, *, events: tuple[type[Event], ...], resumes: str
) -> Callable[[Callable[[W, P, Call, Events], Awaitable[R]]], ToolStream[W, P, R]]:
    """Declare the function below as the streaming form of a tool: REST serves its events, MCP the bounded call.

    Args:
        bounded: The tool, whose name, risk and role it shares.
        events: The kinds of events it sends. What it returns is sent last, as `end`.
        resumes: The argument that takes the id of the last event a caller has seen.
    """

    def declare(function: Callable[[W, P, Call, Events], Awaitable[R]]) -> ToolStream[W, P, R]:
        where, params, result, text = _read_signature(function, Events)
        if where is not bounded.where or resumes not in params.model_fields or not issubclass(result, Result):
            raise TypeError(f"{function.__module__}.{function.__name__}: is not a streaming form of {bounded.name}")

        async def unheard(place: W, given: P, call: Call) -> R:
            return await function(place, given, call, _Unheard())

        tool: Tool[Any, Any, Any] = replace(bounded, run=unheard, params=params, result=result, description=text)
        return ToolStream(tool, function, events, resumes)

    return declare


class Registry(Mapping[str, AnyTool]):
    """All tools by name, in the order of the rooms they were given in. A name that a tool had before finds it, too."""

    def __init__(self, tools: Iterable[AnyTool]) -> None:
        self._tools: dict[str, AnyTool] = {}
        self._named: dict[str, AnyTool] = {}
        for each in tools:
            self._tools[each.name] = each
            for name in (each.name, *each.aliases):
                if name in self._named:
                    raise TypeError(f"two tools are called {name}")
                self._named[name] = each

    def __getitem__(self, name: str) -> AnyTool:
        return self._named[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)


def tools_of(*rooms: ModuleType) -> Registry:
    """The tools that the given modules and packages declare, in the order of declaration."""
    found: list[AnyTool] = []
    for room in rooms:
        for value in cast("dict[str, object]", vars(room)).values():
            each = cast("AnyTool", value) if isinstance(value, Tool) else None
            if each is not None and f"{each.run.__module__}.".startswith(f"{room.__name__}."):
                found.append(each)
    return Registry(found)


def plain_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without generated titles, references replaced by what they point at."""
    definitions: dict[str, Any] = schema.pop("$defs", {})

    def clean(node: Any, *, names: bool = False) -> Any:
        if isinstance(node, list):
            return [clean(part) for part in cast("list[Any]", node)]
        if not isinstance(node, dict):
            return node
        entries = cast("dict[str, Any]", node)
        if "$ref" in entries:
            target = definitions[entries["$ref"].rsplit("/", 1)[-1]]
            return clean({**target, **{key: value for key, value in entries.items() if key != "$ref"}})
        return {
            key: clean(value, names=key == "properties" and not names)
            for key, value in entries.items()
            if names or key != "title"
        }

    return clean(schema)


def model_fields(model: type[BaseModel]) -> list[str]:
    """The names a model accepts, for messages that list them."""
    return [info.alias or name for name, info in model.model_fields.items()]
