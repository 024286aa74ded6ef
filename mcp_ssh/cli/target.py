"""Which machine a word on the command line means, and a session on it."""

import argparse
import contextlib
import re
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from mcp_ssh.cli.terminal import Failure, ask, has_person, usage
from mcp_ssh.cli.values import machine_port

if TYPE_CHECKING:
    from mcp_ssh.app import App
    from mcp_ssh.cli.local_call import TerminalCall

HELP = "a saved connection, an alias of ~/.ssh/config, or [user@]host[:port]"
SUDO_HELP = "as root, by sudo; its password is asked for at the terminal where it needs one"
PASSWORD = {"password": {"type": "string", "title": "password"}}

_ADDRESS = re.compile(r"(?:(?P<user>[^@\s]+)@)?(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]@\s,/]+))(?::(?P<port>\d{1,5}))?")


def login_arguments(parser: argparse.ArgumentParser, *key_options: str) -> None:
    """Add what a command takes that logs in to a machine by itself; `key_options` name the key beside -k and --key."""
    parser.add_argument("-l", "--login", metavar="USER", help="account to log in as")
    parser.add_argument("-p", "--port", type=machine_port, metavar="PORT", help="TCP port of the SSH server")
    parser.add_argument("-k", *key_options, "--key", metavar="FILE", help="private key to log in with")
    parser.add_argument("--ask-password", action="store_true", help="ask for the password at the terminal")


async def connect_arguments(app: "App", call: "TerminalCall", parsed: argparse.Namespace, word: str) -> dict[str, Any]:
    """What `session_connect` takes to reach the machine that is meant.

    A saved connection or alias is used as it was saved; options of the command line come first.

    Raises:
        Failure: The word cannot be a machine, or a password is to be asked for and nobody is there.
    """
    for resolve in app.resolvers:
        if (known := await resolve(call.caller, word)) is not None:
            return {**known, **await _options(parsed, word)}
    import anyio.to_thread

    address = _ADDRESS.fullmatch(word)
    if address is None:
        raise usage(f"{word[:80]!r} is not a machine", f"give {HELP}")
    if address["port"] is not None:
        _expect_port(address["port"], word)
    given = {"host": address["v6"] or address["host"], "username": address["user"], "port": address["port"]}
    found = {name: value for name, value in given.items() if value is not None} | await _options(parsed, word)
    if "username" not in found and not app.config.auth.default_username:
        found["username"] = await anyio.to_thread.run_sync(_usual_account, found["host"])
    return found


def _expect_port(text: str, word: str) -> None:
    try:
        machine_port(text)
    except argparse.ArgumentTypeError as error:
        raise usage(f"{word[:80]!r} is not a machine: {error}", f"give {HELP}") from error


def _usual_account(host: str) -> str:
    """The account ssh would log in as."""
    from mcp_ssh.ssh.openssh_config.resolve import local_user, settings

    return settings(host).username or local_user()


async def _options(parsed: argparse.Namespace, word: str) -> dict[str, Any]:
    given = {"username": parsed.login, "port": parsed.port, "key_path": parsed.key}
    options = {name: value for name, value in given.items() if value is not None}
    if parsed.ask_password:
        options["password"] = await _password(word)
    return options


async def _password(word: str) -> str:
    answer = await ask(f"Login to {word}", PASSWORD) if has_person() else None
    if answer is None:
        raise Failure("there is nobody to ask for the password", "run it on a terminal, or save it with connection_add")
    return str(answer["password"])


@contextlib.asynccontextmanager
async def session_on(
    parsed: argparse.Namespace, word: str, call: "TerminalCall | None" = None
) -> "AsyncGenerator[tuple[App, TerminalCall, str]]":
    """A session on the machine that is meant, closed at the end: the app, the call, and the session's id.

    Args:
        parsed: The command line, with the options of `login_arguments`.
        word: The machine.
        call: Whose call it is, where it is not a plain one of the command line.

    Raises:
        ToolError: The machine cannot be reached or does not let us in.
        Failure: Its host key is unknown, with the command that trusts it.
    """
    from mcp_ssh.cli.local_call import TerminalCall, connect, how_to_trust, local_app
    from mcp_ssh.errors import HostKeyUnconfirmed

    call = call or TerminalCall()
    async with local_app() as app:
        try:
            arguments = await connect_arguments(app, call, parsed, word)
            session_id = await connect(app, arguments, call)
        except HostKeyUnconfirmed as refusal:
            raise how_to_trust(refusal) from refusal
        yield app, call, session_id
