"""file_write when others write, too, and when something fails: which file is there afterwards."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_ssh.errors import Conflict, PermissionDenied, RemoteFailed
from mcp_ssh.linux.files.write import ask_write
from mcp_ssh.shell_command import Command
from tests.support.files_host import AS_ROOT, MODES, ShellHost, host, sha256, shadow, shell, small_disk, user

__all__ = ["host", "shell", "small_disk", "user"]

# ---- others write, too -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["append", "prepend"])
@pytest.mark.parametrize("start", ["old\n", None])
async def test_of_many_appends_at_once_none_is_lost(host: ShellHost, mode: str, start: str | None) -> None:
    if start is not None:
        (host.home / "f").write_text(start)
    lines = [f"line {number} {'x' * 5000}\n" for number in range(12)]
    async with anyio.create_task_group() as group:
        for line in lines:
            group.start_soon(lambda line=line: host.write("f", line, mode=mode))
    got = (host.home / "f").read_text().splitlines(keepends=True)
    assert sorted(got) == sorted(lines + ([start] if start else []))
    assert host.left_over() == []


async def test_of_two_that_expect_the_same_file_one_wins(host: ShellHost) -> None:
    (host.home / "f").write_text("old")
    outcomes: list[str] = []

    async def attempt(content: str) -> None:
        try:
            await host.write("f", content, expected_sha256=sha256(b"old"))
        except Conflict:
            outcomes.append("conflict")
        else:
            outcomes.append(content)

    async with anyio.create_task_group() as group:
        for number in range(6):
            group.start_soon(attempt, str(number))
    [winner] = [outcome for outcome in outcomes if outcome != "conflict"]
    assert (host.home / "f").read_text() == winner


@pytest.mark.parametrize("shell", ["dash", "bash"])
async def test_what_another_program_wrote_in_between_is_not_lost(host: ShellHost, tmp_path: Path) -> None:
    # Between the copy and the rename, once: somebody else's line.
    shadow(host, tmp_path, "touch", f"rm {tmp_path}/touch; echo theirs >>{host.home}/f")
    (host.home / "f").write_text("old\n")
    await host.write("f", "ours\n", mode="append")
    assert (host.home / "f").read_text() == "old\ntheirs\nours\n"


@pytest.mark.parametrize("shell", ["dash", "bash"])
async def test_a_file_that_never_stops_changing_conflicts_and_an_overwrite_wins(
    host: ShellHost, tmp_path: Path
) -> None:
    shadow(host, tmp_path, "cp", f"echo theirs >>{host.home}/f; exit 1")
    (host.home / "f").write_text("old\n")
    with pytest.raises(Conflict, match="kept changing"):
        await host.write("f", "ours\n", mode="append")
    assert set((host.home / "f").read_text().splitlines()) == {"old", "theirs"}
    assert host.left_over() == []
    await host.write("f", "ours\n")
    assert (host.home / "f").read_text() == "ours\n"


# ---- failures leave the old file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("hard_linked", [False, True], ids=["alone", "hard-linked"])
async def test_a_full_disk_leaves_the_old_file(host: ShellHost, small_disk: Path, mode: str, hard_linked: bool) -> None:
    old = os.urandom(60_000)
    (small_disk / "f").write_bytes(old)
    if hard_linked:
        (small_disk / "g").hardlink_to(small_disk / "f")
    names = host.names("small")
    # 100,000: fits beside the old file once, not twice. 300,000: does not fit at all.
    for size in (100_000, 300_000) if hard_linked or mode != "overwrite" else (300_000,):
        with pytest.raises(RemoteFailed, match="disk full") as caught:
            await host.write("small/f", "x" * size, mode=mode)
        assert caught.value.hint
        assert (small_disk / "f").read_bytes() == old
        assert host.names("small") == names
    await host.write("small/f", "fits")


async def test_a_full_disk_makes_no_new_file(host: ShellHost, small_disk: Path) -> None:
    with pytest.raises(RemoteFailed, match="disk full"):
        await host.write("small/f", "x" * 300_000)
    assert host.names("small") == []


@AS_ROOT
def test_a_read_only_file_system_is_named(host: ShellHost, small_disk: Path) -> None:
    (small_disk / "f").write_text("old")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for name in ("f", "new"):
        with pytest.raises(RemoteFailed, match="mounted read-only"):
            anyio.run(host.write, f"small/{name}", "x")
    assert host.left_over() == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("old", [b"old", None])
async def test_content_that_did_not_all_arrive_changes_nothing(host: ShellHost, mode: Any, old: bytes | None) -> None:
    if old is not None:
        (host.home / "f").write_bytes(old)
    asked = ask_write("f", b"the whole content", mode, maximum=1000)
    said = await host.run(replace(asked.command, stdin=b"the whole"))
    with pytest.raises(RemoteFailed, match="only a part of the content arrived"):
        asked.answer(said.stdout)
    assert [path.read_bytes() for path in host.home.iterdir()] == ([] if old is None else [old])


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for the end of what sshd would have started: the account's shell ends before the script it runs does."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline


def kill_now(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    with process:
        pass


def started(host: ShellHost, command: Command) -> "subprocess.Popen[bytes]":
    pipe = subprocess.PIPE
    return subprocess.Popen(host.argv(command), stdin=pipe, stdout=pipe, start_new_session=True, **host.options())


@contextmanager
def waiting_write(host: ShellHost, path: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A write whose content has begun to arrive, as its temporary file proves."""
    process = started(host, ask_write(path, b"x" * 1000, "overwrite", maximum=10_000).command)
    try:
        assert process.stdin is not None
        process.stdin.write(b"x" * 500)
        process.stdin.flush()
        wait_until(lambda: [Path(name).stat().st_size for name in host.left_over()] == [500])
        yield process
    finally:
        kill_now(process)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_write_that_is_ended_half_way_leaves_the_old_file_alone(host: ShellHost, ending: signal.Signals) -> None:
    (host.home / "f").write_text("old")
    with waiting_write(host, "f") as process:
        os.killpg(process.pid, ending)
        process.wait(timeout=10)
        wait_until(lambda: not host.left_over())
    assert (host.home / "f").read_text() == "old"


@pytest.mark.parametrize("shell", ["dash", "bash"])
@pytest.mark.parametrize("mode", ["overwrite", "prepend", "append"])
def test_a_write_ended_in_the_middle_of_the_file_itself_puts_the_old_content_back(
    host: ShellHost, tmp_path: Path, mode: Any
) -> None:
    (host.home / "f").write_bytes(b"old content that is longer")
    (host.home / "g").hardlink_to(host.home / "f")
    shadow(host, tmp_path, "sync", f'case $1 in */f) touch {tmp_path}/hangs; exec sleep 60 ;; esac; exec "$REAL" "$@"')
    asked = ask_write("f", b"new", mode, maximum=1000)
    process = started(host, asked.command)
    try:
        assert process.stdin is not None
        process.stdin.write(b"new")
        process.stdin.close()
        wait_until((tmp_path / "hangs").exists)
        assert b"new" in (host.home / "f").read_bytes()
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=10)
        wait_until(lambda: not host.left_over())
    finally:
        kill_now(process)
    assert (host.home / "g").read_bytes() == b"old content that is longer"


@pytest.mark.parametrize("shell", ["dash", "bash"])
async def test_where_the_old_content_cannot_be_put_back_it_is_kept_and_named(host: ShellHost, tmp_path: Path) -> None:
    (host.home / "f").write_text("old")
    (host.home / "g").hardlink_to(host.home / "f")
    failing = "echo 'it: error: Input/output error' >&2; exit 1"
    shadow(host, tmp_path, "sync", f'case $1 in */f) {failing} ;; esac; exec "$REAL" "$@"')
    shadow(host, tmp_path, "dd", f'case $1 in *.back) {failing} ;; esac; exec "$REAL" "$@"')
    with pytest.raises(RemoteFailed, match="so did putting the old content back") as caught:
        await host.write("f", "new")
    assert "Input/output error" in caught.value.details["said"]
    [backup] = host.home.glob(".mcp-ssh-*")
    assert str(backup.resolve()) == caught.value.details["backup"]
    assert (backup.read_text(), backup.stat().st_mode & 0o777) == ("old", 0o600)


def test_a_setting_of_the_kernel_can_be_written(host: ShellHost) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            setting = f"/proc/{process.pid}/oom_score_adj"
            written = anyio.run(host.write, setting, "321")
            assert (Path(setting).read_text(), written.atomic) == ("321\n", False)
            with pytest.raises(RemoteFailed) as caught:
                anyio.run(host.write, setting, "loud")
            assert "Invalid argument" in caught.value.details["said"]
            assert Path(setting).read_text() == "321\n"
        finally:
            process.kill()
    assert host.left_over() == []


# ---- files that cannot be opened for writing ---------------------------------------------------------------------


@contextmanager
def attribute(path: Path, name: str) -> Iterator[None]:
    """A file with an attribute of chattr(1)."""
    subprocess.run(["chattr", f"+{name}", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", f"-{name}", path], check=True)


@contextmanager
def running(path: Path) -> Iterator[None]:
    """A program that runs, so that the kernel refuses to have its file written to."""
    with subprocess.Popen([path, "60"]) as process:
        try:
            yield
        finally:
            process.kill()


@contextmanager
def read_only(path: Path) -> Iterator[None]:
    """A file on a mount of its own that is read-only."""
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", path], check=True)
        yield
    finally:
        subprocess.run(["umount", path], check=True)


UNWRITABLE: dict[str, Callable[[Path], Any]] = {
    "append-only": lambda path: attribute(path, "a"),
    "immutable": lambda path: attribute(path, "i"),
    "running": running,
    "read-only": read_only,
}


@AS_ROOT
@pytest.mark.requirement("fault.C2")
@pytest.mark.parametrize("kind", sorted(UNWRITABLE))
@pytest.mark.parametrize("mode", MODES)
async def test_a_file_that_cannot_be_opened_is_told_as_untouched(host: ShellHost, kind: str, mode: str) -> None:
    file = host.home / "f"
    file.write_bytes(Path("/bin/sleep").read_bytes())
    file.chmod(0o755)
    if kind in {"running", "append-only"}:
        (host.home / "second name").hardlink_to(file)
    before, bare = file.read_bytes(), (kind, mode) == ("append-only", "append")
    with UNWRITABLE[kind](file):
        if bare:
            # The harmless neighbour: what may be appended to is appended to.
            assert not (await host.write("f", "more", mode=mode)).atomic
        else:
            with pytest.raises((RemoteFailed, PermissionDenied)) as caught:
                await host.write("f", "more", mode=mode)
            assert "half-way" not in caught.value.message
            if isinstance(caught.value, RemoteFailed):
                assert "nothing was changed" in caught.value.message
        assert host.left_over() == []
    assert file.read_bytes() == before + b"more" * bare
