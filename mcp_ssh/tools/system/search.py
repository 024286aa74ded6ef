"""Searching files by what they hold and by what they are."""

from typing import Annotated, Literal

from pydantic import Field

from mcp_ssh.linux.files.search import ANSWER_BYTES, ask_find, ask_grep, parse_find, parse_grep, size_tests
from mcp_ssh.messages.validation import word_pattern
from mcp_ssh.params import NumberAsText, OnSession, RemotePath, Result, ShellText
from mcp_ssh.sessions.query import ask
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool

TEXT_LIMIT = 2000
"""Characters shown of one line."""

SEARCH_BYTES = ANSWER_BYTES + 512 * 1024
"""What a search finds, and its complaints."""

MaxResults = Annotated[int, Field(ge=1, le=1000, description="How many to return.")]


class _Searching(OnSession):
    timeout: float = Field(default=60.0, gt=0, le=600, description="Seconds the search may take.")

    def time_limit_s(self) -> float:
        """The search's own deadline, and the time to end it."""
        return self.timeout + 10.0


# ---- system_grep -------------------------------------------------------------------------------------------------


class SystemGrepParams(_Searching):
    pattern: ShellText = Field(
        min_length=1, max_length=4096, description="Extended regular expression; \\d, \\w, \\s, \\b too."
    )
    path: RemotePath = Field(default=".", description="File or folder; relative ones start at the login folder.")
    recursive: bool = Field(default=True, description="Look into folders. Links in them are not followed.")
    ignore_case: bool = Field(default=False, description="Take upper and lower case as equal.")
    fixed: bool = Field(default=False, description="The pattern is plain text.")
    context: int = Field(default=0, ge=0, le=20, description="Lines to show around each match.")
    max_results: MaxResults = 100


class GrepMatch(Result):
    file: str = Field(description="The file.")
    line: int = Field(description="Line number, from 1.")
    content: str = Field(description="The line, its first 2,000 characters.")
    context: bool | None = Field(default=None, description="True of a line around a match that is none itself.")


class SystemGrepResult(Result):
    matches: list[GrepMatch] = Field(description="Lines that match, in the order of the files.")
    count: int = Field(description="How many of them match.")
    truncated: bool | None = Field(default=None, description="True where there are more than max_results.")
    binary_files: list[str] | None = Field(default=None, description="Files that match and are not text.")
    unreadable: int | None = Field(default=None, description="How many files or folders could not be read.")


@tool(Risk.READ, room="system")
async def grep(host: Session, params: SystemGrepParams, call: Call) -> SystemGrepResult:
    """Search files for a text or regular expression, and show the lines with their file and number."""
    asked = ask_grep(
        params.path,
        params.pattern,
        recursive=params.recursive,
        ignore_case=params.ignore_case,
        fixed=params.fixed,
        context=params.context,
        most=params.max_results + 1,
    )
    found = await ask(
        host,
        asked.command,
        lambda said: parse_grep(asked.answer(said.stdout, said.stderr)),
        timeout_s=params.timeout,
        limit=SEARCH_BYTES,
    )
    matches: list[GrepMatch] = []
    count = 0
    for line in found.lines:
        if line.is_match and count == params.max_results:
            break
        count += line.is_match
        row = GrepMatch(file=line.file, line=line.number, content=line.text[:TEXT_LIMIT])
        if not line.is_match:
            row.context = True
        matches.append(row)
    result = SystemGrepResult(matches=matches, count=count)
    if not found.whole or sum(line.is_match for line in found.lines) > count:
        result.truncated = True
    if found.binary:
        result.binary_files = found.binary[: params.max_results]
    if found.unreadable:
        result.unreadable = found.unreadable
    return result


# ---- system_find -------------------------------------------------------------------------------------------------


class SystemFindParams(_Searching):
    path: RemotePath = Field(default=".", description="Folder to look in; relative ones start at the login folder.")
    name: ShellText | None = Field(
        default=None, min_length=1, max_length=1024, description="Shell pattern of the name, such as `*.log`."
    )
    type: Literal["f", "d", "l"] | None = Field(default=None, description="f files, d folders, l links.")
    max_depth: int | None = Field(default=None, ge=1, le=20, description="Levels below path to look at.")
    size: Annotated[str | None, NumberAsText] = Field(
        default=None,
        pattern=word_pattern(
            r"^[+-]?\d{1,15}[bcwkMG]?$",
            "must be a whole number, if wanted with + or - before it and one of b c w k M G behind it, such as +10M",
        ),
        description="Size as find has it: +10M over, -4k under; c bytes, k KiB, M MiB, G GiB.",
    )
    mtime: Annotated[str | None, NumberAsText] = Field(
        default=None,
        pattern=word_pattern(
            r"^[+-]?\d{1,6}$", "must be a whole number of days, if wanted with + or - before it, such as -1"
        ),
        description="Days since it was changed: -1 less, +30 more.",
    )
    max_results: MaxResults = 100


class SystemFindResult(Result):
    files: list[str] = Field(description="Paths, as find meets them.")
    count: int = Field(description="How many are listed.")
    truncated: bool | None = Field(default=None, description="True where there are more than max_results.")
    unreadable: int | None = Field(default=None, description="How many folders could not be looked into.")


@tool(Risk.READ, room="system")
async def find(host: Session, params: SystemFindParams, call: Call) -> SystemFindResult:
    """Find files and folders by name, type, size or age: large files, old logs, where something is."""
    asked = ask_find(params.path, _tests(params))
    found, unreadable, whole = await ask(
        host,
        asked.command,
        lambda said: parse_find(asked.answer(said.stdout, said.stderr)),
        timeout_s=params.timeout,
        limit=SEARCH_BYTES,
    )
    listed = found[: params.max_results]
    result = SystemFindResult(files=listed, count=len(listed))
    if not whole or len(found) > len(listed):
        result.truncated = True
    if unreadable:
        result.unreadable = unreadable
    return result


def _tests(params: SystemFindParams) -> list[str]:
    depth = ["-maxdepth", str(params.max_depth)] if params.max_depth else []
    kind = ["-type", params.type] if params.type else []
    name = ["-name", params.name] if params.name else []
    size = size_tests(params.size) if params.size else []
    changed = ["-mtime", params.mtime] if params.mtime else []
    return [*depth, *kind, *name, *size, *changed]
