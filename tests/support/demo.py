"""The demo host as tests reach it: by a login, with its key trusted, or past our code."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import asyncssh

from mcp_ssh.ssh.demo.host import DemoHost


def login(host: DemoHost, **changes: object) -> str:
    """The arguments of a login, as JSON."""
    given = {"host": host.host, "port": host.port, "username": host.username, "password": host.password, **changes}
    return json.dumps({name: value for name, value in given.items() if value is not None})


async def trust(host: DemoHost, home: Path) -> None:
    """Have the host's key in the managed file, as if it had been accepted before."""
    state = home / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    (state / "known_hosts").write_text(f"[{host.host}]:{host.port} {host.public_key}\n")
    (state / "known_hosts").chmod(0o600)


@contextlib.asynccontextmanager
async def connect(host: DemoHost, **changes: object) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """A connection of asyncssh's own."""
    options: dict[str, object] = {
        "username": host.username,
        "password": host.password,
        "known_hosts": ([asyncssh.import_public_key(host.public_key)], [], []),
        "client_keys": None,
        "agent_path": None,
        "config": None,
    } | changes
    with anyio.fail_after(60):
        async with asyncssh.connect(host.host, host.port, **options) as connection:
            yield connection
