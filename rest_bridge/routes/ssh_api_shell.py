"""The ssh_api family: interactive shells."""

from mcp_ssh.tools import shell
from rest_bridge.routes import Route

ROUTES = (
    # Not documented: shells by name. The documented addresses below are of the session's default one.
    Route("GET", "/command/shells", shell.list_),
    Route("POST", "/command/shells", shell.open_),
    Route("DELETE", "/command/shells/{shell}", shell.close),
    Route("POST", "/command/shells/{shell}/send", shell.send),
    Route("GET", "/command/shells/{shell}/read", shell.read),
    Route("POST", "/command/shells/{shell}/key", shell.key),
    Route("GET", "/command/shells/{shell}/screen", shell.screen),
    Route("POST", "/command/shells/{shell}/exec", shell.exec_),
    Route("POST", "/command/shells/{shell}/resize", shell.resize),
    Route("POST", "/command/shells/{shell}/secret", shell.secret),
    Route("POST", "/command/shell", shell.send, only=("command", "session_id")),
    Route("GET", "/command/read", shell.read, only=("wait_s", "session_id"), rename={"timeout": "wait_s"}),
    Route("POST", "/command/key", shell.key, only=("key", "session_id")),
)
