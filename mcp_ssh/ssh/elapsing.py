"""Telling a caller that long work goes on, where the work itself cannot say how far it is."""

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
            await anyio.sleep(TELL_EVERY_S)
            passed_s = round(anyio.current_time() - began, 1)
            await call.progress(passed_s, None, f"running for {passed_s:g} s, {so_far()}")

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(tell)
            yield
            group.cancel_scope.cancel()
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from errors
