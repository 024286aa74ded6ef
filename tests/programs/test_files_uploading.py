"""Uploads of one file at the same time: what is put in place is whole."""

import hashlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from mcp_ssh.errors import ToolError
from mcp_ssh.linux.files.transfer import Raced, ask_receive
from mcp_ssh.linux.framing import PathQuery
from tests.support.files_host import MIB, ShellHost, host, shadow, shell, user

__all__ = ["host", "shell", "user"]

SIZE = 40 * MIB


class Upload:
    """One upload, as a process that waits for its bytes."""

    def __init__(self, host: ShellHost, sha256: str) -> None:
        path = str(host.home / "f")
        self.asked: PathQuery = ask_receive(path, SIZE, "source", permissions=None, usual=0o644, sha256=sha256)
        command = host.argv(self.asked.command)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **host.options()
        )

    def first_answer(self) -> int:
        assert self.process.stdout is not None
        said = b""
        while said.count(self.asked.mark) < 4:
            said += os.read(self.process.stdout.fileno(), 4096)
        return int(said.split(self.asked.mark)[2].split()[1])

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def end(self) -> None:
        out, err = self.process.communicate(timeout=60)
        self.asked.answer(out, err)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.requirement("fault.C3")
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_of_two_uploads_at_once_the_first_to_end_stands_whole(host: ShellHost, tmp_path: Path, there: bool) -> None:
    data = os.urandom(MIB) * (SIZE // MIB)
    whole = hashlib.sha256(data).hexdigest()
    if there:
        (host.home / "f").write_bytes(b"old")
    # The slow one stops between two parts, where it has the partial file closed.
    plain_path, marks = host.path, tmp_path / "marks"
    marks.mkdir(mode=0o777)
    marks.chmod(0o777)
    stop = f"*seek=64*) : >{marks}/waits; until [ -e {marks}/go ]; do sleep 0.05; done ;;"
    shadow(host, tmp_path, "dd", f'case "$*" in {stop} esac; exec "$REAL" "$@"')
    slow = Upload(host, whole)
    assert slow.first_answer() == 0
    slow.send(data[: 16 * MIB])
    wait_for(marks / "waits")
    host.path = plain_path
    fast = Upload(host, whole)
    fast.send(data[fast.first_answer() :])
    fast.end()
    assert hashlib.sha256((host.home / "f").read_bytes()).hexdigest() == whole
    (marks / "go").touch()
    slow.send(data[16 * MIB :])
    with pytest.raises(Raced):
        slow.end()
    assert hashlib.sha256((host.home / "f").read_bytes()).hexdigest() == whole
    assert host.left_over() == []


@pytest.mark.requirement("fault.C3")
def test_one_upload_that_goes_on_from_another_is_no_race(host: ShellHost) -> None:
    """The harmless neighbour."""
    data = os.urandom(SIZE)
    whole = hashlib.sha256(data).hexdigest()
    cut = Upload(host, whole)
    assert cut.first_answer() == 0
    cut.send(data[: 18 * MIB])
    with pytest.raises(ToolError, match="part of the content"):
        cut.end()
    again = Upload(host, whole)
    have = again.first_answer()
    assert have > 0
    again.send(data[have:])
    again.end()
    assert (host.home / "f").read_bytes() == data
