"""One more sshd on a machine, with limits of its own."""

import contextlib
import functools
from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.to_thread

from mcp_ssh.app import App
from tests.fleet.hosts import Host
from tests.support.machine import login, trust

PORT = 2299


@contextlib.asynccontextmanager
async def more_sshd(host: Host, app: App, most: int) -> AsyncGenerator[dict[str, Any]]:
    """One more sshd on the machine, that gives so many channels a connection; the arguments to connect to it."""
    pid_file = "/run/sshd_few.pid"
    options = [f"-oMaxSessions={most}", f"-oPidFile={pid_file}", f"-oPort={PORT}"]
    in_thread = functools.partial(anyio.to_thread.run_sync)
    started = await in_thread(functools.partial(host.console, ["/usr/sbin/sshd", *options]))
    assert started.returncode == 0, started.stderr
    await _listens(host.ip)
    await trust(app, host)
    for line in host.public_keys:
        key_type, blob = line.split()[:2]
        offered = [each for each in await app.hostkeys.scan(host.ip, PORT, 10) if each.key_type == key_type]
        assert offered[0].key_base64 == blob
        await app.hostkeys.accept(host.ip, PORT, key_type, line, offered[0].fingerprint_sha256)
    try:
        yield {**login(host, "dev"), "port": PORT}
    finally:
        await in_thread(functools.partial(host.console, ["sh", "-c", f"kill $(cat {pid_file})"]))


async def _listens(address: str) -> None:
    """Wait for sshd, which goes into the background before it listens."""
    with anyio.fail_after(10):
        while True:
            with contextlib.suppress(OSError):
                await (await anyio.connect_tcp(address, PORT)).aclose()
                return
            await anyio.sleep(0.02)
