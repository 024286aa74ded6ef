"""Blobs: outputs that were too large for an answer, read page by page."""

import base64
import codecs
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, model_validator

from mcp_ssh.app import App
from mcp_ssh.messages.validation import word_pattern
from mcp_ssh.params import Params, Result
from mcp_ssh.tool import Call, Risk, tool

DEFAULT_LENGTH = 8192
MAX_LENGTH = 1024 * 1024
DEFAULT_MATCHES = 50
LONGEST_CHARACTER = 4
"""Bytes of the longest character in UTF-8 (RFC 3629)."""


_ID = word_pattern(
    r"^[0-9a-f]{32}$",
    "must be 32 hexadecimal digits, as a result gives them, such as 0f1e2d3c4b5a69788796a5b4c3d2e1f0",
)


class BlobReadParams(Params):
    blob_id: Annotated[str, StringConstraints(pattern=_ID)] = Field(
        description="Blob id from the result of a tool whose output was truncated."
    )
    offset: int = Field(
        default=0,
        ge=0,
        description="First byte to read, or to search from. Give next_offset of the last answer to go on.",
    )
    length: int = Field(
        default=DEFAULT_LENGTH, ge=1, le=MAX_LENGTH, description="Bytes to read; not with tail or pattern."
    )
    tail: int | None = Field(
        default=None, ge=1, le=MAX_LENGTH, description="Read this many bytes at the end instead of a range."
    )
    pattern: str | None = Field(
        default=None,
        min_length=1,
        max_length=256,
        description="Find the lines with this fixed text instead of reading; no regular expression.",
    )
    ignore_case: bool = Field(default=False, description="With pattern: ASCII letters match in either case.")
    context: int = Field(default=0, ge=0, le=10, description="With pattern: lines to show before and after each match.")
    max_matches: int = Field(
        default=DEFAULT_MATCHES, ge=1, le=200, description="With pattern: matches in one answer at most."
    )
    encoding: Literal["utf-8", "base64"] = Field(
        default="utf-8",
        description="utf-8: text, bytes that are none replaced, no character split. base64: the exact bytes.",
    )

    @model_validator(mode="after")
    def _one_mode(self) -> "BlobReadParams":
        """Refuse a mix of modes; arguments left at their defaults count as not given."""
        if self.tail is not None and self.pattern is not None:
            raise ValueError("give tail or pattern, not both")
        if self.tail is not None and self.offset:
            raise ValueError("give tail or offset, not both")
        if self.length != DEFAULT_LENGTH and (self.tail is not None or self.pattern is not None):
            raise ValueError("length goes with offset, not with tail or pattern")
        if self.pattern is None and (self.ignore_case or self.context or self.max_matches != DEFAULT_MATCHES):
            raise ValueError("ignore_case, context and max_matches go with pattern")
        if self.pattern is not None:
            self._check_pattern(self.pattern)
        return self

    def _check_pattern(self, pattern: str) -> None:
        if self.encoding != "utf-8":
            raise ValueError("matches are lines of text; encoding base64 goes with offset or tail")
        if "\n" in pattern:
            raise ValueError("pattern is searched in single lines, so it cannot hold a line break")


class BlobReadMatch(Result):
    line: int = Field(description="Line number, the first is 1.")
    offset: int = Field(description="Byte at which the text was found; read from about there for more around it.")
    text: str = Field(description="The line; of one longer than 4 KiB the part around the match.")
    before: list[str] = Field(default_factory=list, description="Lines before it, where context was asked for.")
    after: list[str] = Field(default_factory=list, description="Lines after it, where context was asked for.")


class BlobReadResult(Result):
    blob_id: str = Field(description="The blob.")
    total_bytes: int = Field(description="Size of the blob in bytes.")
    complete: bool = Field(description="Whether the blob has all of the output; false where only its start found room.")
    offset: int = Field(description="First byte of this answer, or the byte the search began at.")
    next_offset: int | None = Field(default=None, description="Offset to go on from; unset at the end of the blob.")
    text: str | None = Field(default=None, description="The bytes as text; set unless pattern or base64 was given.")
    base64: str | None = Field(default=None, description="The bytes in base64, where encoding asks for it.")
    matches: list[BlobReadMatch] | None = Field(
        default=None, description="Matching lines in order, where pattern was given."
    )


@tool(Risk.READ, room="blob")
async def read(app: App, params: BlobReadParams, call: Call) -> BlobReadResult:
    """Read an output that was too large for one answer, by range, from its end, or by searching it.

    Give offset and length to page through it, tail for its end, or pattern to find lines. An answer with next_offset
    has more behind it. A blob is readable by the caller whose call made it, for an hour after it was last read.
    """
    blob = app.blobs.describe(call.caller, params.blob_id)
    found = await _find(app, params, call) if params.pattern is not None else await _page(app, params, call)
    there = {name: value for name, value in found.items() if value is not None}
    return BlobReadResult(blob_id=blob.id, total_bytes=blob.size_bytes, complete=blob.complete, **there)


async def _find(app: App, params: BlobReadParams, call: Call) -> dict[str, Any]:
    found = await app.blobs.grep(
        call.caller,
        params.blob_id,
        params.pattern or "",
        ignore_case=params.ignore_case,
        max_matches=params.max_matches,
        context=params.context,
        start=params.offset,
    )
    matches: list[BlobReadMatch] = []
    for each in found.matches:
        around = {"before": list(each.before), "after": list(each.after)} if params.context else {}
        matches.append(BlobReadMatch(line=each.line, offset=each.offset, text=each.text, **around))
    return {"offset": params.offset, "matches": matches, "next_offset": found.next_offset}


async def _page(app: App, params: BlobReadParams, call: Call) -> dict[str, Any]:
    """A range or the end, read with a few bytes around it so that characters at its edges are whole."""
    blob = app.blobs.describe(call.caller, params.blob_id)
    length = params.length if params.tail is None else params.tail
    start = params.offset if params.tail is None else max(0, blob.size_bytes - params.tail)
    lead = min(start, LONGEST_CHARACTER - 1)
    data, total = await app.blobs.read_range(
        call.caller, params.blob_id, start - lead, lead + length + LONGEST_CHARACTER - 1
    )
    if params.encoding == "base64":
        kept = data[lead : lead + length]
        following = start + len(kept)
        return {
            "offset": start,
            "base64": base64.b64encode(kept).decode(),
            "next_offset": following if following < total else None,
        }
    first = lead - inside_character(data, lead)
    last = whole_until(data, first, min(len(data), lead + length), ends=start - lead + len(data) >= total)
    following = start - lead + last
    return {
        "offset": start - lead + first,
        "text": data[first:last].decode("utf-8", "replace"),
        "next_offset": following if following < total else None,
    }


def inside_character(data: bytes, at: int) -> int:
    """How many bytes before `at` the character begins that `at` lies inside of; 0 where it lies between characters."""
    for back in range(1, min(at, LONGEST_CHARACTER - 1) + 1):
        for size in range(back + 1, LONGEST_CHARACTER + 1):
            if _is_character(data[at - back : at - back + size], size):
                return back
    return 0


def _is_character(piece: bytes, size: int) -> bool:
    try:
        return len(piece) == size and len(piece.decode("utf-8")) == 1
    except UnicodeDecodeError:
        return False


def whole_until(data: bytes, first: int, last: int, *, ends: bool) -> int:
    """Where a page that begins at `first` and should end at `last` may end without splitting a character.

    That is before a character which continues behind `last`, or behind it where the page would else be empty: every
    page continues. `ends`: nothing follows `data`.
    """
    if first >= last:
        return last
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data[first:last], final=ends and last == len(data))
    shorter = last - len(decoder.getstate()[0])
    if shorter > first:
        return shorter
    while last < len(data) and decoder.getstate()[0]:
        decoder.decode(data[last : last + 1])
        last += 1
    return last - len(decoder.getstate()[0]) if len(decoder.getstate()[0]) < last - first else last
