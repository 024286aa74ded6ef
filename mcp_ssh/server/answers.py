"""What a call answers, as MCP sends it: text for the model, structured content for programs."""

import json
from typing import Any, cast

from mcp import types

from mcp_ssh.errors import ToolError
from mcp_ssh.params import Result

BOTH_LIMIT_BYTES = 4096
"""The largest result that is sent both as text and as structured content."""

SHORT_LIMIT_BYTES = 1536
"""The largest text beside a larger result. With the 8 KiB that a command returns of a stream, an answer stays within
12 KiB."""

_SHORTENED = (
    "Shortened: structuredContent has the whole result. Where you see only this text, ask for less at a time: "
    "a smaller range or limit, or blob_read."
)
_CUTS = (1200, 800, 400, 200, 100, 50, 20)
_CHARS_FOR_AN_ITEM = 20


def succeeded(result: Result) -> types.CallToolResult:
    """A result.

    Hosts differ in which half the model sees, so a small result is sent whole in both. A large one is whole only in the
    structured half: clients check that half against the output schema and programs take their data from it, so it can
    be neither left out nor cut. The text is then a copy with the middle of long strings and the end of long lists left
    out, which still tells a model that sees only text what happened, and a second text says where the rest is.
    """
    text, payload = _encodable(result.model_dump(mode="json", exclude_unset=True))
    if _size(text) <= BOTH_LIMIT_BYTES:
        return types.CallToolResult(content=[_text(text)], structured_content=payload)
    return types.CallToolResult(content=[_text(_shortened(payload)), _text(_SHORTENED)], structured_content=payload)


def failed(error: ToolError) -> types.CallToolResult:
    """An error, as text alone: clients check structured content against the output schema, which no error fits."""
    return types.CallToolResult(content=[_text(_encodable(error.payload())[0])], is_error=True)


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


def _compact(payload: Any) -> str:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _encodable(payload: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The payload as JSON text and as itself, lone surrogates replaced: no transport of the SDK can write them."""
    text = _compact(payload)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
        return text, json.loads(text)
    return text, payload


def _shortened(payload: dict[str, Any]) -> str:
    text = ""
    for keep in _CUTS:
        text = _compact(_cut(payload, keep))
        if _size(_compact(text)) <= SHORT_LIMIT_BYTES:
            return text
    return text.encode()[: SHORT_LIMIT_BYTES // 2].decode("utf-8", "ignore") + "…"


def _cut(node: Any, keep: int) -> Any:
    """A copy with strings of at most about `keep` characters, and lists of as many items as that leaves room for."""
    if isinstance(node, str):
        left_out = len(node) - keep
        return node if left_out <= 0 else f"{node[: keep // 2]}…[{left_out} characters left out]…{node[-(keep // 2) :]}"
    if isinstance(node, dict):
        return {key: _cut(value, keep) for key, value in cast("dict[str, Any]", node).items()}
    if isinstance(node, list):
        items = cast("list[Any]", node)
        fitting = max(1, keep // _CHARS_FOR_AN_ITEM)
        shown = [_cut(each, keep) for each in items[:fitting]]
        return shown if len(items) <= fitting else [*shown, f"…[{len(items) - fitting} more]"]
    return node
