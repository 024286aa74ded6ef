"""Local paths that a caller names and that lead to a device, a FIFO, a folder or a file without an end."""

import base64
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import asyncssh
import pytest
from pydantic import SecretStr

from mcp_ssh.errors import InvalidInput
from mcp_ssh.ssh.auth import private_keys
from tests.support.bystander import bystander
from tests.support.servers import serve, stdio

pytestmark = pytest.mark.requirement("fault.S10.files")

ENDS_S = 20


def _socket(path: Path) -> None:
    here = socket.socket(socket.AF_UNIX)
    here.bind(str(path))
    here.close()


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1024**4)


MAKERS: dict[str, Callable[[Path], object]] = {
    "missing": str,
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "terminal": lambda path: path.symlink_to("/dev/tty"),
    "socket": _socket,
    "huge": _huge,
    "loop": lambda path: path.symlink_to(path),
    "text": lambda path: path.write_text("root:x:0:0:root:/root:/bin/sh\n"),
    "public": lambda path: path.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_public_key()),
}


async def test_every_path_without_a_private_key_is_refused_at_once_in_the_same_words(tmp_path: Path) -> None:
    said = set[str]()
    async with bystander():
        for name, make in MAKERS.items():
            make(tmp_path / name)
            with anyio.fail_after(10), pytest.raises(InvalidInput) as caught:
                await private_keys.from_path(str(tmp_path / name), SecretStr("secret"))
            said.add(json.dumps(caught.value.payload()))
    assert len(said) == 1, said
    assert str(tmp_path) not in said.pop()


async def test_special_files_beside_a_key_are_passed_over(tmp_path: Path) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    (tmp_path / "id").write_bytes(key.export_private_key())
    (tmp_path / "closed").write_bytes(key.export_private_key(passphrase="secret", rounds=77))
    for name in ("id-cert.pub", "closed-cert.pub", "closed.pub", "more-cert.pub"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "zero").symlink_to("/dev/zero")
    with anyio.fail_after(10):
        async with bystander():
            offered = await private_keys.with_certificate(str(tmp_path / "id"), key)
            found = await private_keys.identities(
                [tmp_path / "closed", tmp_path / "zero"], [tmp_path / "more-cert.pub"], None
            )
    assert offered is key
    assert found.keys == ()


async def test_a_key_that_demands_endless_work_is_refused_before_it_begins() -> None:
    plain = asyncssh.generate_private_key("ssh-ed25519").export_private_key(passphrase="secret", rounds=77).decode()
    body = base64.b64decode("".join(plain.splitlines()[1:-1]))
    assert body.count(b"\0\0\0\x4d") == 1
    endless = body.replace(b"\0\0\0\x4d", (2**31).to_bytes(4, "big"))
    text = base64.b64encode(endless).decode()
    key = f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n"
    with anyio.fail_after(10):
        async with bystander():
            with pytest.raises(InvalidInput, match="too long to decrypt"):
                await private_keys.from_content(SecretStr(key), SecretStr("secret"))
    # The harmless neighbours, in every form.
    for form in ("openssh", "pkcs8-pem", "pkcs8-der", "pkcs1-pem"):
        kind = "ecdsa-sha2-nistp256" if form.startswith("pkcs") else "ssh-ed25519"
        own = asyncssh.generate_private_key(kind)
        data = own.export_private_key(form, passphrase="secret")
        content = base64.b64encode(data).decode()
        read = await private_keys.from_content(SecretStr(content), SecretStr("secret"))
        assert read.public_data == own.public_data


async def test_the_server_ends_although_a_fifo_was_named_as_a_key(tmp_path: Path, mcp_home: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "zero").symlink_to("/dev/zero")
    async with serve(mcp_home) as server:
        with anyio.fail_after(30):
            for name in ("fifo", "zero"):
                asked = {"host": "127.0.0.1", "port": 1, "username": "x", "key_path": str(tmp_path / name)}
                answer = await server.client.post("/session/connect", json=asked)
                assert answer.status_code == 400, answer.text
                assert "key_path" in answer.text
                asked |= {"name": name}
                saved = await server.client.post("/session/connect", json=asked | {"timeout": 1})
                assert saved.status_code == 400
        server.process.terminate()
        assert await anyio.to_thread.run_sync(lambda: server.process.wait(ENDS_S)) == 0


async def test_saving_a_connection_reads_no_special_file(tmp_path: Path, mcp_home: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    async with stdio(mcp_home, "--toolsets", "all") as server:
        with anyio.fail_after(30):
            asked = {"name": "m", "host": "127.0.0.1", "username": "x", "key_path": str(tmp_path / "fifo")}
            result = await server.answer(
                await server.send("tools/call", {"name": "connection_add", "arguments": asked})
            )
    assert result["isError"]
    assert "key_path" in result["content"][0]["text"]


STUCK = """
import anyio, anyio.to_thread, os, sys
from mcp_ssh.ssh.local_read import in_abandonable_thread

reading, _writing = os.pipe()

async def main():
    waits = in_abandonable_thread if sys.argv[1] == "ours" else lambda work: anyio.to_thread.run_sync(
        work, abandon_on_cancel=True)
    with anyio.move_on_after(0.1) as scope:
        await waits(lambda: os.read(reading, 1))
    assert scope.cancelled_caught
    if sys.argv[1] == "ours":
        for _ in range(15):
            with anyio.move_on_after(0.01):
                await in_abandonable_thread(lambda: os.read(reading, 1))
        try:
            await in_abandonable_thread(lambda: None)
        except OSError:
            print("bounded", flush=True)
    print("left", flush=True)

anyio.run(main)
"""


def test_a_file_system_that_never_answers_keeps_no_process_and_no_unbounded_number_of_threads() -> None:
    argv = [sys.executable, "-c", STUCK]
    done = subprocess.run([*argv, "ours"], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "bounded\nleft\n"), done.stderr
    # The negative control: an ordinary worker thread keeps the process.
    with subprocess.Popen([*argv, "anyio"], stdout=subprocess.PIPE, text=True) as kept:
        assert kept.stdout is not None
        assert kept.stdout.readline() == "left\n"
        with pytest.raises(subprocess.TimeoutExpired):
            kept.wait(1)
        kept.kill()
