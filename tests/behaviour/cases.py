"""What is asked of every server: the things that go wrong when an agent works on machines."""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import anyio
import anyio.to_thread

from tests.behaviour.adapter import Adapter, Machine, size_of, text_of
from tests.behaviour.running import Running, children, running
from tests.fleet.hosts import Host
from tests.support.machine import number, processes, started

MEBIBYTE = 1024 * 1024
TIME_LIMIT_S = 3.0
GONE_S = 5.0
"""How long after a call's end its processes may still be about to go."""


@dataclass(frozen=True)
class Outcome:
    """What a server did: whether it is what one would want, and the words for the table."""

    good: bool
    shown: str


@dataclass(frozen=True)
class On:
    """One server's kind, the machine, and the size of the case of the large output."""

    make: type[Adapter]
    host: Host
    flood_mb: int = 200

    def adapter(self, user: str = "root", timeout_s: float = 30.0) -> Adapter:
        host = self.host
        machine = Machine(host.ip, host.port, user, str(host.key_path), tuple(host.public_keys))
        return self.make(machine, Path(tempfile.mkdtemp(prefix="mcp-ssh-behaviour-")), timeout_s)


async def _gone(host: Host, n: int, within_s: float = GONE_S) -> int:
    """How many processes with the number are left after a while, and end those."""
    left = await processes(host, n)
    with anyio.move_on_after(within_s):
        while left:
            await anyio.sleep(0.1)
            left = await processes(host, n)
    if left:
        await anyio.to_thread.run_sync(host.console, ["kill", "-KILL", *(line.split()[0] for line in left)])
    return len(left)


# ---- on a server that is connected ----------------------------------------------------------------------------


async def prompt(on: On, server: Running) -> Outcome:
    answer = await server.exec("printf 'Password: '; read -r answer; echo got", TIME_LIMIT_S)
    works = await server.says("next")
    good = answer.came and answer.seconds < TIME_LIMIT_S and works
    return Outcome(good, f"{answer.kind} after {answer.seconds:.1f} s" + ("" if works else ", and then nothing works"))


async def timeout(on: On, server: Running) -> Outcome:
    n = number()
    answer = await server.exec(f"sleep {n} | cat", TIME_LIMIT_S, 20)
    left = await _gone(on.host, n)
    return Outcome(answer.came and not left, f"{left} left, {answer.kind} after {answer.seconds:.1f} s")


async def cancel(on: On, server: Running) -> Outcome:
    n = number()
    async with anyio.create_task_group() as group:
        group.start_soon(functools.partial(server.exec, f"sleep {n} | cat", 25.0))
        await started(on.host, n)
        group.cancel_scope.cancel()
    left = await _gone(on.host, n)
    return Outcome(not left, f"{left} left")


async def parallel(on: On, server: Running) -> Outcome:
    """Each of five commands waits for the other four, and then sleeps: one after the other they never end."""
    n = number()
    folder = f"/tmp/parallel-{n}"
    met = f"until [ $(ls {folder} | wc -l) -ge 5 ]; do sleep 0.1; done"
    answers: list[str] = []
    began = anyio.current_time()

    async def one(each: int) -> None:
        command = f"mkdir -p {folder}; touch {folder}/{each}; {met}; sleep 1; echo met-$((40+{each}))"
        answer = await server.exec(command, 15, 10)
        answers.append(answer.text if f"met-{40 + each}" in answer.text else "")

    async with anyio.create_task_group() as group:
        for each in range(5):
            group.start_soon(one, each)
    done = sum(map(bool, answers))
    await _gone(on.host, n, 0)
    return Outcome(done == 5, f"{done} of 5 in {anyio.current_time() - began:.1f} s")


async def flood(on: On, server: Running) -> Outcome:
    await server.says("before")
    before = server.resident_mb()
    answer = await server.exec(f"yes | head -c {on.flood_mb * MEBIBYTE}", 60, 30)
    grown = server.resident_mb("VmHWM") - before
    size = size_of(answer.result) if answer.result else 0
    works = await server.says("next")
    shown = f"{answer.kind} after {answer.seconds:.1f} s, +{grown:.0f} MB, {size / 1000:,.1f} KB"
    good = answer.came and grown < 64 and size < 200_000 and works
    return Outcome(good, shown if works else f"{shown}, and then nothing works")


async def not_utf8(on: On, server: Running) -> Outcome:
    answer = await server.exec(r"printf '\377\376\200abc'")
    kept = any(sign in answer.text for sign in ("\ufffd", "\\xff", "//6AYWJj"))
    shown = {True: "shown as such", False: "dropped"}[kept] if "abc" in answer.text else answer.kind
    return Outcome("abc" in answer.text and kept and not answer.failed, shown)


async def lost_connection(on: On, server: Running) -> Outcome:
    await server.says("before")
    await anyio.to_thread.run_sync(on.host.console, ["pkill", "-KILL", "-f", "[s]shd: root@"])
    first = await server.exec("echo here", 5, 15)
    if not (works := await server.says("again")):
        with anyio.move_on_after(20):
            await server.adapter.connect(server.client)
        works = await server.says("anew")
    return Outcome(first.came and works, f"{first.kind}, then {'works' if works else 'nothing works'}")


async def cut_link(on: On, server: Running) -> Outcome:
    await server.says("before")
    await anyio.to_thread.run_sync(on.host.cut)
    try:
        first = await server.exec("echo here", TIME_LIMIT_S, 20)
    finally:
        await anyio.to_thread.run_sync(on.host.restore)
    works = await server.says("again")
    shown = f"{first.kind} after {first.seconds:.1f} s, then {'works' if works else 'nothing works'}"
    return Outcome(first.came and works, shown)


async def list_size(on: On, server: Running) -> Outcome:
    tools = await server.client.list_tools()
    size = sum(size_of(tool) + 1 for tool in tools.tools)
    return Outcome(size <= 32 * 1024, f"{len(tools.tools)} tools, {size:,} B, {size // 4:,} tokens")


async def long_output(on: On, server: Running) -> Outcome:
    answer = await server.exec("seq 1 200000")
    size = size_of(answer.result) if answer.result else 0
    return Outcome(0 < size <= 24 * 1024 and not answer.failed, f"{size:,} B, {size // 4:,} tokens")


# ---- where starting or ending it is the case ------------------------------------------------------------------


async def _logs_in(on: On, adapter: Adapter) -> tuple[bool, str]:
    async with running(adapter, on.host, connect=False) as server:
        said = ""
        with anyio.move_on_after(20):
            result = await adapter.connect(server.client)
            said = "" if result is None else text_of(result)
        answer = await server.exec("echo in-$((40+2))", 10, 10)
    return "in-42" in answer.text, said + answer.text


async def unknown_key(on: On) -> Outcome:
    inside, said = await _logs_in(on, on.adapter())
    told = "SHA256:" in said
    return Outcome(not inside and told, "accepted" if inside else "refused, with fingerprint" if told else "refused")


async def changed_key(on: On) -> Outcome:
    adapter = on.adapter()
    await adapter.trust()
    first, _ = await _logs_in(on, adapter)
    await anyio.to_thread.run_sync(on.host.rotate_host_key)
    try:
        second, _ = await _logs_in(on, adapter)
    finally:
        await anyio.to_thread.run_sync(on.host.restore_host_key)
    return Outcome(first and not second, "accepted" if second else "refused" if first else "never got in")


async def orphan(on: On) -> Outcome:
    """A client that is killed, as an editor that crashes: its server and what that was running should go."""
    adapter = on.adapter()
    await adapter.trust()
    n = number()
    argv = [sys.executable, "-m", "tests.behaviour.client", on.make.name, str(adapter.home), f"sleep {n} | cat"]
    machine = json.dumps(asdict(adapter.machine))
    root = Path(__file__).resolve().parents[2]
    client = subprocess.Popen([*argv, machine], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=root)
    try:
        with anyio.fail_after(60):  # two programs have to start, and to log in
            while not await processes(on.host, n):
                await anyio.sleep(0.1)
        servers = children(client.pid)
    finally:
        client.kill()
        client.wait()
    alive = servers
    with anyio.move_on_after(15):
        while alive := [pid for pid in alive if Path(f"/proc/{pid}").exists()]:
            await anyio.sleep(0.1)
    left = await _gone(on.host, n)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    shown = f"server {'stays' if alive else 'ends'}, {left} left"
    return Outcome(bool(servers) and not alive and not left, shown)


OnServer = Callable[[On, Running], Awaitable[Outcome]]

CONNECTED: dict[str, tuple[OnServer, str]] = {
    "A command that asks for a password": (prompt, "root"),
    "Time limit of 3 s, root: processes left": (timeout, "root"),
    "Time limit of 3 s, user: processes left": (timeout, "dev"),
    "Call cancelled, root: processes left": (cancel, "root"),
    "Call cancelled, user: processes left": (cancel, "dev"),
    "Five commands at once, each `sleep 1`": (parallel, "root"),
    "200 MB of output: memory, size of the answer": (flood, "root"),
    "Bytes that are not UTF-8": (not_utf8, "root"),
    "Connection killed by the machine": (lost_connection, "root"),
    "Link cut under a call of 3 s": (cut_link, "root"),
    "`tools/list`": (list_size, "root"),
    "`seq 1 200000`": (long_output, "root"),
}
ALONE: dict[str, Callable[[On], Awaitable[Outcome]]] = {
    "Unknown host key": unknown_key,
    "Changed host key, server restarted": changed_key,
    "Client killed in a call: processes left": orphan,
}
