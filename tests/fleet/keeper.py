"""The process that holds a fleet: it starts the hosts, carries out what tests ask for, and takes all of it down.

    python -m tests.fleet.keeper CACHE OWNER HOST...

It is the first process of its own process and mount namespace, inside the network namespace of the tests. So whatever
ends it ends every host, and no mount of it is ever seen outside. It lives until its stdin closes. Says one JSON line on
stdout when the hosts are up (or why they are not), then takes requests on an abstract Unix socket of that network
namespace: one JSON line `{"host": …, "do": …, "with": {…}}` a connection, answered by one JSON line. A host that is
not among those named is off until `heal` or `power_cycle` is asked for.
"""

import fcntl
import json
import os
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fleet.machine import BOOT_LIMIT, Machine, until
from tests.fleet.namespaces import FleetError, cgroup2_root, make_room_for_watches, remove_cgroup
from tests.fleet.network import command, create_bridges, remove_all
from tests.fleet.table import HOSTS

ADDRESS = "\0mcp-ssh-fleet"  # in a name space that belongs to the network namespace: no file, no clash
PRIVATE = Path("/run")  # hidden below a file system of our own: nothing of a fleet is ever on the machine's disk
RUN = PRIVATE / "fleet"


def weather(machine: Machine, **wishes: bool | float) -> None:
    with machine.lock:
        machine.link.change(machine.netns, **wishes)


def clear(machine: Machine) -> None:
    with machine.lock:
        machine.link.clear(machine.netns)


def reboot(machine: Machine, timeout: float) -> None:
    machine.reboot(timeout)


def power_cycle(machine: Machine, timeout: float) -> None:
    machine.power_cycle(timeout)


def boot_count(machine: Machine) -> int:
    return machine.boots


def wait_for_boot(machine: Machine, before: int, timeout: float) -> None:
    machine.wait_for_boot(before, timeout)


def wait_until_off(machine: Machine, timeout: float) -> None:
    machine.wait_until_off(timeout)


def heal(machine: Machine) -> None:
    machine.heal()


def console(machine: Machine, argv: list[str], text: str, timeout: float) -> list[int | str]:
    ended = machine.console(argv, text.encode(errors="surrogateescape"), timeout)
    output = (stream.decode(errors="surrogateescape") for stream in (ended.stdout, ended.stderr))
    return [ended.returncode, *output]


def rotate_host_key(machine: Machine) -> str:
    with machine.lock:
        return machine.rotate_host_key()


def restore_host_key(machine: Machine) -> str:
    with machine.lock:
        return machine.restore_host_key()


REQUESTS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (
        *(weather, clear, console, rotate_host_key, restore_host_key),
        *(reboot, power_cycle, boot_count, wait_for_boot, wait_until_off, heal),
    )
}


class Requests(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers tests, each in a thread of its own: a long console command must not hold up a cut."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, machines: dict[str, Machine]) -> None:
        super().__init__(ADDRESS, Answer)
        self.machines = machines


class Answer(socketserver.StreamRequestHandler):
    """One request."""

    def handle(self) -> None:
        assert isinstance(self.server, Requests)
        request = json.loads(self.rfile.readline())
        answer: dict[str, Any]
        try:
            function = REQUESTS[request["do"]]
            answer = {"done": function(self.server.machines[request["host"]], **request["with"])}
        except FleetError as error:
            answer = {"error": str(error)}
        except Exception as error:  # noqa: BLE001 (whatever it is, the test that asked must hear of it)
            answer = {"error": f"{type(error).__name__}: {error}"}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def start(machines: dict[str, Machine]) -> dict[str, float]:
    """Switch hosts on, wait for all; the seconds each one took."""
    begin = time.monotonic()
    for machine in machines.values():
        machine.power_on()
    seconds: dict[str, float] = {}
    for name, machine in machines.items():
        machine.wait_until_up(BOOT_LIMIT)
        seconds[name] = round(time.monotonic() - begin, 2)
    return seconds


def main(cache: Path, owner: str, names: list[str]) -> None:
    cgroups = cgroup2_root()
    if not cgroups:
        raise FleetError("needs a mounted cgroup2 file system")
    cgroup = cgroups / f"fleet-{owner}"
    command("mount", "-t", "tmpfs", "-o", "mode=755", "fleet", str(PRIVATE))
    machines = {name: Machine(row, cache, RUN, cgroup) for name, row in HOSTS.items()}
    with (cache / "in-use").open("a") as in_use:
        fcntl.flock(in_use, fcntl.LOCK_SH)
        (cache / "in-use").touch()
        create_bridges()
        make_room_for_watches()
        try:
            with Requests(machines) as requests:
                seconds = start({name: machines[name] for name in names})
                threading.Thread(target=requests.serve_forever, daemon=True).start()
                say({"ready": seconds})
                sys.stdin.read()
                requests.shutdown()
        finally:
            for machine in machines.values():
                machine.kill()
            remove_all()
            until(lambda: remove_cgroup(cgroup), 5, "the end of its cgroup")  # the kernel may need a moment to clear it


def bury_orphans() -> None:
    """Go on in a child, and leave the first process of this namespace with nothing to do but its duty: to wait for the
    processes whose parents are gone. Left unburied, one that belongs to a host would hold up that host's end.
    """
    keeper = os.fork()
    if not keeper:
        return
    while True:
        pid, status = os.wait()
        if pid == keeper:
            sys.exit(os.waitstatus_to_exitcode(status))


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    bury_orphans()
    try:
        main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
    except (FleetError, OSError) as error:
        say({"error": str(error)})
        sys.exit(1)
