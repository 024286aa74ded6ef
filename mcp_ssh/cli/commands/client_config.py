"""Print what an MCP client has to be told to use this server."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mcp_ssh.cli.terminal import print_table, say, usage

NAME = "ssh-steward"
VARIABLE = "MCP_SSH_TOKEN"

ServerEntry = dict[str, Any]


@dataclass(frozen=True)
class ServerStart:
    """How a client starts this server."""

    command: str
    args: tuple[str, ...]
    env: Mapping[str, str]

    def entry(self) -> ServerEntry:
        """As nearly all clients write it."""
        return {"command": self.command, "args": list(self.args), **({"env": dict(self.env)} if self.env else {})}


@dataclass(frozen=True)
class ClientFormat:
    """A client: what it is called, the file it reads, and the words it uses there.

    Attributes:
        file: Where its configuration is.
        key: The name of its object of servers.
        start: A server it starts.
        remote: A server it reaches over HTTP, given the address and the token's place; `None` where it cannot.
        token: How it writes a token that it takes from the environment or asks for.
        more: What stands beside the servers, for a server over HTTP.
        toml: Whether its file is TOML, not JSON.
    """

    title: str
    file: str
    key: str = "mcpServers"
    start: Callable[[ServerStart], ServerEntry] = ServerStart.entry
    remote: Callable[[str, str], ServerEntry] | None = None
    token: str = f"${{{VARIABLE}}}"
    more: Mapping[str, Any] | None = None
    toml: bool = False


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _typed_entry(name: str, *, address: str = "url") -> Callable[[str, str], ServerEntry]:
    return lambda url, token: {"type": name, address: url, "headers": _bearer(token)}


def _plain(address: str) -> Callable[[str, str], ServerEntry]:
    return lambda url, token: {address: url, "headers": _bearer(token)}


PASTE = "PASTE-THE-TOKEN-HERE"
ASKED = {
    "inputs": [
        {"type": "promptString", "id": "ssh-steward-token", "description": "Token of ssh-steward", "password": True}
    ]
}
# Each as its makers describe it, looked up in November 2026.
CLIENTS: Mapping[str, ClientFormat] = {
    # https://modelcontextprotocol.io/docs/develop/connect-local-servers
    "claude-desktop": ClientFormat("Claude Desktop", "claude_desktop_config.json (Settings, Developer, Edit Config)"),
    # https://code.claude.com/docs/en/mcp
    "claude-code": ClientFormat("Claude Code", ".mcp.json in the project", remote=_typed_entry("http")),
    # https://developers.openai.com/codex/mcp
    "codex": ClientFormat(
        "Codex", "~/.codex/config.toml", key="mcp_servers", toml=True,
        remote=lambda url, token: {"url": url, "bearer_token_env_var": token}, token=VARIABLE,
    ),
    # https://cursor.com/docs/mcp
    "cursor": ClientFormat("Cursor", "~/.cursor/mcp.json", remote=_plain("url"), token=f"${{env:{VARIABLE}}}"),
    # https://code.visualstudio.com/docs/copilot/reference/mcp-configuration
    "vscode": ClientFormat(
        "VS Code", ".vscode/mcp.json in the workspace", key="servers",
        start=lambda start: {"type": "stdio", **start.entry()},
        remote=_typed_entry("http"), token="${input:ssh-steward-token}", more=ASKED,  # noqa: S106 a place for one
    ),
    # https://docs.windsurf.com/windsurf/cascade/mcp
    "windsurf": ClientFormat(
        "Windsurf", "~/.codeium/windsurf/mcp_config.json", remote=_plain("serverUrl"), token=f"${{env:{VARIABLE}}}"
    ),
    # https://zed.dev/docs/ai/mcp
    "zed": ClientFormat("Zed", "~/.config/zed/settings.json", key="context_servers", remote=_plain("url"), token=PASTE),
    # https://geminicli.com/docs/tools/mcp-server/
    "gemini-cli": ClientFormat("Gemini CLI", "~/.gemini/settings.json", remote=_plain("httpUrl"), token=f"${VARIABLE}"),
    # https://docs.cline.bot/mcp/mcp-overview; without a type it takes an address for one of the older SSE kind.
    "cline": ClientFormat(
        "Cline", "cline_mcp_settings.json (MCP Servers, Configure)", remote=_typed_entry("streamableHttp"), token=PASTE
    ),
}  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward client-config` takes."""
    parser.add_argument("client", metavar="CLIENT", nargs="?", help=f"one of {', '.join(CLIENTS)}; without: the list")
    parser.add_argument("--http", metavar="URL", help="for a server that runs there, not one the client starts")
    parser.add_argument("--read-only", action="store_true", help="only tools that change nothing")


def run(parsed: argparse.Namespace) -> int:
    """Print the configuration on standard output and where it belongs on standard error, and return the exit code."""
    if parsed.client is None:
        print_table(["client", "its file", "over HTTP"], [
            [name, known.file, "yes" if known.remote else "no"] for name, known in CLIENTS.items()
        ])  # fmt: skip
        return 0
    known = CLIENTS.get(parsed.client)
    if known is None:
        raise usage(f"{parsed.client[:40]!r} is not a client this program knows", f"there are {', '.join(CLIENTS)}")
    print(_file_text(known, configuration(known, parsed.http, read_only=parsed.read_only)))
    say(f"for {known.title}: put it into {known.file}, beside what is there")
    if parsed.http and VARIABLE in known.token:
        say(f"and set {VARIABLE} in the environment the client starts in; `ssh-steward token add NAME` makes a token")
    elif parsed.http:
        say("`ssh-steward token add NAME` makes a token")
    return 0


def _file_text(known: ClientFormat, whole: Mapping[str, Any]) -> str:
    """What belongs into the client's file."""
    import json

    if not known.toml:
        return json.dumps(whole, indent=2)
    entry: ServerEntry = dict(whole[known.key][NAME])
    tables = {f"{known.key}.{NAME}": entry}
    if "env" in entry:
        tables[f"{known.key}.{NAME}.env"] = entry.pop("env")
    # TOML writes strings, and lists of them, as JSON does.
    lines = [
        line
        for table, values in tables.items()
        for line in (
            f"[{table}]",
            *(f"{name} = {json.dumps(each, ensure_ascii=False)}" for name, each in values.items()),
        )
    ]
    return "\n".join(lines)


def configuration(known: ClientFormat, url: str | None, *, read_only: bool = False) -> dict[str, Any]:
    """The whole object that a client reads.

    Raises:
        Failure: The address is none, or the client reaches no server over HTTP.
    """
    if url is None:
        return {known.key: {NAME: known.start(start_of_this(read_only=read_only))}}
    if known.remote is None:
        raise usage(f"the file of {known.title} holds no servers over HTTP", "leave --http out")
    entry = known.remote(_endpoint(url, read_only=read_only), known.token)
    return {**(known.more or {}), known.key: {NAME: entry}}


def start_of_this(*, read_only: bool = False) -> ServerStart:
    """This very installation: clients with windows do not have the PATH of a shell."""
    program = shutil.which("ssh-steward", path=str(Path(sys.executable).parent)) or shutil.which("ssh-steward")
    words = [program] if program else [sys.executable, "-m", "mcp_ssh"]
    home = os.environ.get("MCP_SSH_HOME")
    env = {"MCP_SSH_HOME": str(Path(home).expanduser().absolute())} if home else {}
    return ServerStart(words[0], (*words[1:], "stdio", *(["--read-only"] if read_only else [])), env)


def _endpoint(url: str, *, read_only: bool) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise usage(f"{url[:80]!r} is not the address of a server", "such as http://127.0.0.1:8754")
    if parts.path not in {"", "/"}:
        if read_only:
            raise usage("the address names an endpoint already", "leave its path or --read-only out")
        return url
    return parts._replace(path="/mcp/readonly" if read_only else "/mcp").geturl()
