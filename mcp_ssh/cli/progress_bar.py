"""A progress bar on a terminal, and nothing elsewhere."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from mcp_ssh.messages.printable import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bar:
    """One bar on standard error, from the first word of progress to the end of the block, where it stays."""

    def __init__(self, title: str) -> None:
        self._title = printable(title)
        self._began = time.monotonic()
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> "Bar":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TextColumn("{task.fields[speed]}", style="progress.data.speed"),
                TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            )
            self._progress = Progress(*columns, console=Console(stderr=True))
        return self

    def move(self, done: float, total: float | None) -> None:
        """How far it is."""
        if self._progress is None:
            return
        if self._task is None:
            self._task = self._progress.add_task(self._title, total=total, speed="")
            self._progress.start()
        speed = done / max(time.monotonic() - self._began, 0.001)
        self._progress.update(self._task, completed=done, total=total, speed=f"{readable(speed)}/s")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.stop()


def readable(size: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
