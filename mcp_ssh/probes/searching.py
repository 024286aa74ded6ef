"""Looking into files and for files: tail, head, grep and find, with GNU's words and BusyBox's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mcp_ssh.errors import InvalidInput
from mcp_ssh.probes.answers import BEGIN, WORDS, Answer, Asked, ask, packed

ANSWER_BYTES = 2 * 1024 * 1024
"""The most that a search may bring back; what it finds beyond is cut, and said to be."""

# $1: tail or head. $2: lines. $3: bytes.
_LINES = packed(
    BEGIN
    + r"""
need stat tail head
why=$(stat -L -c %f "$p" 2>&1) || stop failed "$why"
[ ! -d "$p" ] || stop folder
[ -f "$p" ] || stop special
[ -r "$p" ] || stop denied
begin ok
"$1" -n "$2" "$p" | "$1" -c "$3"
end
"""
)

# $1: pattern. $2: bytes. Then grep's options. With -Z, which not every grep has, a NUL ends the name of the file.
# Without it each file gets a line of its own with its name between NULs, and is looked at for NULs, as GNU's grep does.
_GREP = packed(
    BEGIN
    + r"""
need stat grep head
why=$(stat -L -c %f "$p" 2>&1) || stop failed "$why"
[ -d "$p" ] || [ -r "$p" ] || stop denied
pattern=$1 bytes=$2
shift 2
case " $* " in *" -r "*) ;; *) [ ! -d "$p" ] || stop folder ;; esac
bytes_of() { head -c 32768 "$file" | "$@" | wc -c; }
each() {
    grep "$@" -l -e "$pattern" "$p" | while IFS= read -r file; do
        if [ "$(bytes_of cat)" != "$(bytes_of tr -d "\\000")" ]; then echo "Binary file $file matches"; continue; fi
        printf "\\0%s\\0\n" "$file"
        grep "$@" -h -e "$pattern" "$file"
    done
}
all() { grep "$@" -H -Z -e "$pattern" "$p"; }
search=each
echo x | grep -qZ x 2>/dev/null && search=all
begin ok
exec 3>&1
why=$({ "$search" "$@" | head -c "$bytes" >&3; } 2>&1 | head -c 2000)
end "$why"
"""
)

# $1: bytes. Then find's tests.
_FIND = packed(
    BEGIN
    + r"""
need stat find head
why=$(stat -L -c %f "$p" 2>&1) || stop failed "$why"
bytes=$1
shift
begin ok
exec 3>&1
why=$({ find -H "$p" "$@" -print0 | head -c "$bytes" >&3; } 2>&1 | head -c 2000)
end "$why"
"""
)


def ask_lines(path: str, program: str, lines: int, limit: int) -> Asked:
    """What are a file's last (`tail`) or first (`head`) lines? One byte over the limit says that there were more."""
    return ask(_LINES, path, [program, str(lines), str(limit + 1)], words=WORDS)


def cut(body: bytes, program: str, limit: int) -> tuple[bytes, bool]:
    """The lines within the limit, and whether some had to be left out."""
    if len(body) <= limit:
        return body, False
    return (body[-limit:] if program == "tail" else body[:limit]), True


@dataclass(frozen=True)
class Line:
    """One line that grep shows: a match, or one around a match."""

    file: str
    number: int
    text: str
    is_match: bool


@dataclass(frozen=True)
class Grepped:
    """What grep found. `whole` is false where there was more than fits an answer."""

    lines: list[Line]
    binary: list[str]
    unreadable: int
    whole: bool


def ask_grep(
    path: str, pattern: str, *, recursive: bool, ignore_case: bool, fixed: bool, context: int, most: int
) -> Asked:
    """Where in a file, or in a folder's files, does a pattern occur? Extended regular expressions, unless fixed."""
    options = ["-n", "-F" if fixed else "-E", "-m", str(most)]
    options += ["-r"] if recursive else []
    options += ["-i"] if ignore_case else []
    options += ["-C", str(context)] if context else []
    return ask(_GREP, path, [pattern, str(ANSWER_BYTES), *options], words=WORDS)


# GNU's grep says the second on standard error since 3.5, others the first on standard output.
_BINARY = re.compile(r"^(?:Binary file (.*) matches|grep: (.*): binary file matches)$")
_OF_FILE = re.compile(r"^([^\0]*)\0(\d+)([:-])(.*)$")
_HEADING = re.compile(r"^\0([^\0]+)\0$")
_UNDER = re.compile(r"^()(\d+)([:-])(.*)$")
# What is the file system's and not the pattern's fault.
_FILES_FAULT = re.compile(
    r": (Permission denied|No such file or directory|Is a directory|Input/output error|Operation not permitted"
    r"|warning: .*|Too many levels of symbolic links|Invalid argument|No such device.*|Resource .*)$"
)


def parse_grep(answer: Answer) -> Grepped:
    """What grep said.

    Raises:
        InvalidInput: It could not read the pattern.
    """
    whole = len(answer.body) < ANSWER_BYTES
    text = answer.body.decode("utf-8", "replace")
    found: list[Line] = []
    binary: list[str] = []
    heading = ""
    for line in (text if whole else text.rpartition("\n")[0]).split("\n"):
        if note := _BINARY.match(line):
            binary.append(note[1] or note[2])
        elif name := _HEADING.match(line):
            heading = name[1]
        elif parts := _OF_FILE.match(line) or (_UNDER.match(line) if heading else None):
            found.append(Line(parts[1] or heading, int(parts[2]), parts[4], parts[3] == ":"))
    said = answer.trailer.decode("utf-8", "replace").splitlines()
    binary += [note[2] for note in map(_BINARY.match, said) if note]
    complaints = [line for line in said if not _BINARY.match(line)]
    faults = [line for line in complaints if _FILES_FAULT.search(line)]
    wrong = [line for line in complaints if not _FILES_FAULT.search(line)]
    if wrong and not found and not binary:
        raise InvalidInput(
            f"pattern: grep cannot read it: {wrong[0].removeprefix('grep: ')[:200]}",
            hint="it is an extended regular expression; set fixed: true to search for the text itself",
        )
    return Grepped(found, binary, len(faults), whole)


def ask_find(path: str, tests: Sequence[str]) -> Asked:
    """Which paths below this one pass find's tests?"""
    return ask(_FIND, path, [str(ANSWER_BYTES), *tests], words=WORDS)


def parse_find(answer: Answer) -> tuple[list[str], int, bool]:
    """The paths, how many folders could not be looked into, and whether that is all."""
    *paths, rest = answer.body.split(b"\0")
    whole = len(answer.body) < ANSWER_BYTES
    found = [path.decode("utf-8", "replace") for path in paths]
    found += [rest.decode("utf-8", "replace")] if rest and whole else []
    return found, len(answer.trailer.splitlines()), whole


_UNITS = {"": 512, "b": 512, "c": 1, "w": 2, "k": 1024, "M": 1024**2, "G": 1024**3}
SIZE = re.compile(r"^([+-]?)(\d{1,15})([bcwkMG]?)$")


def size_tests(size: str) -> list[str]:
    """Find's tests for a size as GNU find takes it (`+10M`, `-4k`, `100c`), in words that BusyBox knows, too.

    find rounds a size up to the unit: `10M` is everything over 9 MiB up to 10 MiB.
    """
    parts = SIZE.match(size)
    assert parts is not None  # noqa: S101 the parameter's pattern is this one
    sign, number, unit = parts[1], int(parts[2]), _UNITS[parts[3]]
    over = ["-size", f"+{number * unit}c"]
    if sign == "+":
        return over
    if sign == "-":
        # Rounded up it must stay below: at most one unit less.
        return ["!", "-size", f"+{max(number - 1, 0) * unit}c"]
    return ["!", *over, "-size", f"+{max(number - 1, 0) * unit}c"] if number else ["-size", "0c"]
