"""Running a command's asynchronous part, so that a signal ends it with everything cleaned up."""

import signal
from collections.abc import Awaitable, Callable
from typing import TypeVarTuple

import anyio

_Arguments = TypeVarTuple("_Arguments")


ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_async(work: Callable[[*_Arguments], Awaitable[None]], *arguments: *_Arguments) -> int:
    """Run it, and return the exit code: 0, or 128 and the number of the signal that ended it.

    A signal cancels the work, so that remote commands and sessions end before this process does. Further ones do not
    cut that short.
    """
    return anyio.run(_until_signal, work, arguments)


async def _until_signal(work: Callable[[*_Arguments], Awaitable[None]], arguments: tuple[*_Arguments]) -> int:
    caught: list[int] = []

    async def watch() -> None:
        async for each in signals:
            caught.append(each)
            group.cancel_scope.cancel()

    with anyio.open_signal_receiver(*ENDING) as signals:
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await work(*arguments)
            group.cancel_scope.cancel()
    return 128 + caught[0] if caught else 0
