"""The ssh_api family: background tasks."""

from typing import Any

from pydantic import Field, create_model

from mcp_ssh.tools import command
from rest_bridge.api.route import Route, Shape


def _in_lines(polled: dict[str, Any]) -> dict[str, Any]:
    return {**polled, **{name: _lines(polled[name]) for name in ("output", "error")}}


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines if lines[-1] else lines[:-1]


_TASK_IN_LINES = Shape(
    create_model(
        "TaskInLines",
        __base__=command.CommandTaskResult,
        output=(list[str], Field(description="Standard output from output_offset on, by lines.")),
        error=(list[str], Field(description="Standard error from error_offset on, by lines.")),
    ),
    _in_lines,
)

ROUTES = (
    Route("POST", "/command/background", command.background),
    # Not documented: the same as the next, with the output as one text, and for tasks that need a password.
    Route("POST", "/command/task/{task_id}", command.task),
    Route(
        "GET",
        "/command/task/{task_id}",
        command.task,
        only=("task_id", "session_id", "output_offset", "error_offset", "wait_s", "until", "max_output_bytes"),
        shape=_TASK_IN_LINES,
    ),
    # Not documented: which tasks there are, and their end.
    Route("GET", "/command/tasks", command.tasks, only=("session_id", "all_on_host")),
    Route("POST", "/command/task/{task_id}/cancel", command.task_cancel),
)
