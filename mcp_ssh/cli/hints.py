"""Hints in the words of the command line: commands for tools, options for arguments."""

import re

from mcp_ssh.messages.hints import Wording, render

COMMANDS = {
    "command_exec": "ssh-steward exec",
    "file_upload": "ssh-steward upload",
    "file_download": "ssh-steward download",
    "session_connect": "another ssh-steward command",
}
"""The command that does what a tool does; of the others `ssh-steward call` calls the tool."""

WHOLE = {("file_mkdir", "parents"): "ssh-steward exec MACHINE -- mkdir -p FOLDER"}

OPTIONS = {
    "key_content": "--key FILE",
    "key_path": "--key FILE",
    "password": "--ask-password",
    "username": "-l USER",
    "port": "-p PORT",
    "cwd": "--cwd FOLDER",
    "timeout": "--timeout SECONDS",
    "stdin": "--stdin",
    "permissions": "--permissions DIGITS",
    "become": "--sudo",
}

IN_MCP_WORDS = frozenset({"call", "tools", "history"})
"""Commands that take a tool by its name, and its arguments as JSON."""

FOR_CALL = {
    "open one with session_connect": "name a saved connection as session_id, or log in first with --connect JSON",
    "list the tools to see their names": "ssh-steward tools lists them",
}
"""Next steps that are others where each call is a process of its own."""

_PARAMETERS = re.compile(r"[a-z_]{1,64} takes ")
"""What a tool takes, which says nothing to somebody who gave options."""

_AGAIN = re.compile(r"(--key FILE)(?:, --key FILE)+")
"""One option that stands for several arguments in turn."""


def cli_hint(hint: str | None, command: str | None = None) -> str | None:
    """Return a hint as somebody reads it who typed a command."""
    if hint is None or command in IN_MCP_WORDS:
        return FOR_CALL.get(hint, hint) if hint else hint
    if command and _PARAMETERS.match(hint):
        return f"see ssh-steward {command} --help"
    return _AGAIN.sub(r"\1", render(hint, Wording(_command, _option, lambda _: None)))


def _command(name: str, argument: str | None, value: str | None) -> str | None:
    from mcp_ssh.tools import REGISTRY
    from mcp_ssh.toolsets import TOOLS

    if (name, argument) in WHOLE:
        return WHOLE[name, str(argument)]
    if name not in REGISTRY and name not in TOOLS:
        return None
    return f"{COMMANDS.get(name, f'ssh-steward call {name}')}{f' and {argument}: {value}' if argument else ''}"


def _option(name: str, value: str | None) -> str | None:
    from mcp_ssh.tools import REGISTRY

    if name in OPTIONS:
        return OPTIONS[name]
    known = name == "confirm" or any(name.partition(".")[0] in tool.params.model_fields for tool in REGISTRY.values())
    given = f"{name}: {value}" if value else name
    return f"{given} in the JSON of ssh-steward call" if known else None
