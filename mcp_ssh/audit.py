"""What a recorded call has done, in words: the audit text of its tool, filled in with its arguments."""

import json
from collections.abc import Mapping
from typing import Any, cast

from mcp_ssh.printable import printable
from mcp_ssh.tool import AnyTool

VALUE_CHARS = 80
"""How much of one argument is shown."""


def audit_text(tool: AnyTool, arguments: str) -> str | None:
    """Say what a call that ended well has done; None where its tool only looks, or its arguments were cut.

    Args:
        tool: The tool.
        arguments: Its arguments as the history keeps them: JSON text, secrets hidden.
    """
    if tool.audit is None:
        return None
    try:
        given: object = json.loads(arguments)
    except ValueError:
        return None
    if not isinstance(given, dict):
        return None
    values = cast("Mapping[str, Any]", given)
    told = tool.audit.format_map(_Values(tool, values))
    return f"dry run, nothing was changed: {told}" if values.get("dry_run") is True else told


class _Values(dict[str, str]):
    """Text for each argument: what was given, else the default."""

    def __init__(self, tool: AnyTool, given: Mapping[str, Any]) -> None:
        self._fields = tool.params.model_fields
        super().__init__({name: _short(value) for name, value in given.items()})

    def __missing__(self, name: str) -> str:
        field = self._fields[name]
        return "?" if field.is_required() else _short(field.default)


def _short(value: Any) -> str:
    if value is None:
        return "any"
    parts = cast("list[Any]", value) if isinstance(value, list) else [value]
    text = printable(", ".join(map(str, parts)))
    return text if len(text) <= VALUE_CHARS else f"{text[: VALUE_CHARS - 1]}…"
