"""The ssh_api family: its error format and its routes."""

from mcp_ssh.tools import blob, command, config, file, session
from rest_bridge.api.route import Family, Route
from rest_bridge.errors import DETAIL_SCHEMA, ErrorFormat, detail_body
from rest_bridge.families.ssh_api import firewall as ssh_api_firewall
from rest_bridge.families.ssh_api import setup as ssh_api_setup
from rest_bridge.families.ssh_api import shell as ssh_api_shell
from rest_bridge.families.ssh_api import system as ssh_api_system
from rest_bridge.families.ssh_api import tasks as ssh_api_tasks
from rest_bridge.families.ssh_api import tunnel as ssh_api_tunnel

SSH_API = ErrorFormat(
    name="ssh_api",
    title="SSH",
    about="Sessions, commands and files on machines.",
    prefixes=("/session", "/command", "/file", "/tunnel", "/system", "/setup", "/firewall", "/config", "/blob"),
    body=detail_body,
    schema=DETAIL_SCHEMA,
)

FAMILY = Family(
    SSH_API,
    (
        Route("POST", "/session/connect", session.connect),
        Route("POST", "/session/disconnect/{session_id}", session.disconnect),
        Route("GET", "/session/status/{session_id}", session.status),
        Route("GET", "/session/list", session.list_sessions),
        Route("POST", "/command/exec", command.run_command),
        Route(
            "GET",
            "/command/run",
            command.run_command,
            only=("command", "timeout", "session_id"),
            rename={"cmd": "command"},
        ),
        *ssh_api_tasks.ROUTES,
        *ssh_api_shell.ROUTES,
        Route("GET", "/file/list", file.list_folder),
        Route("GET", "/file/stat", file.stat),
        Route("GET", "/file/read", file.read),
        Route("POST", "/file/write", file.write),
        Route("POST", "/file/upload", file.upload),
        Route("POST", "/file/download", file.download),
        Route("POST", "/file/mkdir", file.mkdir, query=("session_id", "path")),
        Route("DELETE", "/file/remove", file.remove, only=("path", "session_id", "become")),
        Route("POST", "/file/copy", file.copy, query=("session_id", "src", "dst")),
        Route("DELETE", "/file/rmdir", file.rmdir, only=("path", "session_id", "become")),
        # Not documented: the one thing that the others together cannot do in one step.
        Route("POST", "/file/move", file.move, query=("session_id", "src", "dst")),
        Route("GET", "/config/", config.get),
        Route("PUT", "/config/", config.set_value),
        Route("POST", "/config/reload", config.reload),
        Route("GET", "/config/{key}", config.get_key),
        *ssh_api_system.ROUTES,
        *ssh_api_setup.ROUTES,
        *ssh_api_tunnel.ROUTES,
        *ssh_api_firewall.ROUTES,
        # Not documented: how a REST caller pages through output that was too large for one answer.
        Route("GET", "/blob/{blob_id}", blob.read),
    ),
)
