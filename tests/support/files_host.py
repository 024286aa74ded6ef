"""A place where the file tools run without SSH: their scripts, by a real shell of this machine."""

import atexit
import functools
import hashlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from mcp_ssh.params import Result
from mcp_ssh.policy import LocalFolders
from mcp_ssh.sessions.session import ANSWER_LIMIT, AnswerTooLong, Limits, Output, Session
from mcp_ssh.shell_command import Command
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import file
from tests.support.doors import DirectCall, caller

NOBODY = 65534
MIB = 1024 * 1024
SHELLS = ("dash", "bash", "busybox")
MODES = ("overwrite", "append", "prepend")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@dataclass
class ShellHost:
    """What a tool needs of a session: `run` and `limits`. The command line is read by a shell, as sshd has it read."""

    shell: str
    home: Path
    path: str
    account: int | None = None
    noise: bytes = b""
    limits: Limits = field(default_factory=lambda: Limits(MIB, 16 * MIB, LocalFolders(Path("/nowhere"))))
    round_trips: int = 0
    caller_id: str = "stdio"
    id: str = field(default_factory=lambda: secrets.token_hex(6))
    has_shell: bool = True

    @property
    def temporary(self) -> Path:
        return self.home.parent / "tmp"

    def argv(self, command: Command) -> list[str]:
        shell = shutil.which("sh", path=self.path)
        assert shell is not None
        return [shell, "-c", command.line()]

    def options(self) -> dict[str, Any]:
        account = {} if self.account is None else {"user": self.account, "group": self.account, "extra_groups": []}
        return {
            "cwd": self.home,
            "env": {"HOME": str(self.home), "PATH": self.path, "TMPDIR": str(self.temporary)},
            **account,
        }

    def run_now(self, command: Command, limit: int = ANSWER_LIMIT) -> Output:
        self.round_trips += 1
        ended = subprocess.run(
            self.argv(command),
            input=command.stdin or b"",
            capture_output=True,
            timeout=60,
            check=False,
            **self.options(),
        )
        if len(ended.stdout) > limit:
            raise AnswerTooLong("the machine answered with more")
        return Output(ended.returncode, self.noise + ended.stdout + self.noise, ended.stderr)

    async def run(
        self, command: Command, *, timeout_s: float = 30.0, limit: int = ANSWER_LIMIT, room: object = None
    ) -> Output:
        with anyio.fail_after(timeout_s):
            return await anyio.to_thread.run_sync(self.run_now, command, limit)

    async def call(self, tool: AnyTool, **arguments: Any) -> Any:
        params = tool.params.model_validate(arguments)
        result: Result = await tool(cast("Session", self), params, DirectCall(caller(), door="rest"))
        return tool.result.model_validate(result.model_dump(mode="json", exclude_unset=True))

    async def list(self, path: str = ".", **more: Any) -> file.FileListResult:
        return await self.call(file.list_folder, path=path, **more)

    async def stat(self, path: str) -> file.FileStatResult:
        return await self.call(file.stat, path=path)

    async def read(self, path: str, **more: Any) -> file.FileReadResult:
        return await self.call(file.read, path=path, **more)

    async def write(self, path: str, content: str, **more: Any) -> file.FileWriteResult:
        return await self.call(file.write, path=path, content=content, **more)

    def names(self, folder: str = ".") -> "list[str]":
        return sorted(path.name for path in (self.home / folder).iterdir())

    def left_over(self) -> "list[str]":
        """Temporary files that a write has left."""
        return [str(path) for folder in (self.home, self.temporary) for path in folder.rglob(".mcp-ssh-*")]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def joined(mode: str, old: bytes, new: bytes) -> bytes:
    return {"overwrite": new, "append": old + new, "prepend": new + old}[mode]


def shadow(host: ShellHost, folder: Path, program: str, text: str) -> None:
    """Put a program of that name before the real one, which is `$REAL`. (BusyBox prefers its own to any.)"""
    (folder / program).write_text(f"#!/bin/sh\nREAL={shutil.which(program)}\n{text}\n")
    (folder / program).chmod(0o755)
    if not host.path.startswith(f"{folder}:"):
        host.path = f"{folder}:{host.path}"


@functools.cache
def programs(shell: str) -> str:
    """A PATH whose `sh` is the shell; BusyBox's has its own programs only."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    folder = Path(tempfile.mkdtemp(prefix=f"mcp-ssh-test-{shell}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    if shell != "busybox":
        (folder / "sh").symlink_to(cast("str", shutil.which(shell)))
        return f"{folder}:/usr/bin:/bin:/usr/sbin:/sbin"
    subprocess.run(["busybox", "--install", "-s", str(folder)], check=True)
    if not (folder / "flock").exists() and (flock := shutil.which("flock")):
        # Debian builds its BusyBox without this one; Alpine and most others have it.
        (folder / "flock").symlink_to(flock)
    return str(folder)


@contextmanager
def home_folder(account: int | None = None, below: str | None = None) -> Iterator[Path]:
    """A home that an ordinary account can reach, and beside it a folder `tmp`."""
    folder = Path(tempfile.mkdtemp(prefix="mcp-ssh-test-", dir=below))
    try:
        folder.chmod(0o755)
        for each in (folder / "home", folder / "tmp"):
            each.mkdir()
            if account is not None:
                os.chown(each, account, account)
        yield folder / "home"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def ordinary() -> int | None:
    """The account tests use to be somebody who may not do everything: root becomes nobody, others stay who they are."""
    return NOBODY if os.geteuid() == 0 else None


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return cast("str", request.param)


@pytest.fixture
def host(shell: str) -> Generator[ShellHost]:
    """This account, with a home of its own."""
    with home_folder() as home:
        yield ShellHost(shell, home, programs(shell))


@pytest.fixture
def user(shell: str) -> Generator[ShellHost]:
    """An account without rights over others."""
    account = ordinary()
    with home_folder(account) as home:
        yield ShellHost(shell, home, programs(shell), account)


@pytest.fixture
def small_disk(host: ShellHost) -> Generator[Path]:
    """A folder in the home with 256 KiB of room."""
    folder = host.home / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("needs the right to mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
