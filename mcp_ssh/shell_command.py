"""The one place where text becomes a shell command line."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field

from mcp_ssh.errors import InvalidInput

# What shlex takes apart character by character, in time that grows as the square of a word's length.
_PIECE = re.compile(
    r"""(?P<blanks>[ \t\r\n]+)|(?P<quoted>'[^']*'|"(?:[^"\\]|\\.)*")|(?P<escaped>\\.)|(?P<plain>[^ \t\r\n'"\\]+)""",
    re.DOTALL,
)
_ESCAPED = re.compile(r'\\(["\\])')


def quote(argument: str) -> str:
    """One argument, quoted so that any POSIX shell reads it back unchanged.

    The shell sees single quotes, which nothing but a single quote ends (POSIX.1-2024, Shell Command Language, 2.2.2).

    Raises:
        InvalidInput: A NUL, which no argument of a Linux program can hold.
    """
    if "\0" in argument:
        raise InvalidInput("an argument contains a NUL character, which no Linux command can take")
    return shlex.quote(argument)


def unquote(text: str) -> str:
    """What a POSIX shell makes of the value in an assignment, such as those of os-release; a broken one stays."""
    found = words(text)
    return text if found is None else "".join(found)


def words(line: str) -> list[str] | None:
    """The words of a line, quotes taken off, as a POSIX shell reads it where it expands nothing.

    `None` for a line with a quote that does not end.
    """
    found: list[str] = []
    word: list[str] | None = None
    at = 0
    while at < len(line):
        piece = _PIECE.match(line, at)
        if piece is None:
            return None
        at = piece.end()
        if piece.lastgroup == "blanks":
            if word is not None:
                found.append("".join(word))
            word = None
            continue
        text = piece[0]
        if piece.lastgroup == "quoted":
            text = text[1:-1] if text[0] == "'" else _ESCAPED.sub(r"\1", text[1:-1])
        elif piece.lastgroup == "escaped":
            text = text[1:]
        word = word if word is not None else []
        word.append(text)
    return found if word is None else [*found, "".join(word)]


@dataclass(frozen=True)
class Command:
    """A program and its arguments, with what goes to its standard input."""

    argv: tuple[str, ...]
    stdin: bytes | None = field(default=None, repr=False)

    def line(self) -> str:
        """The command as one line a POSIX shell reads back to exactly `argv`."""
        return " ".join(quote(word) for word in self.argv)


def command(*argv: str, stdin: bytes | None = None) -> Command:
    """A program with its arguments. Put `--` before operands that a caller gave."""
    return Command(tuple(argv), stdin)


def script(text: str, arguments: Sequence[str] = (), *, stdin: bytes | None = None) -> Command:
    """A fixed POSIX sh script of ours; callers' values reach it only as `$1`, `$2` …, never as its text."""
    return Command(("sh", "-c", text, "sh", *arguments), stdin)
