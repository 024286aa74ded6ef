"""Call one tool, and print its result as JSON."""

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mcp_ssh.cli import logging_setup
from mcp_ssh.cli.local_call import TerminalCall, how_to_trust, local_app
from mcp_ssh.cli.local_call import connect as open_session
from mcp_ssh.cli.terminal import (
    Failure,
    ask,
    end_progress,
    has_person,
    parse_object,
    print_json,
    say,
    show_progress,
    usage,
    with_said,
)

if TYPE_CHECKING:
    from mcp import types

    from mcp_ssh.cli.mcp_client import Reply

TOOL_EXAMPLE = '{"command": "uptime"}'
CONNECT_EXAMPLE = '{"host": "192.0.2.7", "username": "admin", "key_path": "~/.ssh/id_ed25519"}'


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward call` takes."""
    parser.add_argument("tool", metavar="TOOL", help="name of the tool; `ssh-steward tools` lists them")
    parser.add_argument(
        "json",
        metavar="JSON",
        nargs="?",
        default="{}",
        help=f"its arguments, such as '{TOOL_EXAMPLE}'; - reads them from standard input,"
        " so that no process list shows a password",
    )
    parser.add_argument(
        "--connect", metavar="JSON", help="open a session first, with these arguments of session_connect, or - as above"
    )
    parser.add_argument("--url", metavar="URL", help="call the server that runs there, with the token in MCP_SSH_TOKEN")


def run(parsed: argparse.Namespace) -> int:
    """Call, print, and return the exit code."""
    logging_setup.set_up_command(verbose=parsed.verbose, as_json=parsed.log_json)
    if parsed.json == "-" == parsed.connect:
        raise usage("standard input can be read only once", "give one of the two as an argument")
    given = parse_object(parsed.json, "what was given as JSON", TOOL_EXAMPLE)
    connect = (
        None if parsed.connect is None else parse_object(parsed.connect, "what was given to --connect", CONNECT_EXAMPLE)
    )
    from mcp_ssh.cli.run_async import run_async

    try:
        if parsed.url is None:
            return run_async(_here, parsed.tool, given, connect)
        return run_async(_there, parsed.url, parsed.tool, given, connect)
    finally:
        end_progress()


async def _here(name: str, given: Mapping[str, Any], connect: Mapping[str, Any] | None) -> None:
    """Call the tool in this process, as the owner of the machine it runs on."""
    from mcp_ssh.dispatch import dispatch
    from mcp_ssh.errors import HostKeyUnconfirmed
    from mcp_ssh.sessions.session import Session
    from mcp_ssh.tools import REGISTRY
    from mcp_ssh.toolsets import lookup

    tool = lookup(REGISTRY, name)
    if connect is None and tool.where is Session and given.get("session_id") is None:
        raise Failure(
            f"{name} runs on a machine",
            "name a saved connection as session_id, give --connect JSON to log in first, or the --url of a server",
        )
    call = TerminalCall()
    async with local_app() as app:
        try:
            if connect is not None:
                await open_session(app, connect, call)
            result = (await dispatch(app, tool, given, call)).model_dump(mode="json", exclude_unset=True)
        except HostKeyUnconfirmed as refusal:
            raise how_to_trust(refusal) from refusal
    _print(result, lost_blobs=True)


async def _there(url: str, name: str, given: Mapping[str, Any], connect: Mapping[str, Any] | None) -> None:
    """Call the tool of a running server, over MCP."""
    from mcp_ssh.cli import mcp_client

    address = mcp_client.endpoint(url)
    async with mcp_client.connect_client(
        address, os.environ.get("MCP_SSH_TOKEN"), _answer_elicitation if has_person() else None
    ) as client:
        if connect is None:
            body = _body(await mcp_client.call(client, name, given, show_progress))
        else:
            session_id = _body(await mcp_client.call(client, "session_connect", connect))["session_id"]
            try:
                body = _body(await mcp_client.call(client, name, _on(session_id, name, given), show_progress))
            finally:
                # The server would keep it for half an hour, and this caller has no more use for it.
                await mcp_client.call_in_the_end(client, "session_disconnect", {"session_id": session_id})
    _print(body)


def _on(session_id: str, name: str, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments with the session just opened: the server's default is the caller's first, maybe another machine."""
    from mcp_ssh.tools import REGISTRY

    tool = REGISTRY.get(name)
    takes_session = tool is not None and "session_id" in tool.params.model_fields
    return {**given, "session_id": given.get("session_id") or session_id} if takes_session else given


async def _answer_elicitation(context: object, params: "types.ElicitRequestParams") -> "types.ElicitResult":
    from mcp import types

    del context
    if not isinstance(params, types.ElicitRequestFormParams):
        return types.ElicitResult(action="decline")
    answer = await ask(params.message, params.requested_schema.get("properties", {}))
    return (
        types.ElicitResult(action="cancel") if answer is None else types.ElicitResult(action="accept", content=answer)
    )


def _body(reply: "Reply") -> dict[str, Any]:
    if reply.ok:
        return reply.body
    raise Failure(with_said(str(reply.body["message"]), reply.body.get("details") or {}), reply.body.get("hint"))


def _print(result: dict[str, Any], *, lost_blobs: bool = False) -> None:
    end_progress()
    if lost_blobs and result.get("truncated"):
        say("ssh-steward: output was cut, and blobs end with this process (redirect it on the machine, or use --url)")
    print_json(result)
