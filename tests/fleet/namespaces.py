"""Linux namespaces from Python: may we, enter one, what dies with whom."""

import contextlib
import ctypes
import fcntl
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x49

# New mount and process namespaces whose first process dies with `unshare`, and all their other processes with that one.
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private")
# Put before a command: the kernel kills it as soon as the thread that started it is gone, however that one ended.
DIES_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")


class FleetError(Exception):
    """The fleet cannot do what it was asked for."""


def why_not() -> str | None:
    """What this machine lacks to run the fleet, or None."""
    if sys.platform != "linux":
        return "needs Linux namespaces"
    if os.geteuid() != 0:
        return "needs root (namespaces, overlay mounts)"
    if platform.machine() != "x86_64":
        return "needs x86_64 (the Alpine image is built for it)"
    if not shutil.which("unshare") or not shutil.which("setpriv"):
        return "needs unshare and setpriv (util-linux)"
    if cgroup2_root() is None:
        return "needs a mounted cgroup2 file system"
    trial = subprocess.run([*UNSHARE, "--net", "true"], capture_output=True, text=True, check=False)
    if trial.returncode:
        return f"may not make namespaces here: {trial.stderr.strip()}"
    return None


def cgroup2_root() -> Path | None:
    """Where cgroup2 is mounted: at /sys/fs/cgroup, or below it on a machine that still uses cgroup v1 beside it."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(where)
    return None


INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
INSTANCES = 1024


def make_room_for_watches() -> None:
    """Let root have as many inotify instances as several fleets need.

    Each systemd takes about five of the 128 that a user has on Linux (inotify(7)), and does not come up without.
    """
    if int(INOTIFY.read_text()) < INSTANCES:
        with contextlib.suppress(OSError):  # nobody may here: then there is room for fewer fleets at once
            INOTIFY.write_text(str(INSTANCES))


def enter_own_network() -> int:
    """Move the calling thread, and all it starts from now on, into a new network with nothing but its loopback.

    Returns:
        A descriptor of the network it was in.
    """
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP_RUNNING))
    return before


@contextlib.contextmanager
def in_network(network: int) -> Iterator[None]:
    """Have the calling thread, and all it starts meanwhile, in another network."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _set_network(network)
    try:
        yield
    finally:
        _set_network(own)
        os.close(own)


def _set_network(network: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(network, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns(CLONE_NEWNET)")


def started_at(pid: int) -> str | None:
    """When a process started, in kernel ticks, or None if it is gone. With its pid it names one process for good."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]  # the name before the last ")" may contain anything


def my_name() -> str:
    """This process, as the fleet's cgroup directories name their owner."""
    return f"{os.getpid()}.{started_at(os.getpid())}"


def reap() -> list[str]:
    """Remove the empty cgroup directories of fleets whose owner is gone: the one thing that survives `kill -9`."""
    root = cgroup2_root()
    removed: list[str] = []
    for directory in sorted(root.glob("fleet-*")) if root else []:
        pid, _, start = directory.name.removeprefix("fleet-").partition(".")
        if started_at(int(pid)) != start and remove_cgroup(directory):
            removed.append(directory.name)
    return removed


def remove_cgroup(directory: Path) -> bool:
    """Remove a cgroup with the cgroups below it. One that still has processes is left alone."""
    for path, _, _ in os.walk(directory, topdown=False):
        try:
            Path(path).rmdir()
        except OSError:
            return False
    return True
