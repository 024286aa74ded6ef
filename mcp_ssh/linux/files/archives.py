"""Archives made and unpacked on a machine, by tar(1), the compressors, zip(1) and unzip(1): sh scripts, their answers.

An archive takes its place as a written file does. One is unpacked in three steps: it is looked through, and refused
where an entry would leave its folder; it is unpacked into a stage, which is looked through; that takes its place.
Every program in a pipe has to end well.
"""

import secrets
from typing import Literal, get_args

from mcp_ssh.errors import Conflict, InvalidInput, PermissionDenied, Refused, RemoteFailed, ToolError, Unsupported
from mcp_ssh.linux.files.protected_paths import GUARD
from mcp_ssh.linux.files.staging import CLEAN, PLACE_TREE, STAGE, SWEEP
from mcp_ssh.linux.files.write import PLACE, TARGET, WRITE_WORDS
from mcp_ssh.linux.framing import BEGIN, ErrorMapping, PathQuery, ScriptAnswer, ask, failure, pack_script, quote_path
from mcp_ssh.messages.printable import said_details

Format = Literal["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip"]
PRESSES = dict(zip(get_args(Format), ("cat", "gzip", "bzip2", "xz", "zstd", ""), strict=True))
"""The program that each format's tar goes through."""

ANY_SIZE = 2**62
_PACKAGES = {
    "tar": "tar", "gzip": "gzip", "gunzip": "gzip", "bzip2": "bzip2", "bunzip2": "bzip2", "xz": "xz-utils",
    "unxz": "xz-utils", "zstd": "zstd", "unzstd": "zstd", "zip": "zip", "unzip": "unzip",
}  # fmt: skip

# The other path, read as BEGIN reads the first, at the end of all links. Leaves it in `$q`.
_OTHER = r"""
other() {
  case $1 in
    "~") q=${HOME:-.} ;;
    "~/"*) q=${HOME:-.}/${1#??} ;;
    /*) q=$1 ;;
    *) q=./$1 ;;
  esac
  why=$(stat -L "$q" 2>&1) || stop other "$why" "$q"
  q=$(readlink -f "$q" && echo x) || stop other "$q: Permission denied" "$q"
  q=${q%?x}
  while case $q in //*) ;; *) false ;; esac; do q=${q#/}; done
}
# Runs `$1` into the rest. Fails where either does, and reads to the end, so that the first is never cut short.
both() {
  first=$1
  shift
  exec 5>&1
  code=$({ { "$first" 4>&- 5>&-; echo $? >&4; } | { "$@" 4>&- >&5 5>&-; last=$?; cat >/dev/null; exit $last; }; } 4>&1)
  last=$?
  [ "$last" != 0 ] || last=$code
  return "$last"
}
"""

# $1 to $6 are for TARGET. $7: what goes in. $8: the compressor, or nothing for zip. $9: 1 to look only.
_ARCHIVE = pack_script(
    BEGIN
    + TARGET
    + _OTHER
    + r"""
press=$8
if [ -n "$press" ]; then need tar "$press"; else need zip; fi
other "$7"
[ -d "$q" ] || [ -f "$q" ] || stop unfit "" "$q"
[ -r "$q" ] || stop other "$q: Permission denied" "$q"
[ "$t" != "$q" ] || stop inside "" "$q"
if [ -d "$q" ]; then case $t in "${q%/}"/*) stop inside "" "$q" ;; esac; fi
above=${q%/*} name=${q##*/}
[ -n "$name" ] || name=.
if [ "$9" = 1 ]; then begin ok; printf "%s\n%s" "${above:-/}" "$name"; end "$t"; exit 0; fi
squeeze() { "$press" -c; }
[ "$press" != cat ] || squeeze() { cat; }
pack() { tar -c -f - -C "$above/." -- "$name"; }
work() {
  if [ -n "$press" ]; then both pack squeeze; else
    # In this locale the names are marked as what they are, for systems that would guess.
    cd "$above/." && LC_ALL=C.UTF-8 zip -q -r -y - "./$name"
  fi
}
part=$room/.mcp-ssh-$suffix.part
[ ! -e "$t" ] || { umask 077; private=1; }
make "$part" work
case $?:$why in
  0:*) ;;
  # What was written to or removed meanwhile is in it as it was read, or not.
  1:*"as we read it"* | 1:*"before we read it"*) note=$why ;;
  *) rm -f "$part"; part=''; answer unread "$why" ;;
esac
# A zip holds files, folders and links, a tar no sockets.
other_types() { find "$q" -type s; [ -n "$press" ] || find "$q" -type p -o -type b -o -type c; }
left=$(other_types 2>/dev/null | head -n 50 | head -c 8192)
[ -z "$left" ] || note=${note:+"$note; "}"left out, since the format holds no such things: $left"
count=$(size_of "$part")
umask 077
"""
    + PLACE
)

# Where to: a folder, at the end of all links. Of what is missing the first folder is moved into place, with `$inner`.
_WHERE = r"""
# Another reason than rights, such as a disk that is mounted read-only, shows when somebody tries.
may() {
  [ -w "$1/." ] && [ -x "$1/." ] && return
  why=$( (: >"$1/.mcp-ssh-$$") 2>&1) && rm -f "$1/.mcp-ssh-$$"
  case $why in *"ermission denied"* | '') stop denied ;; *) stop failed "$why" ;; esac
}
case $p in ?*/) p=${p%/} ;; esac
inner=''
if [ -e "$p" ]; then
  [ -d "$p" ] || stop file
  may "$p"
  p=$(readlink -f "$p" && echo x) || stop denied
  p=${p%?x} there=1
  goal=$p room=$p
else
  rest='' there=''
  while [ ! -e "$p" ]; do
    [ ! -L "$p" ] || { why=$(stat -L "$p" 2>&1); stop failed "$why"; }
    while case $p in ?*/) ;; *) false ;; esac; do p=${p%/}; done
    case ${p##*/} in ..) stop dotted ;; .) ;; *) rest=/${p##*/}$rest ;; esac
    p=${p%/*}
    [ -n "$p" ] || p=/
  done
  room=$p first=${rest#/}
  [ -d "$room" ] || stop unreachable "$room: Not a directory"
  may "$room"
  first=${first%%/*} inner=${rest#"/$first"}
  goal=$(readlink -f "$room/." && echo x) || stop denied
  p=${room%/}/$first goal=${goal%?x}
  goal=${goal%/}/$first
fi
"""

# Leaves in `$open` what undoes the compression, by the file's first bytes; unzip for zip.
_OPEN = r"""
other "$2"
[ -f "$q" ] || stop unfit "" "$q"
[ -r "$q" ] || stop other "$q: Permission denied" "$q"
[ -s "$q" ] || stop broke "the file is empty"
exec 3<"$q"
source=/proc/$$/fd/3
[ -r "$source" ] || source=$q
case $(head -c 6 <"$source" | od -An -v -tx1 | tr -d " \n") in
  1f8b*) open=gunzip ;;
  425a68*) open=bunzip2 ;;
  fd377a585a00) open=unxz ;;
  28b52ffd*) open=unzstd ;;
  504b0304* | 504b0506*) open=unzip ;;
  *) open=cat ;;
esac
[ "$open" = unzip ] || need tar
[ "$open" = cat ] || need "$open"
inflate() { if [ "$open" = cat ]; then cat; else "$open" -c; fi <"$source"; }
unpack() { both inflate tar "$@" -f -; }
"""

# Looks through the list. Every entry begins a line of it, whatever else its name makes a line of. A line that is the
# key says that the list is not whole: no name can be it.
_LIST = r"""
key=$1
entries() {
  if [ "$open" != unzip ]; then unpack -t || echo "$key"; return; fi
  # Some take a backslash for a slash.
  { unzip -l -q "$source" || [ $? = "$harmless" ] || echo "$key"; } | tr "\134" / | awk -v key="$key" '
    $0 == key { print; next }
    /^ ?-[- ]*$/ { inside = !inside; next }
    inside { sub(/^ *[0-9]+ +[-0-9]+ +[0-9:]+ */, ""); print }'
}
types() { unpack -t -v || echo "$key"; }
judge() { awk -v key="$key" -v links="$links" '
  function tell(word) { if (!said) print key " " word " " $0; said = 1 }
  said { next }
  $0 == key { tell("broke"); next }
  '"$1"'
  END { tell("fine") }'; }
case $(unzip -v 2>&1 </dev/null) in UnZip*) harmless=1 literal=-^ ;; *) harmless=0 literal='' ;; esac
line=$(printf "\nx")
line=${line%x}
# Reads what the judge said after what the programs said. Older ones leave the start of a name away, and say so.
verdict() {
  case $1 in *"emoving leading "*) stop leaves "" "$q" ;; esac
  case $1 in *"$key "*) ;; *) stop broke "$1" ;; esac
  found=${1#*"$key "}
  word=${found%% *} found=${found#* }
  case $word in
    broke) stop broke "${1%%"$key"*}" ;;
    fine) ;;
    links) links=1 ;;
    *) stop "$word" "${found%%"$line"*}" "$q" ;;
  esac
}
links=''
if [ "$open" = unzip ]; then links=1; else
  verdict "$({ types 2>&6 | judge '
    /^[bc][-r][-w][-xsS][-r][-w][-xsS][-r][-w][-xtT] / { tell("device") }
    /^[lh][-r][-w][-xsS][-r][-w][-xsS][-r][-w][-xtT] / { links = 1 }
    END { if (links) tell("links") }'; } 6>&1)"
fi
verdict "$({ entries 2>&6 | judge '
  /^\// || /(^|\/)[.][.](\/|$)/ { tell("leaves") }
  links {
    name = $0
    gsub(/\/+/, "/", name)
    while (sub(/\/[.]\//, "/", name)) ;
    while (sub(/^[.]\//, "", name)) ;
    folder = sub(/\/$/, "", name)
    for (at = name; match(at, "/[^/]*$"); known[at] = 1) {
      at = substr(at, 1, RSTART - 1)
      if (at in leaf) tell("through")
      if (at in known) break
    }
    if (!folder) leaf[name] = 1
    if (!folder && name in known) tell("through")
  }'; } 6>&1)"
if [ "$3" = 1 ]; then
  begin ok; printf "%s\n" "$open"; entries 2>/dev/null | head -c 65536; end "$q"
  exit 0
fi
"""

# What came out, before it takes its place. Folders that are closed to their owner are opened, and closed again there.
_LOOK = r"""
cd "$stage" || stop denied
find t -type d ! -perm -700 -exec sh -c '
  [ -d "$1${2#t}" ] || printf "%s\0%s\0" "$(stat -c %a "$2")" "$2"
  chmod u+rwx "$2"' sh "$goal" {} \; >modes
[ -z "$(find t -type b -o -type c | head -n 1)" ] || stop device "" "$q"
[ -z "$(find t -type f -links +1 -exec stat -c "%i %h" {} + | sort | uniq -c | awk '$1 < $3')" ] || stop leaves "" "$q"
[ -z "$there" ] || fault=$(find t -exec sh -c '
  goal=$1
  shift
  for each; do
    to=$goal${each#t}
    if [ ! -d "$each" ] || [ -L "$each" ]; then
      [ ! -d "$to" ] || [ -L "$to" ] || echo "occupied $to"
    elif [ ! -d "$to" ]; then
      if [ -e "$to" ] || [ -L "$to" ]; then echo "occupied $to"; fi
    else
      [ -w "$to" ] && [ -x "$to" ] || echo "closed $to"
      [ ! -L "$to" ] || case $(readlink -f "$to")/ in "${goal%/}"/*) ;; *) echo "outside $to" ;; esac
    fi
  done' sh "$goal" {} + | head -n 1)
[ -z "$fault" ] || stop "${fault%% *}" "${fault#* }" "$q"
"""

# $1: a name of its own. $2: the archive. $3: 1 to look only.
_EXTRACT = pack_script(
    BEGIN
    + GUARD
    + _OTHER
    + r"""
need mkdir mv rm find tr wc readlink stat head od awk sort uniq id
"""
    + _WHERE
    + r"""
spare "$goal"
"""
    + _OPEN
    + _LIST
    + SWEEP
    + STAGE
    + r"""
why=$(mkdir -p "$stage/t$inner" 2>&1) || stop failed "$why"
if [ "$open" = unzip ]; then
  why=$(unzip -q -o $literal "$source" -d "$stage/t$inner" 2>&1) || [ $? = "$harmless" ] || stop broke "$why"
else
  why=$(unpack -x -C "$stage/t$inner" 2>&1) || stop broke "$why"
fi
case $why in *"emoving leading "*) stop leaves "" "$q" ;; esac
fault=''
"""
    + _LOOK
    + PLACE_TREE
    + r"""
[ ! -s "$stage/modes" ] || xargs -0 -n 2 sh -c 'chmod "$1" "$0${2#t}"' "$p" <"$stage/modes" 2>/dev/null
begin ok; echo $count; end
"""
)

_CLEAR = pack_script(BEGIN + GUARD + _WHERE + CLEAN + "clean\nbegin ok; end\n")


def ask_archive(destination: str, source: str, kind: Format, *, look: bool) -> PathQuery:
    """Make an archive; `parse_write` reads the answer, whose trailer says what changed meanwhile.

    Args:
        destination: The archive. What is there is replaced.
        source: What goes in: a file, or a folder with all it holds, by the name it has at the end of all links.
        kind: Its format.
        look: Only see whether it can be done; the body has the folder that holds the source and its name in it.
    """
    suffix = secrets.token_hex(8)
    arguments = ["overwrite", "0", str(ANY_SIZE), "", "any", suffix, source, PRESSES[kind], "1" if look else "0"]
    return ask(_ARCHIVE, destination, arguments, words=_WORDS)


def ask_extract(destination: str, archive: str, name: str, *, look: bool) -> PathQuery:
    """Unpack an archive; the answer's body is how many files it had.

    Args:
        destination: The folder it goes into.
        archive: The archive; what it is, its first bytes say.
        name: What the name of the stage has in it.
        look: Only see what would come out; `parse_list` reads the answer.
    """
    return ask(_EXTRACT, destination, [name, archive, "1" if look else "0"], words=_WORDS)


def ask_clear(destination: str, name: str) -> PathQuery:
    """Remove the stage that a call left that had to be ended."""
    return ask(_CLEAR, destination, [name], words=_WORDS)


def parse_list(answer: ScriptAnswer) -> tuple[str, list[str]]:
    """What undoes the compression, and the names in an archive, as many as fit an answer."""
    opens, *names = answer.text.removesuffix("\n").split("\n")
    return opens, names


class ArchiveFailed(RemoteFailed):
    """A program failed at its work; nothing was changed."""


def _broke(answer: ScriptAnswer) -> ToolError:
    lines = answer.text.strip().splitlines() or ["the machine gave no reason"]
    errors = (failure(answer.path, line.encode()) for line in lines)
    known = next((error for error in errors if error.hint and isinstance(error, RemoteFailed)), None)
    return ArchiveFailed(known.message if known else "; ".join(lines[:3])[:600])


def _unread(answer: ScriptAnswer) -> ToolError:
    lines = answer.text.strip().splitlines()
    denied = [line for line in lines if isinstance(failure(answer.path, line.encode()), PermissionDenied)]
    if not denied:
        return _broke(answer)
    return PermissionDenied(
        f"the account may not read all of it; nothing was changed: {denied[0][:300]}",
        hint="give `become`, or log in as an account that may",
        details={"said": denied[:20]},
    )


def _other(answer: ScriptAnswer) -> ToolError:
    return failure(answer.trailer.decode("utf-8", "replace"), answer.body)


def _unfit(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{_trailer(answer)} is not a file that this can read",
        hint="a source is a file or folder, an archive a file; see with file_stat",
    )


def _lacks(answer: ScriptAnswer) -> ToolError:
    package = _PACKAGES.get(answer.text)
    hint = f'install it with setup_requirements: packages ["{package}"]' if package else "install it there"
    return Unsupported(f"the machine has no `{answer.text}`, which this format needs", hint=hint)


def _inside(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{quote_path(answer.path)} lies in {_trailer(answer)}, which is to go into it",
        hint="choose a destination outside of it, such as one in /tmp",
    )


def _leaves(answer: ScriptAnswer) -> ToolError:
    return _archive_refused(answer, "an entry would be written outside of its folder")


def _through(answer: ScriptAnswer) -> ToolError:
    return _archive_refused(answer, "an entry would be written through another one, which may be a link")


def _device(answer: ScriptAnswer) -> ToolError:
    return _archive_refused(answer, "an entry is a device")


def _outside(answer: ScriptAnswer) -> ToolError:
    return Refused(
        f"{quote_path(answer.text)} is a link that leads out of the destination; nothing was changed",
        hint="remove the link, or choose another destination",
        details={"path": answer.text},
    )


def _archive_refused(answer: ScriptAnswer, why: str) -> ToolError:
    which = f": {quote_path(answer.text)}" if answer.body else ""
    return Refused(
        f"{_trailer(answer)} was not unpacked: {why}{which}; nothing was changed",
        hint="list it with `dry_run: true` or `tar -tv`; if you trust it, unpack it with command_exec",
        details={"entry": answer.text} if answer.body else None,
    )


def _path_occupied(answer: ScriptAnswer) -> ToolError:
    return Conflict(
        f"{quote_path(answer.text)} is a folder where the archive has none, or the reverse; nothing was changed",
        hint="choose another destination, or move what is there",
        details={"path": answer.text},
    )


def _access_denied(answer: ScriptAnswer) -> ToolError:
    return PermissionDenied(
        f"permission denied: {quote_path(answer.text or answer.path)}; nothing was changed",
        hint="give `become`, or log in as an account that may",
        details={"path": answer.text or answer.path},
    )


def _dotted_path(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{quote_path(answer.path)} goes through `..` of a folder that does not exist",
        hint="name the path without `..`",
    )


def _torn(answer: ScriptAnswer) -> ToolError:
    return RemoteFailed(
        f"not all of it could be moved into {quote_path(answer.path)}; some files are there, each whole",
        hint="see with file_list what is there",
        details=said_details(answer.text),
    )


def _trailer(answer: ScriptAnswer) -> str:
    return quote_path(answer.trailer.decode("utf-8", "replace"))


_WORDS: ErrorMapping = {
    **WRITE_WORDS,
    "broke": _broke,
    "unread": _unread,
    "other": _other,
    "unfit": _unfit,
    "lacks": _lacks,
    "inside": _inside,
    "leaves": _leaves,
    "through": _through,
    "device": _device,
    "outside": _outside,
    "occupied": _path_occupied,
    "closed": _access_denied,
    "denied": _access_denied,
    "dotted": _dotted_path,
    "tar": _torn,
}
