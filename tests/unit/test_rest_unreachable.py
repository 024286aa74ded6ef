"""What REST says of a machine that refuses the connection, and of one that does not answer."""

import socket
from pathlib import Path

import pytest

from mcp_ssh.tools import REGISTRY
from rest_bridge.families.registry import FAMILIES
from tests.support.rest_kit import rest_server

pytestmark = pytest.mark.requirement("fault.N9")
LOOPBACK = "127.0.0.1"


async def status(home: Path, path: str, port: int, limit_s: float) -> tuple[int, str]:
    login = {"host": LOOPBACK, "port": port, "username": "u", "password": "p", "timeout": limit_s, "retries": 1}
    async with rest_server(home, REGISTRY, FAMILIES) as rest, rest.client() as client:
        if path == "/session/connect":
            answer = await client.post(path, json=login)
        else:
            answer = await client.get(path, params={"host": LOOPBACK, "port": port, "timeout": limit_s})
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("path", ["/session/connect", "/api/remote/known-hosts/scan"])
async def test_a_machine_that_refuses_is_502_and_one_that_is_silent_504(tmp_path: Path, path: str) -> None:
    with socket.socket() as machine:
        machine.bind((LOOPBACK, 0))
        port = machine.getsockname()[1]
        assert await status(tmp_path / "refuses", path, port, 20) == (502, "connect_failed")
        machine.listen()  # the kernel takes connections, and nobody speaks on them
        assert await status(tmp_path / "silent", path, port, 1) == (504, "timed_out")
