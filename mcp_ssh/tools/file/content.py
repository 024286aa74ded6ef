"""Files of the machine: list, look at, read, write. Each call is one round trip."""

import base64
import hashlib
import re
from typing import Annotated, Any, Literal, TypedDict

import anyio
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from mcp_ssh.errors import InvalidInput, TooLarge
from mcp_ssh.linux.files.stat import (
    DirectoryEntry,
    FileFacts,
    FilePage,
    FileType,
    ask_list,
    ask_read,
    ask_stat,
    parse_entry,
    parse_list,
    parse_read,
    parse_stat,
    type_of,
)
from mcp_ssh.linux.files.write import WriteOutcome, ask_write, parse_write
from mcp_ssh.messages.validation import word_pattern
from mcp_ssh.params import LARGEST_NUMBER, BecomeParams, OnSession, RemotePath, Result
from mcp_ssh.sessions.query import ask
from mcp_ssh.sessions.session import ANSWER_LIMIT, AnswerTooLong, Output, Session
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.file import snapshots
from mcp_ssh.transfers import sftp

LARGEST_PAGE = 8 * 1024 * 1024
LARGEST_LISTING = 32 * 1024 * 1024
MODEL_PAGE = 64 * 1024
PROGRAM_PAGE = 1024 * 1024
CHARACTER = 4
"""A UTF-8 character has at most so many bytes (RFC 3629)."""
CLOSING_S = 5.0
"""What a call keeps of its time, so that the machine's own deadline comes first and is reported."""

# ---- file_list ---------------------------------------------------------------------------------------------------


class FileListParams(OnSession):
    path: RemotePath = Field(default=".", description="Folder; `~` is the account's home.")
    limit: int = Field(default=1000, ge=1, le=10_000, description="The most entries to return.")
    offset: int = Field(default=0, ge=0, description="Entries to skip, in the order of their names.")


class Item(BaseModel):
    name: str = Field(description="Name in the folder. Bytes that are not UTF-8 are replaced.")
    size: int = Field(description="Size in bytes.")
    mode: int = Field(description="Type and permissions, the whole st_mode number.")
    is_dir: bool = Field(description="Whether it is a folder; false for a link to one.")
    mtime: int = Field(description="Time of the last change, in seconds since 1970.")
    type: FileType = Field(description="What it is; links are not followed.")
    uid: int = Field(description="Number of the owner.")
    gid: int = Field(description="Number of the group.")
    name_base64: str | None = Field(default=None, description="The name's exact bytes, where it is not UTF-8.")


class FileListResult(Result):
    path: str = Field(description="The folder, with `~` expanded.")
    items: list[Item] = Field(description="The entries, hidden ones included, sorted by name.")
    count: int = Field(description="Number of items here.")
    total: int = Field(description="Number of entries in the folder.")
    truncated: bool | None = Field(default=None, description="True where more entries follow.")
    next_offset: int | None = Field(default=None, description="Offset of the next call, where more entries follow.")


@tool(Risk.READ, room="file", name="list")
async def list_folder(host: Session, params: FileListParams, call: Call) -> FileListResult:
    """List a folder: names, sizes, permissions, owners and times of what is in it.

    Links are shown as links; file_stat follows them. A folder with more entries than `limit` is returned in parts, all
    of them as it was when the first was asked for, if the next follows within a minute.
    """
    if not host.has_shell:
        path, entries = await sftp.entries(host, params.path)
        part = entries[params.offset : params.offset + params.limit]
        return await anyio.to_thread.run_sync(_list_result, params, path, part, len(entries))
    key = (host.id, params.path)
    kept = snapshots.find(key) if params.offset else None
    path, records = (kept.path, kept.records) if kept else await _records(host, params)
    if len(records) > params.limit:
        snapshots.keep(key, path, records)
    part = [parse_entry(record) for record in records[params.offset : params.offset + params.limit]]
    return await anyio.to_thread.run_sync(_list_result, params, path, part, len(records))


async def _records(host: Session, params: FileListParams) -> tuple[str, list[bytes]]:
    asked = ask_list(params.path)

    def parse(said: Output) -> tuple[str, list[bytes]]:
        answer = asked.answer(said.stdout, said.stderr)
        return answer.path, parse_list(answer.body)

    limit_s = params.time_limit_s() - CLOSING_S
    try:
        return await ask(host, asked.command, parse, timeout_s=limit_s, limit=LARGEST_LISTING)
    except AnswerTooLong as error:
        raise TooLarge(
            "the folder has too many entries to list", hint="narrow it down: command_exec with `find PATH -name …`"
        ) from error


def _list_result(params: FileListParams, path: str, part: list[DirectoryEntry], total: int) -> FileListResult:
    listed = FileListResult(path=path, items=[_item(entry) for entry in part], count=len(part), total=total)
    if part and (following := params.offset + len(part)) < total:
        listed.truncated, listed.next_offset = True, following
    return listed


def _item(entry: DirectoryEntry) -> Item:
    kind = type_of(entry.mode)
    item = Item(
        name=entry.name.decode("utf-8", "replace"),
        size=entry.size,
        mode=entry.mode,
        is_dir=kind == "dir",
        mtime=entry.mtime,
        type=kind,
        uid=entry.uid,
        gid=entry.gid,
    )
    if item.name.encode() != entry.name:
        item.name_base64 = base64.b64encode(entry.name).decode("ascii")
    return item


# ---- file_stat ---------------------------------------------------------------------------------------------------


class FileStatParams(OnSession):
    path: RemotePath = Field(description="File or folder; `~` is the account's home.")


class FileStatResult(Result):
    path: str = Field(description="The path, with `~` expanded.")
    size: int = Field(description="Size in bytes.")
    mode: int = Field(description="Type and permissions, the whole st_mode number.")
    permissions: str = Field(description='Permissions as octal digits, such as "0644".')
    type: FileType = Field(description="What it is; where the path is a link, what the link leads to.")
    is_dir: bool = Field(description="Whether it is a folder.")
    uid: int = Field(description="Number of the owner.")
    gid: int = Field(description="Number of the group.")
    atime: int = Field(description="Time of the last access, in seconds since 1970.")
    mtime: int = Field(description="Time of the last change, in seconds since 1970.")
    user: str | None = Field(default=None, description="Name of the owner, where the machine knows one.")
    group: str | None = Field(default=None, description="Name of the group, where the machine knows one.")
    link_target: str | None = Field(default=None, description="What the link says, where the path is a link.")


@tool(Risk.READ, room="file")
async def stat(host: Session, params: FileStatParams, call: Call) -> FileStatResult:
    """Look at one path: type, size, permissions, owner and times of a file or folder.

    Links are followed; `link_target` says that the path is one.
    """
    path, facts = await _facts(host, params) if host.has_shell else await sftp.facts(host, params.path)
    kind = type_of(facts.mode)
    names = {"user": facts.user, "group": facts.group, "link_target": facts.link}
    return FileStatResult(
        path=path,
        size=facts.size,
        mode=facts.mode,
        permissions=f"{facts.mode & 0o7777:04o}",
        type=kind,
        is_dir=kind == "dir",
        uid=facts.uid,
        gid=facts.gid,
        atime=facts.atime,
        mtime=facts.mtime,
        **{name: value for name, value in names.items() if value is not None},
    )


async def _facts(host: Session, params: FileStatParams) -> tuple[str, FileFacts]:
    asked = ask_stat(params.path)
    said = await host.run(asked.command, timeout_s=params.time_limit_s() - CLOSING_S)
    answer = asked.answer(said.stdout, said.stderr)
    return answer.path, parse_stat(answer)


# ---- file_read ---------------------------------------------------------------------------------------------------


class FileReadParams(OnSession):
    path: RemotePath = Field(description="File; `~` is the account's home.")
    offset: int = Field(default=0, ge=0, le=LARGEST_NUMBER, description="First byte to return, counted from 0.")
    length: int | None = Field(
        default=None, ge=1, le=LARGEST_PAGE, description="Bytes to return. Default 64 KiB for models, 1 MiB over REST."
    )
    encoding: Literal["utf-8", "base64"] = Field(
        default="utf-8", description="How the content is returned: text, or base64 of its exact bytes."
    )


class FileReadResult(Result):
    path: str = Field(description="The file, with `~` expanded.")
    content: str = Field(repr=False, description="The bytes asked for, in `encoding`.")
    size_bytes: int = Field(description="Size of the whole file.")
    offset: int = Field(description="Where in the file the content starts.")
    encoding: Literal["utf-8", "base64"] = Field(description="How the content is written.")
    next_offset: int | None = Field(default=None, description="Offset of the next call, where the file continues.")
    sha256: str | None = Field(
        default=None,
        description="SHA-256 of the file, where all of it is here; file_write takes it as expected_sha256.",
    )
    invalid_utf8: bool | None = Field(
        default=None, description="True where bytes that are not UTF-8 were replaced; base64 keeps them."
    )


@tool(Risk.READ, room="file")
async def read(host: Session, params: FileReadParams, call: Call) -> FileReadResult:
    """Read a file as text, or as base64.

    A long file comes in parts: call again with `offset` set to `next_offset`. Files in /proc and /sys can be read, too;
    devices, pipes and sockets cannot.
    """
    length = params.length or (MODEL_PAGE if call.door in {"stdio", "mcp"} else PROGRAM_PAGE)
    # The few bytes more tell whether the file continues, and complete a character that the end would cut.
    wanted = length + CHARACTER
    if not host.has_shell:
        read_over = await sftp.page(host, params.path, params.offset, wanted)
        return await anyio.to_thread.run_sync(_content, params, length, *read_over)
    asked = ask_read(params.path, params.offset, wanted)

    def content(said: Output) -> FileReadResult:
        answer = asked.answer(said.stdout, said.stderr)
        return _content(params, length, answer.path, parse_read(answer))

    limit_s = params.time_limit_s() - CLOSING_S
    return await ask(host, asked.command, content, timeout_s=limit_s, limit=wanted + ANSWER_LIMIT)


def _content(params: FileReadParams, length: int, path: str, page: FilePage) -> FileReadResult:
    data, ends = page.content[:length], len(page.content) <= length
    if not ends and params.encoding == "utf-8":
        data = _whole_characters(page.content, length)
    reached = params.offset + len(data)
    content = FileReadResult(
        path=path,
        content="",
        size_bytes=max(page.size, reached if data else 0),
        offset=params.offset,
        encoding=params.encoding,
    )
    if params.encoding == "base64":
        content.content = base64.b64encode(data).decode("ascii")
    else:
        content.content = data.decode("utf-8", "replace")
        if content.content.encode() != data:
            content.invalid_utf8 = True
    if not ends:
        content.next_offset = reached
    elif params.offset == 0:
        content.sha256 = hashlib.sha256(data).hexdigest()
    return content


def _whole_characters(data: bytes, length: int) -> bytes:
    """The first `length` bytes, less a character cut at their end; one character where there is no more than that."""
    end = length
    while end > max(length - CHARACTER, 0) and data[end] & 0xC0 == 0x80:
        end -= 1
    if end > 0:
        return data[:end] if data[end] & 0xC0 != 0x80 else data[:length]
    end = length
    while end < min(CHARACTER, len(data)) and data[end] & 0xC0 == 0x80:
        end += 1
    return data[:end]


# ---- file_write --------------------------------------------------------------------------------------------------


def _octal(value: Any) -> str:
    text = str(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or not re.fullmatch(r"[0-7]{3,4}", text):
        raise ValueError('must be three or four octal digits, such as 644 or "0644"')
    return text.zfill(4)


OctalDigits = Annotated[
    str,
    BeforeValidator(_octal),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": "^[0-7]{3,4}$"}, {"type": "integer", "minimum": 100}]}),
]


class FileWriteParams(BecomeParams):
    path: RemotePath = Field(description="File; `~` is the account's home. Links are followed.")
    content: str = Field(repr=False, description="What to write, in `encoding`; may be empty.")
    mode: Literal["overwrite", "append", "prepend"] = Field(
        default="overwrite", description="Replace the file's content, or put this after or before it."
    )
    encoding: Literal["utf-8", "base64"] = Field(
        default="utf-8", description="How `content` is written: text, or base64 of any bytes."
    )
    expected_sha256: str | None = Field(
        default=None,
        pattern=word_pattern(
            r"^([0-9a-fA-F]{64})?$",
            "must be the 64 hexadecimal digits that file_read gives as `sha256`, such as"
            " e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 of an empty file, or an empty text",
        ),
        description="Write only if the file's SHA-256 is this one; empty: only if there is no such file.",
    )
    permissions: OctalDigits | None = Field(
        default=None,
        description='Permissions of the file as octal digits: 644 or "0644" mean rw-r--r--. Omitted: a file keeps those'
        " it has, a new one gets the account's usual ones.",
    )

    def time_limit_s(self) -> float:
        """Time for the content to arrive on a slow link, and for the file to be copied where it grows."""
        return 120.0 + len(self.content) / 100_000


class FileWriteResult(Result):
    status: Literal["written"] = Field(default="written", description="Always `written`; a failure is an error.")
    path: str = Field(description="The file, with `~` expanded.")
    size: int = Field(description="Bytes that were written: the size of the content given.")
    mode: Literal["overwrite", "append", "prepend"] = Field(description="How it was written.")
    size_bytes: int = Field(description="Size of the file now.")
    permissions: str = Field(description='Permissions of the file now, such as "0644".')
    atomic: bool = Field(
        description="True: by one rename. False: in place, because a rename would have lost the owner, an ACL"
        " or a hard link, or was refused; a reader may have seen it half-written."
    )
    sha256: str | None = Field(default=None, description="SHA-256 of the file now; missing for a large one that grew.")


@tool(Risk.CHANGE, room="file", audit="wrote {path}[ ({mode})]")
async def write(host: Session, params: FileWriteParams, call: Call) -> FileWriteResult:
    """Write text, or any bytes in base64, to a file: replace its content, append to it or prepend to it.

    The file is the old one until it is the new one: a full disk or a lost link leaves it as it was. Owner, permissions
    and ACL are kept. The folder must exist. To change a file you have read, pass its `sha256` as `expected_sha256`, and
    nobody else's change is overwritten.
    """
    content = await anyio.to_thread.run_sync(_bytes, params)
    if len(content) > host.limits.file_bytes:
        raise TooLarge(
            f"content: has {len(content)} bytes, more than the {host.limits.file_bytes} of sftp.max_file_size_mb"
        )
    expected = params.expected_sha256.lower() if params.expected_sha256 is not None else None
    path, outcome = await _write(host, params, content, expected)
    written = FileWriteResult(
        status="written",
        path=path,
        size=len(content),
        mode=params.mode,
        size_bytes=outcome.size,
        permissions=outcome.permissions,
        atomic=outcome.atomic,
    )
    sha256 = outcome.sha256
    if params.mode == "overwrite":
        sha256 = await anyio.to_thread.run_sync(lambda: hashlib.sha256(content).hexdigest())
    if sha256 is not None:
        written.sha256 = sha256
    return written


async def _write(
    host: Session, params: FileWriteParams, content: bytes, expected: str | None
) -> tuple[str, WriteOutcome]:
    wish: _Wish = {"maximum": host.limits.file_bytes, "permissions": params.permissions, "expected": expected}
    if not host.has_shell:
        return await sftp.write(host, params.path, content, params.mode, **wish)
    asked = ask_write(params.path, content, params.mode, **wish)
    said = await host.run(asked.command, timeout_s=params.time_limit_s() - CLOSING_S)
    answer = asked.answer(said.stdout, said.stderr)
    return answer.path, parse_write(answer.body)


class _Wish(TypedDict):
    maximum: int
    permissions: str | None
    expected: str | None


def _bytes(params: FileWriteParams) -> bytes:
    try:
        if params.encoding == "base64":
            return base64.b64decode("".join(params.content.split()), validate=True)
        return params.content.encode("utf-8")
    except ValueError as error:
        if params.encoding == "base64":
            raise InvalidInput("content: is not base64", hint="pass encoding: utf-8 for text") from error
        raise InvalidInput(
            "content: must be valid Unicode text; lone surrogates have no UTF-8", hint="pass encoding: base64 for bytes"
        ) from error
