"""The ssh_api family: /session, /command, /file."""

from mcp_ssh.tools import blob, command, file, session
from rest_bridge.dialects import SSH_API
from rest_bridge.routes import Family, Route

FAMILY = Family(
    SSH_API,
    (
        Route("POST", "/session/connect", session.connect),
        Route("POST", "/session/disconnect/{session_id}", session.disconnect),
        Route("GET", "/session/status/{session_id}", session.status),
        Route("GET", "/session/list", session.list_),
        Route("POST", "/command/exec", command.exec_),
        Route(
            "GET",
            "/command/run",
            command.exec_,
            only=("command", "timeout", "session_id"),
            rename={"cmd": "command"},
        ),
        Route("GET", "/file/list", file.list_),
        Route("GET", "/file/stat", file.stat),
        Route("GET", "/file/read", file.read),
        Route("POST", "/file/write", file.write),
        # Not documented: how a REST caller pages through output that was too large for one answer.
        Route("GET", "/blob/{blob_id}", blob.read),
    ),
)
