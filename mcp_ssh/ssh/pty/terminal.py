"""What goes to a terminal and what comes from it: keys, text without control sequences, prompts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

KeyName = Literal[
    "ctrl+c", "ctrl+d", "ctrl+z", "ctrl+a", "ctrl+e", "ctrl+k", "ctrl+l", "ctrl+u", "ctrl+w", "enter", "tab", "escape",
    "backspace", "up", "down", "left", "right", "home", "end", "pageup", "pagedown",
]  # fmt: skip

KEYS: Mapping[KeyName, bytes] = {
    "ctrl+c": b"\x03",
    "ctrl+d": b"\x04",
    "ctrl+z": b"\x1a",
    "ctrl+a": b"\x01",
    "ctrl+e": b"\x05",
    "ctrl+k": b"\x0b",
    "ctrl+l": b"\x0c",
    "ctrl+u": b"\x15",
    "ctrl+w": b"\x17",
    "enter": b"\r",
    "tab": b"\t",
    "escape": b"\x1b",
    "backspace": b"\x7f",
    "up": b"\x1b[A",
    "down": b"\x1b[B",
    "right": b"\x1b[C",
    "left": b"\x1b[D",
    "home": b"\x1b[H",
    "end": b"\x1b[F",
    "pageup": b"\x1b[5~",
    "pagedown": b"\x1b[6~",
}
"""The keys by name, and what a terminal sends for them (ECMA-48, 5; xterm's PC-style keys)."""


def to_keystrokes(text: str) -> bytes:
    """Text as it is typed: a line ends with the Enter key."""
    return text.replace("\r\n", "\r").replace("\n", "\r").encode()


# ---- text ----------------------------------------------------------------------------------------------------------

# A control sequence, a control string up to its end, a two- or three-byte escape (ECMA-48, 5.3 to 5.6).
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)|[ -/]+[0-~]|[0-OQ-WYZ\\`-~])")
_OTHERS = re.compile(r"[\x00\x07\x0e\x0f]")
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[\]PX^_][^\x07\x1b]*\x1b?|[ -/]*)\Z|\r\Z")
_LONGEST = 256
"""Bytes of a sequence that is waited for; one that is longer without an end is not a sequence."""


def plain(data: bytes) -> str:
    """Output as text: without control sequences, each line as it looks after what was written over it."""
    text = _OTHERS.sub("", _SEQUENCE.sub("", data.decode("utf-8", "replace")))
    # A pattern with `\r*` before the line's end would look at each of many `\r` again from every one of them.
    *ended, last = text.split("\n")
    return "\n".join(map(_overwritten, (*(line.rstrip("\r") for line in ended), last)))


def _overwritten(line: str) -> str:
    if "\r" not in line and "\b" not in line:
        return line
    cells: list[str] = []
    at = 0
    for part in re.split(r"([\r\b])", line):
        if part == "\r":
            at = 0
        elif part == "\b":
            at = max(0, at - 1)
        else:
            cells[at : at + len(part)] = part
            at += len(part)
    return "".join(cells).rstrip(" ")


def incomplete_tail(data: bytes) -> int:
    """How many bytes at the end are the beginning of something: a sequence, a line's end, a character."""
    begun = _BEGUN.search(data, max(0, len(data) - _LONGEST))
    if begun is not None:
        return len(data) - begun.start()
    for length in range(1, min(3, len(data)) + 1):
        lead = data[-length]
        if lead & 0xC0 == 0x80:
            continue
        wanted = 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2 if lead >= 0xC0 else 1
        return length if wanted > length else 0
    return 0


# ---- prompts -------------------------------------------------------------------------------------------------------

Kind = Literal["password", "confirm", "pager", "shell", "question"]


@dataclass(frozen=True)
class ShellPrompt:
    """What a program waits for, as the line with the cursor tells."""

    kind: Kind
    text: str


_PROMPTS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (
        "password",
        re.compile(
            r"(pass\s?(word|phrase|code|wort)|\bPIN\b|verification code|one-time|OTP|mot de passe|contraseña)"
            r"[^\n]{0,120}[:\uff1a]\s*\Z",
            re.IGNORECASE,
        ),
    ),
    ("confirm", re.compile(r"[\[(]\s*y(es)?\s*/\s*n(o)?\b[^\])]*[\])]+\s*[?:]?\s*\Z", re.IGNORECASE)),
    (
        "pager",
        re.compile(r"\A:\Z|\(END\)\s*\Z|\A-+\s?More\s?-+|\Alines \d+-\d+|\(press h for help or q to quit\)\s*\Z"),
    ),
    ("question", re.compile(r"\A(>>>|\.\.\.|In \[\d+\]:)\s?\Z|\A[\w ()\[\]-]*(\w>|[=*-][#>])\s?\Z")),
    ("shell", re.compile(r"[$#%>\u276f\u00bb]\s\Z|\A[\u279c\u276f\u03bb] .*\s\Z")),
    ("question", re.compile(r"[:?]\s?\Z")),
)


_LONGEST_PROMPT = 4096
# A part of a whole, and a word in angle brackets: programs end their lines so, and hardly a shell its prompt.
_NO_SHELL = re.compile(r"(?:^|[\s\[(])\d[\d.,]{0,20}\s?%\s\Z|<[^<>\s]{1,80}>\s\Z")


def prompt(line: str, *, shell_prompt: str | None = None, pager: bool = False) -> ShellPrompt | None:
    """What the line up to the cursor asks for; `None` for a line that asks for nothing that is known.

    Args:
        line: The line.
        shell_prompt: The line at which the shell is known to have stood at its prompt.
        pager: Whether the line is one that only a pager draws.
    """
    line = line[-_LONGEST_PROMPT:]
    text = line.strip()
    if not text:
        return None
    if line == shell_prompt:
        return ShellPrompt("shell", text)
    if pager:
        return ShellPrompt("pager", text)
    for kind, pattern in _PROMPTS:
        if pattern.search(text if kind == "pager" else line) and not (kind == "shell" and _NO_SHELL.search(line)):
            return ShellPrompt(kind, text)
    return None


# ---- a command with an exit code -----------------------------------------------------------------------------------

LONGEST_LINE = 1000
"""Bytes of a line that every shell takes from a terminal: BusyBox edits 1024, and a terminal itself holds 4095."""


@dataclass(frozen=True)
class TypedCommand:
    """A command line for a shell on a terminal, which prints a mark before it runs and one, with the exit code, after.

    The marks are printed in two parts, so that the echo of what is typed holds neither.
    """

    line: bytes
    begin: bytes
    end: re.Pattern[bytes]


def with_exit_code(command: str, nonce: str, *, fish: bool) -> TypedCommand:
    """What to type for a command to run in a shell's own state.

    The command is evaluated from digits: nothing of it can complete a file name, end a line early or recall history.

    Args:
        command: The caller's, any text.
        nonce: 16 hexadecimal digits that nothing else prints.
        fish: Whether the shell is fish; else one of the POSIX kind.
    """
    first, second = nonce[:8], nonce[8:]
    code = "$status" if fish else '"$?"'
    text = f"printf %b '{_digits(command)}'"
    evaluated = f"({text}|string collect)" if fish else f'"$({text})"'
    line = (
        f" printf '%s%s\\n' {first} {second};eval {evaluated};printf '\\n[%s%s exit %s]\\n' {first} {second} {code}\r"
    )
    end = re.compile(rb"\r?\n\[" + nonce.encode() + rb" exit (\d*)\]\r?\n")
    return TypedCommand(line.encode(), nonce.encode(), end)


def _digits(text: str) -> str:
    """Text for `printf %b`, with all but harmless characters as octal numbers (POSIX.1-2024, printf)."""
    return re.sub(rb"[^A-Za-z0-9 _./,:=+@$|;&<>*#%-]", lambda found: b"\\0%03o" % found[0][0], text.encode()).decode()
