"""`python -m tests.behaviour [NAME…]`: what servers do with a machine of the fleet, as a table and as results.json.

Without names, this project's own; `peers` stands for the others that the suite knows, once `make peers` has installed
them. What is not measured anew keeps the results it had.
"""

import datetime
import json
import shutil
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import anyio

from tests.behaviour.adapters import ALL, OURS, PEERS
from tests.behaviour.cases import ALONE, CONNECTED, TIME_LIMIT_S, On, OnServer, Outcome
from tests.behaviour.running import running
from tests.fleet import build
from tests.fleet.hosts import running_fleet
from tests.fleet.namespaces import enter_own_network, reap, why_not

RESULTS = Path(__file__).with_name("results.json")
CASE_LIMIT_S = 180.0


async def connected(on: On, case: OnServer, user: str) -> Outcome:
    """A case on a server of its own, so that none suffers from the one before."""
    adapter = on.adapter(user, TIME_LIMIT_S if case.__name__ in {"prompt", "timeout", "cut_link"} else 60.0)
    await adapter.trust()
    try:
        async with running(adapter, on.host) as server:
            return await case(on, server)
    finally:
        shutil.rmtree(adapter.home, ignore_errors=True)


async def column(on: On) -> dict[str, Outcome]:
    """Every case with one kind of server."""
    cases = {title: partial(connected, on, case, user) for title, (case, user) in CONNECTED.items()}
    cases |= {title: partial(case, on) for title, case in ALONE.items()}
    found: dict[str, Outcome] = {}
    for title, case in cases.items():
        found[title] = Outcome(good=False, shown="no end")
        with anyio.move_on_after(CASE_LIMIT_S):
            try:
                found[title] = await case()
            except Exception as error:  # noqa: BLE001 a server that breaks the client is a result, too
                found[title] = Outcome(good=False, shown=f"breaks: {type(error).__name__}")
        print(f"{on.make.name:16} {title:48} {'✓' if found[title].good else '✗'} {found[title].shown}", flush=True)
    return found


def main(names: list[str]) -> int | str:
    if reason := why_not():
        return f"behaviour: {reason}"
    if unknown := set(names) - {*ALL, "peers"}:
        return f"behaviour: no server called {', '.join(sorted(unknown))}; there are {', '.join(ALL)}, and peers"
    named = [*names, *(each.name for each in PEERS if "peers" in names)] or [OURS.name]
    wanted = [name for name in ALL if name in named]
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    cache = build.ensure(print)
    reap()
    enter_own_network()
    with running_fleet(cache, ["deb"]) as fleet:
        for name in wanted:
            make = ALL[name]
            found = anyio.run(column, On(make, fleet.deb))
            today = datetime.datetime.now(datetime.UTC).date().isoformat()
            cases = {title: asdict(outcome) for title, outcome in found.items()}
            results[name] = {"version": make.version, "date": today, "cases": cases}
    ordered = {name: results[name] for name in ALL if name in results}
    RESULTS.write_text(json.dumps(ordered, ensure_ascii=False, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
