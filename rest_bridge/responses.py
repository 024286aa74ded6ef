"""Answers: compact JSON, and errors in the error format of the path they happened on."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticSerializationError
from starlette.responses import JSONResponse

from mcp_ssh.errors import ToolError, Unauthenticated
from mcp_ssh.params import Result
from rest_bridge.api.route import Shape
from rest_bridge.errors import error_format_of


class Answer(JSONResponse):
    """Compact JSON in UTF-8."""

    def render(self, content: Any) -> bytes:
        """The content's bytes, or those it is; text that UTF-8 cannot carry (undecodable file names) is escaped."""
        if isinstance(content, bytes):
            return content
        try:
            return super().render(content)
        except UnicodeEncodeError:
            return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def result_response(result: Result, shape: Shape | None) -> Answer:
    """The answer that tells of a result, in the shape that its address documents."""
    if shape is None:
        try:
            return Answer(result.model_dump_json(exclude_unset=True).encode())
        except PydanticSerializationError:
            pass  # text that UTF-8 cannot carry
    content = result.model_dump(mode="json", exclude_unset=True)
    return Answer(shape.convert(content) if shape else content)


def refusal(scope: Mapping[str, Any], error: ToolError, headers: Mapping[str, str] | None = None) -> Answer:
    """The answer to a request that failed, in the error format of its path."""
    error_format = error_format_of(scope)
    shown = dict(headers or {})
    if isinstance(error, Unauthenticated):
        # A machine that refuses a login (AuthFailed) is 401 too, but no token of this server would help there.
        shown["WWW-Authenticate"] = "Bearer"
    if (wait_s := error.details.get("retry_after_s")) is not None:
        shown["Retry-After"] = str(wait_s)
    return Answer(error_format.body(error), error_format.status(error), shown)
