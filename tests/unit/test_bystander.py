"""The measure of what another caller waits."""

import time

import anyio
import pytest

from tests.support.bystander import bystander


def busy(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


async def test_work_in_small_pieces_keeps_nobody_waiting() -> None:
    async with bystander(0.4):
        for _ in range(20):
            busy(0.03)
            await anyio.sleep(0)


async def test_one_piece_of_work_that_is_too_long_fails() -> None:
    with pytest.raises(AssertionError, match="another caller waited"):
        async with bystander(0.2):
            busy(0.3)
