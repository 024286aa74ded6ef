"""Looking at files of a remote machine: sh scripts, and what their answers mean."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mcp_ssh.errors import NotFound, ToolError
from mcp_ssh.linux.framing import BEGIN, WORDS, PathQuery, ScriptAnswer, ask, failure, pack_script, quote_path

# A name holds no `/` and find's names start with `./`, so `/` marks the records off whatever the names are.
_LIST = pack_script(
    BEGIN
    + r"""
need stat find
why=$(stat -L -c %f "$p" 2>&1) || stop failed "$why"
[ -d "$p" ] || stop file
[ -r "$p" ] && [ -x "$p" ] || stop denied
cd -P "$p" || stop denied
begin ok
find . -mindepth 1 -maxdepth 1 -exec stat -c "%f %s %Y %u %g %n" {} +
end
"""
)

# Account and group names may hold spaces: each has its own line. A link's target comes last, whatever it holds.
_STAT = pack_script(
    BEGIN
    + r"""
need stat readlink
facts=$(stat -L -c "%f %s %u %g %X %Y
%U
%G" "$p" 2>&1)
word=$?
[ $word = 0 ] && word=ok
begin $word
printf %s "$facts"
if [ -L "$p" ]; then end "link $(readlink "$p")"; else end; fi
"""
)

# dd moves the shared read position (lseek where there is one, reading on where there is not); head reads on from it.
_READ = pack_script(
    BEGIN
    + r"""
need stat dd head
facts=$(stat -L -c "%f %s" "$p" 2>&1) || stop failed "$facts"
[ ! -d "$p" ] || stop folder
[ -f "$p" ] || stop special
[ -r "$p" ] || stop denied
begin ok
echo "$facts"
# Past the end there is nothing, and no seek to try. Files in /proc have no size to tell.
size=${facts#* }
if [ "$size" -gt 0 ] && [ "$1" -ge "$size" ]; then end; exit 0; fi
exec 3>&1
why=$({ [ "$1" = 0 ] || dd bs=1 skip="$1" count=0 2>/dev/null; head -c "$2" >&3; } 2>&1 <"$p") && end || end "$why "
"""
)


def ask_list(path: str) -> PathQuery:
    """What is in a folder? `parse_list` reads the answer's body."""
    return ask(_LIST, path, words=WORDS)


def ask_stat(path: str) -> PathQuery:
    """What is this path? `parse_stat` reads the answer."""
    return ask(_STAT, path, words={**WORDS, "1": _stat_failed})


def ask_read(path: str, offset: int, length: int) -> PathQuery:
    """What does a file hold, from a byte on? `parse_read` reads the answer."""
    return ask(_READ, path, [str(offset), str(length)], words=WORDS)


FileType = Literal["file", "dir", "link", "fifo", "socket", "char", "block", "unknown"]

_TYPES: Mapping[int, FileType] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}


def type_of(mode: int) -> FileType:
    """The type in an st_mode."""
    return _TYPES.get(stat.S_IFMT(mode), "unknown")


@dataclass(frozen=True)
class DirectoryEntry:
    """One name in a folder, a link not followed."""

    name: bytes
    mode: int
    size: int
    mtime: int
    uid: int
    gid: int


def parse_list(body: bytes) -> list[bytes]:
    """A record for each entry, in the order of their names' bytes; `parse_entry` takes one apart."""
    found: list[bytes] = []
    facts, *records = body.split(b"/")
    for record in records:
        # The name ends at the last newline, before the next record's facts and the dot of its `./`.
        name, _, following = record.rpartition(b"\n")
        found.append(b"%b\0%b" % (name, facts))  # no byte comes before a NUL, so these sort as the names do
        facts = following
    found.sort()
    return found


def parse_entry(record: bytes) -> DirectoryEntry:
    """The entry that a record is about."""
    name, _, facts = record.partition(b"\0")
    mode, size, mtime, uid, gid, _dot = facts.split(b" ")
    return DirectoryEntry(name, int(mode, 16), int(size), int(mtime), int(uid), int(gid))


@dataclass(frozen=True)
class FileFacts:
    """What stat says of a path, links followed; `link` is what the path's own link says, if it is one."""

    mode: int
    size: int
    uid: int
    gid: int
    atime: int
    mtime: int
    user: str | None
    group: str | None
    link: str | None


def parse_stat(answer: ScriptAnswer) -> FileFacts:
    """The facts of a path."""
    numbers, user, group = answer.body.decode("utf-8", "replace").split("\n")
    mode, size, uid, gid, atime, mtime = numbers.split(" ")
    return FileFacts(
        int(mode, 16),
        int(size),
        int(uid),
        int(gid),
        int(atime),
        int(mtime),
        _known_name(user),
        _known_name(group),
        _link(answer),
    )


def _known_name(name: str) -> str | None:
    return None if name == "UNKNOWN" else name


def _link(answer: ScriptAnswer) -> str | None:
    if not answer.trailer.startswith(b"link "):
        return None
    return answer.trailer.removeprefix(b"link ").decode("utf-8", "replace")


@dataclass(frozen=True)
class FilePage:
    """Bytes of a file, and the size that stat said it has; files in /proc say 0."""

    content: bytes
    size: int


def parse_read(answer: ScriptAnswer) -> FilePage:
    """The bytes read.

    Raises:
        ToolError: Reading failed on the way; the machine's reason is in it.
    """
    if answer.trailer:
        raise failure(answer.path, answer.trailer)
    facts, _, content = answer.body.partition(b"\n")
    return FilePage(content, int(facts.split(b" ")[1]))


def _stat_failed(answer: ScriptAnswer) -> ToolError:
    error = failure(answer.path, answer.body)
    link = _link(answer)
    if link is None or not isinstance(error, NotFound):
        return error
    return NotFound(
        f"{quote_path(answer.path)} is a link to {quote_path(link)}, which does not exist",
        hint="give the link another target, or write to it: file_write makes the file it leads to",
        details={"path": answer.path, "target": link},
    )
