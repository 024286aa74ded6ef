"""MCP messages as lines on two file descriptors, without threads.

The SDK reads standard input in a worker thread, which blocks in `readline`: it can neither be cancelled nor let the
process end before the client closes the pipe. These wait for the descriptors in the event loop instead.
"""

import contextlib
import json
import os
import select
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass
from typing import Any, cast

import anyio
import anyio.lowlevel
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import types
from mcp.shared.message import SessionMessage
from mcp.types.jsonrpc import jsonrpc_message_adapter
from pydantic import ValidationError

MAX_LINE_BYTES = 16 * 1024 * 1024
"""The longest message that is read; a longer one is refused, not kept."""

SETTLE_LIMIT_S = 0.5
"""How long answers that are under way may take to be written once there is an end."""

Inbox = MemoryObjectSendStream[SessionMessage | Exception]

_READ_BYTES = 64 * 1024


class Pipes:
    """Where one client's messages come from and where they go."""

    def __init__(self, stdin: int, stdout: int) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._unanswered: set[str | int] = set()
        self._settled = anyio.Event()

    async def receive(self, messages: Inbox, answers: MemoryObjectSendStream[SessionMessage]) -> None:
        """Pass on the messages that come in; what is none is answered with an error.

        At the end of input the client may still wait for answers, as in `printf … | ssh-steward stdio`. The SDK cancels
        what runs as soon as it hears of the end, so it does after a moment for what needs no longer than that.
        """
        async with messages, answers:
            async for line in _lines(self._stdin):
                try:
                    message = _message(line)
                    if isinstance(message, _Wrong):
                        await answers.send(SessionMessage(message.answer))
                        continue
                    if isinstance(message, types.JSONRPCRequest):
                        self._unanswered.add(message.id)
                    await messages.send(SessionMessage(message))
                except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                    return
            await self.wait_answered()

    async def send(self, messages: MemoryObjectReceiveStream[SessionMessage]) -> None:
        """Write messages until there are no more, or nobody reads them."""
        async with messages:
            async for each in messages:
                message = each.message
                left = memoryview(_line(message))
                while left:
                    await _ready(anyio.wait_writable, self._stdout)
                    try:
                        # A pipe that is ready takes this many bytes at once; more could block the whole loop.
                        left = left[os.write(self._stdout, left[: select.PIPE_BUF]) :]
                    except OSError:
                        return
                if isinstance(message, types.JSONRPCResponse | types.JSONRPCError) and message.id is not None:
                    self._unanswered.discard(message.id)
                    if not self._unanswered:
                        self._settled.set()

    async def wait_answered(self) -> None:
        """Wait a moment, at most, until every request is answered."""
        with anyio.move_on_after(SETTLE_LIMIT_S):
            while self._unanswered:
                self._settled = anyio.Event()
                await self._settled.wait()


@contextlib.contextmanager
def standard_streams() -> Generator[Pipes]:
    """Take standard input and output for messages alone.

    Meanwhile anything else in this process, and in its children, reads nothing from 0, and what it writes to 1 goes to
    standard error: a stray print would break the protocol.
    """
    stdin, stdout = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    try:
        yield Pipes(stdin, stdout)
    finally:
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.close(stdin)
        os.close(stdout)


async def _lines(descriptor: int) -> AsyncGenerator[bytes | None]:
    """The lines that are not blank; `None` for one that is too long."""
    kept, too_long = bytearray(), False
    while chunk := await _read(descriptor):
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            kept += part
            if too_long or len(kept) > MAX_LINE_BYTES:
                yield None
            elif kept.strip():
                yield bytes(kept)
            kept, too_long = bytearray(), False
        kept += rest
        if len(kept) > MAX_LINE_BYTES:
            kept, too_long = bytearray(), True
    if kept.strip():
        yield bytes(kept)


async def _read(descriptor: int) -> bytes:
    await _ready(anyio.wait_readable, descriptor)
    try:
        return os.read(descriptor, _READ_BYTES)
    except OSError:
        # A terminal that hung up, a socket that was reset: the end, like any other.
        return b""


async def _ready(wait: Callable[[int], Awaitable[None]], descriptor: int) -> None:
    try:
        await wait(descriptor)
    except PermissionError:
        # What epoll refuses is a plain file or /dev/null: always ready.
        await anyio.lowlevel.checkpoint()


def _line(message: types.JSONRPCMessage) -> bytes:
    try:
        text = message.model_dump_json(by_alias=True, exclude_unset=True)
    except ValueError:
        # One answer that cannot be written must not end the server: its request gets an error instead.
        return _line(_refusal(getattr(message, "id", None), types.INTERNAL_ERROR, "the answer is not valid text"))
    return text.encode() + b"\n"


@dataclass(frozen=True)
class _Wrong:
    """A line that is not a message, and what its sender hears of it."""

    answer: types.JSONRPCError


def _message(line: bytes | None) -> types.JSONRPCMessage | _Wrong:
    if line is None:
        return _Wrong(_refusal(None, types.INVALID_REQUEST, f"a message is {MAX_LINE_BYTES} bytes at most"))
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValidationError as error:
        if error.errors()[0]["type"] == "json_invalid":
            return _Wrong(_refusal(_id(line), types.PARSE_ERROR, "not JSON"))
        return _Wrong(_refusal(_id(line), types.INVALID_REQUEST, "not a JSON-RPC message"))


def _refusal(request_id: str | int | None, code: int, message: str) -> types.JSONRPCError:
    return types.JSONRPCError(jsonrpc="2.0", id=request_id, error=types.ErrorData(code=code, message=message))


def _id(line: bytes) -> str | int | None:
    """The id of a request that is wrong otherwise, as text with lone surrogates is, so that its sender hears of it."""
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    name = cast("dict[str, Any]", found).get("id") if isinstance(found, dict) else None
    return name if isinstance(name, str | int) and not isinstance(name, bool) else None
