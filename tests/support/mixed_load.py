"""Many callers at once on bad links, and a model of what their files may hold."""

import base64
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ToolError
from mcp_ssh.params import Result
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import command, file, session, shell
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall
from tests.support.machine import login, number

EXPECTED = frozenset({"connect_failed", "timed_out", "not_found", "conflict", "auth_failed", "too_many"})
"""Codes that a caller on a bad link may see. Anything else is a fault."""

FOLDER = "/tmp/mixed-load"


@dataclass
class Weather:
    """What the links are doing, so that a leftover process is judged by what its call could know."""

    cuts: Counter[str] = field(default_factory=Counter)

    async def change(self, host: Host, dice: random.Random, until: float) -> None:
        """Cut, slow and thin out one host's link until the time comes, then mend it."""
        in_thread = anyio.to_thread.run_sync
        while anyio.current_time() < until:
            match dice.choice(["cut", "long cut", "slow", "lossy", "narrow", "clear"]):
                case "cut":
                    self.cuts[host.name] += 1
                    await in_thread(host.cut)
                    await anyio.sleep(dice.uniform(0.5, 4))
                    await in_thread(host.restore)
                case "long cut":
                    self.cuts[host.name] += 1
                    await in_thread(host.cut)
                    await anyio.sleep(min(dice.uniform(8, 16), max(1.0, until - anyio.current_time())))
                    await in_thread(host.restore)
                case "slow":
                    await in_thread(partial(host.delay, dice.choice([5, 20, 100])))
                case "lossy":
                    await in_thread(partial(host.loss, dice.choice([1, 3, 8])))
                case "narrow":
                    await in_thread(partial(host.rate, dice.choice([1_000, 8_000])))
                case _:
                    await in_thread(host.clear)
            await anyio.sleep(dice.uniform(1, 5))
        await in_thread(host.clear)


@dataclass
class Tally:
    """What all callers met."""

    calls: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    ended: list[tuple[str, int]] = field(default_factory=list)
    """Host and number of commands whose end was claimed, so that none of their processes may be left."""


class LoadCaller:
    """One caller: a session on one machine, files of its own, and a list of things that it does at random."""

    def __init__(
        self, app: App, who: DirectCall, host: Host, *, dice: random.Random, folder: Path, tally: Tally
    ) -> None:
        self.app = app
        self.who = who
        self.host = host
        self.dice = dice
        self.local = folder
        self.tally = tally
        self.session_id: str | None = None
        self.files: dict[str, set[bytes]] = {}
        self.mine = number()

    async def work(self, until: float) -> None:
        """Do one thing after the other until the time comes."""
        jobs: list[Callable[[], Any]] = [
            self.echo, self.echo, self.fail, self.time_out, self.time_out, self.cancel, self.wait_too_short,
            self.write, self.write, self.read, self.read, self.upload, self.download, self.talk, self.reconnect,
        ]  # fmt: skip
        while anyio.current_time() < until:
            await self.dice.choice(jobs)()

    async def call(self, tool: AnyTool, arguments: Mapping[str, Any], cancel_after_s: float | None = None) -> Any:
        """The result, or None where the call failed in an expected way or was cancelled."""
        self.tally.calls += 1
        given = dict(arguments)
        if tool.where is not App:
            if self.session_id is None and not await self.connect():
                return None
            given["session_id"] = self.session_id
        result: Result | None = None
        try:
            with anyio.move_on_after(cancel_after_s) if cancel_after_s else anyio.CancelScope():
                result = await dispatch(self.app, tool, given, self.who)
        except ToolError as error:
            self.tally.codes[error.code] += 1
            silent = tool is session.connect and error.code == "remote_failed" and "login" in error.message
            if error.code not in EXPECTED and not silent:
                self.tally.faults.append(f"{tool.name} on {self.host.name}: {error.payload()}")
            if error.code in {"connect_failed", "not_found", "conflict"}:
                self.session_id = None
            return None
        self.tally.codes["ok" if result is not None else "cancelled"] += 1
        return result

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.tally.faults.append(f"{self.who.caller.id} on {self.host.name}: {what}")

    # ---- what it does ------------------------------------------------------------------------------------------

    async def connect(self) -> bool:
        answer = await self.call(session.connect, {**login(self.host, "dev"), "timeout": 20})
        self.session_id = answer.session_id if answer else None
        return self.session_id is not None

    async def reconnect(self) -> None:
        if self.session_id is not None and self.dice.random() < 0.3:
            await self.call(session.disconnect, {"session_id": self.session_id})
            self.session_id = None

    async def echo(self) -> None:
        mark = number()
        answer = await self.call(command.run_command, {"command": f"echo {mark}; echo {mark} >&2", "timeout": 20})
        if answer and answer.status == "completed":
            self.expect((answer.stdout, answer.stderr) == (f"{mark}\n", f"{mark}\n"), f"echo said {answer.stdout!r}")

    async def fail(self) -> None:
        answer = await self.call(command.run_command, {"command": "exit 7", "timeout": 20})
        if answer and answer.status == "completed":
            self.expect(answer.exit_code == 7, f"exit 7 gave {answer.exit_code}")

    async def time_out(self) -> None:
        mark = number()
        text = f"(sleep {mark}) & sleep {mark}"
        answer = await self.call(command.run_command, {"command": text, "timeout": self.dice.choice([0.1, 0.3, 1])})
        if answer:
            self.expect(answer.status == "timed_out", f"sleep {mark} answered {answer.status}")
            if answer.stopped is True:
                self.tally.ended.append((self.host.name, mark))

    async def wait_too_short(self) -> None:
        """Several calls with short deadlines at once, so that some end while they wait for a slot."""
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(self.time_out)

    async def cancel(self) -> None:
        await self.call(
            command.run_command, {"command": f"sleep {number()}", "timeout": 60}, self.dice.uniform(0.01, 0.6)
        )

    def _file(self) -> tuple[str, set[bytes]]:
        path = f"{FOLDER}/{self.mine}-{self.dice.randrange(3)}"
        return path, self.files.setdefault(path, set())

    async def write(self) -> None:
        path, possible = self._file()
        content = f"{number()} ".encode() * self.dice.choice([1, 200, 4000])
        possible.add(content)
        arguments = {"path": path, "content": content.decode()}
        cancel = self.dice.uniform(0.01, 0.5) if self.dice.random() < 0.2 else None
        if await self.call(file.write, arguments, cancel):
            self.files[path] = {content}

    async def upload(self) -> None:
        path, possible = self._file()
        content = self.dice.randbytes(self.dice.choice([1000, 300_000]))
        source = self.local / f"{self.mine}.up"
        await anyio.Path(source).write_bytes(content)
        possible.add(content)
        arguments = {"remote_path": path, "local_path": str(source), "timeout": 30}
        cancel = self.dice.uniform(0.05, 1) if self.dice.random() < 0.3 else None
        if await self.call(file.upload, arguments, cancel):
            self.files[path] = {content}

    async def read(self) -> None:
        path, possible = self._file()
        if not possible:
            return
        answer = await self.call(file.read, {"path": path, "encoding": "base64", "length": 1_000_000})
        if answer and answer.next_offset is None:
            self.expect(base64.b64decode(answer.content) in possible, f"{path} holds what nobody wrote")

    async def download(self) -> None:
        path, possible = self._file()
        goal = self.local / f"{self.mine}.down"
        if possible and await self.call(file.download, {"remote_path": path, "local_path": str(goal), "timeout": 30}):
            self.expect(await anyio.Path(goal).read_bytes() in possible, f"{path} arrived as what nobody wrote")

    async def talk(self) -> None:
        name = f"s{number()}"
        if await self.call(shell.open_shell, {"shell": name}):
            mark = number()
            answer = await self.call(shell.run_in_shell, {"shell": name, "command": f"echo <{mark}>", "timeout": 5})
            if answer and answer.status == "completed":
                self.expect(f"{mark}" in answer.output or answer.exit_code != 0, f"the shell said {answer.output!r}")
            await self.call(shell.close, {"shell": name})
