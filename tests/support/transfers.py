"""What the tests of transfers share: a session, a folder on each side, and second opinions on both."""

import functools
import hashlib
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import session
from tests.fleet.hosts import Host
from tests.support.doors import Fault, Way
from tests.support.machine import SOAK, login, outside, trust

SUMS = "find . -type f -exec sh -c 'for f; do sha256sum < \"$f\"; done' sh {} + | LC_ALL=C sort | sha256sum"
CONTENT = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 cat | sha256sum"
FOLDER = "/home/dev/of transfers"
BIG = (1024 if SOAK else 64) * 1024 * 1024
NAMES = [
    b"a b",
    b"qu'o\"te",
    b"new\nline",
    b"back\\slash",
    b"$(id)",
    b"-rf",
    b"*",
    b"\xff\xfe",
    b"\xc5\xa1",
    b"n" * 180,
]
FACTS = r"find . \( -type d -o -exec stat -c '%n %a %s' {} \; \) | LC_ALL=C sort | sha256sum"


class On:
    """A session of dev's through a door, with an empty folder on the machine."""

    def __init__(self, way: Way, host: Host, session_id: str) -> None:
        self.way, self.host, self.session_id = way, host, session_id

    async def call(self, tool: AnyTool, **more: Any) -> dict[str, Any]:
        return await self.way.call(tool, {"session_id": self.session_id, **more})

    async def outside(self, command: str, user: str = "dev") -> str:
        return await outside(self.host, f"cd {shlex.quote(FOLDER)} && {command}", user)

    async def sha256(self, name: str) -> str:
        return (await self.outside(f"sha256sum < {shlex.quote(name)}")).split()[0]


async def opened(way: Way, app: App, host: Host) -> On:
    await trust(app, host)
    await emptied(host)
    return On(way, host, (await way.call(session.connect, login(host, "dev")))["session_id"])


async def emptied(host: Host) -> None:
    quoted = shlex.quote(FOLDER)
    made = f"chmod -R u+rwx {quoted} 2>/dev/null; rm -rf {quoted} /srv/small/* /srv/small/.m*; mkdir {quoted}"
    await outside(host, f"{made}; chown dev {quoted}")


async def refused(code: str, status: int, call: Any) -> Fault:
    """The error that the call must end with."""
    with pytest.raises(Fault) as caught:
        await call
    assert caught.value.code == code, caught.value.payload
    assert caught.value.status in {None, status}
    return caught.value


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def facts(folder: Path, command: str) -> str:
    """What a shell command says of a folder here."""
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, check=True)
    return done.stdout.decode("utf-8", "surrogateescape")


def noise(path: Path, size: int) -> Path:
    """A file of random bytes."""
    with path.open("wb") as file:
        for start in range(0, size, 1024 * 1024):
            file.write(os.urandom(min(1024 * 1024, size - start)))
    return path


async def big(path: Path) -> Path:
    return await anyio.to_thread.run_sync(functools.partial(noise, path, BIG))


def planted(folder: Path) -> int:
    """A folder with hard names, links, an empty file, an empty folder and a deep path; returns the count of files."""
    deep = Path(os.fsdecode(os.fsencode(folder) + b"/deep \xff/" + b"d" * 120 + b"/e"))
    deep.mkdir(parents=True)
    (folder / "empty").mkdir()
    for number, name in enumerate(NAMES):
        for below in (folder, deep):
            path = below / os.fsdecode(name)
            path.write_bytes(os.urandom(number * 700))
            path.chmod(0o600 + number)
    (folder / "link").symlink_to("../gone")
    (folder / "absolute").symlink_to("/etc/passwd")
    return 2 * len(NAMES) + 2
