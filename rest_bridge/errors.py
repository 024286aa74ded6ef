"""How an API says that something went wrong: one table of statuses, and what a family's error format holds."""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcp_ssh.errors import (
    AuthFailed,
    Conflict,
    ConnectFailed,
    HostKeyUnconfirmed,
    Internal,
    InvalidInput,
    NotFound,
    OutOfDescriptors,
    PermissionDenied,
    Refused,
    RemoteFailed,
    ShuttingDown,
    TimedOut,
    TooLarge,
    ToolError,
    TooMany,
    Unauthenticated,
    Unsupported,
)
from rest_bridge.hints import rest_hint


class Malformed(InvalidInput):
    """The request is not one JSON object, or its address is not well encoded.

    No family has another word for it.
    """

    code = "malformed"


class SemanticError(InvalidInput):
    """The fields keep the model's rules, and the tool refuses what they say: a fingerprint that is another key's."""


class WrongMethod(InvalidInput):
    """The path exists, the method does not."""

    code = "method_not_allowed"


class WrongMediaType(InvalidInput):
    """The body is not `application/json`."""

    code = "unsupported_media_type"


class WrongHost(Refused):
    """The Host header names another server, as after DNS rebinding."""

    code = "misdirected"


class BadFraming(Malformed):
    """Where the body of the request ends can be read in two ways, so what follows on its connection is unknown."""


class SlowRequest(TimedOut):
    """The body did not arrive in time."""

    code = "request_timeout"


STATUS: Mapping[type[ToolError], int] = {
    InvalidInput: 400,
    Malformed: 400,
    Unsupported: 400,
    Unauthenticated: 401,
    AuthFailed: 401,
    Refused: 403,
    PermissionDenied: 403,
    NotFound: 404,
    WrongMethod: 405,
    SlowRequest: 408,
    Conflict: 409,
    TooLarge: 413,
    WrongMediaType: 415,
    WrongHost: 421,
    TooMany: 429,
    ConnectFailed: 502,
    RemoteFailed: 500,
    Internal: 500,
    ShuttingDown: 503,
    OutOfDescriptors: 503,
    TimedOut: 504,
}
"""The one table. The most special class of an error that stands here decides."""


@dataclass(frozen=True)
class ErrorFormat:
    """One family's way to answer errors.

    Attributes:
        name: The family, as it names schemas.
        title: The family, as it heads its routes in the documentation.
        about: What its routes are for.
        prefixes: Where the family's paths begin; answers on paths without a route use its body too.
        body: The error as the family shows it.
        schema: JSON Schema of that body.
        invalid_fields: Status where fields break the rules of the tool's model.
    """

    name: str
    title: str
    about: str
    prefixes: tuple[str, ...]
    body: Callable[[ToolError], dict[str, Any]]
    schema: Mapping[str, Any]
    invalid_fields: int = 400

    def status(self, error: ToolError) -> int:
        """The HTTP status of an error."""
        if type(error) is InvalidInput and "errors" in error.details:
            return self.invalid_fields
        return next((STATUS[each] for each in type(error).__mro__ if each in STATUS), STATUS[Internal])

    def statuses(self) -> set[int]:
        """Every status an error can have here."""
        return {*STATUS.values(), self.invalid_fields}

    def owns(self, path: str) -> bool:
        """Whether the path is one of this family."""
        return any(path == each or path.startswith(f"{each}/") for each in self.prefixes)


def detail_body(error: ToolError) -> dict[str, Any]:
    """`detail` is the message, but for an unconfirmed host key the documented object; our own words stand beside it."""
    shown = error.payload()
    code, message, details = shown["code"], shown["message"], shown.get("details")
    if isinstance(error, HostKeyUnconfirmed) and details:
        body: dict[str, Any] = {"detail": details, "code": code}
    else:
        body = {"detail": message, "code": code}
        if details:
            body["details"] = details
    if (hint := rest_hint(error)) is not None:
        body["hint"] = hint
    return body


DETAIL_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["detail", "code"],
    "additionalProperties": False,
    "properties": {
        "detail": {
            "type": ["string", "object"],
            "description": "What is wrong, in one sentence. For a host key that is unknown or changed: an object with"
            " `code` HOST_KEY_CONFIRMATION_REQUIRED, `message` and `host_key`.",
            "examples": ["No active session"],
        },
        "code": {"type": "string", "description": "The kind of error, a stable word.", "examples": ["not_found"]},
        "hint": {
            "type": "string",
            "description": "What to do next.",
            "examples": ["open one with POST /session/connect"],
        },
        "details": {"type": "object", "description": "Facts a program may use."},
    },
}


class ErrorFormats:
    """The error formats of a server, by path.

    Args:
        formats: One for each family, and one for MCP. The first answers on paths that belong to none.
    """

    def __init__(self, formats: Sequence[ErrorFormat]) -> None:
        self._formats = formats

    def of(self, path: str) -> ErrorFormat:
        """Return the error format of a path, also of one that no route has."""
        return next((each for each in self._formats if each.owns(path)), self._formats[0])


_KEY = "mcp_ssh.error_format"


def set_error_format(scope: MutableMapping[str, Any], error_format: ErrorFormat) -> None:
    """Note in an ASGI scope how errors of this request look."""
    scope[_KEY] = error_format


def error_format_of(scope: Mapping[str, Any]) -> ErrorFormat:
    """Return how errors of this request look."""
    return scope[_KEY]
