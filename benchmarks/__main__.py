"""`make bench`: run a command on the fleet's Debian host in several ways, interleaved, and print the ratios.

The reference is `asyncssh`'s own `run` on a connection of its own; goals come with the warm path, a later step.
"""

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncssh
import httpx2

from mcp_ssh.app import open_app
from mcp_ssh.config import Config, SecurityConfig
from mcp_ssh.server import build_server
from mcp_ssh.surface import parse
from mcp_ssh.tool import Role
from mcp_ssh.tools import REGISTRY, command, session
from rest_bridge.app import build
from rest_bridge.routes.tables import FAMILIES
from tests.doors import Direct, caller
from tests.fleet.build import ensure
from tests.fleet.hosts import running_fleet
from tests.fleet.namespaces import enter_own_network, reap

ROUNDS, BATCH = 12, 15
TEXT = "true"

Step = Callable[[], Awaitable[object]]


async def timed(step: Step) -> float:
    """Median milliseconds of one batch."""
    times: list[float] = []
    for _ in range(BATCH):
        began = time.perf_counter()
        await step()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


async def compare(steps: dict[str, Step], reference: str) -> None:
    """Run all steps in turns and print each one's median, and its median ratio to the reference of the same round."""
    seen: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            seen[name].append(await timed(step))
    print(f"{'way':<28}{'median ms':>12}{'ratio':>8}")
    for name, values in seen.items():
        ratios = [value / base for value, base in zip(values, seen[reference], strict=True)]
        print(f"{name:<28}{statistics.median(values):>12.2f}{statistics.median(ratios):>8.2f}")


async def exec_latency(host: str, key: Path) -> None:
    """One short command on an open connection."""
    from mcp import Client

    bare = await asyncssh.connect(
        host, username="dev", client_keys=[str(key)], known_hosts=None, config=None, agent_path=None
    )
    config = Config(security=SecurityConfig(host_keys="accept-new"))
    async with bare, open_app(Path(tempfile.mkdtemp()) / "state", config) as app:
        direct = Direct(app)
        login = {"host": host, "username": "dev", "key_path": str(key)}
        session_id = (await direct.call(session.connect, login))["session_id"]
        arguments = {"command": TEXT, "session_id": session_id}
        server = build_server(app, REGISTRY, parse("all"), caller=caller())
        http = build(app, REGISTRY, FAMILIES)
        _, secret = await app.store.tokens.create("bench", Role.ADMIN)
        headers = {"authorization": f"Bearer {secret}"}
        transport = httpx2.ASGITransport(app=http)
        address = f"/command/exec?session_id={session_id}"
        async with (
            http.router.lifespan_context(http),
            httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers) as rest,
            Client(server) as mcp,
        ):
            steps: dict[str, Step] = {
                "bare asyncssh run": lambda: bare.run(TEXT),
                "dispatch": lambda: direct.call(command.exec_, arguments),
                "MCP, in memory": lambda: mcp.call_tool("command_exec", arguments),
                "REST, in memory": lambda: rest.post(address, json={"command": TEXT}),
            }
            await compare(steps, "bare asyncssh run")


def main() -> None:
    """Start the fleet and measure."""
    cache = ensure(print)
    reap()
    enter_own_network()
    with running_fleet(cache) as fleet:
        asyncio.run(exec_latency(fleet.deb.ip, fleet.deb.key_path))


if __name__ == "__main__":
    main()
