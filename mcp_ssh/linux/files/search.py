"""Looking into files and for files: tail, head, grep and find, with GNU's words and BusyBox's."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from mcp_ssh.errors import InvalidInput, ToolError
from mcp_ssh.linux.files.grep_patterns import portable
from mcp_ssh.linux.framing import BEGIN, WORDS, PathQuery, ScriptAnswer, ask, pack_script
from mcp_ssh.linux.lines import LINE_LIMIT, ROW_LIMIT, number

ANSWER_BYTES = 2 * 1024 * 1024
"""The most that a search may bring back; what it finds beyond is cut, and said to be."""

# $1: tail or head. $2: lines. $3: bytes.
_LINES = pack_script(
    BEGIN
    + r"""
need stat tail head
why=$(stat -L -c %f "$p" 2>&1) || stop failed "$why"
[ ! -d "$p" ] || stop folder
[ -f "$p" ] || stop special
[ -r "$p" ] || stop denied
begin ok
exec 3>&1
why=$({ "$1" -n "$2" "$p" | "$1" -c "$3" >&3; } 2>&1)
end "$why"
"""
)

# What is found has the path that was asked for in front: `.` and `./a` need no second `./`.
_ONCE = r"""
case $asked in . | ./*) p=$asked ;; esac
"""

# $1: pattern. $2: bytes. Then grep's options. With -Z, which not every grep has, a NUL ends the name of the file.
# Without it each file gets a line of its own with its name between NULs, and is looked at for NULs, as GNU's grep does;
# what has a newline in its path is looked for on its own. Complaints are read to their end, for one that nobody takes
# would end the search; the last line says how many there were.
_GREP = pack_script(
    BEGIN
    + _ONCE
    + r"""
need stat grep head awk
why=$(stat -L -c %f "$p" 2>&1) || stop failed "$why"
[ -d "$p" ] || [ -r "$p" ] || stop denied
pattern=$1 bytes=$2
export pattern
shift 2
case " $* " in *" -r "*) deep=1 ;; *) deep=''; [ ! -d "$p" ] || stop folder ;; esac
why=$(echo x | grep "$@" -e "$pattern" - 2>&1 >/dev/null)
[ $? -lt 2 ] || stop pattern "$why"
line=$(printf "\nx")
line=${line%x}
look='
    file=$1
    shift
    bytes_of() { head -c 32768 "$file" | "$@" | wc -c; }
    if [ "$(bytes_of cat)" != "$(bytes_of tr -d "\\000")" ]; then echo "Binary file $file matches"; else
        printf "\\0%s\\0\n" "$file"
        grep "$@" -h -e "$pattern" "$file"
    fi
'
eval "look() { $look
}"
each() {
    if [ -z "$deep" ]; then ! grep "$@" -q -e "$pattern" "$p" || look "$p" "$@"; return; fi
    grep "$@" -l -e "$pattern" "$p" | while IFS= read -r file; do
        case $file in "$p"*) [ ! -f "$file" ] || look "$file" "$@" ;; esac
    done
    find -H "$p" -type f -path "*$line*" -exec sh -c "$look" sh {} "$@" \; 2>/dev/null
}
all() { grep "$@" -H -Z -e "$pattern" "$p"; }
search=each
echo x | grep -qZ x 2>/dev/null && search=all
begin ok
exec 3>&1
why=$({ "$search" "$@" | head -c "$bytes" >&3; } 2>&1 | awk '
    { size += length($0) }
    size < 262144
    END { print NR }')
end "$why"
"""
)

# $1: bytes. Then find's tests. The trailer is the number of complaints.
_FIND = pack_script(
    BEGIN
    + _ONCE
    + r"""
need stat find head wc
why=$(stat -L -c %f "$p" 2>&1) || stop failed "$why"
bytes=$1
shift
begin ok
exec 3>&1
count=$({ find -H "$p" "$@" -print0 | head -c "$bytes" >&3; } 2>&1 | wc -l)
end "$count"
"""
)


def ask_lines(path: str, program: str, lines: int, limit: int) -> PathQuery:
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
class GrepOutcome:
    """What grep found. `whole` is false where there was more than fits an answer."""

    lines: list[Line]
    binary: list[str]
    unreadable: int
    whole: bool


def ask_grep(
    path: str, pattern: str, *, recursive: bool, ignore_case: bool, fixed: bool, context: int, most: int
) -> PathQuery:
    """Where in a file, or in a folder's files, does a pattern occur? Extended regular expressions, unless fixed.

    Raises:
        InvalidInput: Not every grep reads the pattern alike.
    """
    options = ["-n", "-F" if fixed else "-E", "-m", str(most)]
    options += ["-r"] if recursive else []
    options += ["-i"] if ignore_case else []
    options += ["-C", str(context)] if context else []
    pattern = pattern if fixed else portable(pattern)
    return ask(_GREP, path, [pattern, str(ANSWER_BYTES), *options], words={**WORDS, "pattern": _pattern})


def _pattern(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"pattern: grep cannot read it: {answer.text.removeprefix('grep: ')[:200]}",
        hint="it is an extended regular expression; set `fixed: true` to search for the text itself",
    )


# GNU's grep says the first on standard output up to 3.4, and then the second on standard error, as others do.
_BINARY = (("Binary file ", " matches"), ("grep: ", ": binary file matches"))


def _binary(line: str) -> str | None:
    """The file that a line says is not text."""
    for start, end in _BINARY:
        if line.startswith(start) and line.endswith(end):
            return line[len(start) : -len(end)]
    return None


def _is_warning(line: str) -> bool:
    return line.startswith("grep: ") and ": warning: " in f": {line.removeprefix('grep: ')}"


_NUMBER = re.compile(r"([0-9]{1,18})([:-])")


def _rows(text: str) -> Iterator[tuple[str | None, int, str, str]]:
    """Lines of grep: the file, which is None where a heading names it, the number, the sign behind it, the text.

    A heading has the name, the number -1 and no sign; another line has -2. A name may hold newlines: it ends at a NUL.
    """
    at, nul = 0, -1
    while (end := text.find("\n", at)) >= 0:
        if nul < at:
            nul = text.find("\0", at)
            nul = len(text) if nul < 0 else nul
        file: str | None = None
        start = at
        if text[at] == "\0":
            close = text.find("\0", at + 1, at + 2 * LINE_LIMIT)
            if close > at + 1 and text.startswith("\n", close + 1):
                yield text[at + 1 : close], -1, "", ""
                at = close + 2
                continue
        elif text.startswith(("/", "./"), at) and nul < len(text):
            start = nul + 1
        if found := _NUMBER.match(text, start):
            file = text[at : start - 1][:LINE_LIMIT] if start > at else None
            end = text.find("\n", start)
            if end < 0:
                return
            yield file, int(found[1]), found[2], text[found.end() : min(end, found.end() + LINE_LIMIT)]
        else:
            yield None, -2, "", text[at : min(end, at + LINE_LIMIT)]
        at = end + 1


ROWS = 50_000
"""Lines of grep that are looked at: 1,000 matches with 20 lines around each, and what else it says."""


def parse_grep(answer: ScriptAnswer) -> GrepOutcome:
    """What grep said."""
    whole = len(answer.body) < ANSWER_BYTES
    text = answer.body.decode("utf-8", "replace")
    found: list[Line] = []
    binary: list[str] = []
    heading = ""
    for file, number_of_line, sign, line in islice(_rows(text), ROWS):
        if number_of_line == -1:
            heading = file or ""
        elif sign and (name := file or heading):
            found.append(Line(name, number_of_line, line, sign == ":"))
        elif not sign and (name := _binary(line)):
            binary.append(name)
    *said, count = answer.trailer.decode("utf-8", "replace").split("\n")
    binary += [name for name in map(_binary, said) if name]
    about_no_file = sum(1 for line in said if _binary(line) or _is_warning(line))
    whole = whole and len(found) + len(binary) < ROWS
    return GrepOutcome(found, binary, max(number(count) - about_no_file, 0), whole)


def ask_find(path: str, tests: Sequence[str]) -> PathQuery:
    """Which paths below this one pass find's tests?"""
    return ask(_FIND, path, [str(ANSWER_BYTES), *tests], words=WORDS)


def parse_find(answer: ScriptAnswer) -> tuple[list[str], int, bool]:
    """The paths, how many folders could not be looked into, and whether that is all."""
    *paths, rest = answer.body.split(b"\0", ROW_LIMIT)
    whole = len(answer.body) < ANSWER_BYTES and len(paths) < ROW_LIMIT
    found = [path.decode("utf-8", "replace") for path in paths]
    found += [rest.decode("utf-8", "replace")] if rest and whole else []
    return found, number(answer.trailer.decode("ascii", "replace").strip()), whole


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
