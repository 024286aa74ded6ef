"""Read answers of machines within a budget of memory and time that all callers share."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import anyio

from mcp_ssh.errors import RemoteFailed
from mcp_ssh.linux.parts import Parts, PartsAsked
from mcp_ssh.shell_command import Command
from mcp_ssh.ssh.exec.answer_budget import answer_budget

if TYPE_CHECKING:
    from mcp_ssh.sessions.session import Output, Session

FREE_BYTES = 64 * 1024
"""A shorter answer is parsed in the event loop: it takes a few ms."""

PARSE_S = 15.0
"""Seconds that parsing one answer may take."""

T = TypeVar("T")
_Answer = TypeVar("_Answer")


_parsers = ThreadPoolExecutor(4, "parser")
"""Not anyio's threads: a caller that gives up leaves its parser running, which has to keep its place until it ends."""


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
        return await parse_answer(parse, output, len(output.stdout))


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


async def parse_answer(parse: Callable[[_Answer], T], said: _Answer, size: int) -> T:
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
