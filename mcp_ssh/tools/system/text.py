"""The ends of text files."""

import codecs
from typing import ClassVar, Literal

import anyio
from pydantic import Field

from mcp_ssh.errors import TooMany
from mcp_ssh.linux.files.follow import Position, Reason, ask_follow
from mcp_ssh.linux.files.search import ask_lines, cut
from mcp_ssh.linux.framing import ScriptAnswer, failure
from mcp_ssh.messages.validation import word_pattern
from mcp_ssh.params import Event, OnSession, RemotePath, Result
from mcp_ssh.sessions.follow import following
from mcp_ssh.sessions.query import ask
from mcp_ssh.sessions.session import ANSWER_LIMIT, Output, Session
from mcp_ssh.tool import Call, Events, Risk, stream, tool
from mcp_ssh.tools.heartbeat import elapsing

EVENT_BYTES = 64 * 1024
"""The most of a file that one event brings."""

LATE_S = 2.0
"""How long the machine may take to end what it was told to end by itself."""


class SystemHeadParams(OnSession):
    path: RemotePath
    lines: int = Field(default=100, ge=1, le=10_000, description="How many lines.")
    max_bytes: int = Field(default=65_536, ge=256, le=1_048_576, description="Bytes of content at most.")


class LinesResult(Result):
    path: str = Field(description="The file, with `~` expanded.")
    content: str = Field(description="The lines; bytes that are not UTF-8 are replaced.")
    truncated: bool | None = Field(default=None, description="True where max_bytes cut some off.")


class SystemTailParams(SystemHeadParams):
    follow_s: int = Field(
        default=0,
        ge=0,
        le=300,
        description="Seconds to go on reading what is added.",
    )

    def time_limit_s(self) -> float:
        """The wait, and time to read."""
        return self.follow_s + 30.0


@tool(Risk.READ, room="system")
async def tail(host: Session, params: SystemTailParams, call: Call) -> LinesResult:
    """Read the last lines of a file, such as a log; with follow_s also those that are added meanwhile, as `tail -F`."""
    if not params.follow_s:
        return await _read(host, params, "tail")
    asked = ask_follow(params.path, params.lines, params.follow_s)
    content = bytearray()
    async with elapsing(call, lambda: f"following {params.path}"), following(host, asked) as file:
        while len(content) <= params.max_bytes and (parts := await file.read()):
            content += b"".join(each for each in parts if isinstance(each, bytes))
        path = file.path
    return _lines_result(ScriptAnswer("ok", path, bytes(content), b""), "head", params.max_bytes)


@tool(Risk.READ, room="system")
async def head(host: Session, params: SystemHeadParams, call: Call) -> LinesResult:
    """Read the first lines of a file."""
    return await _read(host, params, "head")


async def _read(host: Session, params: SystemHeadParams, program: Literal["tail", "head"]) -> LinesResult:
    asked = ask_lines(params.path, program, params.lines, params.max_bytes)

    def told(said: Output) -> LinesResult:
        answer = asked.answer(said.stdout, said.stderr)
        if answer.trailer:
            raise failure(answer.path, answer.trailer)
        return _lines_result(answer, program, params.max_bytes)

    return await ask(host, asked.command, told, limit=params.max_bytes + ANSWER_LIMIT)


def _lines_result(answer: ScriptAnswer, kept: Literal["tail", "head"], limit: int) -> LinesResult:
    content, truncated = cut(answer.body, kept, limit)
    result = LinesResult(path=answer.path, content=content.decode("utf-8", "replace"))
    if truncated:
        result.truncated = True
    return result


# ---- system_tail as a stream -------------------------------------------------------------------------------------


class Follow(OnSession):
    path: RemotePath
    lines: int = Field(default=100, ge=1, le=10_000, description="How many of the last lines to begin with.")
    max_s: int = Field(default=3600, ge=1, le=86_400, description="Seconds until the stream ends.")
    since: str | None = Field(
        default=None,
        pattern=word_pattern(
            r"^[0-9]{1,20}:[0-9]{1,20}:[0-9]{1,18}$",
            "must be the id of an event, three numbers with colons between them, such as 2049:131:4096",
        ),
        description="Id of the last event you saw: continues behind it. Last-Event-ID says the same, and counts more.",
    )

    def time_limit_s(self) -> float:
        """The stream's own end, and time to come to it."""
        return self.max_s + 30.0


class TailContent(Event):
    event: ClassVar[str] = "content"
    content: str = Field(description="What was read of the file; bytes that are not UTF-8 are replaced.")


class TailReset(Event):
    event: ClassVar[str] = "reset"
    reason: Reason = Field(
        description="moved: the path is another file now, such as after rotation; truncated: the file became shorter;"
        " replaced: it is not the file that `since` is of. What follows is from the start of the file there is now."
    )


class TailEnd(Result):
    reason: Literal["max_s"] = Field(description="max_s: the time is over. With the last id it can be gone on with.")


@stream(tail, events=(TailContent, TailReset), resumes="since")
async def follow(host: Session, params: Follow, call: Call, events: Events) -> TailEnd:
    """Follow a file, such as a log: its last lines, then what is added to it, as `tail -F`.

    A file that is moved away or emptied is followed by its name, which a `reset` tells. Each id says up to where the
    file was read, so that a client that connects again misses nothing and reads nothing twice.
    """
    if not host.link.may_keep:
        raise TooMany(
            "the machine gives this connection no channel that could be kept for following a file",
            hint="read the file again now and then instead, or wait for a running call to end",
        )
    with anyio.move_on_after(params.max_s + LATE_S):
        async with following(host, ask_follow(params.path, params.lines, params.max_s, _since(params.since))) as file:
            await events.begin()
            text = _Text(events)
            while parts := await file.read():
                for each in parts:
                    await text.take(each)
    return TailEnd(reason="max_s")


def _since(event_id: str | None) -> tuple[str, int] | None:
    file, _, offset = (event_id or "").rpartition(":")
    return (file, int(offset)) if file else None


class _Text:
    """Makes events of the bytes of a file. Their ids stand before what is not yet a whole character."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._file, self._offset = "", 0

    async def take(self, part: bytes | Position) -> None:
        """Send what came of the file, or that it is another one from here on."""
        if isinstance(part, bytes):
            for start in range(0, len(part), EVENT_BYTES):
                piece = part[start : start + EVENT_BYTES]
                self._offset += len(piece)
                await self._send(self._decoder.decode(piece))
            return
        await self._send(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        self._file, self._offset = part.file, part.offset
        if part.reset is not None:
            await self._events.send(TailReset(reason=part.reset), self._id)

    async def _send(self, content: str) -> None:
        if content:
            await self._events.send(TailContent(content=content), self._id)

    @property
    def _id(self) -> str:
        incomplete, _ = self._decoder.getstate()
        return f"{self._file}:{self._offset - len(incomplete)}"
