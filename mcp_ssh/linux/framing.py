"""How our script answers: a format that nothing on the machine can imitate, and the errors it can tell of.

Every answer has the shape `MARK word NEWLINE path MARK body MARK trailer MARK`. The mark is new with each question, so
neither what an rc file prints nor what a file contains can pass for part of it. It travels in two halves: no process
list, and no /proc file read through us, ever holds it whole.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mcp_ssh.errors import InvalidInput, NotFound, PermissionDenied, RemoteFailed, ToolError, Unsupported
from mcp_ssh.messages.printable import said_details
from mcp_ssh.shell_command import Command, script

# No script has a backslash before a quote or another backslash: fish would read it even between single quotes.
# A path that starts with neither `/` nor `~` gets `./` in front, so that none can pass for an option.
BEGIN = r"""
mark=$1$2 asked=$3
shift 3
LC_ALL=C; export LC_ALL
case $asked in
  "~") p=${HOME:-.} shown=$p ;;
  "~/"*) p=${HOME:-.}/${asked#??} shown=$p ;;
  /*) p=$asked shown=$p ;;
  *) p=./$asked shown=$asked ;;
esac
begin() { printf "%s %s\n%s%s" "$mark" "$1" "$shown" "$mark"; }
end() { printf "%s%s%s" "$mark" "$1" "$mark"; }
stop() { begin "$1"; printf %s "$2"; end "$3"; exit 0; }
need() { for tool in "$@"; do command -v "$tool" >/dev/null 2>&1 || stop lacks "$tool"; done; }
"""
"""Start of every script about a path: takes `$1`, `$2` (the mark) and `$3` (the path) away, leaves the path in `$p`."""


def pack_script(text: str) -> str:
    """A script without its comments and indentation, which need not travel with every call."""
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


@dataclass(frozen=True)
class ScriptAnswer:
    """One answer. `path` is the one asked about with its `~` expanded; `body` and `trailer` are as each script says."""

    word: str
    path: str
    body: bytes = field(repr=False)
    trailer: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body of an answer that is not a file's content."""
        return self.body.decode("utf-8", "replace")


ErrorMapping = Mapping[str, Callable[[ScriptAnswer], ToolError]]


@dataclass(frozen=True)
class PathQuery:
    """A question about a path: what to run, the mark its answer will bear, and what the words of refusal mean."""

    path: str
    command: Command
    mark: bytes
    words: ErrorMapping

    def answer(self, stdout: bytes, stderr: bytes = b"") -> ScriptAnswer:
        """What the machine said, out of all that came.

        Raises:
            ToolError: What the machine's answer means, where it could not do as asked.
        """
        parts = stdout.split(self.mark)
        if len(parts) != 5:
            said = stderr[-1024:].decode("utf-8", "replace").strip()
            raise RemoteFailed(
                f"the machine's shell ended before it answered about {quote_path(self.path)}",
                hint="look at the path with file_stat before repeating a change",
                details={"stderr": said} if said else None,
            )
        word, _, shown = parts[1].strip(b" ").partition(b"\n")
        answer = ScriptAnswer(word.decode("ascii", "replace"), shown.decode("utf-8", "replace"), parts[2], parts[3])
        if answer.word != "ok":
            raise self.words.get(answer.word, unknown)(answer)
        return answer


def ask(
    text: str, path: str, arguments: Sequence[str] = (), *, words: ErrorMapping, stdin: bytes | None = None
) -> PathQuery:
    """A question: a script that starts with `BEGIN`, the path it is about, and the rest of its arguments."""
    halves = secrets.token_hex(8), secrets.token_hex(8)
    command = script(text, [*halves, path, *arguments], stdin=stdin)
    return PathQuery(path, command, "".join(halves).encode(), words)


# How strerror(3) ends a message, in the words of glibc, of musl and of the shells, and what that means to a caller.
_MISSING = (
    "No such file or directory",
    "No such file",
    "no such file",
    "Not a directory",
    "Directory nonexistent",
    "nonexistent directory",
)
_DENIED = ("Permission denied", "Operation not permitted")
_WRONG = ("Too many levels of symbolic links", "Symbolic link loop", "File name too long", "Filename too long")
_QUOTA = ("the account's disk quota is used up", "remove files of this account, or raise its quota")
_CAUSES: Mapping[str, tuple[str, str]] = {
    "No space left on device": ("disk full", "free some space; `df` and `du` through command_exec show where it went"),
    "Disk quota exceeded": _QUOTA,
    "Quota exceeded": _QUOTA,
    "Read-only file system": ("the file system is mounted read-only", "choose a path on another file system"),
}


def _is_count(line: str) -> bool:
    """Whether the line is what dd says of its work, whether it failed or not."""
    return line[:1].isdigit() and (line.endswith((" records in", " records out")) or " copied" in line)


def quote_path(path: str) -> str:
    """A path for a message: quoted, and on one line."""
    return repr(path if len(path) <= 300 else f"{path[:300]}…")


def failure(path: str, text: bytes) -> ToolError:
    """The error that a program's message on the machine means."""
    reason, cause = _reason(text)
    if cause in _MISSING:
        return NotFound(
            f"{quote_path(path)} does not exist", hint="list its folder with file_list", details={"path": path}
        )
    if cause in _DENIED:
        return permission_denied(path)
    if cause in _WRONG:
        return InvalidInput(f"{quote_path(path)}: {cause.lower()}", details={"path": path})
    meaning, hint = _CAUSES.get(cause, (None, None))
    if meaning is None:
        meaning = "the machine refused, in the words of `details.said`" if reason else "the machine gave no reason"
    return RemoteFailed(f"{quote_path(path)}: {meaning}", hint=hint, details=said_details(reason, path=path))


def _reason(text: bytes) -> tuple[str, str]:
    """The last line that a program said, and the cause at its end."""
    lines = text[-1024:].decode("utf-8", "replace").split("\n")
    reason = next((line.strip() for line in reversed(lines) if line.strip() and not _is_count(line)), "")
    return reason, reason.rpartition(": ")[2]


def blames_file_system(text: bytes) -> bool:
    """Whether a program failed because a file system takes no more."""
    return _reason(text)[1] in _CAUSES


def permission_denied(path: str) -> ToolError:
    """The account may not."""
    return PermissionDenied(
        f"permission denied: {quote_path(path)}",
        hint="give `become` where the tool takes it, else use a session of an account that may",
        details={"path": path},
    )


def _folder(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{quote_path(answer.path)} is a folder, not a file",
        hint="list it with file_list",
        details={"path": answer.path},
    )


def _file(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{quote_path(answer.path)} is not a folder", hint="read it with file_read", details={"path": answer.path}
    )


def _special(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{quote_path(answer.path)} is a device, pipe or socket, not a regular file",
        hint="use command_exec for those",
        details={"path": answer.path},
    )


def _lacks(answer: ScriptAnswer) -> ToolError:
    return Unsupported(
        f"the machine has no `{answer.text}`, which this needs", hint="install it there, or use command_exec"
    )


def unknown(answer: ScriptAnswer) -> ToolError:
    """A word nobody explained."""
    return RemoteFailed(
        f"{quote_path(answer.path)}: the machine answered {answer.word!r}", details={"path": answer.path}
    )


WORDS: ErrorMapping = {
    "denied": lambda answer: permission_denied(answer.path),
    "failed": lambda answer: failure(answer.path, answer.body),
    "folder": _folder,
    "file": _file,
    "special": _special,
    "lacks": _lacks,
}
"""The words of refusal that scripts share."""
