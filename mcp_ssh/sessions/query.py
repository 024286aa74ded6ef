"""Read answers of machines within a budget of memory and time that all callers share."""

import asyncio
import contextlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import anyio
from anyio.lowlevel import RunVar

from mcp_ssh.errors import RemoteFailed
from mcp_ssh.linux.parts import Parts, PartsAsked
from mcp_ssh.shell_command import Command

if TYPE_CHECKING:
    from mcp_ssh.sessions.session import Output, Session

BUDGET_BYTES = 32 * 1024 * 1024
"""Bytes of answers that the process holds at a time while they arrive and are parsed."""

FREE_BYTES = 64 * 1024
"""A shorter answer is parsed in the event loop: it takes a few ms."""

PARSE_S = 15.0
"""Seconds that parsing one answer may take."""

T = TypeVar("T")
Said = TypeVar("Said")


class AnswerBudget:
    """Memory for answers, in bytes, that all callers share.

    An answer takes room as its bytes arrive; where there is none, it waits, and so its machine does. The eldest answer
    of all never waits, so there is always one that comes to its end. Of the rest a caller takes three quarters at most:
    half for its own eldest answer, a quarter for the others. A sixteenth is every caller's without a wait, whatever
    others hold, since a machine can keep an answer open for as long as its call may run.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0
        self._rooms: dict[AnswerRoom, None] = {}
        self._freed = anyio.Event()

    @contextlib.contextmanager
    def room(self, caller_id: str) -> Generator["AnswerRoom"]:
        """Room for one answer, given back at the end of the block."""
        room = AnswerRoom(self, caller_id)
        self._rooms[room] = None
        try:
            yield room
        finally:
            del self._rooms[room]
            self.taken -= room.taken
            self._freed.set()

    async def take(self, room: "AnswerRoom", wanted: int) -> None:
        """Wait until the room may grow by so many bytes, and let it."""
        while not self._may_take(room, wanted):
            room.waits = True
            if self._freed.is_set():
                self._freed = anyio.Event()
            await self._freed.wait()
        room.waits = False
        room.taken += wanted
        self.taken += wanted

    def _may_take(self, room: "AnswerRoom", wanted: int) -> bool:
        if next(iter(self._rooms)) is room:
            return True
        own = [each for each in self._rooms if each.caller_id == room.caller_id]
        held = sum(each.taken for each in own)
        if held + wanted <= self.total // 16:
            return True
        if own[0] is room:
            fair = room.taken + wanted <= self.total // 2
        else:
            others = held - own[0].taken
            fair = held + wanted <= self.total // 2 and others + wanted <= self.total // 4
        return fair and self.taken + wanted <= self.total


class AnswerRoom:
    """The room that one answer takes.

    Attributes:
        waits: Its bytes wait for room, or waited for it until their call gave up.
    """

    def __init__(self, budget: AnswerBudget, caller_id: str) -> None:
        self.caller_id = caller_id
        self.taken = 0
        self.waits = False
        self._budget = budget

    async def take(self, wanted: int) -> None:
        """Wait for room for so many more bytes."""
        await self._budget.take(self, wanted)


_budget: RunVar[AnswerBudget] = RunVar("answers")
_parsers = ThreadPoolExecutor(4, "parser")
"""Not anyio's threads: a caller that gives up leaves its parser running, which has to keep its place until it ends."""


def answer_budget() -> AnswerBudget:
    """The budget of this event loop, which is the process's."""
    try:
        return _budget.get()
    except LookupError:
        _budget.set(budget := AnswerBudget(BUDGET_BYTES))
        return budget


async def ask(
    host: "Session",
    command: Command,
    parse: Callable[["Output"], T],
    *,
    timeout_s: float = 30.0,
    limit: int = FREE_BYTES,
) -> T:
    """Run a command of our own and return what `parse` makes of its answer.

    All callers share the memory for answers, so this waits while others hold it. A large answer is parsed in a thread,
    within a deadline.

    Raises:
        RemoteFailed: The answer has more than `limit` bytes, or it is not one.
        ToolError: As `host.run` and `parse` do.
    """
    with answer_budget().room(host.caller_id) as room:
        output = await host.run(command, timeout_s=timeout_s, limit=limit, room=room)
        return await parsed(parse, output, len(output.stdout))


async def parts_of(
    host: "Session",
    asked: PartsAsked,
    parse: Callable[[Parts], T],
    *,
    timeout_s: float = 30.0,
    limit: int = FREE_BYTES,
) -> T:
    """Run a question whose answer comes in parts, as `ask` does, and return what `parse` makes of them."""
    return await ask(
        host, asked.command, lambda said: parse(asked.parts(said.stdout)), timeout_s=timeout_s, limit=limit
    )


async def parsed(parse: Callable[[Said], T], said: Said, size: int) -> T:
    """What the parser makes of an answer. A large one is parsed in a thread, within a deadline.

    Raises:
        RemoteFailed: The answer has another form than it should, or parsing it takes too long.
        ToolError: What the answer means.
    """
    try:
        if size <= FREE_BYTES:
            return parse(said)
        with anyio.fail_after(PARSE_S):
            return await asyncio.wrap_future(_parsers.submit(parse, said))
    except TimeoutError as error:
        raise RemoteFailed(
            f"the machine's answer of {size} bytes could not be read within {PARSE_S:g} s", hint="narrow the request"
        ) from error
    except (ValueError, LookupError, ArithmeticError) as error:
        raise RemoteFailed(
            "the machine's answer does not have the form that its programs give",
            hint="see with command_exec what the machine's own programs say",
        ) from error
