"""Single files on their way: sh scripts that speak with us while the bytes travel, and what their answers mean.

An upload is collected in a file beside the target whose name follows from target and source. What is there when a link
is cut stays, so the next try continues from it. It is written at its offset, never appended to: two
writers of the same file, as when the end of a dead connection was not noticed yet, write the same bytes. The first to
end puts the file in place, and the other one starts again.
"""

import hashlib
from dataclasses import dataclass

from mcp_ssh.errors import Conflict, ToolError, Unsupported
from mcp_ssh.linux.files.protected_paths import GUARD
from mcp_ssh.linux.files.staging import PLACE_TREE, STAGE, SWEEP
from mcp_ssh.linux.files.write import PLACE, TARGET, WRITE_WORDS
from mcp_ssh.linux.framing import (
    BEGIN,
    WORDS,
    ErrorMapping,
    PathQuery,
    ScriptAnswer,
    ask,
    failure,
    pack_script,
    quote_path,
)

BLOCK = 256 * 1024
"""Resumed uploads start at a multiple of this: dd counts in blocks."""

ANY_SIZE = 2**62

# Most builds of sha256sum know nothing of the SHA instructions of a CPU; openssl does, and takes a fifth of the time.
_SUMMING = r"""
summing() {
  case $(openssl dgst -sha256 -r </dev/null 2>/dev/null) in
    e3b0c44298fc1c14*) openssl dgst -sha256 -r ;;
    *) sha256sum ;;
  esac
}
"""

# $8: the SHA-256 that the whole should have. Where it is not known yet, it comes in a line of its own behind the bytes,
# once the machine said that it has them all.
_RECEIVE = pack_script(
    BEGIN
    + TARGET
    + r"""
base=$7 whole=$8 block=262144
need dd head sha256sum id
private=1
umask 077
"""
    + SWEEP
    + _SUMMING
    + r"""
kept=$room/.mcp-ssh-$suffix.part part=''
# Another upload of the same file puts the file with this name in place when it ends. What comes then is written to a
# new one, which lacks what came before.
is_own() { [ "$(stat -c %i "$kept" 2>/dev/null)" = "$own" ]; }
# Only our file, that nobody else can hold by another name.
mine() { [ ! -L "$kept" ] && [ -f "$kept" ] && [ "$(stat -c "%u %h" "$kept")" = "$(id -u) 1" ]; }
fresh() { make "$kept" : || answer failed "$why"; }
if [ -e "$kept" ] || [ -L "$kept" ]; then mine || answer foreign "$kept"; else fresh; fi
have=$(size_of "$kept")
[ "$have" -le "$count" ] || { rm -f "$kept"; fresh; have=0; }
[ "$have" = "$count" ] || have=$((have / block * block))
# While this is open, no other file can have its inode.
exec 8<"$kept"
own=$(stat -c %i "$kept")
begin ok; printf "have %s" "$have"; end
hex=''
if [ $((count - have)) -ge 1048576 ] && dd iflag=fullblock count=0 </dev/null 2>/dev/null; then
  # What is large is summed up while it comes: one part is read back while the next one is written.
  why=$({
    {
      head -c "$have" "$kept"
      at=$((have / block)) reader=''
      while [ $((at * block)) -lt "$count" ]; do
        some=$((count / block - at))
        [ $some -le 64 ] || some=64
        if [ $some -gt 0 ]; then
          said=$(dd of="$kept" bs=$block seek=$at count=$some iflag=fullblock conv=notrunc 2>&1)
        else
          some=1
          said=$(head -c $((count % block)) | dd of="$kept" bs=$block seek=$at conv=notrunc 2>&1)
        fi || { echo "failed:$said" >&5; break; }
        case $said in 0+0*) break ;; esac
        [ -z "$reader" ] || wait "$reader"
        dd if="$kept" bs=$block skip=$at count=$some 2>/dev/null &
        reader=$! at=$((at + some))
      done
      wait
    } | summing | { read -r hex x; echo "sum:$hex"; }
  } 5>&1)
  hex=${why##*sum:} why=${why%sum:*}
  case $why in failed:*) part=$kept; answer failed "${why#failed:}" ;; esac
elif [ "$have" != "$count" ]; then
  why=$(head -c $((count - have)) | dd of="$kept" bs=$block seek=$((have / block)) conv=notrunc 2>&1) ||
    { part=$kept; answer failed "$why"; }
fi
is_own || { part=$kept; answer raced; }
[ "$(size_of "$kept")" = "$count" ] || answer short
hex=${hex:-$(sum "$kept")}
if [ -z "$whole" ]; then begin ok; end; read -r whole || exit 1; fi
part=$kept
[ "$hex" = "$whole" ] || answer damaged "$have"
"""
    + PLACE
)

# Read by one open file from first to last, so that a file that is replaced meanwhile is still the old one. It is summed
# up while it travels, and both stop at the size it had: a log that grows is whole as far as it was. A folder comes as a
# tar stream, if we still want it then.
_SEND = pack_script(
    BEGIN
    + _SUMMING
    + r"""
need stat dd head sha256sum
facts=$(stat -L -c "%s %a %i.%Y.%Z %b" "$p" 2>&1) || stop failed "$facts"
blocks=${facts##* } facts=${facts% *}
[ -r "$p" ] || stop denied
if [ -d "$p" ]; then
  [ -x "$p" ] || stop denied
  begin ok; printf dir; end
  read -r from || exit 0
  need tar
  cd "$p" || stop denied
  # Holes of files stay holes.
  case $(tar --version 2>/dev/null) in *"GNU tar"*) sparse=-S ;; *) sparse='' ;; esac
  begin ok; end
  exec tar $sparse -c -f - .
fi
[ -f "$p" ] || stop special
exec 3<"$p"
source=/proc/$$/fd/3
[ -r "$source" ] || source=$p
size=${facts%% *} rest=${facts#* } fast='' summed=sha256sum
# Files in /sys tell a page as their size, whatever they hold.
if [ "$blocks" = 0 ] && [ "$size" != 0 ]; then
  case $(readlink -f "$p") in /proc/* | /sys/*) size=0 ;; esac
fi
# Files in /proc have no size to tell, and may be others the next time.
if [ "$size" = 0 ]; then
  begin ok; printf "file 0 %s -" "${rest%% *}"; end
  head -c "$1" <"$source"
  exit
fi
[ "$size" -le "$1" ] || stop large "$size"
# Where dd can, it moves more at a time than head does.
if [ "$size" -ge 1048576 ] && dd iflag=fullblock count=0 </dev/null 2>/dev/null; then fast=1 summed=summing; fi
emit() {
  if [ -z "$fast" ]; then head -c "$1"; return; fi
  dd iflag=fullblock bs=262144 count=$(($1 / 262144)) 2>/dev/null && head -c $(($1 % 262144))
}
begin ok; printf "file %s" "$facts"; end
from=$2
[ -n "$from" ] || read -r from || exit 0
exec 4>&1
hex=$(
  {
    hex=$($summed <"$source")
    [ "$(stat -L -c %s "$source")" = "$size" ] || hex=$(emit "$size" <"$source" | $summed)
    echo "$hex"
  } &
  { [ "$from" = 0 ] || dd bs=1 skip="$from" count=0 2>/dev/null; emit $((size - from)); } <"$source" >&4
  wait
)
end "${hex%% *}"
"""
)


def ask_receive(
    path: str, size: int, source: str, *, permissions: str | None, usual: int, sha256: str | None = None
) -> PathQuery:
    """Take in a file. The first answer is read by `parse_have`, the last by `parse_write`.

    Where the SHA-256 is not given, an answer between them says that all bytes are there, and the machine then waits for
    a line with it.

    Args:
        path: The file; links are followed.
        size: Bytes that will be there in the end.
        source: What they are: another text, another content.
        permissions: Octal digits the file gets; None keeps those it has.
        usual: Permissions of a new file, less what the account's umask takes away.
        sha256: Of all of them.
    """
    suffix = partial_name(path, size, source)
    arguments = ["overwrite", str(size), str(ANY_SIZE), permissions or "", "any", suffix, f"{usual:03o}", sha256 or ""]
    return ask(
        _RECEIVE,
        path,
        arguments,
        words={**WRITE_WORDS, "foreign": _foreign, "damaged": CorruptTransfer, "raced": Raced},
    )


def partial_name(*source: object) -> str:
    """What the name of a partial file has in it: the same for the same target, size and content."""
    return hashlib.sha256("\0".join(map(str, source)).encode()).hexdigest()[:24]


def parse_have(answer: ScriptAnswer) -> int:
    """How many bytes are there already."""
    return int(answer.body.split(b" ")[1])


def ask_send(path: str, maximum: int = ANY_SIZE, *, at_once: bool = False) -> PathQuery:
    """Give out a file; `parse_offer` reads the answer. Told an offset in a line of its own, it sends the rest.

    For a folder any line has it answer once more, and send a tar stream.

    Args:
        path: The file.
        maximum: The most bytes it may have.
        at_once: It need not be told, and sends all.
    """
    words: ErrorMapping = {
        **WORDS,
        "large": lambda answer: Larger(answer.path, int(answer.body)),
        "lacks": lambda answer: _lacks_tar(answer) if answer.body == b"tar" else WORDS["lacks"](answer),
    }
    return ask(_SEND, path, [str(maximum), "0" if at_once else ""], words=words)


@dataclass(frozen=True)
class Offer:
    """What would be sent. No version: the size is unknown, and it comes at once.

    Attributes:
        size: Bytes of the whole.
        mode: Its permissions.
        version: The same as long as nobody changes the file: where it is and when it was changed.
    """

    size: int
    mode: int
    version: str | None


def parse_offer(answer: ScriptAnswer) -> Offer | None:
    """What the machine has at the path; None for a folder."""
    kind, *facts = answer.body.decode("ascii").split(" ")
    if kind == "dir":
        return None
    size, mode, version = facts
    return Offer(int(size), int(mode, 8), None if version == "-" else version)


class ChecksummedFile:
    """What comes after an offer: the file's bytes, and behind them its SHA-256 between marks.

    Args:
        asked: The question.
        offer: Its answer.
    """

    def __init__(self, asked: PathQuery, offer: Offer) -> None:
        self._mark = asked.mark
        self._held = b""
        self._trailer = 2 * len(asked.mark) + 64 if offer.version else 0

    def feed(self, chunk: bytes) -> list[memoryview]:
        """The bytes of the file among these."""
        if len(chunk) < self._trailer:
            chunk, self._held = self._held + chunk, b""
        end = max(0, len(chunk) - self._trailer)
        passed, self._held = [memoryview(self._held), memoryview(chunk)[:end]], chunk[end:]
        return [each for each in passed if each]

    @property
    def sha256(self) -> str | None:
        """Of the whole file, once all came; none where it was cut short, or had no size to begin with."""
        mark, held = self._mark, self._held
        if not self._trailer or not (held.startswith(mark) and held.endswith(mark)):
            return None
        return held[len(mark) : -len(mark)].decode("ascii", "replace")


class CorruptTransfer(Conflict):
    """What arrived is not what was to be sent; `offset` is where this try began."""

    def __init__(self, answer: ScriptAnswer) -> None:
        super().__init__(
            f"what arrived for {quote_path(answer.path)} is not what was read here; what was there is unchanged",
            hint="the source changed while it was being read, or a partial file was damaged: try again",
            details={"path": answer.path},
        )
        self.offset = int(answer.body)


class Raced(Conflict):
    """Another upload of the same file ended first."""

    def __init__(self, answer: ScriptAnswer) -> None:
        super().__init__(
            f"another upload of the same file to {quote_path(answer.path)} ended first; its file is there, whole",
            hint="compare the file there with the source, and try again if it differs",
            details={"path": answer.path},
        )


class Larger(ToolError):
    """The file has more bytes than may be sent; `size` says how many."""

    def __init__(self, path: str, size: int) -> None:
        super().__init__(f"{quote_path(path)} has {size} bytes")
        self.size = size


def _foreign(answer: ScriptAnswer) -> ToolError:
    return Conflict(
        f"{quote_path(answer.text)} is in the way: it is not a partial upload of this account",
        hint="look at it, and remove it with file_remove",
        details={"path": answer.text},
    )


# The file `end` comes last; without it the stream was cut where one entry ended and the next had not begun. It holds
# the SHA-256 of all content: the files in the order of their paths' bytes, without those that their owner may not read.
_RECEIVE_TREE = pack_script(
    BEGIN
    + GUARD
    + r"""
need tar mkdir mv rm find tr wc readlink stat cat sha256sum
"""
    + _SUMMING
    + r"""
case $p in ?*/) p=${p%/} ;; esac
if [ -e "$p" ]; then
  [ -d "$p" ] || stop file
  [ -w "$p/." ] && [ -x "$p/." ] || stop denied
  p=$(readlink -f "$p" && echo x) || stop denied
  p=${p%?x} room=$p there=1
else
  room=${p%/*} there=''
  why=$(stat "$room/." 2>&1) || stop unreachable "$why"
fi
goal=$p
[ -n "$there" ] || { goal=$(readlink -f "$room/." && echo x) || stop denied; goal=${goal%?x}; goal=${goal%/}/${p##*/}; }
spare "$goal"
"""
    + STAGE
    + r"""
begin ok; end
"""
    + SWEEP
    + r"""
# Not every tar keeps the permissions of ordinary accounts against the umask.
umask 0
why=$(tar -x -o -p -f - -C "$stage" 2>&1) || stop tar "$why"
[ -f "$stage/end" ] || stop short
hex=''
if printf x | sort -z >/dev/null 2>&1 && printf x | xargs -0 echo >/dev/null 2>&1; then
  # cat takes a buffer for each file: glibc's malloc is to keep the memory, which is half of the time for small files.
  MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=4194304
  export MALLOC_MMAP_THRESHOLD_ MALLOC_TRIM_THRESHOLD_
  hex=$(find "$stage/t" -type f -perm -400 -print0 | sort -z | xargs -0 cat | summing)
  hex=${hex%% *}
  [ "$hex" = "$(cat "$stage/end")" ] || stop damaged 0
fi
"""
    + PLACE_TREE
    + r"""
begin ok; echo $count $hex; end
"""
)


def ask_receive_tree(path: str, name: str) -> PathQuery:
    """Take in a tree as a tar stream. The first answer says that it may come; `parse_grown` reads the second.

    Args:
        path: The folder that its content is put into.
        name: What the name of the folder it is collected in has in it.
    """
    return ask(_RECEIVE_TREE, path, [name], words=_GROWING_WORDS)


def parse_grown(answer: ScriptAnswer) -> tuple[int, str | None]:
    """How many files a tree has, and the SHA-256 of all their content, where the machine could compare it."""
    count, *sha256 = answer.body.decode("ascii").split()
    return int(count), sha256[0] if sha256 else None


class NoTar(Unsupported):
    """The machine has no tar, so folders go file by file where they can."""


def _lacks_tar(answer: ScriptAnswer) -> ToolError:
    error = WORDS["lacks"](answer)
    return NoTar(error.message, hint="install it there; where the account has SFTP, too, folders go file by file")


def tar_failure(answer: ScriptAnswer) -> ToolError:
    """What went wrong, from all that tar said: the first line whose cause is known, else the first."""
    lines = answer.body.splitlines() or [b""]
    known = (error for error in (failure(answer.path, line) for line in lines) if error.hint)
    return next(known, failure(answer.path, lines[0]))


_GROWING_WORDS: ErrorMapping = {**WRITE_WORDS, "tar": tar_failure, "lacks": _lacks_tar, "damaged": CorruptTransfer}
