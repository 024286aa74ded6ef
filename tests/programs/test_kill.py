"""The script that ends a call's processes, in the shells of this machine: who belongs to a call, and who does not."""

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from mcp_ssh.ssh.wire.kill import MOST_TOGETHER, KillTarget, StopResult, parse, sweep
from tests.support.json_lines import ended

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SHELLS = [each for each in (["dash"], ["bash"], ["busybox", "ash"]) if shutil.which(each[0])]
SLEEP = shutil.which("sleep") or "sleep"
LIMIT_S = 30


def test_ci_tries_every_shell() -> None:
    assert not os.environ.get("CI") or len(SHELLS) == 3


@pytest.fixture(params=SHELLS, ids=" ".join)
def shell(request: pytest.FixtureRequest) -> list[str]:
    return request.param


@contextlib.contextmanager
def running(*argv: str, cookie: str = "") -> Generator[subprocess.Popen[bytes]]:
    """A process, in a session of its own; it has said a line before this goes on, unless it is a plain sleep."""
    env = {"PATH": "/usr/bin:/bin", **({"MCP_SSH_CALL": cookie} if cookie else {})}
    with subprocess.Popen(argv, env=env, start_new_session=True, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def swept(shell: list[str], cookie: str, leader: int = 0, path: str = "/usr/bin:/bin") -> StopResult:
    words = sweep(KillTarget(cookie, leader, 0)).argv[1:]
    ran = subprocess.run([*shell, *words], env={"PATH": path}, capture_output=True, timeout=LIMIT_S, check=False)
    assert not ran.stderr, ran.stderr
    return parse(ran.stdout)[0]


def named(folder: Path, name: str) -> str:
    """A sleep whose process has that name, as /proc/PID/stat shows it."""
    program = folder / name
    shutil.copy(SLEEP, program)
    return str(program)


def test_all_of_a_call_is_ended_and_nobody_else(shell: list[str], tmp_path: Path) -> None:
    cookie = secrets.token_hex(16)
    # Its child has another session and forgot the cookie; its grandchild has one more parent in between.
    forgets = "setsid env -i sh -c 'sleep 1000 & (sleep 1001 & wait) & echo $$; wait' & wait"
    with running("sh", "-c", forgets, cookie=cookie) as call:
        assert call.stdout
        child = int(call.stdout.readline())
        # Their names claim to be children of the call, one of them on a line of its own.
        first, second = named(tmp_path, f") S {call.pid} 1 "[:15]), named(tmp_path, f"\n9 (b) S {child} 1"[:15])
        with running(first, "1000") as other, running(second, "1000") as another, running("sleep", "1000") as third:
            assert swept(shell, cookie).ended is True
            assert call.wait(LIMIT_S) != 0
            assert ended(child, LIMIT_S)
            assert [each.poll() for each in (other, another, third)] == [None, None, None]


def test_a_process_that_calls_itself_somebody_elses_is_ended_with_its_call(shell: list[str], tmp_path: Path) -> None:
    cookie = secrets.token_hex(16)
    with running(named(tmp_path, ") Z 1 1 1 "), "1000", cookie=cookie) as call:
        assert swept(shell, cookie).ended is True
        assert call.wait(LIMIT_S) != 0


@pytest.mark.requirement("fault.R1")
def test_a_process_whose_name_holds_a_newline_is_ended_with_its_call(shell: list[str], tmp_path: Path) -> None:
    cookie = secrets.token_hex(16)
    program = named(tmp_path, "two\nlines")
    child = f"env -i setsid '{program}' 1000 & echo $!; wait"  # found by its parent alone
    with running(program, "1000", cookie=cookie) as call, running("sh", "-c", child, cookie=cookie) as other:
        assert other.stdout
        hidden = int(other.stdout.readline())
        assert swept(shell, cookie) == StopResult(ended=True)
        assert call.wait(LIMIT_S) != 0
        assert ended(hidden, LIMIT_S)


@pytest.mark.requirement("fault.C9.lost_task")
def test_where_nothing_was_found_the_sweep_says_so(shell: list[str]) -> None:
    assert swept(shell, secrets.token_hex(16)) == StopResult(ended=True, found=False)


@pytest.mark.requirement("fault.C5")
def test_one_sweep_ends_many_calls_and_tells_of_each(shell: list[str]) -> None:
    cookies = [secrets.token_hex(16) for _ in range(MOST_TOGETHER)]
    with contextlib.ExitStack() as stack:
        calls = [stack.enter_context(running("sleep", "1000", cookie=each)) for each in cookies]
        other = stack.enter_context(running("sleep", "1000"))
        words = sweep(*(KillTarget(each, None, 0) for each in cookies)).argv[1:]
        ran = subprocess.run([*shell, *words], capture_output=True, timeout=LIMIT_S, check=True)
        assert parse(ran.stdout, len(calls)) == [StopResult(ended=True)] * len(calls)
        assert all(each.wait(LIMIT_S) for each in calls)
        assert other.poll() is None


@pytest.mark.requirement("fault.C5")
def test_a_survivor_is_told_of_the_call_that_it_belongs_to(shell: list[str], tmp_path: Path) -> None:
    """A `kill` that spares one process stands for a machine that does not let it be ended."""
    cookies = [secrets.token_hex(16) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        calls = [stack.enter_context(running("sleep", "1000", cookie=each)) for each in cookies]
        words = sweep(*(KillTarget(each, None, 0) for each in cookies)).argv[1:]
        spares = f'kill() {{ [ "$3" = {calls[1].pid} ] || command kill "$@"; }}\n{words[1]}'
        ran = subprocess.run(
            [*shell, words[0], spares, *words[2:]],
            env={"PATH": "/usr/bin:/bin"}, capture_output=True, timeout=LIMIT_S, check=True,
        )  # fmt: skip
        told = parse(ran.stdout, 3)
        assert told == [
            StopResult(ended=True),
            StopResult(ended=False, survivors=[calls[1].pid]),
            StopResult(ended=True),
        ]
        assert [each.poll() is None for each in calls] == [False, True, False]


def test_what_lost_its_parent_to_the_sweep_is_still_followed(shell: list[str]) -> None:
    """It has a session of its own, no mark, and does not heed TERM: once its parent is gone nothing leads to it."""
    cookie = secrets.token_hex(16)
    stubborn = "trap '' TERM; while :; do sleep 1000; done"
    with running("sh", "-c", f'setsid env -i sh -c "{stubborn}" & echo $!; wait', cookie=cookie) as call:
        assert call.stdout
        child = int(call.stdout.readline())
        assert swept(shell, cookie).ended is True
        assert ended(child, LIMIT_S)


def test_who_ignores_term_is_killed_and_who_multiplies_too(shell: list[str]) -> None:
    cookie = secrets.token_hex(16)
    text = "trap '' TERM; echo up; while :; do sleep 1000 & sleep 0.01; done"
    with running("sh", "-c", text, cookie=cookie) as call:
        assert call.stdout
        call.stdout.readline()
        assert swept(shell, cookie).ended is True
        assert call.wait(LIMIT_S) != 0


def test_a_leader_that_is_younger_than_the_call_is_another_process(shell: list[str]) -> None:
    with running("sleep", "1000") as other:
        ran = subprocess.run(
            [*shell, *sweep(KillTarget("0" * 32, other.pid, 3600)).argv[1:]],
            capture_output=True,
            timeout=LIMIT_S,
            check=True,
        )
        assert (parse(ran.stdout)[0].ended, other.poll()) == (True, None)


GREPS = {
    # As the shell says it where the files are too many for one command line: E2BIG of execve(2).
    "takes not that many files": "[ $# -lt 6 ] || exit 126",
    "sees nothing of the table": 'case " $* " in *" -HsoE "*) exit 1 ;; esac',
}
NO_NUL = 'case " $* " in *" -lsF "* | *" -lszF "*) exit 1 ;; esac'


def with_grep(folder: Path, text: str) -> str:
    """A PATH on which grep does that first."""
    program = folder / "grep"
    program.write_text(f'#!/bin/sh\n{text}\nexec {shutil.which("grep")} "$@"\n')
    program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


# BusyBox has a grep of its own inside, whatever the PATH is.
@pytest.mark.parametrize("shell", [each for each in SHELLS if each[0] != "busybox"], ids=" ".join)
@pytest.mark.parametrize("grep", GREPS)
def test_a_grep_that_cannot_see_makes_nobody_say_that_it_ended(shell: list[str], tmp_path: Path, grep: str) -> None:
    cookie = secrets.token_hex(16)
    with running("sh", "-c", "echo up; sleep 1000", cookie=cookie) as call:
        assert call.stdout
        call.stdout.readline()
        assert swept(shell, cookie, path=with_grep(tmp_path, GREPS[grep])).ended is None


@pytest.mark.requirement("fault.R1")
@pytest.mark.parametrize("shell", [each for each in SHELLS if each[0] != "busybox"], ids=" ".join)
def test_what_is_marked_and_not_in_the_table_is_ended_too(shell: list[str], tmp_path: Path) -> None:
    cookie = secrets.token_hex(16)
    with running("sleep", "1000", cookie=cookie) as call:
        real = shutil.which("grep")
        hides = f'case " $* " in *" -HsoE "*) {real} "$@" | {real} -v "^{call.pid}/"; exit ;; esac'
        assert swept(shell, cookie, path=with_grep(tmp_path, hides)) == StopResult(ended=True)
        assert call.wait(LIMIT_S) != 0


SCENE = """
crowd=$1 cookie=$2$3 path=$4; shift 4
while [ "$crowd" -gt 0 ]; do sleep 1000 & crowd=$((crowd - 1)); done
MCP_SSH_CALL=$cookie setsid sh -c "trap '' TERM; : > up; while :; do sleep 1000; done" & call=$!
until [ -e up ]; do sleep 0.01; done
PATH=$path "$@" || exit
left=$(grep -ls "(sleep)" /proc/[0-9]*/stat | wc -l)
wait "$call"; echo "$? $left"
"""


@pytest.mark.parametrize(("crowd", "grep"), [(1000, ""), (10, NO_NUL)], ids=["crowd", "grep stops at NULs"])
def test_one_of_many_is_found_in_time(shell: list[str], tmp_path: Path, crowd: int, grep: str) -> None:
    """Reading a thousand of them in a shell took longer than a call waits; nobody else meets the crowd."""
    cookie = secrets.token_hex(16)
    alone = ["unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SCENE, "sh"]
    words = [*shell, *sweep(KillTarget(cookie, 0, 0)).argv[1:]]
    ran = subprocess.run(
        [*alone, str(crowd), cookie[:9], cookie[9:], with_grep(tmp_path, grep), *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT_S, check=True,
    )  # fmt: skip
    assert ran.stdout.split() == ["ended", "137", str(crowd)], ran
