"""The ends of text files."""

from typing import Literal

from pydantic import Field

from mcp_ssh.params import OnSession, RemotePath, Result
from mcp_ssh.probes.answers import Answer
from mcp_ssh.probes.searching import ask_follow, ask_lines, cut
from mcp_ssh.ssh.elapsing import elapsing
from mcp_ssh.ssh.session import Session
from mcp_ssh.tool import Call, Risk, tool


class Lines(OnSession):
    path: RemotePath
    lines: int = Field(default=100, ge=1, le=10_000, description="How many lines.")
    max_bytes: int = Field(default=65_536, ge=256, le=1_048_576, description="Bytes of content at most.")


class LinesRead(Result):
    path: str = Field(description="The file, with `~` expanded.")
    content: str = Field(description="The lines; bytes that are not UTF-8 are replaced.")
    truncated: bool | None = Field(default=None, description="True where max_bytes cut some off.")


class Tail(Lines):
    follow_s: int = Field(
        default=0,
        ge=0,
        le=300,
        description="Seconds to go on reading what is added.",
    )

    def time_limit_s(self) -> float:
        """The wait, and time to read."""
        return self.follow_s + 30.0


@tool(Risk.READ)
async def tail(host: Session, params: Tail, call: Call) -> LinesRead:
    """Read the last lines of a file, such as a log; with follow_s also those that are added meanwhile, as `tail -F`."""
    if not params.follow_s:
        return await _read(host, params, "tail")
    asked = ask_follow(params.path, params.lines, params.max_bytes, params.follow_s)
    async with elapsing(call, lambda: f"following {params.path}"):
        said = await host.run(asked.command, timeout_s=params.time_limit_s() - 5, limit=params.max_bytes + 65_536)
    return _told(asked.answer(said.stdout, said.stderr), "head", params.max_bytes)


@tool(Risk.READ)
async def head(host: Session, params: Lines, call: Call) -> LinesRead:
    """Read the first lines of a file."""
    return await _read(host, params, "head")


async def _read(host: Session, params: Lines, program: Literal["tail", "head"]) -> LinesRead:
    asked = ask_lines(params.path, program, params.lines, params.max_bytes)
    said = await host.run(asked.command)
    return _told(asked.answer(said.stdout, said.stderr), program, params.max_bytes)


def _told(answer: Answer, kept: Literal["tail", "head"], limit: int) -> LinesRead:
    content, truncated = cut(answer.body, kept, limit)
    result = LinesRead(path=answer.path, content=content.decode("utf-8", "replace"))
    if truncated:
        result.truncated = True
    return result
