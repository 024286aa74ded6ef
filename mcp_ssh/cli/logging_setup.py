"""Logs: on standard error, and in a file where the config names a folder. Never a command or a value at INFO."""

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mcp_ssh.messages.printable import json_text, printable, printable_lines

if TYPE_CHECKING:
    from mcp_ssh.config.models import Config

QUIET = ("asyncssh", "aiosqlite", "mcp", "httpx2", "httpcore2", "uvicorn", "sse_starlette", "asyncio")
"""Loggers of libraries that tell commands, addresses with tokens in them, or each request at INFO or below."""

REPEATS_S = 60.0
"""How long the same warning of a library is left out."""

KIND_LENGTH = 40
"""How many characters of a message tell its kind: behind them it may name a session or an address."""

KINDS = 100
"""How many kinds are remembered."""

DECISION = "passes_repeats"


def set_up(config: "Config", *, verbose: bool, as_json: bool) -> None:
    """Log as the config says, for a server.

    Raises:
        InvalidInput: The folder for the log file cannot be used.
    """
    level = "DEBUG" if verbose or config.server.debug else config.logging.level
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if config.logging.directory:
        from mcp_ssh.cli.log_file import log_file

        handlers.append(log_file(Path(config.logging.directory).expanduser()))
    _install(handlers, level, as_json=as_json)


def set_up_command(*, verbose: bool, as_json: bool) -> None:
    """Log for a command that a person waits for: what went wrong, or everything with `-v`."""
    _install([logging.StreamHandler(sys.stderr)], "DEBUG" if verbose else "WARNING", as_json=as_json)


def _install(handlers: list[logging.Handler], level: str, *, as_json: bool) -> None:
    repeats = _Repeats()
    for handler in handlers:
        handler.addFilter(repeats)
        handler.setFormatter(_JsonLines() if as_json else _Lines())
    logging.basicConfig(level=level, handlers=handlers, force=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLogger().level))


class _Repeats(logging.Filter):
    """Let one warning of a kind through in a minute: a client that sends malformed requests decides how many there are.

    Records are alike if logger and message are, whatever the arguments. Records with a traceback always pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self._passed: dict[tuple[str, str], float] = {}
        self._held: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Judge a record once, however many handlers ask."""
        passes = record.__dict__.setdefault(DECISION, None)
        if passes is None:
            passes = record.__dict__[DECISION] = self._passes(record)
        return bool(passes)

    def _passes(self, record: logging.LogRecord) -> bool:
        if record.exc_info or record.name.partition(".")[0] not in QUIET:
            return True
        kind = record.name, str(record.msg)[:KIND_LENGTH]
        if record.created < self._passed.get(kind, 0.0) + REPEATS_S:
            self._held[kind] = self._held.get(kind, 0) + 1
            return False
        if len(self._passed) >= KINDS:
            self._passed.clear()
            self._held.clear()
        self._passed[kind] = record.created
        if held := self._held.pop(kind, 0):
            record.msg, record.args = f"{record.getMessage()} ({held} more like it were left out)", None
        return True


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Lines(logging.Formatter):
    """Time, level, logger and message in one line, whatever text from outside the message holds; a traceback below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 logging's
        del datefmt
        return _moment(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 logging's
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 logging's
        return printable_lines(super().formatException(ei))


class _JsonLines(logging.Formatter):
    """The same as a JSON object in a line, traceback included."""

    def format(self, record: logging.LogRecord) -> str:
        shown: Mapping[str, Any] = {
            "time": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        trace = {"traceback": self.formatException(record.exc_info)} if record.exc_info else {}
        return json_text({**shown, **trace})
