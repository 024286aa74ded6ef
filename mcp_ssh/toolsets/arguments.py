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


def decode_arguments(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as the model takes them: some clients send an object or a list as JSON text."""
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    return {
        name: _from_json(value) if isinstance(value, str) and _takes_no_text(properties.get(name)) else value
        for name, value in arguments.items()
    }


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
