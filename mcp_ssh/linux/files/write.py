"""Writing a file of a remote machine so that it is the old one or the new one, whatever happens.

The script receives all of the content into a temporary file beside the target, counts it, dresses it in the target's
owner, permissions, ACL and extended attributes, and renames it. Where a rename would lose one of those, or a hard link,
or is refused, it writes into the file itself, with a copy or the old length to go back to.
"""

import secrets
from dataclasses import dataclass
from typing import Literal

from mcp_ssh.errors import Conflict, NotFound, RemoteFailed, TooLarge, ToolError
from mcp_ssh.linux.files.protected_paths import GUARD, path_protected
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

TARGET = (
    GUARD
    + r"""
mode=$1 count=$2 maximum=$3 permissions=$4 expected=$5 suffix=$6 base=666
need stat readlink cat sync chmod chown mv ln ls rm dd touch
[ "$expected" = any ] || need sha256sum
given=$(umask)
part='' new='' back='' touched='' note='' own=''

clean() { [ -z "$touched" ] || undo; rm -f ${part:+"$part"} ${new:+"$new"} ${back:+"$back"}; }
answer() { clean; trap - EXIT; stop "$@"; }
trap clean EXIT
trap "exit 1" HUP INT PIPE TERM

state() { stat -c "%s %u:%g %h %a %i %d %f %y %z" "$t" 2>/dev/null || echo none; }
sum() { sha256sum <"$1" 2>/dev/null | { read -r hex rest; echo "$hex"; }; }
size_of() { stat -c %s "$1"; }
# Files in /proc cannot be synced, and need not be.
settle() {
  why=$(sync "$1" 2>&1) && return
  case $why in *"Invalid argument" | *"not implemented" | *"not supported") return 0 ;; esac
  return 1
}
# Makes file $1, which must not exist, of the output of the rest.
make() { file=$1; shift; why=$({ set -C; "$@" >"$file"; } 2>&1); }
cut() { why=$(dd if=/dev/null of="$1" bs=1 seek="$2" 2>&1); }

# The file meant: at the end of all links, even where it does not exist yet.
case $p in */ | */. | */..) stop folder ;; esac
t=$(readlink -f "$p" && echo x) || {
  why=$(stat -L "${p%/*}/." 2>&1) || stop unreachable "$why"
  why=$(stat -L "$p" 2>&1)
  stop failed "$why"
}
t=${t%?x}
d=${t%/*}
spare "$t"
[ ! -d "$t" ] || stop folder
if [ -e "$t" ]; then
  [ -f "$t" ] || stop special
  # The account's right to write the file counts, though a rename would not ask for it.
  [ -w "$t" ] || { why=$({ : >>"$t"; } 2>&1) || stop failed "$why"; }
fi

# The content comes first, all of it, beside the file if that can be.
room=$d beside=1
case $t in /proc/* | /sys/*) beside='' ;; esac
if [ -e "$t" ] && ! { [ -w "$d/." ] && [ -x "$d/." ]; }; then beside=''; fi
[ -n "$beside" ] || room=${TMPDIR:-/tmp}
"""
)
"""Which file is meant, and in which `$room` its new content is to be collected."""

_RECEIVE = r"""
part=$room/.mcp-ssh-$suffix.part private=''
[ ! -e "$t" ] || { umask 077; private=1; }
make "$part" cat || answer failed "$why"
[ "$(size_of "$part")" = "$count" ] || answer short
umask 077
"""

PLACE = r"""
# Locks out other calls like this one, on the file or on the one that is to become it; the lock ends with the process.
# Says no where the file was made or replaced meanwhile, which is another's turn and no lost try.
lock() {
  if [ -e /proc/self/fd/9 ] && command -v flock >/dev/null 2>&1; then
    waited=0
    until flock -n 9 2>/dev/null || [ "$waited" -ge 50 ]; do
      waited=$((waited + 1))
      sleep 0.1 2>/dev/null || sleep 1
    done
    [ "$1" = "$part" ] || [ "$t" -ef /proc/self/fd/9 ] || return
  fi
  old=$(state)
  [ "$1" = "$t" ] || [ "$old" = none ]
}

expect() {
  case $expected in
    any) return ;;
    none) [ "$old" = none ] || answer exists "$(sum "$t")"; return ;;
  esac
  [ "$old" != none ] || answer absent
  actual=$(sum "$t")
  [ -n "$actual" ] || answer denied
  [ "$actual" = "$expected" ] || answer mismatch "$actual"
}

both() { if [ "$mode" = append ]; then cat "$t" "$part"; else cat "$part" "$t"; fi; }

# Gives the new file all that the old one has beside its content; says no where that cannot be.
dress() {
  if cp --attributes-only --preserve=all "$t" "$1" 2>/dev/null; then
    touch "$1"
  else
    [ -z "$(getfacl -cps "$t" 2>/dev/null)" ] && [ -z "$(getfattr -m- "$t" 2>/dev/null)" ] || return 1
    chown "$owner" "$1" 2>/dev/null
    chmod "$access" "$1" 2>/dev/null || return 1
  fi
  [ "$(stat -c "%u:%g %a" "$1")" = "$owner $access" ] || return 1
  # GNU ls shows with a + that there is an ACL.
  mine=$(ls -ld "$1") theirs=$(ls -ld "$t")
  [ "${mine%% *}" = "${theirs%% *}" ]
}

unchanged() { [ "$(state)" = "$old" ] || [ "$mode $expected" = "overwrite any" ]; }

report() {
  now=$(stat -c %a "$t") hex=''
  if [ "$mode" != overwrite ] && [ "$total" -le 16777216 ]; then hex=$(sum "$t"); fi
  answer ok "$1 $total $now $hex" "$note"
}

# A link instead of a rename: it fails where somebody else made the file first.
create() {
  wanted=$permissions
  [ -z "$private" ] || wanted=${wanted:-$(printf %o $((0$base & ~0$given)))}
  [ -z "$wanted" ] || why=$(chmod "$wanted" "$part" 2>&1) || answer failed "$why"
  settle "$part" || answer failed "$why"
  if ! ln -T "$part" "$t" 2>/dev/null; then
    [ ! -e "$t" ] || { chmod 600 "$part"; return; }
    why=$(mv -f -T "$part" "$t" 2>&1) || answer failed "$why"
  fi
  rm -f "$part"
  sync "${d:-/}" 2>/dev/null
  report 1
}

replace() {
  dress "$1" || return 1
  [ -z "$permissions" ] || chmod "$permissions" "$1" 2>/dev/null || return 1
  unchanged || return 2
  mv -f -T "$1" "$t" 2>/dev/null || return 1
  sync "${d:-/}" 2>/dev/null
  report 1
}

# Overwritten, never emptied first: the file keeps its blocks, so that the old content still fits if the new does not.
fill() {
  why=$(dd if="$1" of="$t" bs=65536 conv=notrunc 2>&1) || return
  [ "$(size_of "$t")" -le "$2" ] || cut "$t" "$2"
}

# Whether the file can be written to at all: it may be append-only, immutable, on a read-only mount, or a program that
# runs. Changes nothing.
opens() { why=$(dd if=/dev/null of="$t" bs=1 count=0 conv=notrunc 2>&1); }

# Nothing may end this half-way: what ends the call by a signal is ignored from here on, by every program started.
undo() {
  trap "" HUP INT PIPE TERM
  if [ "$touched" = append ]; then
    [ "$(size_of "$t")" = "$size" ] || cut "$t" "$size"
  else
    cmp -s "$back" "$t" || fill "$back" "$size"
  fi
  undone=$? touched=''
  [ $undone = 0 ] || { kept=$back back=''; }
  return $undone
}

fail_in_place() {
  cause=$why kept=''
  if undo; then answer failed "$cause"; else answer broken "$cause" "$kept"; fi
}

in_place() {
  unchanged || return 0
  # Changes nothing, but fails where the permissions could not be set afterwards.
  [ -z "$permissions" ] || why=$(chmod "$access" "$t" 2>&1) || answer failed "$why"
  if [ "$mode" = append ]; then
    touched=append
    why=$({ cat "$part" >>"$t"; } 2>&1) || fail_in_place
  else
    opens || answer failed "$why"
    back=$room/.mcp-ssh-$suffix.back
    make "$back" cat "$t" && settle "$back" || answer failed "$why"
    touched=all
    fill "$1" "$total" || fail_in_place
  fi
  settle "$t" || fail_in_place
  touched=''
  [ -z "$permissions" ] || access=$permissions
  chmod "$access" "$t" 2>/dev/null
  report 0
}

# Returns only where the file changed under it.
attempt() {
  lock "$1" || { tries=$((tries + 1)); return; }
  [ -z "$own" ] || is_own || answer raced
  expect
  size=0
  if [ "$old" != none ]; then set -- $old; size=$1 owner=$2 links=$3 access=$4; fi
  total=$count
  [ "$mode" = overwrite ] || total=$((size + count))
  [ "$total" -le "$maximum" ] || answer large "$total"
  if [ "$old" = none ]; then create; return; fi
  made=$part
  if [ "$mode" = prepend ] || { [ "$mode" = append ] && [ "$beside:$links" = 1:1 ] && [ -r "$t" ]; }; then
    rm -f ${new:+"$new"}
    new=$room/.mcp-ssh-$suffix.new made=$new
    make "$new" both || answer failed "$why"
    [ "$(size_of "$new")" = "$total" ] || return
  elif [ "$mode" = append ]; then
    made=''
  fi
  if [ -n "$made" ]; then settle "$made" || answer failed "$why"; fi
  if [ -n "$made" ] && [ "$beside:$links" = 1:1 ]; then
    replace "$made"
    [ $? = 1 ] || return
  fi
  in_place "$made"
}

tries=4 turns=100
while [ "$tries" -gt 0 ] && [ "$turns" -gt 0 ]; do
  tries=$((tries - 1)) turns=$((turns - 1))
  if [ -e "$t" ]; then file=$t; else file=$part; fi
  if [ -r "$file" ]; then attempt "$file" 9<"$file"; else attempt "$file"; fi
done
answer changed
"""
"""Puts the content in `$part` in its place."""

_WRITE = pack_script(BEGIN + TARGET + _RECEIVE + PLACE)


def ask_write(
    path: str,
    content: bytes,
    mode: Literal["overwrite", "append", "prepend"],
    *,
    maximum: int,
    permissions: str | None = None,
    expected: str | None = None,
) -> PathQuery:
    """Write a file. `parse_write` reads the answer's body.

    Args:
        path: The file; links are followed.
        content: The bytes.
        mode: Where the bytes go.
        maximum: The most bytes the file may have afterwards.
        permissions: Octal digits the file gets; None keeps those it has.
        expected: SHA-256 the file must have before; "" where there must be no file; None takes it as it is.
    """
    arguments = [mode, str(len(content)), str(maximum), permissions or ""]
    arguments += ["any" if expected is None else expected or "none", secrets.token_hex(12)]
    return ask(_WRITE, path, arguments, words=WRITE_WORDS, stdin=content)


@dataclass(frozen=True)
class WriteOutcome:
    """What a write left: whether readers saw only old or new content, the file's size, permissions, maybe SHA-256."""

    atomic: bool
    size: int
    permissions: str
    sha256: str | None


def parse_write(body: bytes) -> WriteOutcome:
    """The outcome of a write."""
    atomic, size, permissions, sha256 = body.decode("ascii").split(" ")
    return WriteOutcome(atomic == "1", int(size), permissions.zfill(4), sha256 or None)


def _write_failed(answer: ScriptAnswer) -> ToolError:
    error = failure(answer.path, answer.body)
    if not isinstance(error, RemoteFailed):
        return error
    return RemoteFailed(f"{error.message}; nothing was changed", hint=error.hint, details=error.details)


def _unreachable(answer: ScriptAnswer) -> ToolError:
    error = failure(answer.path, answer.body)
    if not isinstance(error, NotFound):
        return error
    return NotFound(
        f"the folder of {quote_path(answer.path)} does not exist",
        hint="make it first, with file_mkdir(parents: true)",
        details={"path": answer.path},
    )


def _broken(answer: ScriptAnswer) -> ToolError:
    error = failure(answer.path, answer.body)
    kept = answer.trailer.decode("utf-8", "replace")
    where = f"; its old content is in {quote_path(kept)}" if kept else ""
    return RemoteFailed(
        f"writing failed half-way, and so did putting the old content back{where} ({error.message})",
        hint="look at the file before anything else is done to it",
        details={**error.details, **({"backup": kept} if kept else {})},
    )


def _short(answer: ScriptAnswer) -> ToolError:
    return RemoteFailed(
        f"only a part of the content arrived; {quote_path(answer.path)} is unchanged",
        hint="try again",
        details={"path": answer.path},
    )


def _large(answer: ScriptAnswer) -> ToolError:
    return TooLarge(
        f"{quote_path(answer.path)} would grow to {answer.text} bytes, more than this server may write",
        hint="the limit is sftp.max_file_size_mb; `cat >>` through command_exec appends to a file of any size",
        details={"path": answer.path, "size_bytes": int(answer.body)},
    )


def _file_changed(answer: ScriptAnswer) -> ToolError:
    return Conflict(
        f"{quote_path(answer.path)} kept changing while it was being written; it was left as it is",
        hint="try again; `cat >>` through command_exec appends to a file that others write to",
        details={"path": answer.path},
    )


def _unexpected_content(answer: ScriptAnswer) -> ToolError:
    found = {
        "exists": "exists already",
        "absent": "does not exist",
        "mismatch": "has another content than expected",
    }[answer.word]
    return Conflict(
        f"{quote_path(answer.path)} {found}; nothing was changed",
        hint="read it again with file_read, and decide again",
        details={"path": answer.path, "actual_sha256": answer.text},
    )


WRITE_WORDS: ErrorMapping = {
    **WORDS,
    "protected": path_protected,
    "failed": _write_failed,
    "unreachable": _unreachable,
    "broken": _broken,
    "short": _short,
    "large": _large,
    "changed": _file_changed,
    "exists": _unexpected_content,
    "absent": _unexpected_content,
    "mismatch": _unexpected_content,
}
