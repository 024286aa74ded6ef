"""Who reaches what: each role, each tool, one's own object or another's, within or outside the hosts of the token.

The tools come from the registry: a new one is judged by its risk, and by the object that its arguments name.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import pytest
from pydantic import TypeAdapter, ValidationError

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch, validate
from mcp_ssh.errors import InvalidInput, ToolError
from mcp_ssh.params import Params, Result
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import AnyTool, Call, Caller, Registry, Risk, Role
from mcp_ssh.tools import REGISTRY, connection, session
from mcp_ssh.toolsets.meta_tools import TOOLS, MetaToolContext
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall
from tests.support.machine import trust

Kind = Literal["session", "connection", "blob", "host", "login", "none"]
Scope = Literal["all", "within", "outside"]

ADMIN_ONLY = {"config_get", "config_get_key", "config_set", "config_reload", "tunnel_remote"}
"""Tools that an operator may not call although of their risk; what is not named here goes by its risk."""

OBJECTS: dict[str, Kind] = {"session_id": "session", "connection": "connection", "blob_id": "blob", "host": "host"}
"""Arguments of tools of the server that name an object of a caller, or a machine."""

TEXTS = ("127.0.0.1", "/tmp/x", "x", "1", "644", "@daily", "SHA256:x", "@yearly true", "ssh.timeout")
"""Texts of which every argument that is text takes one."""


@dataclass(frozen=True)
class Case:
    """A call: who makes it, and whose object it names."""

    role: Role
    scope: Scope
    own: bool

    @property
    def seen(self) -> bool:
        """Whether an object on the machine is there for this caller."""
        return self.scope != "outside" and (self.own or (self.role is Role.ADMIN and self.scope == "all"))


CASES = [Case(*each) for each in itertools.product(Role, ("all", "within", "outside"), (True, False))]


def kind_of(tool: AnyTool) -> Kind:
    if tool.where is Session:
        return "session"
    if tool is session.connect:
        return "login"
    return next((kind for name, kind in OBJECTS.items() if name in tool.params.model_fields), "none")


def expected(tool: AnyTool, case: Case) -> str:
    """The outcome by the rules of DESIGN, from risk, role, object and hosts alone."""
    needed = Role.ADMIN if tool.name in ADMIN_ONLY else Role.VIEWER if tool.risk is Risk.READ else Role.OPERATOR
    role = case.role if case.scope == "all" else min(case.role, Role.OPERATOR)
    if role < needed:
        return "refused"
    kind = kind_of(tool)
    if kind in {"session", "connection"}:
        return "reached" if case.seen else "not_found"
    if kind in {"host", "login"}:
        return "refused" if case.scope == "outside" else "reached"
    if kind == "blob":  # an output lies on this server, not on a machine
        return "reached" if case.own or (case.role is Role.ADMIN and case.scope == "all") else "not_found"
    return "reached"


def arguments(tool: AnyTool) -> dict[str, Any]:
    """Arguments that the tool takes: those it requires, and one more where it wants one of several."""
    fields = tool.params.model_fields
    found = {name: _sample(tool, name) for name, info in fields.items() if info.is_required()}
    for more in (None, *(name for name in fields if name not in found)):
        given = found if more is None else {**found, more: _sample(tool, more)}
        if _takes(tool, given):
            return given
    pytest.fail(f"{tool.name} does not take {found}: add to TEXTS what it takes")


def _sample(tool: AnyTool, name: str) -> Any:
    adapter: TypeAdapter[Any] = TypeAdapter(tool.params.model_fields[name].rebuild_annotation())
    return next((each for each in _values() if _fits(adapter, each)), None)


def _takes(tool: AnyTool, given: Mapping[str, Any]) -> bool:
    try:
        validate(tool, given)
    except InvalidInput:
        return False
    return True


def _values() -> list[Any]:
    patterned = ["0" * 32, "INPUT", "ACCEPT", "DROP", "start", "install", "enter"]
    return [*TEXTS, *patterned, 1, 22, ["x"], {"x": "y"}]


def _fits(adapter: TypeAdapter[Any], value: Any) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


def looks_itself(tool: AnyTool) -> bool:
    """Whether the tool finds its object itself, so that it has to run; what dispatch judges need not."""
    return tool.where is not Session and kind_of(tool) in {"session", "connection", "blob", "login"}


@dataclass
class Reached:
    """Notes which tools were reached that would otherwise have done something."""

    tools: list[str] = field(default_factory=list[str])

    def noting(self, tool: AnyTool) -> AnyTool:
        async def run(where: Any, params: Params, call: Call) -> Result:
            self.tools.append(tool.name)
            return Result()

        return tool if looks_itself(tool) else replace(tool, run=run)


@dataclass
class Objects:
    """What two callers have: sessions and connections on the machine, and outputs; what a call took is made again."""

    app: App
    host: Host

    def login(self) -> dict[str, Any]:
        return {"host": self.host.ip, "username": "ops", "password": self.host.password}

    async def named(self, tool: AnyTool, case: Case) -> Mapping[str, Any]:
        who = DirectCall(Caller("mine" if case.own else "theirs", Role.ADMIN))
        kind = kind_of(tool)
        if kind == "session":
            open_ones = self.app.sessions.own(who.caller)
            if not open_ones:
                return {"session_id": (await dispatch(self.app, session.connect, self.login(), who)).session_id}
            return {"session_id": open_ones[0].id}
        if kind == "connection":
            saved = {"name": f"of-{who.caller.id}", "replace": True, **self.login()}
            return {"connection": (await dispatch(self.app, connection.add, saved, who)).uuid}
        if kind == "blob":
            writer = self.app.blobs.writer(who.caller.id)
            await writer.write(b"output")
            return {"blob_id": (await writer.finish()).id}
        return {"host": {"host": self.host.ip}, "login": self.login()}.get(kind, {})


async def outcome(reach: MetaToolContext, tool: AnyTool, given: Mapping[str, Any], who: DirectCall, way: str) -> str:
    try:
        if way == "tool_call":
            inner = {"name": tool.name, "arguments": dict(given)}
            await TOOLS[way](reach, TOOLS[way].params.model_validate(inner), who)
        else:
            await dispatch(reach.app, tool, given, who)
    except ToolError as error:
        return error.code
    return "reached"


async def wrong_outcomes(app: App, host: Host, way: str, tools: Iterable[AnyTool]) -> list[str]:
    """The calls that came to something else than the rules say."""
    await trust(app, host)
    objects, reached = Objects(app, host), Reached()
    registry = Registry(reached.noting(each) for each in REGISTRY.values())
    hosts: dict[Scope, tuple[str, ...] | None] = {"all": None, "within": (host.ip,), "outside": ("192.0.2.*",)}
    wrong = list[str]()
    for tool, case in itertools.product(tools, CASES):
        who = DirectCall(Caller("mine", case.role, hosts=hosts[case.scope]))
        given = {**arguments(tool), **await objects.named(tool, case)}
        reached.tools.clear()
        came_to = await outcome(MetaToolContext(app, registry), registry[tool.name], given, who, way)
        ran = [tool.name] if came_to == "reached" and not looks_itself(tool) else []
        if came_to != expected(tool, case) or reached.tools != ran:
            wrong.append(f"{tool.name} {case}: {came_to} {reached.tools}, expected {expected(tool, case)}")
    return wrong


@pytest.mark.requirement("fault.matrix")
@pytest.mark.parametrize("way", ["direct", "tool_call"])
async def test_each_role_reaches_what_the_rules_give_it_and_nothing_else(app: App, deb: Host, way: str) -> None:
    assert await wrong_outcomes(app, deb, way, REGISTRY.values()) == []


@pytest.mark.requirement("fault.matrix")
@pytest.mark.parametrize(
    "off", ["mcp_ssh.sessions.registry._may_see", "mcp_ssh.dispatch.allow", "mcp_ssh.sessions.host_lookup.expect_reach"]
)
async def test_the_matrix_shows_the_harm_where_one_of_the_gates_is_off(
    app: App, deb: Host, off: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(off, lambda *_, **__: True)
    some = [REGISTRY[name] for name in ("command_exec", "session_status", "hostkey_scan", "config_get")]
    assert await wrong_outcomes(app, deb, "direct", some) != []


@pytest.mark.requirement("fault.matrix")
def test_every_object_that_a_tool_of_the_server_names_is_judged() -> None:
    """A new kind of object needs a line in OBJECTS, and the rule that goes with it."""
    ids = {
        name
        for each in REGISTRY.values()
        if each.where is not Session
        for name in each.params.model_fields
        if name.endswith("_id") or name in OBJECTS
    }
    assert ids == OBJECTS.keys()
    assert {each.name for each in REGISTRY.values() if each.role is Role.ADMIN} == ADMIN_ONLY
