"""Making, removing, copying and moving files and folders of a remote machine: sh scripts, and their answers."""

from mcp_ssh.errors import Conflict, InvalidInput, RemoteFailed, ToolError
from mcp_ssh.linux.files.protected_paths import GUARD, path_protected
from mcp_ssh.linux.framing import (
    BEGIN,
    WORDS,
    ErrorMapping,
    PathQuery,
    ScriptAnswer,
    ask,
    blames_file_system,
    failure,
    pack_script,
    quote_path,
)

_COMMON = (
    GUARD
    + r"""
there() { [ -e "$1" ] || [ -L "$1" ]; }
must_exist() { there "$1" || { why=$(stat "$1" 2>&1); stop failed "$why"; }; }
# musl keeps two slashes at the start.
whole() {
  full=$(readlink -f "$1" && echo x) || return
  full=${full%?x}
  while case $full in //*) ;; *) false ;; esac; do full=${full#/}; done
}
# Where a name really is: the folder at the end of all links, and the name in it, whether that is there or not.
place() {
  slim=$1
  while case $slim in ?*/) ;; *) false ;; esac; do slim=${slim%/}; done
  case ${slim##*/} in . | ..) whole "$slim"; return ;; esac
  case $slim in /*/*) whole "${slim%/*}" ;; /*) full='' ;; */*) whole "${slim%/*}" ;; esac || return
  full=${full%/}/${slim##*/}
}
# Nothing protected may be at a name, or at the end of it where it is a link that is followed.
spare_name() { if place "$1"; then spare "$full"; fi; }
spare_all() {
  if covers "$1"; then stop protected "$1"; fi
}
# Copies `$p` to `$1`, a name of our own beside the goal `$g`.
copy_beside() {
  clean() { rm -rf "$1"; }
  trap 'clean "$new"' EXIT
  trap "exit 1" HUP INT PIPE TERM
  why=$(cp -a "$p" "$1" 2>&1) || stop copying "$why" "$g"
}
count_in() { find "$1" ! -type d -print0 2>/dev/null | tr -dc '\0' | wc -c; }
"""
)

# Leaves in `$r` where the folder `$p` really is. What must never be removed or moved: /, what lies directly in it, what
# those links lead to, the folders that systems are made of, homes, mount points, and whatever holds one of these.
_GUARD = r"""
guard() {
  slim=$p
  while case $slim in ?*/) ;; *) false ;; esac; do slim=${slim%/}; done
  case ${slim##*/} in . | ..) stop guarded "$r is named by its dots" ;; esac
  [ ! -L "$slim" ] || stop link
  whole "$p" || stop failed "$(stat "$p" 2>&1)"
  r=$full
  case ${r#/} in */*) ;; *) stop guarded "$r is a folder of the system" ;; esac
  for each in /*; do
    [ ! -L "$each" ] || holds "$each" "a folder of the system"
  done
  for each in bin sbin lib lib64 libexec share local; do holds "/usr/$each" "a folder of the system"; done
  for each in lib log cache spool tmp mail; do holds "/var/$each" "a folder of the system"; done
  for each in /home/* "${HOME:-/}"; do holds "$each" "a home folder"; done
  while IFS=: read -r _ _ _ _ _ each _; do
    case $each in /*/*) holds "$each" "a home folder" ;; esac
  done </etc/passwd
  mounts
}
holds() {
  [ -d "$1" ] || return 0
  whole "$1" || return 0
  case $full/ in
    "$r"/) stop guarded "$r is $2" ;;
    "$r"/*) stop guarded "$r contains $full, which is $2" ;;
  esac
}
mounts() {
  if [ -r /proc/self/mountinfo ]; then
    while read -r _ _ _ _ each _; do
      # The kernel writes blanks and the like as octal numbers.
      case $each in *[!a-zA-Z0-9/._:@+-]*) each=$(printf %b. "$each"); each=${each%.} ;; esac
      case $each/ in
        "$r"/) stop guarded "$r is a mount point" ;;
        "$r"/*) stop guarded "$r contains the mount point $each" ;;
      esac
    done </proc/self/mountinfo
  elif [ "$(stat -c %d "$r")" != "$(stat -c %d "$r/..")" ]; then
    stop guarded "$r is a mount point"
  fi
}
"""

# The second path, as the first is read in BEGIN.
_SECOND = r"""
case $1 in
  "~") q=${HOME:-.} qshown=$q ;;
  "~/"*) q=${HOME:-.}/${1#??} qshown=$q ;;
  /*) q=$1 qshown=$q ;;
  *) q=./$1 qshown=$1 ;;
esac
case $q in ?*/) q=${q%/} ;; esac
# Where it will really be, whether it is there already or not.
goal() {
  case ${q##*/} in . | ..) whole "$q"; g=$full; return ;; esac
  why=$(stat "${q%/*}/." 2>&1) || { shown=${qshown%/*}; stop unreachable "$why"; }
  whole "${q%/*}/."
  g=${full%/}/${q##*/}
}
"""

_MKDIR = pack_script(
    BEGIN
    + _COMMON
    + r"""
need mkdir stat readlink
# The folders that are missing are made below the last one that is there.
above=$p rest=''
while [ "$above" != . ] && [ ! -e "$above" ] && [ ! -L "$above" ]; do
  while case $above in ?*/) ;; *) false ;; esac; do above=${above%/}; done
  case ${above##*/} in ..) stop dotted ;; .) ;; *) rest=/${above##*/}$rest ;; esac
  above=${above%/*}
  [ -n "$above" ] || above=/
done
if whole "$above"; then spare "${full%/}$rest"; fi
if [ "$1" = 1 ]; then
  why=$(mkdir -p "$p" 2>&1) || { ! there "$p" || stop exists; stop failed "$why"; }
else
  ! there "$p" || stop exists
  why=$(mkdir "$p" 2>&1) || stop failed "$why"
fi
begin ok; printf %s "$(stat -c %a "$p")"; end
"""
)

_REMOVE = pack_script(
    BEGIN
    + _COMMON
    + r"""
need rm stat
must_exist "$p"
if [ -d "$p" ]; then
  case $p in */) stop folder ;; esac
  [ -L "$p" ] || stop folder
fi
spare_name "$p"
why=$(rm -f "$p" 2>&1) || stop failed "$why"
begin ok; end
"""
)

_RMDIR = pack_script(
    BEGIN
    + _COMMON
    + _GUARD
    + r"""
need rm find readlink stat tr wc
r=$shown
must_exist "$p"
case $p in */) ;; *) [ -d "$p" ] || [ -L "$p" ] || stop file ;; esac
[ -d "$p" ] || [ -L "$p" ] || stop file
guard
spare "$r"
spare_all "$r"
# Nobody may lead us elsewhere between the look and the deed.
cd -P "${r%/*}" && [ "$(pwd -P)" = "${r%/*}" ] || stop failed "$r: No such file or directory"
name=./${r##*/}
[ -d "$name" ] && [ ! -L "$name" ] || stop failed "$r: No such file or directory"
count=$(count_in "$name")
why=$(rm -rf "$name" 2>&1) || stop failed "$why"
begin ok; echo $count; end
"""
)

# $1: 1 to look only. Files, folders and links, whatever is there; of a link, what it leads to is guarded, too.
_RMRF = pack_script(
    BEGIN
    + _COMMON
    + _GUARD
    + r"""
need rm find readlink stat tr wc head
r=$shown
while case $p in ?*/) ;; *) false ;; esac; do p=${p%/}; done
case ${p##*/} in . | ..) stop guarded "$p is named by its dots" ;; esac
if ! there "$p"; then
  why=$(stat "$p" 2>&1)
  case $why in *": No such file or directory" | *": Not a directory") ;; *) stop failed "$why" ;; esac
  begin ok; printf "0\0"; end
  exit 0
fi
named=$p
if [ -L "$p" ] && whole "$p" && [ -d "$full" ]; then p=$full; guard; fi
p=$named
if [ ! -L "$p" ]; then guard; else place "$p" && r=$full; fi
case ${r#/} in */*) ;; *) stop guarded "$r lies directly in /" ;; esac
spare "$r"
spare_all "$r"
cd -P "${r%/*}" && [ "$(pwd -P)" = "${r%/*}" ] || stop failed "$r: No such file or directory"
name=./${r##*/}
count=$(count_in "$name")
if [ "$1" = 1 ]; then
  begin ok; printf "%s\0" $count; find "$r" -print0 | head -c 262144; end
  exit 0
fi
why=$(rm -rf "$name" 2>&1) || stop failed "$why"
begin ok; printf "%s\0" $count; end
"""
)

_COPY = pack_script(
    BEGIN
    + _COMMON
    + _SECOND
    + r"""
need cp mv rm find readlink stat tr wc
must_exist "$p"
goal
whole "$p" || full=$p
[ "$full" != "$g" ] || stop same "$g"
if [ -d "$p" ] && [ ! -L "$p" ]; then
  case $g/ in "$full"/*) stop inside "$g" ;; esac
  if there "$g" && [ ! -d "$g" ]; then stop occupied "$g"; fi
else
  [ ! -d "$g" ] || stop occupied "$g"
fi
spare "$g"
if whole "$g"; then spare "$full"; fi
if [ -d "$p" ] && [ ! -L "$p" ]; then
  spot=$g
  [ ! -d "$g" ] || { whole "$g" && spot=$full; }
  if lands "$p" "$spot"; then stop protected "$spot"; fi
fi
count=$(count_in "$p")
if [ -d "$g" ]; then
  why=$(cp -a "$p/." "$g/" 2>&1) || stop copying "$why" "$g"
else
  new=${g%/*}/.mcp-ssh-$2.copy
  copy_beside "$new"
  why=$(mv -f -T "$new" "$g" 2>&1) || stop copying "$why" "$g"
fi
begin ok; echo $count; printf %s "$qshown"; end
"""
)

_MOVE = pack_script(
    BEGIN
    + _COMMON
    + _GUARD
    + _SECOND
    + r"""
need mv cp rm readlink stat
r=$shown
must_exist "$p"
spare_name "$p"
if [ -d "$p" ] && [ ! -L "$p" ]; then guard; spare_all "$r"; fi
case $p in */) [ -d "$p" ] && [ ! -L "${p%/}" ] || stop link ;; esac
goal
if there "$g"; then
  [ ! "$p" -ef "$g" ] || [ -L "$p" ] || [ -L "$g" ] || stop same "$g"
  [ "$2" = 1 ] && [ ! -d "$g" ] || stop occupied "$g"
  [ ! -d "$p" ] || [ -L "$p" ] || stop occupied "$g"
fi
if [ -d "$p" ] && [ ! -L "$p" ]; then case $g/ in "$r"/*) stop inside "$g" ;; esac; fi
spare "$g"
if [ -d "$p" ] && [ ! -L "$p" ] && lands "$p" "$g"; then stop protected "$g"; fi
force=-n
[ "$2" != 1 ] || force=-f
# The mount that a path with all links resolved is on, in `$mount`.
mount_of() {
  mount=/
  [ -r /proc/self/mountinfo ] || return 0
  while read -r _ _ _ _ each _; do
    case $each in *[!a-zA-Z0-9/._:@+-]*) each=$(printf %b. "$each"); each=${each%.} ;; esac
    case $1/ in "${each%/}"/*) [ ${#each} -lt ${#mount} ] || mount=$each ;; esac
  done </proc/self/mountinfo
}
# A name can only be changed within one mount of one file system. Elsewhere mv removes the goal first and copies into
# its name, so the copy is made beside it.
moved=''
if place "$p" && whole "${full%/*}/."; then
  from=${full%/} into=${g%/*}
  mount_of "$from"; home=$mount
  mount_of "$into"
  if [ "$home" != "$mount" ] || [ "$(stat -c %d "$p")" != "$(stat -c %d "$into/.")" ]; then
    { [ -w "$from/." ] && [ -x "$from/." ]; } || stop denied
    state() { stat -c "%s %i %y %z" "$p" 2>&1; }
    new=$into/.mcp-ssh-$3.copy before=$(state)
    copy_beside "$new"
    [ -d "$new" ] || [ "$(state)" = "$before" ] || stop moving
    why=$(mv $force -T "$new" "$g" 2>&1) || stop copying "$why" "$g"
    ! there "$new" || stop occupied "$g"
    trap - EXIT
    why=$(rm -rf "$p" 2>&1) || stop doubled "$why" "$g"
    moved=1
  fi
fi
if [ -z "$moved" ]; then
  why=$(mv $force -T "$p" "$g" 2>&1) || stop copying "$why" "$g"
  ! there "$p" || stop occupied "$g"
fi
begin ok; echo 0; printf %s "$qshown"; end
"""
)


def ask_mkdir(path: str, *, parents: bool) -> PathQuery:
    """Make a folder; the answer's body is its permissions."""
    return ask(_MKDIR, path, ["1" if parents else "0"], words=_TREE_WORDS)


def ask_remove(path: str) -> PathQuery:
    """Remove a file or link."""
    return ask(_REMOVE, path, words=_TREE_WORDS)


def ask_rmdir(path: str) -> PathQuery:
    """Remove a folder with all it holds; `parse_count` reads the answer."""
    return ask(_RMDIR, path, words=_TREE_WORDS)


def ask_rmrf(path: str, *, look: bool) -> PathQuery:
    """Remove whatever is at a path, or only look what that would be; `parse_rmrf` reads the answer."""
    return ask(_RMRF, path, ["1" if look else "0"], words=_TREE_WORDS)


def parse_rmrf(answer: ScriptAnswer) -> tuple[int, list[str]]:
    """How many files there were, and when it was only looked at, the paths, as far as they fit an answer."""
    count, *paths = answer.body.split(b"\0")
    return int(count), [path.decode("utf-8", "replace") for path in paths[:-1]]


def ask_copy(source: str, destination: str, name: str) -> PathQuery:
    """Copy a file or folder; `parse_count` reads the answer.

    Args:
        source: What is copied.
        destination: What the copy is called; a folder is merged into one that is there.
        name: What the name of an unfinished copy has in it.
    """
    return ask(_COPY, source, [destination, name], words=_TREE_WORDS)


def ask_move(source: str, destination: str, name: str, *, overwrite: bool) -> PathQuery:
    """Rename a file or folder, or copy it to another file system and remove it; `parse_count` reads the answer.

    Args:
        source: What is moved.
        destination: What it is called afterwards.
        name: What the name of an unfinished copy has in it.
        overwrite: Replace a file that is there.
    """
    return ask(_MOVE, source, [destination, "1" if overwrite else "0", name], words=_TREE_WORDS)


def parse_count(answer: ScriptAnswer) -> tuple[int, str]:
    """How many files there were, and the second path with its `~` expanded."""
    count, _, shown = answer.body.partition(b"\n")
    return int(count), shown.decode("utf-8", "replace")


def _path_protected(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{quote_path(answer.path)} is protected: {answer.text}; nothing was changed",
        hint="name a folder further down; to empty a protected one, remove what is in it one by one",
        details={"path": answer.path},
    )


def _dotted_path(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{quote_path(answer.path)} goes through `..` of a folder that does not exist",
        hint="name the path without `..`",
    )


def _link(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{quote_path(answer.path)} is a link; nothing was changed",
        hint="remove the link itself with file_remove, or name the folder that it leads to",
        details={"path": answer.path},
    )


def _exists(answer: ScriptAnswer) -> ToolError:
    return Conflict(
        f"{quote_path(answer.path)} exists already", hint="look at it with file_stat", details={"path": answer.path}
    )


def _path_occupied(answer: ScriptAnswer) -> ToolError:
    return Conflict(
        f"{quote_path(answer.text)} is there already, and is not replaced",
        hint="choose another destination, add the name the copy is to have, or remove what is there first",
        details={"path": answer.text},
    )


def _inside(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{quote_path(answer.text)} lies in {quote_path(answer.path)} itself", hint="choose a destination outside of it"
    )


def _same(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{quote_path(answer.path)} and {quote_path(answer.text)} are the same", hint="choose another destination"
    )


def _copying(answer: ScriptAnswer) -> ToolError:
    """A copy that failed: at the destination where that is full, read-only or closed, else at the source."""
    goal, said = answer.trailer.decode("utf-8", "replace"), answer.text
    at_goal = blames_file_system(answer.body) or ".mcp-ssh-" in said or goal in said
    return failure(goal if at_goal else answer.path, answer.body)


def _moving(answer: ScriptAnswer) -> ToolError:
    return Conflict(
        f"{quote_path(answer.path)} changed while it was being copied to another file system; nothing was moved",
        hint="try again when nothing writes to it, or copy it with file_copy",
        details={"path": answer.path},
    )


def _same_path(answer: ScriptAnswer) -> ToolError:
    goal = answer.trailer.decode("utf-8", "replace")
    error = failure(answer.path, answer.body)
    return RemoteFailed(
        f"{quote_path(goal)} is complete, but {quote_path(answer.path)} could not be removed whole ({error.message})",
        hint="remove what is left of the source with file_remove or file_rmdir",
        details={**error.details, "destination": goal},
    )


def _unreachable(answer: ScriptAnswer) -> ToolError:
    reason = answer.text.rpartition(": ")[2].strip()
    error = type(failure(answer.path, answer.body))
    return error(
        f"the destination's folder {quote_path(answer.path)} cannot be used: {reason}",
        hint="make it with file_mkdir; a destination is a path on the same machine, without a machine's name before it",
        details={"path": answer.path},
    )


_TREE_WORDS: ErrorMapping = {
    **WORDS,
    "guarded": _path_protected,
    "protected": path_protected,
    "dotted": _dotted_path,
    "link": _link,
    "exists": _exists,
    "occupied": _path_occupied,
    "inside": _inside,
    "same": _same,
    "copying": _copying,
    "moving": _moving,
    "doubled": _same_path,
    "unreachable": _unreachable,
}
