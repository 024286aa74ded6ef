"""What a tool takes through MCP: its schema on this server, and arguments as some clients send them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from mcp_ssh.tool import CONFIRM_SCHEMA, AnyTool


def argument_schema(each: AnyTool, confirm_tools: Sequence[str]) -> dict[str, Any]:
    """The schema of a tool's arguments, `confirm` among them where this server's config asks for it."""
    if not each.is_in(confirm_tools):
        return each.input_schema
    properties = {**each.input_schema.get("properties", {}), "confirm": {**CONFIRM_SCHEMA}}
    return {**each.input_schema, "properties": properties}


def decoded(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as the model takes them, whatever the client's way to send them.

    Some clients send an object or a list as JSON text, and some send null for each argument that they leave out.
    """
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    read = {
        name: _from_json(value) if isinstance(value, str) and _takes_no_text(properties.get(name)) else value
        for name, value in arguments.items()
    }
    return _without_nulls(schema, read)


def _without_nulls(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without the null of each property that is not required, in the objects inside it too."""
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    required: Sequence[str] = schema.get("required", ())
    return {
        name: _inner(properties.get(name), value)
        for name, value in given.items()
        if value is not None or name in required or name not in properties
    }


def _inner(schema: Mapping[str, Any] | None, value: Any) -> Any:
    """Return a value without such nulls. Depth is the schema's, so that no input makes it deeper."""
    if schema is None:
        return value
    for each in cast("list[Mapping[str, Any]]", schema.get("anyOf") or [schema]):
        if isinstance(value, dict) and "properties" in each:
            return _without_nulls(each, cast("dict[str, Any]", value))
        if isinstance(value, list) and each.get("type") == "array":
            return [_inner(each.get("items"), item) for item in cast("list[Any]", value)]
    return cast("Any", value)


def _takes_no_text(schema: Mapping[str, Any] | None) -> bool:
    """Whether a property's schema names types, and text is none of them."""
    if schema is None:
        return False
    choices = cast("list[Mapping[str, Any]]", schema.get("anyOf") or [schema])
    kinds = [each.get("type") for each in choices]
    return None not in kinds and "string" not in kinds


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
