"""Telling a caller that long work continues, where the work itself cannot say how far it is."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

import anyio

from mcp_ssh.tool import Call

TELL_EVERY_S = 2.0
"""Shorter work says nothing."""


@contextlib.asynccontextmanager
async def elapsing(call: Call, so_far: Callable[[], str]) -> AsyncGenerator[None]:
    """While the body runs, report the seconds that passed, and what `so_far` says, every two seconds."""
    began = anyio.current_time()

    async def tell() -> None:
        while True:
            passed_s = round(anyio.current_time() - began, 1)
            await call.progress(passed_s, None, f"running for {passed_s:g} s, {so_far()}")
            await anyio.sleep(TELL_EVERY_S)

    try:
        async with anyio.create_task_group() as group:
            # Most calls end sooner, and a task for each would cost more than the rest of what is done for it here.
            first = asyncio.get_running_loop().call_later(TELL_EVERY_S, group.start_soon, tell)
            try:
                yield
            finally:
                first.cancel()
            group.cancel_scope.cancel()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
