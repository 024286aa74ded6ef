"""Serve the tools over HTTP: MCP at /mcp, REST at the documented paths, with /docs."""

import argparse
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mcp_ssh.cli import event_loop, logging_setup
from mcp_ssh.cli.commands.stdio import surface_arguments
from mcp_ssh.cli.terminal import Failure, say, usage
from mcp_ssh.cli.values import port

if TYPE_CHECKING:
    from mcp_ssh.app import App
    from mcp_ssh.config.models import Config
    from mcp_ssh.toolsets import ToolsetSelection
    from rest_bridge.server import Tls

log = logging.getLogger(__name__)

TOKEN_VARIABLE = "MCP_SSH_TOKEN"  # noqa: S105 a name

FIRST_TOKEN_FILE = "first-token"  # noqa: S105 a name
"""Where the first token is, in the folder of the state, if no terminal was there to show it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward serve` takes."""
    parser.add_argument("--host", help="address to listen on (default: server.host of config.json, 127.0.0.1)")
    parser.add_argument("--port", type=port, help="TCP port, 0 for a free one (default: server.port, 8754)")
    surface_arguments(parser)
    parser.add_argument(
        "--behind-proxy", action="store_true", help="a proxy in front does TLS, so any address may be listened on"
    )
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain in PEM, to serve HTTPS")
    parser.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="its private key in PEM, where it is not in the same file"
    )


def run(parsed: argparse.Namespace) -> int:
    """Serve until a signal ends it, and return the exit code."""
    event_loop.begin()
    if parsed.tls_key and not parsed.tls_cert:
        raise usage("--tls-key is nothing without its certificate", "give --tls-cert, too")
    event_loop.run(_serve, parsed)
    return 0


async def _serve(parsed: argparse.Namespace) -> None:
    from mcp_ssh import toolsets as surface
    from mcp_ssh.app import open_app
    from mcp_ssh.config.models import home, load
    from mcp_ssh.tools import REGISTRY
    from rest_bridge.server import Tls

    folder = home()
    config = _with_options(load(folder), parsed)
    logging_setup.set_up(config, verbose=parsed.verbose, as_json=parsed.log_json)
    shown = surface.parse(parsed.toolsets, REGISTRY, read_only=parsed.read_only)
    tls = Tls(parsed.tls_cert, parsed.tls_key) if parsed.tls_cert else None
    async with open_app(folder, config, read_only=parsed.read_only) as app:
        event_loop.freeze_garbage()
        # Among JSON lines the log's own word must do.
        say_where = _unheard if parsed.log_json else _say_where
        # No token is made for a server that cannot listen.
        await listen(app, say_where, shown=shown, tls=tls, on_bound=lambda: let_admin_in(app))


def _say_where(url: str) -> None:
    say(f"ssh-steward serves {url} (MCP at /mcp, documentation at /docs)")


def _unheard(url: str) -> None:
    del url


def _with_options(config: "Config", parsed: argparse.Namespace) -> "Config":
    """The config as the options change it."""
    given = {"host": parsed.host, "port": parsed.port, "behind_proxy": parsed.behind_proxy or None}
    changes = {name: value for name, value in given.items() if value is not None}
    return config.model_copy(update={"server": config.server.model_copy(update=changes)})


async def listen(
    app: "App",
    on_ready: Callable[[str], None],
    *,
    shown: "ToolsetSelection | None" = None,
    tls: "Tls | None" = None,
    on_bound: Callable[[], Awaitable[None]] | None = None,
    signals: bool = True,
) -> None:
    """Serve at the address of the app's config, until a signal or a cancellation.

    Args:
        app: What the calls run on.
        on_ready: Told the server's address once it listens.
        shown: What `/mcp` lists.
        tls: The certificate, to serve HTTPS.
        on_bound: Awaited once the address is ours, before the first request.
        signals: Whether SIGTERM and Ctrl-C end it.
    """
    from mcp_ssh.tools import REGISTRY
    from rest_bridge.families.registry import FAMILIES
    from rest_bridge.server import serve

    await serve(
        app,
        REGISTRY,
        FAMILIES,
        host=app.config.server.host,
        port=app.config.server.port,
        surface=shown,
        tls=tls,
        on_bound=on_bound,
        on_ready=on_ready,
        signals=signals,
    )


async def let_admin_in(app: "App") -> None:
    """See that somebody can call: with the token of the environment, a stored one, or one made now.

    The token is shown on a terminal only: what a service writes to standard error stays in its log for good. Elsewhere
    it is written to a file for this user alone.

    Raises:
        Failure: The file cannot be written; then there is no token either.
    """
    import anyio.to_thread

    from mcp_ssh import atomic_file

    if app.config.server.auth_mode == "none":
        return
    # Taken out of the environment: no program that we start has any business with it.
    preset = os.environ.pop(TOKEN_VARIABLE, None)
    if preset is not None:
        await app.store.tokens.preset(preset)
    elif made := await app.store.tokens.ensure_admin():
        token, secret = made
        if sys.stderr.isatty():
            say(f"ssh-steward: made the token {token.name}, which is shown only now: {secret}")
            return
        path = app.home / FIRST_TOKEN_FILE
        try:
            await anyio.to_thread.run_sync(atomic_file.replace, path, f"{secret}\n".encode())
        except OSError as error:
            await app.store.tokens.revoke(token.id)
            raise Failure(
                f"the first token cannot be written to {path}: {error.strerror}",
                "make that folder writable, start on a terminal, or set MCP_SSH_TOKEN",
            ) from error
        log.warning(
            "made the token %s; it is in %s, for this user alone: keep it and remove the file", token.name, path
        )
