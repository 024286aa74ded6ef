"""A machine as tests reach it: past our own tools by its console and its ssh, and through them by a session."""

import base64
import functools
import hashlib
import itertools
import os
from typing import Any

import anyio
import anyio.to_thread

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.tools import session
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, Way

SOAK = bool(os.environ.get("MCP_SSH_SOAK"))
_numbers = itertools.count(700_000)

_LIST = r"""
for folder in /proc/[0-9]*; do
    line=$(tr '\0' ' ' <"$folder/cmdline") 2>/dev/null || continue
    echo "${folder#/proc/} $line"
done
"""


def number() -> int:
    """A number that no process on any host has in its command line yet."""
    return next(_numbers)


async def processes(host: Host, number: int | str) -> list[str]:
    """The command lines that contain the number or mark, as the machine's console sees them; zombies have none."""
    listed = await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-c", _LIST]))
    return [line for line in listed.stdout.splitlines() if str(number) in line]


async def started(host: Host, number: int) -> None:
    """Wait until a process with the number runs."""
    with anyio.fail_after(10):
        while not await processes(host, number):
            await anyio.sleep(0.02)


async def outside(host: Host, command: str, user: str = "root") -> str:
    """What the system's own ssh gets to hear: the second road."""
    answer = await anyio.to_thread.run_sync(functools.partial(host.ssh, command, user=user))
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


async def trust(app: App, host: Host) -> None:
    """Accept the keys the host was built with."""
    for line in host.public_keys:
        key_type, blob = line.split()[:2]
        digest = base64.b64encode(hashlib.sha256(base64.b64decode(blob)).digest()).decode().rstrip("=")
        await app.hostkeys.accept(host.ip, host.port, key_type, f"{key_type} {blob}", f"SHA256:{digest}")


def login(host: Host, user: str) -> dict[str, object]:
    """Arguments of session_connect for a user of the host, by key."""
    return {"host": host.ip, "port": host.port, "username": user, "key_path": str(host.key_path)}


async def connected(app: App, host: Host, user: str, who: DirectCall) -> str:
    """The id of a session on the host."""
    await trust(app, host)
    return (await dispatch(app, session.connect, login(host, user), who)).session_id


async def opened(way: Way, app: App, host: Host, user: str = "dev") -> dict[str, str]:
    """A session on the host, by a door: the arguments that name it."""
    await trust(app, host)
    return {"session_id": (await way.call(session.connect, login(host, user)))["session_id"]}


async def in_thread(do: Any, *args: Any, **more: Any) -> Any:
    """Call what blocks, and let others run meanwhile."""
    return await anyio.to_thread.run_sync(functools.partial(do, *args, **more))


async def journal(host: Host) -> str:
    """What the machine's log says by now."""
    listed = await anyio.to_thread.run_sync(host.console, ["journalctl", "--no-pager", "--output", "cat"])
    return listed.stdout


async def mark(host: Host) -> str:
    """A mark in the machine's log, after which a test looks."""
    text = f"mark-{number()}"
    await anyio.to_thread.run_sync(host.console, ["logger", text])
    return text
