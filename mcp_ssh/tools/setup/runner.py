"""A call's dealings with the package manager: followed while it works, and waited for where another one is at work."""

import re
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio

from mcp_ssh.errors import Conflict, RemoteFailed, TimedOut
from mcp_ssh.linux.framing import pack_script
from mcp_ssh.linux.lines import number
from mcp_ssh.linux.packages import PackageManager
from mcp_ssh.linux.packages.base import Inventory, ManagerOutput
from mcp_ssh.linux.parts import ask_parts
from mcp_ssh.sessions.query import ask as read
from mcp_ssh.sessions.session import Output, Session
from mcp_ssh.shell_command import Command, script
from mcp_ssh.ssh.exec.capture import Capture
from mcp_ssh.ssh.exec.stream import streaming
from mcp_ssh.tool import Call

BEAT_S = 2.0
"""How often a caller hears of a manager that works; it may say nothing for minutes while it downloads."""
OUTPUT_LIMIT = 1024 * 1024
INVENTORY_BYTES = 8 * 1024 * 1024
"""The most that a manager may answer with: its packages, and what it was asked."""
LOCK_POLL_S = 1.0

# $1: what marks the exit code. The rest: the command. A daemon that a package starts may keep the pipe: so the end is
# the mark, not the end of the pipe, and what comes later is still read, for the daemon would end of a pipe without a
# reader. Where the link is lost nobody reads on: the lines are dropped, and the manager, which must not be torn out of
# its work, never notices.
_FOLLOWED = r"""
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; export PATH
mark=$1
shift
{ "$@" </dev/null 2>&1; printf '\n%s %s\n' "$mark" "$?"; } | {
    trap '' PIPE
    code=1
    while IFS= read -r line; do
        case $line in "$mark "*) code=${line#* }; break ;; esac
        printf '%s\n' "$line" 2>/dev/null
    done
    exec 3<&0
    cat <&3 >/dev/null 2>&1 3<&- &
    exit "$code"
}
"""

# $1: the question. $2: the question for all packages.
_ASKED = r"""
part said; eval "$1" </dev/null 2>&1; code=$?
part code; echo "$code"
part installed; { complaint=$(eval "$2" 2>&1 >&3 </dev/null 3>&-); code=$?; } 3>&1
part listed; echo "$code"
part complaint; printf "%s\n" "$complaint" | tail -n 3
"""

# $1: the process that the manager named, or nothing. The rest: the files that may be its lock.
_HOLDER = r"""
tell() {
    [ -r "/proc/$1/cmdline" ] || return 1
    printf '%s ' "$1"; tr '\0' ' ' <"/proc/$1/cmdline" | head -c 200
    exit 0
}
[ -z "$1" ] || tell "$1"
shift
for lock; do
    [ -e "$lock" ] || continue
    for open in /proc/[0-9]*/fd/*; do
        if [ "$open" -ef "$lock" ]; then pid=${open#/proc/}; tell "${pid%%/*}"; fi
    done
    printf 'file %s' "$lock"
    exit 0
done
"""
_NAMED = re.compile(r"\b(?:process|pid|locked by|lock: PID) (\d+)")


class ManagerRun:
    """One call's work with the manager of a machine.

    Attributes:
        host: As whom it runs.
        lock_wait_s: For how long another manager's lock is waited for, in all.
    """

    def __init__(
        self, host: Session, manager: PackageManager, call: Call, *, timeout_s: float, lock_wait_s: float
    ) -> None:
        self.host = host
        self.manager = manager
        self.lock_wait_s = lock_wait_s
        self._call = call
        self._timeout_s = timeout_s
        self._began = anyio.current_time()
        self._deadline = self._began + timeout_s
        self._doing = ""

    async def change(self, command: Command, step: str) -> ManagerOutput:
        """Run a command that may take long; the caller hears its lines.

        Args:
            command: The command.
            step: What it does, for the caller.

        Raises:
            Conflict: Another manager kept its lock for too long; nothing was done.
            TimedOut: It did not end in time, and was ended.
        """
        async with self._telling(step):
            return await self._run_unlocked(command, self._run_followed)

    async def ask(self, command: Command) -> tuple[ManagerOutput, Inventory]:
        """Run a question, and ask for all packages, in one round trip.

        Raises:
            Conflict: Another manager kept its lock for too long.
        """
        inventory = Inventory({})

        async def asked(question: Command) -> ManagerOutput:
            nonlocal inventory
            parts = ask_parts(_ASKED, [question.line(), self.manager.list_installed().line()])

            def parse(output: Output) -> tuple[ManagerOutput, Inventory]:
                answer = parts.parts(output.stdout)
                listed = self._take_inventory(
                    number(answer["listed"].strip(), 1), answer["installed"], answer["complaint"]
                )
                return ManagerOutput(number(answer["code"].strip(), 1), answer["said"]), listed

            said, inventory = await read(
                self.host, parts.command, parse, timeout_s=self._left_s(), limit=INVENTORY_BYTES
            )
            return said

        async with self._telling(f"asking {self.manager.name}"):
            return await self._run_unlocked(command, asked), inventory

    async def inventory(self) -> Inventory:
        """All packages of the machine.

        Raises:
            RemoteFailed: They cannot be listed: what is not known is not missing.
        """

        def parse(output: Output) -> Inventory:
            return self._take_inventory(output.exit_code, output.stdout.decode("utf-8", "replace"), output.error_text)

        return await read(
            self.host, self.manager.list_installed(), parse, timeout_s=self._left_s(), limit=INVENTORY_BYTES
        )

    def _take_inventory(self, exit_code: int, listed: str, complaint: str) -> Inventory:
        found = self.manager.inventory(listed)
        lines = [line.strip() for line in complaint.splitlines()]
        errors = [line for line in lines if line and not line.startswith("warning:")]
        # pacman fails where there are none, too, and then only warns.
        if exit_code != 0 and errors and not found.versions:
            raise RemoteFailed(
                f"{self.manager.name}: the packages of the machine cannot be listed: {' '.join(errors)[-500:]}",
                hint="look with command_exec whether its database is damaged, or closed to this account",
            )
        return found

    def _left_s(self) -> float:
        return max(self._deadline - anyio.current_time(), 1.0)

    async def _run_unlocked(
        self, command: Command, run: Callable[[Command], Awaitable[ManagerOutput]]
    ) -> ManagerOutput:
        """Run it again until no other manager holds the lock."""
        give_up = anyio.current_time() + self.lock_wait_s
        while self.manager.is_locked((said := await run(command)).output):
            holder = await self._holder(said.output)
            if anyio.current_time() >= give_up:
                raise _manager_locked(self.manager.name, holder, self.lock_wait_s)
            self._doing = f"waiting for {holder.text}, which holds the lock of {self.manager.name}"
            await anyio.sleep(min(LOCK_POLL_S, max(give_up - anyio.current_time(), 0)))
        return said

    async def _run_followed(self, command: Command) -> ManagerOutput:
        mark = secrets.token_hex(8)
        kept = Capture(OUTPUT_LIMIT)
        try:
            with anyio.fail_after(self._left_s()):
                wrapped = script(pack_script(_FOLLOWED), [mark, *command.argv])
                async with streaming(self.host.link, wrapped, self.host.acting) as stream:
                    while chunk := await stream.read():
                        await kept.feed(chunk)
                        lines = re.split(r"[\r\n]+", chunk.decode("utf-8", "replace").strip())
                        self._doing = lines[-1].strip()[:200] or self._doing
                    exit_code, _ = await stream.finish()
        except TimeoutError as error:
            raise TimedOut(
                f"{self.manager.name} did not end within {self._timeout_s:g} s and was ended",
                hint="see with setup_check what is left to do (after apt-get perhaps `dpkg --configure -a` with"
                " command_exec), then call again with a larger `timeout`",
            ) from error
        output = b"\n".join(kept.ends()) if kept.truncated else kept.whole()
        return ManagerOutput(1 if exit_code is None else exit_code, output.decode("utf-8", "replace"))

    async def _holder(self, output: str) -> "LockHolder":
        named = _NAMED.search(output)
        question = script(pack_script(_HOLDER), [named[1] if named else "", *self.manager.locks])
        word, _, rest = (await self.host.run(question)).stdout.decode("utf-8", "replace").partition(" ")
        if word.isdigit():
            return LockHolder(int(word), rest.strip(), None)
        return LockHolder(None, None, rest.strip() or None)

    @asynccontextmanager
    async def _telling(self, step: str) -> AsyncGenerator[None]:
        self._doing = step
        await self._tell(step)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._beat, step)
                yield
                group.cancel_scope.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _beat(self, step: str) -> None:
        while True:
            await anyio.sleep(BEAT_S)
            await self._tell(step if self._doing == step else f"{step}: {self._doing}")

    async def _tell(self, message: str) -> None:
        await self._call.progress(round(anyio.current_time() - self._began, 1), None, message)


@dataclass(frozen=True)
class LockHolder:
    """Who holds the lock: a process with its command line, or nobody, and then the file that was left."""

    pid: int | None
    command: str | None
    left: str | None

    @property
    def text(self) -> str:
        """For people."""
        return f"process {self.pid} ({self.command})" if self.pid else "another package manager"


def _manager_locked(manager: str, holder: LockHolder, waited_s: float) -> Conflict:
    details = {"holder": {"pid": holder.pid, "command": holder.command}}
    if holder.pid is None and holder.left is not None:
        return Conflict(
            f"{manager} is locked by {holder.left}, which no process holds; {waited_s:g} s were waited",
            hint="if no package manager works on the machine, the file was left by one that was killed: remove it",
            details=details,
        )
    return Conflict(
        f"{manager} is locked by {holder.text}; {waited_s:g} s were waited",
        hint="call again when it has ended, or with a larger `lock_wait_s`",
        details=details,
    )
