"""Following a file as it grows, through a script that says where it reads; with GNU's words and BusyBox's.

After its answer the script sends the bytes of the file, and between them lines of its own, each behind the answer's
mark: `at FILE OFFSET WHY` before bytes that come from elsewhere, `alive` now and then, and `over` at its end.
"""

from dataclasses import dataclass
from typing import Literal

from mcp_ssh.errors import RemoteFailed
from mcp_ssh.linux.framing import BEGIN, WORDS, PathQuery, ask, pack_script

Reason = Literal["moved", "truncated", "replaced"]

BEAT_S = 10
"""How often the script says that it is alive, in seconds."""

SILENT_S = 4 * BEAT_S
"""How long it may say nothing until the machine counts as lost: keepalives take longer to find that."""

LONGEST_LINE = 200
"""The script's own lines are shorter."""

# $1: lines. $2: seconds. $3, $4: the file that was read before, by device and inode, and up to where; or empty. $5:
# seconds between signs of life. The open file is read on from its own offset, so that nothing is lost or told twice. A
# log that was moved away or emptied is opened again by its name, once all of the old one is reported. What is opened by
# /proc/self/fd is read from its start. Where nobody reads any more, the next sign of life ends it.
_FOLLOW = pack_script(
    BEGIN
    + r"""
need stat tail cat dd wc
why=$(stat -L -c %f "$p" 2>&1) || stop failed "$why"
[ ! -d "$p" ] || stop folder
[ -f "$p" ] || stop special
[ -r "$p" ] || stop denied
lines=$1 seconds=$2 file=$3 from=$4 beat=$5
clock() { read -r up rest </proc/uptime && now=${up%.*}; }
opened() { { command exec 3<"$p"; } 2>/dev/null && which=$(stat -L -c %d:%i /proc/self/fd/3 2>/dev/null); }
at() { while read -r word value; do case $word in pos:) echo "$value"; return; esac; done </proc/self/fdinfo/3; }
tell() { printf "%s%s\n" "$mark" "$1" || exit 1; }
clock
until=$((now + seconds)) next=$((now + beat))
opened || stop denied
if [ -z "$file" ]; then
  length=$(tail -n "$lines" <&3 | wc -c)
  from=$(($(at) - length)) how=begun
elif [ "$which" != "$file" ]; then from=0 how=replaced
elif [ "$from" -gt "$(stat -L -c %s /proc/self/fd/3)" ]; then from=0 how=truncated
else how=resumed; fi
exec 3</proc/self/fd/3
[ "$from" = 0 ] || dd bs=1 skip="$from" count=0 <&3 2>/dev/null
begin ok
end
tell "at $which $from $how"
more=yes idle=0
while :; do
  if [ -n "$more" ]; then idle=0; cat <&3 2>/dev/null || exit 1; fi
  clock
  [ "$now" -lt "$until" ] || break
  [ "$now" -lt "$next" ] || { tell alive; next=$((now + beat)); }
  idle=$((idle + 1)) more=yes nap=0.1
  [ "$idle" -lt 20 ] || nap=0.5
  sleep "$nap" 2>/dev/null || sleep 1
  facts=$(stat -L -c "%d:%i %s" "$p" 2>/dev/null) || continue
  how=
  if [ "${facts% *}" != "$which" ]; then cat <&3 2>/dev/null || exit 1; how=moved
  elif [ "${facts#* }" -lt "$(at)" ]; then how=truncated
  elif [ "${facts#* }" = "$(at)" ]; then more=; fi
  [ -z "$how" ] || { opened && tell "at $which 0 $how"; }
done
tell over
"""
)


@dataclass(frozen=True)
class Position:
    """Where the bytes that follow are from: a file, by device and inode, and an offset in it.

    `reset` says why they are not what the caller would have read next.
    """

    file: str
    offset: int
    reset: Reason | None


class Over:
    """The script's end, at its time."""


def ask_follow(path: str, lines: int, seconds: int, since: tuple[str, int] | None = None) -> PathQuery:
    """What are a file's last lines, and what is added to it within a time?

    Args:
        path: The file; links are followed.
        lines: How many of its last lines to begin with.
        seconds: When to end.
        since: Go on in this file at this offset instead, if it is still the one and that long; else from its start.
    """
    file, offset = since or ("", "")
    return ask(_FOLLOW, path, [str(lines), str(seconds), file, str(offset), str(BEAT_S)], words=WORDS)


class FollowParser:
    """Takes apart what the script sends after its answer."""

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._held = b""
        self._at = 0
        self._in_line = False

    def feed(self, chunk: bytes) -> list[bytes | Position | Over]:
        """Bytes of the file, where they are from, and the end, as far as they are complete.

        Raises:
            RemoteFailed: The script says what it cannot.
        """
        self._held += chunk
        found: list[bytes | Position | Over] = []
        self._at = 0
        while (taken := self._line() if self._in_line else self._data()) is not None:
            if taken:
                found.append(taken)
        self._held = self._held[self._at :]
        return found

    def _data(self) -> bytes | None:
        """What stands before the next mark, or all that is none."""
        start, end = self._at, self._held.find(self._mark, self._at)
        if end >= 0:
            self._at, self._in_line = end + len(self._mark), True
            return self._held[start:end]
        end = len(self._held) - _partial_mark(self._held[max(start, len(self._held) - len(self._mark)) :], self._mark)
        if end <= start:
            return None
        self._at = end
        return self._held[start:end]

    def _line(self) -> Position | Over | bytes | None:
        """What a line of the script says; nothing where it is only alive."""
        end = self._held.find(b"\n", self._at, self._at + LONGEST_LINE + 1)
        if end < 0:
            if len(self._held) - self._at > LONGEST_LINE:
                raise _nonsense()
            return None
        line = self._held[self._at : end]
        self._at, self._in_line = end + 1, False
        match line.decode("ascii", "replace").split(" "):
            case ["at", file, offset, "begun" | "resumed"]:
                return Position(file, int(offset), None)
            case ["at", file, offset, ("moved" | "truncated" | "replaced") as reason]:
                return Position(file, int(offset), reason)
            case ["over"]:
                return Over()
            case ["alive"]:
                return b""
            case _:
                raise _nonsense()


def _partial_mark(data: bytes, mark: bytes) -> int:
    """How many of the last bytes may be the beginning of a mark."""
    most = min(len(mark) - 1, len(data))
    return next((size for size in range(most, 0, -1) if data.endswith(mark[:size])), 0)


def _nonsense() -> RemoteFailed:
    return RemoteFailed("the machine's shell answers with something else than was asked")
