"""Routes: which address leads to which tool. One table an API family, one row a route."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel

from mcp_ssh.tool import CONFIRM_SCHEMA, AnyTool, ToolStream
from rest_bridge.errors import ErrorFormat

Place = Literal["path", "query", "body"]
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Field:
    """One argument as a route takes it.

    Attributes:
        wire: Its name at this address.
        name: Its name in the tool.
        place: Where in the request it stands.
        schema: JSON Schema of its value.
        required: Whether it must be given.
    """

    wire: str
    name: str
    place: Place
    schema: Mapping[str, Any]
    required: bool

    @property
    def repeats(self) -> bool:
        """Whether it is a list, which a query gives by repeating the name."""
        return "array" in {each.get("type") for each in (self.schema, *self.schema.get("anyOf", ()))}


@dataclass(frozen=True)
class Shape:
    """A documented body that differs from the tool's result: how it looks, and how it is made."""

    model: type[BaseModel]
    convert: Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Route:
    """A documented address of a tool.

    Path placeholders are named after the arguments they carry. GET and DELETE take the other arguments in the query;
    other methods take them in a JSON body, but for those that `query` names. What holds a secret is in no address, so
    `become` is in the body of DELETE, too.

    Attributes:
        method: HTTP method.
        path: Path with placeholders.
        tool: The tool behind it.
        query: Arguments that stand in the query although the request has a body.
        only: The arguments this address takes; by default all.
        rename: Names at this address, to names in the tool.
        fixed: Arguments that the address implies.
        shape: The documented body, where it is not the tool's result.
        stream: The streaming form whose events are the answer; `tool` is then its tool. See `streams`.
    """

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    tool: AnyTool
    query: tuple[str, ...] = ("session_id",)
    only: tuple[str, ...] | None = None
    rename: Mapping[str, str] = field(default_factory=dict[str, str])
    fixed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    shape: Shape | None = None
    stream: ToolStream[Any, Any, Any] | None = None

    @property
    def address(self) -> str:
        """Method and path, for messages."""
        return f"{self.method} {self.path}"

    @cached_property
    def placeholders(self) -> tuple[str, ...]:
        """The names in the path."""
        return tuple(_PLACEHOLDER.findall(self.path))

    def fields(self, *, confirm: bool) -> dict[str, Field]:
        """The arguments by their names at this address.

        Args:
            confirm: Whether the config has this tool's calls confirmed, so that `confirm` is an argument too.
        """
        return {each.wire: each for each in self._fields(confirm=confirm)}

    def _fields(self, *, confirm: bool) -> Iterator[Field]:
        schema = self.tool.input_schema
        properties: dict[str, Any] = dict(schema.get("properties", {}))
        if confirm:
            properties.setdefault("confirm", CONFIRM_SCHEMA)
        named = {name: wire for wire, name in self.rename.items()}
        unknown = {*named, *(self.only or ()), *self.fixed, *self.placeholders} - {*properties, *self.rename}
        if unknown:
            raise TypeError(f"{self.address}: {self.tool.name} does not take {', '.join(sorted(unknown))}")
        for name, each in properties.items():
            if name in self.fixed or (self.only is not None and name not in {*self.only, "confirm"}):
                continue
            wire = named.get(name, name)
            yield Field(wire, name, self._place(wire), each, required=name in schema.get("required", ()))

    def _place(self, wire: str) -> Place:
        if wire in self.placeholders:
            return "path"
        if self.method == "DELETE":
            return "body" if wire == "become" else "query"
        return "query" if self.method == "GET" or wire in self.query else "body"


def streams(path: str, stream: ToolStream[Any, Any, Any]) -> Route:
    """The address of a stream: GET, since that is what browsers' EventSource sends."""
    return Route("GET", path, stream.tool, stream=stream)


@dataclass(frozen=True)
class Family:
    """An API family: its error format and its routes."""

    error_format: ErrorFormat
    routes: tuple[Route, ...]
