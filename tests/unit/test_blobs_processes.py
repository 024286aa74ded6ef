"""Blobs of several processes on one folder: bounds are shared, the dead are cleaned up after, the living left alone."""

import fcntl
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_ssh.store import Blobs
from tests.support.blob_kit import ANNA, files, make

HOLD_A_BLOB = """
import asyncio, sys
from pathlib import Path
from mcp_ssh.store import Blobs

async def main(folder):
    blobs = Blobs(Path(folder))
    writer = blobs.writer("c")
    await writer.write(b"x" * 1000)
    await writer.finish()
    print("held", flush=True)
    sys.stdin.readline()
    await blobs.close()

asyncio.run(main(sys.argv[1]))
"""


def hold(folder: Path) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD_A_BLOB, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert select.select([child.stdout], [], [], 30)[0], "the child said nothing"
    assert child.stdout.readline() == "held\n"
    return child


async def test_files_of_a_killed_process_go_at_the_next_open_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    dead, living = hold(tmp_path), hold(tmp_path)
    try:
        dead.send_signal(signal.SIGKILL)
        dead.communicate(timeout=30)
        assert len(files(tmp_path)) == 2
        blobs = Blobs(tmp_path, total=1100)
        await blobs.open()
        assert len(files(tmp_path)) == 1
        made = await make(blobs, b"y" * 500)
        # The living process holds 1000 of the 1100 bytes that all of them share.
        assert (blobs.describe(ANNA, made).size_bytes, blobs.describe(ANNA, made).complete) == (100, False)
        await blobs.close()
        assert len(files(tmp_path)) == 1
        living.communicate("\n", timeout=30)
        assert living.returncode == 0
        assert files(tmp_path) == []
    finally:
        for child in (dead, living):
            child.kill()
            child.communicate()


async def test_a_folder_taken_away_while_it_is_being_claimed_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_lock = fcntl.flock
    taken: list[Path] = []

    def take_away_once(handle: int, operation: int) -> None:
        if not taken:
            taken.extend((tmp_path / "blobs").iterdir())
            shutil.rmtree(taken[0])
        really_lock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", take_away_once)
    blobs = Blobs(tmp_path)
    made = await make(blobs, b"x")
    assert blobs.describe(ANNA, made).complete is True
    assert [each.parent for each in files(tmp_path)] != taken
    await blobs.close()


async def test_what_is_no_blob_folder_of_ours_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    (target / "precious").write_text("x")
    (target / "lock").write_text("")
    (tmp_path / "blobs").mkdir(mode=0o700)
    (tmp_path / "blobs" / "link").symlink_to(target)
    (tmp_path / "blobs" / "notes.txt").write_text("x")
    (tmp_path / "blobs" / "never-locked").mkdir()
    blobs = Blobs(tmp_path)
    await blobs.open()
    await blobs.close()
    assert not (tmp_path / "blobs" / "never-locked").exists()
    assert (target / "precious").exists()
    assert (tmp_path / "blobs" / "notes.txt").exists()
