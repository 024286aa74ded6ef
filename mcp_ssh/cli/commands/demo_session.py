"""The session that the demo shows: what a newcomer meets, through the MCP client, each answer checked."""

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mcp_ssh.cli import mcp_client
from mcp_ssh.cli.local_call import KEY_FIELDS
from mcp_ssh.cli.terminal import Failure, Printer, visible

if TYPE_CHECKING:
    from mcp import Client

    from mcp_ssh.ssh.demo.host import DemoHost

FILE = "notes.txt"
TEXT = "Written through MCP.\n"
COMMAND = 'echo "hello from $(uname -s), in $PWD"'
SHOWN_CHARS = 100

Body = dict[str, Any]


async def walk(page: Printer, host: "DemoHost", address: str, token: str) -> None:
    """Show the session.

    Raises:
        Failure: A call got another answer than it must.
    """
    login = {"host": host.host, "port": host.port, "username": host.username, "password": host.password}
    page.heading("A session, through the MCP client")
    async with mcp_client.connect_client(address, token) as client:
        shown = _Shown(page, client)
        refused = await shown.call(
            "Log in to a machine nobody has met yet:",
            "session_connect",
            login,
            lambda ok, body: not ok and _fingerprint(body) == host.fingerprint,
        )
        key = refused["details"]["host_key"]
        await shown.call(
            "The fingerprint is the one above, so it is the right machine. Trust its key:",
            "hostkey_accept",
            {name: key[name] for name in KEY_FIELDS} | {"confirm": True},
            lambda ok, body: ok and body["ok"] is True,
        )
        opened = await shown.call(
            "Again:", "session_connect", login, lambda ok, body: ok and body["status"] == "connected"
        )
        session = {"session_id": opened["session_id"]}
        await shown.call(
            "Run a command:",
            "command_exec",
            {**session, "command": COMMAND},
            lambda ok, body: ok and body["exit_code"] == 0 and body["stdout"].endswith(f", in {host.home}\n"),
        )
        await shown.call(
            "Write a file:",
            "file_write",
            {**session, "path": FILE, "content": TEXT},
            lambda ok, body: ok and body["size_bytes"] == len(TEXT) and (host.home / FILE).read_text() == TEXT,
        )
        await shown.call(
            "Read it back:",
            "file_read",
            {**session, "path": FILE},
            lambda ok, body: ok and body["content"] == TEXT,
        )


def _fingerprint(refusal: Body) -> str:
    """The fingerprint in a refusal of an unknown host key; nothing in any other."""
    if refusal.get("code") != "host_key_unconfirmed":
        return ""
    return str(refusal["details"]["host_key"]["fingerprint_sha256"])


class _Shown:
    """Calls that are printed with their answers."""

    def __init__(self, page: Printer, client: "Client") -> None:
        self._page = page
        self._client = client

    async def call(
        self, why: str, tool: str, arguments: Mapping[str, Any], is_right: Callable[[bool, Body], bool]
    ) -> Body:
        """Make a call, print it, and return its answer.

        Raises:
            Failure: The answer is not the right one.
        """
        self._page.text(why)
        self._page.put(f"  > {tool}  {_line(arguments)}", "bold cyan")
        reply = await mcp_client.call(self._client, tool, arguments)
        if reply.ok:
            said = {name: value for name, value in reply.body.items() if arguments.get(name) != value}
            self._page.put(f"  < {_line(said)}", "green")
        else:
            self._page.put(f"  < {reply.body['code']}: {visible(reply.body['message'])}", "yellow")
            if hint := reply.body.get("hint"):
                self._page.put(f"    {visible(hint)}", "dim")
        if not is_right(reply.ok, reply.body):
            raise Failure(f"{tool} gave another answer than it must", "this is a mistake of this program: report it")
        return reply.body


def _line(values: Mapping[str, Any]) -> str:
    """Names and values in a line; long values cut, passwords left out."""
    return "  ".join(f"{name}={_value(name, value)}" for name, value in values.items() if value is not None)


def _value(name: str, value: object) -> str:
    if name == "password":
        return "…"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}…"
