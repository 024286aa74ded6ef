"""The ends of text files."""

from typing import Literal

from pydantic import Field

from mcp_ssh.params import OnSession, RemotePath, Result
from mcp_ssh.probes.searching import ask_lines, cut
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


@tool(Risk.READ)
async def tail(host: Session, params: Lines, call: Call) -> LinesRead:
    """Read the last lines of a file, such as a log."""
    return await _read(host, params, "tail")


@tool(Risk.READ)
async def head(host: Session, params: Lines, call: Call) -> LinesRead:
    """Read the first lines of a file."""
    return await _read(host, params, "head")


async def _read(host: Session, params: Lines, program: Literal["tail", "head"]) -> LinesRead:
    asked = ask_lines(params.path, program, params.lines, params.max_bytes)
    said = await host.run(asked.command)
    answer = asked.answer(said.stdout, said.stderr)
    content, truncated = cut(answer.body, program, params.max_bytes)
    result = LinesRead(path=answer.path, content=content.decode("utf-8", "replace"))
    if truncated:
        result.truncated = True
    return result
