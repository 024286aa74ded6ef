"""What a fleet leaves behind when it ends, however it ends, and what its tests do where there is none."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.fleet.build import CHECKOUT
from tests.fleet.hosts import Host
from tests.fleet.machine import until
from tests.fleet.namespaces import cgroup2_root, reap, started_at

SOON = 10.0  # seconds: bounds of waits, never what a test takes when all is well


def descendants(pid: int) -> set[int]:
    """A process's children, their children, and so on."""
    children: dict[int, list[int]] = {}
    for child in all_processes():
        with contextlib.suppress(OSError):
            parent = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(child)
    found, todo = set[int](), [pid]
    while todo:
        todo += (new := children.get(todo.pop(), []))
        found.update(new)
    return found


def lives(pid: int, start: str | None) -> bool:
    """Whether it still runs. One that has ended keeps its entry until its parent, or the machine's init, has looked."""
    with contextlib.suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" and started_at(pid) == start
    return False


def all_processes() -> list[int]:
    return [int(directory.name) for directory in Path("/proc").glob("[0-9]*")]


def networks(pids: Iterable[int]) -> set[Path]:
    """The network namespaces that processes are in."""
    found: set[Path] = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            found.add(Path(f"/proc/{pid}/ns/net").readlink())
    return found


@pytest.fixture
def other_fleet(fleet: object) -> "subprocess.Popen[str]":
    """A second fleet of one host, beside the first, as one started by hand."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fleet", "up", "alpine", "--", "cat"],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def read_inventory(process: "subprocess.Popen[str]") -> list[dict[str, object]]:
    assert process.stdout
    text = ""
    while not text.endswith("\n]\n"):
        line = process.stdout.readline()
        assert line, f"no inventory: {text}"
        text += line
    return json.loads(text)


def leftovers(owner: int) -> list[Path]:
    root = cgroup2_root()
    assert root
    return list(root.glob(f"fleet-{owner}.*"))


def test_a_fleet_killed_with_9_leaves_no_process_network_or_mount(
    other_fleet: "subprocess.Popen[str]", alpine: Host
) -> None:
    with other_fleet as process:
        assert [host["name"] for host in read_inventory(process)] == ["alpine"]
        family = {(pid, started_at(pid)) for pid in descendants(process.pid)}
        assert len(family) > 6, "its keeper, its host's init, sshd, syslogd, crond …"
        its_networks = networks(pid for pid, _ in family)
        assert len(its_networks) == 2, "its own and its host's"
        assert alpine.ssh("true").returncode == 0, "two fleets with the same addresses do not meet"
        process.kill()
    until(lambda: not any(lives(*member) for member in family), SOON, "the end of all its processes")
    assert not its_networks & networks(all_processes())
    assert "mcp-ssh-fleet" not in Path("/proc/self/mounts").read_text()
    reap()
    assert leftovers(process.pid) == []


def test_a_fleet_can_follow_another_in_the_same_network_even_if_its_keeper_was_killed() -> None:
    program = (
        "import os, signal; from tests.fleet import build, hosts, namespaces; namespaces.enter_own_network()\n"
        "for round in range(2):\n"
        "    with hosts.running_fleet(build.cache_path(), ['alpine']) as fleet:\n"
        "        fleet.alpine.delay(5)\n"
        "        assert fleet.alpine.ssh('true').returncode == 0\n"
        "        if not round: os.kill(fleet.keeper_pid, signal.SIGKILL)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    reap()


def test_a_fleet_that_ends_leaves_not_even_a_directory(other_fleet: "subprocess.Popen[str]") -> None:
    with other_fleet as process:
        read_inventory(process)
        assert leftovers(process.pid)
        process.communicate()
    assert process.returncode == 0
    assert leftovers(process.pid) == []


def run_without_fleet(**environment: str) -> "subprocess.CompletedProcess[str]":
    """A pytest run with `--no-fleet` of a test that needs the fleet."""
    test = "tests/fleet_checks/test_fleet.py::test_the_console_works_while_the_link_is_cut[deb]"
    options = ["-c", os.devnull, "--rootdir", ".", "--noconftest", "-p", "tests.fleet.plugin", "--no-fleet"]
    ours = {name: value for name, value in os.environ.items() if name != "CI"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, test],
        cwd=CHECKOUT,
        env=ours | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_fleet_its_tests_are_skipped_and_named_with_the_reason() -> None:
    ended = run_without_fleet()
    assert ended.returncode == 0, ended.stdout
    assert "skipped, for want of real SSH hosts: 1 =" in ended.stdout
    assert "fleet: --no-fleet" in ended.stdout
    assert "::test_the_console_works_while_the_link_is_cut[deb]" in ended.stdout


def test_without_a_fleet_its_tests_fail_in_ci() -> None:
    ended = run_without_fleet(CI="true")
    assert ended.returncode == 1, ended.stdout
    assert "fleet: --no-fleet (in CI that is a failure, not a skip)" in ended.stdout


INSIDE_AND_OUTSIDE = """
import os
from tests.fleet.plugin import STATE

def test_networks(request):
    outside = os.fstat(request.config.stash[STATE].outside).st_ino
    assert outside == int(os.environ["STARTED_IN"])
    assert os.stat("/proc/self/ns/net").st_ino != outside
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_worker_of_a_run_knows_the_network_that_a_build_needs_and_is_not_in_it(tmp_path: Path, workers: str) -> None:
    (tmp_path / "test_networks.py").write_text(INSIDE_AND_OUTSIDE)
    started_in = str(Path("/proc/thread-self/ns/net").stat().st_ino)
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "-p", "tests.fleet.plugin", "-n", workers),
            *("-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)),
        ],
        cwd=CHECKOUT,
        env={**os.environ, "STARTED_IN": started_in, "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr
