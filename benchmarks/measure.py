"""Taking turns: ways to do one thing, round after round beside each other, so that noise meets all of them."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

Step = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Turns:
    """How often and how fast.

    Attributes:
        rounds: How often every way has its turn.
        batch: How often a thing is done in a turn.
        pause_s: Between two times in a turn; it is not measured.
    """

    rounds: int = 7
    batch: int = 20
    pause_s: float = 0.0


class Seen:
    """What was measured, by way: one number a round."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[float]] = {}

    def add(self, way: str, value: float) -> None:
        """One round's number."""
        self.rounds.setdefault(way, []).append(value)

    def beside(self, subject: str, reference: str) -> tuple[float, float, float]:
        """Both medians, and the median of the ratios of each round."""
        ours, theirs = self.rounds[subject], self.rounds[reference]
        ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
        return statistics.median(ours), statistics.median(theirs), statistics.median(ratios)


async def in_turns(steps: Mapping[str, Step], turns: Turns) -> Seen:
    """The median milliseconds of one time, by way and round."""
    seen = Seen()
    for step in steps.values():
        await step()
    for _ in range(turns.rounds):
        for name, step in steps.items():
            seen.add(name, await _median_ms(step, turns))
    return seen


async def _median_ms(step: Step, turns: Turns) -> float:
    times: list[float] = []
    for _ in range(turns.batch):
        await asyncio.sleep(turns.pause_s)
        times.append(await took_ms(step))
    return statistics.median(times)


async def took_ms(step: Step) -> float:
    """Milliseconds of one time."""
    began = time.perf_counter()
    await step()
    return (time.perf_counter() - began) * 1000


def cpu_s(pid: int) -> float:
    """CPU seconds of a process's threads so far, as exactly as the scheduler counts."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9


def resident_kib(pid: int, *, peak: bool = False) -> int:
    """Memory of a process now, or the most it had since `forget_peak`."""
    word = "VmHWM:" if peak else "VmRSS:"
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(word))


def forget_peak(pid: int) -> None:
    """Count the most memory anew (clear_refs, proc(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
