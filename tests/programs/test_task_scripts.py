"""The scripts of background tasks in every shell that may be a machine's `sh`."""

import os
import secrets
import subprocess
import time
from pathlib import Path

import pytest

from mcp_ssh.errors import Conflict, NotFound
from mcp_ssh.linux.tasks import requests
from mcp_ssh.linux.tasks.requests import TaskRequest, TaskSnapshot
from mcp_ssh.shell_command import script
from tests.support.files_host import AS_ROOT, NOBODY, ShellHost, host, shell

__all__ = ["host", "shell"]

FOLDER = ".local/state/mcp-ssh/tasks"
KEEP = 1 << 17
BLOCK = 16384

LARGEST = 4 * 1024 * 1024


def start(host: ShellHost, name: str, command: str, stdin: bytes = b"", **env: str) -> str:
    """Start a task and give its cookie."""
    cookie = secrets.token_hex(16)
    task = TaskRequest(name, cookie, command, None, {**env, "MCP_SSH_CALL": cookie}, stdin)
    asked = requests.ask_start(task, KEEP, 7)
    said = host.run_now(asked.command, LARGEST)
    assert requests.parse_start(asked.answer(said.stdout, said.stderr)).at > 0
    return cookie


def look(host: ShellHost, name: str, output: int = 0, error: int = 0, wait_s: float = 0.0) -> TaskSnapshot:
    asked = requests.ask_look(name, output, error, 1 << 20, wait_s)
    said = host.run_now(asked.command, LARGEST)
    return requests.parse_look(name, asked.answer(said.stdout, said.stderr))


def ended(host: ShellHost, name: str) -> TaskSnapshot:
    deadline = time.monotonic() + 30
    while look(host, name, wait_s=10, output=2**62, error=2**62).status == "running":
        assert time.monotonic() < deadline
    return look(host, name)


@pytest.mark.requirement("task.look")
def test_a_task_says_what_it_said_and_how_it_ended(host: ShellHost) -> None:
    odd = "a'b\"c\\ $(id)\n*"
    start(host, "odd", 'cat; printf %s "$ODD$t_id" >&2; umask; exit 7', b"in\0put\n", ODD=odd, t_id="theirs")
    seen = ended(host, "odd")
    assert (seen.output.content, seen.error.content) == (b"in\0put\n0022\n", odd.encode() + b"theirs")
    assert (seen.status, seen.exit_code, seen.open, seen.cut) == ("completed", 7, False, False)
    # A PATH of the task's own does not keep it from starting, and no signal is the exit code of another.
    start(host, "killed", "kill -KILL $$", PATH="/nowhere")
    assert ended(host, "killed").exit_code == 137


@pytest.mark.requirement("task.bounded")
def test_a_part_of_long_output_is_read_from_any_offset(host: ShellHost) -> None:
    start(host, "long", "i=0; while [ $i -lt 60000 ]; do echo $i; i=$((i + 1)); done")
    whole = "".join(f"{n}\n" for n in range(60000)).encode()
    seen = ended(host, "long")
    assert seen.output.total == len(whole)
    first = seen.output.start
    # Beside what is kept, a piece that is not yet full and one that is not yet dropped.
    assert KEEP <= len(whole) - first <= KEEP + 2 * (KEEP // 8 + BLOCK)
    for offset in range(first, len(whole), 29989):
        assert look(host, "long", offset).output.content == whole[offset:]


@pytest.mark.requirement("task.never_twice")
def test_a_name_is_taken_until_the_end_was_told(host: ShellHost) -> None:
    cookie = start(host, "name", "exec sleep 600")
    with pytest.raises(Conflict):
        start(host, "name", "true")
    pid = look(host, "name").pid
    sweep = script('kill -KILL "$1" && echo swept', [str(pid)])
    # The name may be another task's by now.
    assert host.run_now(requests.ask_cancel("name", "0" * 32, sweep)).stdout == b""
    assert look(host, "name").status == "running"
    assert host.run_now(requests.ask_cancel("name", cookie, sweep)).stdout == b"swept\n"
    seen = look(host, "name", 2**62, 2**62, wait_s=10)
    assert (seen.status, seen.cookie, seen.exit_code) == ("cancelled", cookie, 137)
    assert start(host, "name", "true") != cookie


@pytest.mark.requirement("task.lost")
def test_what_another_machine_runs_in_a_shared_home_is_not_judged_here(host: ShellHost) -> None:
    start(host, "far", "exec sleep 600")
    run = host.home / FOLDER / "far/run"
    words = run.read_text().split()
    subprocess.run(["kill", "-KILL", words[2], words[0]], check=True)
    here, boot, other = " ".join(words), words[4], "0" * 8
    run.write_text(here.replace(boot, other) + "\n")
    assert look(host, "far").status == "lost"
    run.write_text(here.replace(boot, other).replace(words[6], "elsewhere") + "\n")
    with pytest.raises(Conflict, match="elsewhere"):
        look(host, "far")
    asked = requests.ask_list()
    said = host.run_now(asked.command, LARGEST)
    assert requests.parse_list(asked.answer(said.stdout, said.stderr)) == []


@AS_ROOT
@pytest.mark.requirement("task.folder")
def test_the_state_folder_that_the_account_names_is_used_if_it_is_its_own(
    host: ShellHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "argv", lambda sent: ["env", f"XDG_STATE_HOME={tmp_path}", *ShellHost.argv(host, sent)])
    start(host, "mine", "true")
    assert ended(host, "mine").exit_code == 0
    assert (tmp_path / "mcp-ssh/tasks/mine").is_dir()
    os.chown(tmp_path, NOBODY, NOBODY)
    start(host, "theirs", "true")
    assert ended(host, "theirs").exit_code == 0
    assert (host.home / FOLDER / "theirs").is_dir()


def test_no_task_is_not_found(host: ShellHost) -> None:
    with pytest.raises(NotFound):
        look(host, "missing")
