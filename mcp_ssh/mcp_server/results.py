"""What a call answers, as MCP sends it: text for the model, structured content for programs."""

import json
from typing import Any, cast

from mcp import types

from mcp_ssh.errors import ToolError
from mcp_ssh.params import Result

FACTS_BYTES = 64 * 1024
"""What a text may hold beside the output."""

STREAMS = 2
"""How many outputs, each within the cap, a result may hold."""

_SHORTENED = (
    "Shortened: structuredContent has the whole result. Where you see only this text, ask for less at a time: "
    "a smaller range or limit, or blob_read."
)
_SHORTEST_CUT = 20
_CHARS_FOR_AN_ITEM = 20


def success_result(result: Result, limit_bytes: int) -> types.CallToolResult:
    """Return a result, whole in both halves.

    Clients differ in which half the model sees: many pass the text alone, others check the structured half against the
    output schema. Beyond the output cap, which a caller has to ask for, the text is a copy with the middle of long
    strings and the end of long lists left out, and a second text says where the rest is.

    Args:
        result: What the tool returned.
        limit_bytes: The output cap of this server, for each stream.
    """
    text, payload = _encodable(result.model_dump(mode="json", exclude_unset=True))
    limit = STREAMS * limit_bytes + FACTS_BYTES
    if _size(text) <= limit or _content_size(payload) <= limit:
        return types.CallToolResult(content=[_text(text)], structured_content=payload)
    return types.CallToolResult(
        content=[_text(_shorten(payload, limit)), _text(_SHORTENED)], structured_content=payload
    )


def error_result(error: ToolError) -> types.CallToolResult:
    """An error, as text alone: clients check structured content against the output schema, which no error fits."""
    return types.CallToolResult(content=[_text(_encodable(error.payload())[0])], is_error=True)


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


def _compact(payload: Any) -> str:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":"))


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


def _content_size(payload: Any) -> int:
    """Return the bytes of all texts, without what JSON adds to them."""
    size = 0
    pending: list[Any] = [payload]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            entries = cast("dict[str, Any]", node)
            pending += [*entries, *entries.values()]
        elif isinstance(node, list):
            pending += cast("list[Any]", node)
        else:
            size += _size(node) if isinstance(node, str) else 8
    return size


def _encodable(payload: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The payload as JSON text and as itself, lone surrogates replaced: no transport of the SDK can write them."""
    text = _compact(payload)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
        return text, json.loads(text)
    return text, payload


def _shorten(payload: dict[str, Any], limit: int) -> str:
    keep = limit
    while keep >= _SHORTEST_CUT:
        text = _compact(_cut(payload, keep))
        if _size(text) <= limit:
            return text
        keep //= 2
    return _compact(payload).encode()[: limit // 2].decode("utf-8", "ignore") + "…"


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
