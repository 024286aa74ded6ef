"""Make, list and revoke the tokens that open the server over HTTP."""

import argparse
from typing import TYPE_CHECKING

from mcp_ssh.cli import logging_setup
from mcp_ssh.cli.terminal import Parser, print_json, print_table, say

if TYPE_CHECKING:
    from mcp_ssh.store import Store, TokenInfo


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward token` takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    add = actions.add_parser("add", help="make a token; it is printed once and cannot be shown again")
    add.add_argument("name", metavar="NAME", help="what to call it, such as the program or person it is for")
    add.add_argument(
        "--role",
        choices=["viewer", "operator", "admin"],
        default="operator",
        help="viewer reads, operator changes machines, admin also manages this server (default: operator)",
    )
    add.add_argument(
        "--host",
        action="append",
        metavar="PATTERN",
        help="only for machines whose name fits, such as '*.example.org'; again for more, '!PATTERN' for exceptions;"
        " such a token is at most an operator",
    )
    listing = actions.add_parser("list", help="names, roles, machines and last use of all tokens")
    listing.add_argument("--json", action="store_true", help="as JSON")
    revoke = actions.add_parser("revoke", help="make a token worthless, at once and in every running server")
    revoke.add_argument("name", metavar="NAME", help="its name or id")


def run(parsed: argparse.Namespace) -> int:
    """Do it, and return the exit code."""
    import anyio

    logging_setup.set_up_command(verbose=parsed.verbose, as_json=parsed.log_json)
    anyio.run(_on_store, parsed)
    return 0


async def _on_store(parsed: argparse.Namespace) -> None:
    import anyio

    from mcp_ssh.config.models import home
    from mcp_ssh.store import Store

    store = await Store.open(home())
    try:
        await {"add": _add, "list": _list, "revoke": _revoke}[parsed.action](store, parsed)
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()


async def _add(store: "Store", parsed: argparse.Namespace) -> None:
    from mcp_ssh.tool import Role

    token, secret = await store.tokens.create(parsed.name, Role[parsed.role.upper()], parsed.host)
    held = _effective_role(token)
    role = held if held == parsed.role else f"{held}, as it is bound to hosts"
    say(f"token {token.name} ({role}); this is the only time it is shown:")
    print(secret, flush=True)


async def _list(store: "Store", parsed: argparse.Namespace) -> None:
    tokens = await store.tokens.list()
    if parsed.json:
        print_json([_token_fields(each) for each in tokens])
    elif tokens:
        rows = [
            [each.id, each.name, _effective_role(each), each.created_at, each.last_used_at or "never", _hosts(each)]
            for each in tokens
        ]
        print_table(["id", "name", "role", "made", "last used", "machines"], rows)
    else:
        say("there are no tokens; `ssh-steward serve` makes one named admin, `ssh-steward token add NAME` any other")


def _effective_role(token: "TokenInfo") -> str:
    """The role that its holder has: one that is bound to hosts has less than was asked for."""
    from mcp_ssh.tool import Caller

    return Caller(token.id, token.role, hosts=token.hosts).role.name.lower()


def _hosts(token: "TokenInfo") -> str:
    return "all" if token.hosts is None else " ".join(token.hosts)


def _token_fields(token: "TokenInfo") -> dict[str, object]:
    return {
        "id": token.id,
        "name": token.name,
        "role": _effective_role(token),
        "created_at": token.created_at,
        "last_used_at": token.last_used_at,
        "hosts": token.hosts,
    }


async def _revoke(store: "Store", parsed: argparse.Namespace) -> None:
    token = await store.tokens.revoke(parsed.name)
    say(f"token {token.name} is revoked")
