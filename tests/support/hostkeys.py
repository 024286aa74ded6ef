"""Host keys that tests made, and SSH servers in this process that show them."""

import base64
import random
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncssh
import pytest

from mcp_ssh.ssh.hostkeys import known_hosts
from mcp_ssh.ssh.hostkeys.known_hosts import key_blob
from mcp_ssh.ssh.hostkeys.store import HostKeys

needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen on this machine")

LOOPBACK = "127.0.0.1"
TYPE = "ssh-ed25519"
KEY, OTHER, CA = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(3))
ECDSA = asyncssh.generate_private_key("ecdsa-sha2-nistp256")


def text(key: asyncssh.SSHKey) -> str:
    """The public half, as a line of a known_hosts file has it."""
    return key.export_public_key().decode().strip()


class Open(asyncssh.SSHServer):
    """Everybody is let in."""

    def begin_auth(self, _username: str) -> bool:
        return False


@asynccontextmanager
async def machine(*keys: Any) -> AsyncGenerator[int]:
    """A server with these keys; gives its port."""

    def end(process: asyncssh.SSHServerProcess[str]) -> None:
        process.exit(0)

    server = await asyncssh.listen(LOOPBACK, 0, server_factory=Open, server_host_keys=[*keys], process_factory=end)
    try:
        yield server.get_port()
    finally:
        server.close()
        await server.wait_closed()


def made_key(seed: int) -> str:
    """A valid ed25519 public key line, the same one for the same seed."""
    private = random.Random(seed).randbytes(32)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    raw = Ed25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
    blob = b"\0\0\0\x0bssh-ed25519" + b"\0\0\0\x20" + raw
    return f"ssh-ed25519 {base64.b64encode(blob).decode()}"


KEYS = [made_key(seed) for seed in range(4)]


def print_of(key: str) -> str:
    blob = key_blob(*key.split()[:2])
    assert blob
    return known_hosts.fingerprint(blob)


async def accept(host_keys: HostKeys, host: str, port: int, key: str) -> bool:
    return await host_keys.accept(host, port, TYPE, key, print_of(key))
