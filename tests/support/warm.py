"""The warm path as tests use it: a session on which a shell waits, and the system's ssh as what it is compared with."""

import contextlib
import functools
import re
import subprocess
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.sessions.session import Session
from mcp_ssh.ssh.connection.warm_shells import WarmShell
from mcp_ssh.ssh.exec.capture import Capture
from mcp_ssh.tools import session as session_tools
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import login, trust

# What a shell itself says names the shell, where in the text it was (which differs), or a signal that ended a child.
_SHELLS_OWN = re.compile(
    rb"(?:bash|dash|zsh|ash|environment): line \d+:.*\n?"  # behind output without a newline, too
    rb"|^(?:\S*/)?-?(?:bash|dash|zsh|ash|sh|environment|\(eval\)|[\w-]+:\d+):.*\n?"
    rb"|^(?:Terminated|Killed|Hangup|User defined signal 1|Alarm clock|Broken pipe)\n?",
    re.M,
)


@dataclass(frozen=True)
class Said:
    """What a command said, and how it ended: 255 stands for any signal where ssh tells no more."""

    stdout: bytes
    stderr: bytes
    code: int

    def like(self, other: "Said") -> bool:
        """Equal as far as the shell's own messages and ssh's silence about signals allow."""
        codes = self.code == other.code or (other.code == 255 and self.code > 128)
        return codes and self.stdout == other.stdout and self.own_stderr == other.own_stderr

    @property
    def own_stderr(self) -> bytes:
        return _SHELLS_OWN.sub(b"", self.stderr)


class Warm:
    """A session, and how many of its commands took a channel of their own."""

    def __init__(self, session: Session, host: Host, user: str) -> None:
        self.session, self.host, self.user = session, host, user
        self.plain = 0

    async def run(self, command: str, stdin: bytes | None = None, **more: Any) -> Said:
        out, err = Capture(16 * 1024 * 1024), Capture(16 * 1024 * 1024)
        ended = await self.session.execute(command, timeout_s=20, stdout=out, stderr=err, stdin=stdin, **more)
        assert ended.exit_code is not None, f"timed out: {command!r}"
        return Said(out.whole(), err.whole(), ended.exit_code)

    async def on_spare(self, command: str, stdin: bytes | None = None, **more: Any) -> Said:
        """Run on a shell that waits already, and make sure that it did."""
        await self.ready()
        before = self.plain
        said = await self.run(command, stdin, **more)
        assert self.plain == before, f"took a channel of its own: {command!r}"
        return said

    async def ready(self) -> WarmShell:
        """Wait until a shell waits."""
        spares = self.session.link.spares
        if not len(spares):
            await self.run("true")
        with anyio.fail_after(10):
            while not spares.ready:
                await anyio.sleep(0.002)
        return spares.ready[0]

    async def never_ready(self) -> None:
        """Make sure that no shell waits after an answer, nor is about to."""
        spares = self.session.link.spares
        await self.run("true")
        with anyio.fail_after(10):
            while spares.allowed:
                assert not spares.ready
                await anyio.sleep(0.002)
        assert len(spares) == 0

    async def console(self, *argv: str) -> str:
        done = await anyio.to_thread.run_sync(functools.partial(self.host.console, list(argv)))
        return done.stdout


async def warm(app: App, host: Host, user: str, more: Mapping[str, Any] | None = None) -> Warm:
    """A session of this user, whose plain channels are counted."""
    await trust(app, host)
    who = DirectCall(caller())
    connected = await dispatch(app, session_tools.connect, {**login(host, user), **(more or {})}, who)
    found = Warm(app.sessions.find(who.caller, connected.session_id), host, user)
    link = found.session.link
    plainly = link.open

    async def counted(text: str | None, subsystem: str | None = None, **more: Any) -> Any:
        found.plain += 1
        return await plainly(text, subsystem, **more)

    link.open = counted
    return found


class Ssh:
    """`ssh host command`, over one connection that is kept."""

    def __init__(self, host: Host, user: str, folder: Path) -> None:
        argv = host.ssh_argv(user)
        shared = ["-o", f"ControlPath={folder}/%C", "-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
        self._argv = [argv[0], *shared, *argv[1:]]

    async def run(self, command: str, stdin: bytes | None = None) -> Said:
        def said() -> Said:
            done = subprocess.run(
                [*self._argv, command], input=stdin or b"", capture_output=True, timeout=60, check=False
            )
            return Said(done.stdout, done.stderr, done.returncode)

        return await anyio.to_thread.run_sync(said)

    def close(self) -> None:
        subprocess.run([self._argv[0], "-O", "exit", *self._argv[1:]], capture_output=True, timeout=10, check=False)


@contextlib.asynccontextmanager
async def rc_file(host: Host, user: str, text: str) -> AsyncGenerator[None]:
    """Begin the account's ~/.bashrc with this text, and put it right again."""
    path = f"/home/{user}/.bashrc"

    def run(script: str, stdin: str | None = None) -> None:
        done = host.console(["sh", "-c", script, "sh", path], input=stdin)
        assert done.returncode == 0, done.stderr

    await anyio.to_thread.run_sync(run, '[ ! -e "$1" ] || cp -p "$1" "$1.kept"; cat >"$1"; chmod 644 "$1"', text)
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(run, 'rm -f "$1"; [ ! -e "$1.kept" ] || mv "$1.kept" "$1"')
