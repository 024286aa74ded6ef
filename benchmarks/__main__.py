"""`make bench`: every benchmark beside its reference, on the fleet's Debian host; prints and keeps the table.

python -m benchmarks [NAME…]      those whose name begins so; without, all
BENCH_QUICK=1                     small sizes, for work on a benchmark; nothing is kept
"""

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import bulk, calls, connecting, ends, execs, fan_out, flood, idle, round_trips, start_up, trees
from benchmarks.report import RESULTS, Row, keep, shown
from benchmarks.scene import Scene
from tests.fleet.build import ensure
from tests.fleet.hosts import running_fleet
from tests.fleet.namespaces import enter_own_network, reap

BENCHMARKS = {
    "exec": execs.run,
    "round_trips": round_trips.run,
    "fan_out": fan_out.run,
    "connect": connecting.run,
    "bulk": bulk.run,
    "tree": trees.run,
    "flood": flood.run,
    "end": ends.run,
    "call": calls.run,
    "start": start_up.run,
    "idle": idle.run,
}
MEMORY = Path("/dev/shm")  # noqa: S108 a file system in memory, so that no disk is measured


def main() -> None:
    """Start the machine and run what was asked for."""
    wanted = tuple(sys.argv[1:]) or ("",)
    quick = bool(os.environ.get("BENCH_QUICK"))
    chosen = {name: run for name, run in BENCHMARKS.items() if name.startswith(wanted)}
    cache = ensure(print)
    reap()
    enter_own_network()
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder,
        running_fleet(cache, ["deb"]) as fleet,
    ):
        # No key, agent or known host of whoever runs this.
        os.environ["HOME"] = folder
        os.environ.pop("SSH_AUTH_SOCK", None)
        # Every program starts from bytecode, as pip leaves it: the SDK beside us is installed, our checkout is not.
        os.environ["PYTHONDONTWRITEBYTECODE"] = ""
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/bytecode"
        # Both sides on the same loop, whatever is installed here.
        os.environ["MCP_SSH_LOOP"] = "asyncio"
        for name, run in chosen.items():
            place = Path(folder, name)
            place.mkdir()
            began = time.monotonic()
            found = asyncio.run(run(Scene(fleet.deb, place, quick)))
            print("\n".join(map(shown, found)), f"[{time.monotonic() - began:.0f} s]", flush=True)
            rows += found
    missed = sum(not row.met for row in rows)
    print(f"{len(rows)} rows, {missed} missed")
    if not quick:
        keep(rows)
        print(f"kept in {RESULTS.name}; `make docs` puts them into docs/performance.md")


if __name__ == "__main__":
    main()
