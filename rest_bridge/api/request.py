"""From bytes to raw arguments: query and body, read strictly and within bounds."""

import json
import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, cast
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.types import Receive

from mcp_ssh.errors import InvalidInput, TooLarge
from mcp_ssh.messages.json_objects import without_repeats
from mcp_ssh.messages.suggestions import LONGEST, MOST_NAMES, suggest_each
from mcp_ssh.messages.validation import describe_errors
from rest_bridge.api.route import Field
from rest_bridge.errors import Malformed, WrongMediaType

MAX_DEPTH = 64
MAX_QUERY_FIELDS = 100


class ClientGone(Exception):
    """The client went away before its request was complete."""


def announces_body(headers: Headers) -> bool:
    """Whether a request has a body; one that says of none has none (RFC 9112, section 6.3)."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


async def read_body(receive: Receive, limit_bytes: int) -> bytes:
    """The whole body; the middleware bounds how long it may take.

    Raises:
        TooLarge: It has more than the limit; no more than that is ever held.
        ClientGone: It never will.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        if len(body) > limit_bytes:
            raise too_large(limit_bytes)
        if not message.get("more_body", False):
            return bytes(body)


def check_announced(headers: Headers, limit_bytes: int) -> None:
    """Refuse a body by its announced length.

    Raises:
        TooLarge: It is longer than the limit.
    """
    announced = headers.get("content-length", "")
    # Compared by length first: a number of thousands of digits is refused, not computed.
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > limit_bytes):
        raise too_large(limit_bytes)


def too_large(limit_bytes: int) -> TooLarge:
    """The error of a body beyond the limit."""
    return TooLarge(
        f"the request body is larger than {limit_bytes} bytes",
        hint="send less at once; the owner of this server can raise server.max_body_mb",
        details={"limit_bytes": limit_bytes},
    )


def json_object(body: bytes, headers: Headers) -> dict[str, Any]:
    """A body as one JSON object.

    Raises:
        WrongMediaType: It says that it is something else.
        Malformed: It is not JSON, not an object, ambiguous, or nested too deeply.
    """
    _check_media_type(headers)
    try:
        value = json.loads(
            body.decode("utf-8"), object_pairs_hook=without_repeats, parse_constant=_no_number, parse_float=_finite
        )
    except (ValueError, RecursionError) as error:
        raise Malformed(f"the body is not valid JSON: {_reason(error)}") from None
    if not isinstance(value, dict):
        raise Malformed("the body must be a JSON object", hint='send {"name": value, ...}')
    fields = cast("dict[str, Any]", value)
    _check_tree(fields)
    return fields


def _check_media_type(headers: Headers) -> None:
    kind, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.replace('"', "").strip().lower()
    if kind.strip().lower() != "application/json" or charset not in {"", "charset=utf-8"}:
        raise WrongMediaType("the body must be application/json", hint="set Content-Type: application/json")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise WrongMediaType("compressed bodies are not taken", hint="send it without Content-Encoding")


def _reason(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"line {error.lineno}, column {error.colno}: {error.msg}"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def _check_tree(root: object) -> None:
    """Bound the depth before anything recurses into the value, and refuse text that UTF-8 cannot carry."""
    level: list[object] = [root]
    for _ in range(MAX_DEPTH):
        deeper: list[object] = []
        for node in level:
            if isinstance(node, dict):
                entries = cast("dict[str, object]", node)
                deeper += [*entries, *entries.values()]
            elif isinstance(node, list):
                deeper += cast("list[object]", node)
            elif isinstance(node, str) and not _encodable(node):
                raise Malformed("the body has text that is not valid Unicode: a lone surrogate")
        if not deeper:
            return
        level = deeper
    raise Malformed(f"the body is nested deeper than {MAX_DEPTH} levels")


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def query_values(query: bytes, known: Mapping[str, Field], hint: str) -> dict[str, Any]:
    """The query by the names of this address; each is known, and given once unless it is a list.

    Raises:
        Malformed: It is not well encoded.
        InvalidInput: A name is unknown or given twice.
    """
    if not query:
        return {}
    found: dict[str, list[str]] = {}
    for name, value in _pairs(query):
        found.setdefault(name, []).append(value)
    refuse_unknown(found, known, "query parameter", hint)
    if twice := [name for name, values in found.items() if len(values) > 1 and not known[name].repeats]:
        raise invalid(dict.fromkeys(twice, "is given more than once"), hint=hint)
    return {name: _value(known[name], values) for name, values in found.items()}


def _pairs(query: bytes) -> list[tuple[str, str]]:
    try:
        text = query.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError as error:
        raise Malformed(
            "the query is not well encoded", hint=f"percent-encode UTF-8, at most {MAX_QUERY_FIELDS} fields"
        ) from error


def _value(field: Field, values: list[str]) -> Any:
    """Text as it came; the model makes numbers of it. `confirm` is not a field of the model, so it is made here."""
    if field.name == "confirm" and values[0] in {"true", "false"}:
        return values[0] == "true"
    return values if field.repeats else values[0]


def refuse_unknown(given: Iterable[str], known: Mapping[str, Field], what: str, hint: str) -> None:
    """Refuse names that this address does not take there.

    Raises:
        InvalidInput: Names the first of them, and near known ones.
    """
    unknown = [name for name in given if name not in known]
    if unknown:
        near = suggest_each(unknown, known)
        wrong = {
            name[:LONGEST]: f"is not a {what} here" + (f"; did you mean {near[name]}?" if name in near else "")
            for name in unknown[:MOST_NAMES]
        }
        raise invalid(wrong, hint, count=len(unknown))


def takes(address: str, fields: Mapping[str, Field]) -> str:
    """What an address takes, for hints."""
    listed = ", ".join(f"{name} ({each.place})" for name, each in fields.items())
    return f"{address} takes {listed or 'no arguments'}"


def invalid(wrong: Mapping[str, str], hint: str, count: int = 0) -> InvalidInput:
    """The error of fields that break a rule.

    Args:
        wrong: The rules by field.
        hint: What to do next.
        count: How many fields break one, where that is more than are named.
    """
    errors = [{"field": name, "rule": rule} for name, rule in islice(wrong.items(), MOST_NAMES)]
    return InvalidInput(describe_errors(errors, max(count, len(wrong))), hint=hint, details={"errors": errors})
