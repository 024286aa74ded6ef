"""The ssh_api family: interactive shells."""

import dataclasses

from pydantic import Field

from mcp_ssh.tools import shell
from mcp_ssh.tools.shell.io import ShellSendParams
from rest_bridge.api.route import Route


class SendAsDocumented(ShellSendParams):
    """The documented body of /command/shell: the fields of /command/exec."""

    timeout: float = Field(default=30.0, ge=0.1, le=3600, description="Taken, and without meaning: text is only sent.")
    get_exit_code: bool = Field(default=True, description="Taken, and without meaning: text that is sent has none.")


ROUTES = (
    # Not documented: shells by name. The documented addresses below are of the session's default one.
    Route("GET", "/command/shells", shell.list_shells),
    Route("POST", "/command/shells", shell.open_shell),
    Route("DELETE", "/command/shells/{shell}", shell.close),
    Route("POST", "/command/shells/{shell}/send", shell.send),
    Route("GET", "/command/shells/{shell}/read", shell.read),
    Route("POST", "/command/shells/{shell}/key", shell.key),
    Route("GET", "/command/shells/{shell}/screen", shell.screen),
    Route("POST", "/command/shells/{shell}/exec", shell.run_in_shell),
    Route("POST", "/command/shells/{shell}/resize", shell.resize),
    Route("POST", "/command/shells/{shell}/secret", shell.secret),
    Route(
        "POST",
        "/command/shell",
        dataclasses.replace(shell.send, params=SendAsDocumented),
        only=("command", "timeout", "get_exit_code", "session_id"),
    ),
    Route("GET", "/command/read", shell.read, only=("wait_s", "session_id"), rename={"timeout": "wait_s"}),
    Route("POST", "/command/key", shell.key, only=("key", "session_id")),
)
