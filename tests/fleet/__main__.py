"""The fleet by hand, as root.

python -m tests.fleet tools                       install the programs that tests use (root, apt-get)
python -m tests.fleet build                       build the cache, if it is missing
python -m tests.fleet up [HOST...] [-- COMMAND]   start hosts; run COMMAND (default: a shell) where they are reachable
python -m tests.fleet reap                        remove what killed fleets left behind (empty cgroup directories)
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys

from tests.fleet import build
from tests.fleet.hosts import running_fleet
from tests.fleet.namespaces import DIES_WITH_PARENT, FleetError, enter_own_network, reap, why_not


def up(arguments: list[str]) -> int:
    names, command = arguments, []
    if "--" in arguments:
        at = arguments.index("--")
        names, command = arguments[:at], arguments[at + 1 :]
    cache = build.ensure(lambda line: print(line, file=sys.stderr))
    reap()
    enter_own_network()
    with running_fleet(cache, names) as fleet:
        print(json.dumps(fleet.inventory(), indent=2), flush=True)
        print(f"up after {max(fleet.boot_seconds.values())} s; from another terminal:", file=sys.stderr)
        for name in fleet.boot_seconds:
            host = fleet.hosts[name]
            print(f"  nsenter --net --target {os.getpid()} {shlex.join(host.ssh_argv())}", file=sys.stderr)
        if not command and sys.stdin.isatty():
            command = [os.environ.get("SHELL") or "sh"]
        if not command:
            signal.pthread_sigmask(signal.SIG_BLOCK, ends := {signal.SIGINT, signal.SIGTERM})
            signal.sigwait(ends)
            return 0
        return subprocess.run([*DIES_WITH_PARENT, *command], check=False).returncode


def main(arguments: list[str]) -> int | str | None:
    match arguments:
        case ["reap"]:
            print(*(reap() or ["nothing to remove"]), sep="\n")
            return 0
        case ["tools"]:
            if os.geteuid() == 0 and shutil.which("apt-get"):
                build.ensure_tools()
            return 0
        case ["build" | "up", *rest]:
            if reason := why_not():
                return f"fleet: {reason}"
            try:
                if arguments[0] == "up":
                    return up(rest)
                print(build.ensure())
            except FleetError as error:
                return f"fleet: {error}"
            return 0
        case _:
            return __doc__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
