"""Try everything on a throw-away SSH host: starts it and the real server, and shows a session."""

import argparse
import contextlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_ssh.cli import event_loop, logging_setup
from mcp_ssh.cli.commands.client_config import start_of_this
from mcp_ssh.cli.commands.serve import TOKEN_VARIABLE, listen
from mcp_ssh.cli.terminal import Printer
from mcp_ssh.cli.values import port
from mcp_ssh.shell_command import quote

if TYPE_CHECKING:
    import anyio.abc

    from mcp_ssh.app import App
    from mcp_ssh.config.models import Config
    from mcp_ssh.ssh.demo.host import DemoHost

INTERRUPTED = (130, 143)
READY_LIMIT_S = 30.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward demo` takes."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, help="TCP port to listen on (default: 8754, or a free one if it is taken)")
    parser.add_argument("--once", action="store_true", help="end after the session instead of serving")


def run(parsed: argparse.Namespace) -> int:
    """Show it, serve until Ctrl-C, and return the exit code: 0 where every step gave the expected result."""
    from mcp_ssh.cli.run_async import run_async

    event_loop.raise_descriptor_limit()
    logging_setup.set_up_command(verbose=parsed.verbose, as_json=parsed.log_json)
    demo = Demo(parsed)
    code = run_async(demo.run)
    # To be stopped is how serving ends.
    return 0 if demo.serves and code in INTERRUPTED else code


class Demo:
    """One run of the demo; `serves` once all it shows was shown."""

    def __init__(self, parsed: argparse.Namespace) -> None:
        self._parsed = parsed
        self._page = Printer()
        self.serves = False

    async def run(self) -> None:
        """Start host and server, show a session, and serve."""
        import anyio

        from mcp_ssh.app import open_app
        from mcp_ssh.cli.commands.demo_session import walk
        from mcp_ssh.ssh.demo.host import demo_host

        async with _home() as (folder, config), demo_host() as host, open_app(folder, self._on_address(config)) as app:
            secret = await _token(app)
            async with anyio.create_task_group() as group:
                with anyio.fail_after(READY_LIMIT_S):
                    url = str(await group.start(self._serve, app))
                self._addresses(host, url, secret)
                try:
                    await walk(self._page, host, f"{url}/mcp", secret)
                    self._ready_to_paste(host, url, secret)
                    if not self._parsed.once:
                        self._page.heading("Serving until Ctrl-C.")
                        self.serves = True
                        await anyio.sleep_forever()
                finally:
                    # A folder that was given stays as it was.
                    with anyio.CancelScope(shield=True), anyio.move_on_after(2):
                        await app.hostkeys.remove(host.host, host.port, host.public_key.split()[0])
                group.cancel_scope.cancel()

    async def _serve(self, app: "App", *, task_status: "anyio.abc.TaskStatus[str]") -> None:
        await listen(app, task_status.started, signals=False)

    def _on_address(self, config: "Config") -> "Config":
        at = _free_port(self._parsed.host, config.server.port) if self._parsed.port is None else self._parsed.port
        server = config.server.model_copy(update={"host": self._parsed.host, "port": at})
        return config.model_copy(update={"server": server})

    def _addresses(self, host: "DemoHost", url: str, secret: str) -> None:
        page = self._page
        page.heading("ssh-steward demo")
        page.text(f"Commands run as you ({host.username}) on this machine, in {host.home}: it is not a sandbox.")
        page.facts(
            [
                ("server", f"{url}   REST, documented at {url}/docs"),
                ("", f"{url}/mcp   MCP"),
                ("token", f"{secret}   admin"),
                ("SSH host", f"{host.host} port {host.port}, account {host.username}, password {host.password}"),
                ("its key", f"{host.public_key.split()[0]} {host.fingerprint}"),
            ]
        )

    def _ready_to_paste(self, host: "DemoHost", url: str, secret: str) -> None:
        login = {"host": host.host, "port": host.port, "username": host.username, "password": host.password}
        self._page.heading("Try it: paste into a shell")
        self._page.code(_curl(f"{url}/session/connect", secret, login))
        self._page.code(_curl(f"{url}/command/exec", secret, {"command": "uname -sr; pwd; ls -l"}))
        self._page.heading("For your MCP client: one of the two")
        self._page.code(json.dumps(client_configuration(url, secret), indent=2))


def _curl(address: str, secret: str, body: dict[str, Any]) -> str:
    words = ["curl", "-sS", "--noproxy", "*", "-H", f"Authorization: Bearer {secret}"]
    return " ".join(
        quote(word) for word in [*words, "-H", "Content-Type: application/json", "-d", json.dumps(body), address]
    )


def client_configuration(url: str, secret: str) -> dict[str, Any]:
    """What MCP clients read from their configuration: our server started by them, or the one that runs."""
    return {
        "mcpServers": {
            "ssh-steward": start_of_this().entry(),
            "ssh-steward-demo": {
                "type": "http",
                "url": f"{url}/mcp",
                "headers": {"Authorization": f"Bearer {secret}"},
            },
        }
    }


@contextlib.asynccontextmanager
async def _home() -> "AsyncGenerator[tuple[Path, Config]]":
    """The folder of config and state: the one that was named, else one that is thrown away."""
    import anyio
    import anyio.to_thread

    from mcp_ssh.config import models as config

    if os.environ.get("MCP_SSH_HOME"):
        yield config.home(), config.load(config.home())
        return
    made = await anyio.to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="mcp-ssh-state-"))
    try:
        yield Path(made), config.Config()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(made, ignore_errors=True))


async def _token(app: "App") -> str:
    """The token of this run, which only this process knows: the environment's, or a random one."""
    import secrets

    secret = os.environ.pop(TOKEN_VARIABLE, None) or f"mcpssh_{secrets.token_urlsafe(32)}"
    await app.store.tokens.preset(secret)
    return secret


def _free_port(host: str, usual: int) -> int:
    """The usual port, or 0 for any where it is taken."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, usual))
        except OSError:
            return 0
    return usual
