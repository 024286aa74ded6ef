"""What a call has done, in words for the history: its tool's text, the arguments, and what the result says of it."""

from collections.abc import Mapping
from typing import Any, cast

from mcp_ssh.messages.printable import printable
from mcp_ssh.params import Params, Planned, Result
from mcp_ssh.store.redaction import redact
from mcp_ssh.tool import AnyTool

VALUE_CHARS = 80
"""How much of one argument is shown."""


def audit_text(tool: AnyTool, params: Params, result: Result) -> str | None:
    """Say what a call has done; None where its tool changes nothing.

    Args:
        tool: The tool, whose text names arguments in braces.
        params: The arguments, as they were understood.
        result: What came out. Where it says that nothing was changed, or that it failed, so does the text.
    """
    if tool.audit is None:
        return None
    return f"{_prefix(params, result)}{tool.audit.format_map(_Values(params))}"


def _prefix(params: Params, result: Result) -> str:
    said: Mapping[str, Any] = vars(result)
    if isinstance(params, Planned) and params.dry_run:
        return "dry run, nothing was changed: "
    if said.get("rolled_back") is True:
        return "taken back: "
    if said.get("success") is False or said.get("status") == "failed":
        return "failed: "
    return "nothing to change: " if said.get("changed") is False else ""


class _Values(dict[str, str]):
    """Text for each argument that is asked for."""

    def __init__(self, params: Params) -> None:
        super().__init__()
        self._params = params

    def __missing__(self, name: str) -> str:
        value = redact({name: getattr(self._params, name)})[name]
        if value is None:
            return "any"
        parts = cast("list[Any]", value) if isinstance(value, list) else [value]
        # Columns of the history's table are kept apart by two blanks.
        text = printable(" ".join(", ".join(map(str, parts)).split()))
        return text if len(text) <= VALUE_CHARS else f"{text[: VALUE_CHARS - 1]}…"
