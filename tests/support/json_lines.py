"""A client of an MCP server on standard input and output: a process of its own, driven by raw JSON-RPC lines."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

START_S = 20.0
ANSWER_S = 10.0
END_S = 6.0

COMMAND = [sys.executable, "-m", "tests.support.stdio_toys"]
REPOSITORY = Path(__file__).parents[2]

HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "lines", "version": "1"}},
}
INITIALIZED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "lines", "version": "1"},
}


def call(number: int, tool: str, arguments: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments or {}, **more}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


class Lines:
    """A client of raw JSON-RPC lines.

    Args:
        folder: Where the server's standard error goes; the toys' state, too.
        argv: The server; by default the toys.
        env: Beside this process's environment.
    """

    def __init__(self, folder: Path, argv: Sequence[str] = (), env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.errors = (folder / "stderr").open("wb")
        self.process = subprocess.Popen(
            list(argv) or [*COMMAND, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            cwd=REPOSITORY,
            env={**os.environ, **(env or {})},
        )

    def write(self, *messages: dict[str, Any] | bytes) -> None:
        assert self.process.stdin
        for each in messages:
            self.process.stdin.write(each if isinstance(each, bytes) else json.dumps(each).encode() + b"\n")
        self.process.stdin.flush()

    def read(self, within_s: float = ANSWER_S) -> dict[str, Any]:
        """The next message; the process is killed, and the read fails, where none comes."""
        assert self.process.stdout
        timer = threading.Timer(within_s, self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
        assert line, f"no answer: {(self.folder / 'stderr').read_text()[-2000:]}"
        return json.loads(line)

    def hello(self) -> None:
        self.write(HELLO, INITIALIZED)
        assert self.read(START_S)["result"]["serverInfo"]["name"] == "ssh-steward"

    def until(self, there: Callable[[], bool], within_s: float = ANSWER_S) -> None:
        end = time.monotonic() + within_s
        while not there():
            assert time.monotonic() < end, (self.folder / "stderr").read_text()[-2000:]
            assert self.process.poll() is None
            time.sleep(0.02)

    def waiting(self) -> None:
        """Have a call run."""
        self.write(call(7, "toys_wait"))
        self.until((self.folder / "waiting").exists)

    def ended(self, within_s: float = END_S) -> int:
        return self.process.wait(within_s)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(END_S)
        for each in (self.process.stdin, self.process.stdout, self.errors):
            assert each
            each.close()


PARENT = """
import subprocess, sys, threading
children = []
def start():
    children.append(subprocess.Popen([sys.executable, *sys.argv[2:]], stdin=sys.stdin, stdout=sys.stdout))
if sys.argv[1] == "thread":
    starter = threading.Thread(target=start)
    starter.start()
    starter.join()
else:
    start()
print(children[0].pid, file=sys.stderr, flush=True)
children[0].wait()
"""


def parented(folder: Path, how: str, argv: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[Lines, int]:
    """A server that another process started, from its main or a short-lived thread; and the server's pid.

    Args:
        folder: As for `Lines`.
        how: `main` or `thread`.
        argv: The server, as arguments to Python.
        env: As for `Lines`.
    """
    client = Lines(folder, [sys.executable, "-c", PARENT, how, *argv], env)
    try:
        client.hello()
    except BaseException:
        client.close()
        raise
    return client, int((folder / "stderr").read_text().split()[0])


def ended(pid: int, within_s: float) -> bool:
    """Whether a process is gone, or a zombie, in time."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False
