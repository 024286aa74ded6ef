"""Permissions and owners of paths: chmod(1) and chown(1), each in one script that looks first."""

from mcp_ssh.errors import InvalidInput, PermissionDenied, ToolError
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

# Leaves the real path in `$r`. Nothing is changed before everything that is meant may be changed: with `-R` the first
# file that is not the account's own says that root has to do it.
_LOOK = r"""
need readlink stat find
why=$(stat "$p" 2>&1) || stop failed "$why"
r=$(readlink -f "$p" && echo x) || stop failed "$(stat -L "$p" 2>&1)"
r=${r%?x}
while case $r in //*) ;; *) false ;; esac; do r=${r#/}; done
spare "$r"
if [ "$1" = -R ]; then
  case ${r#/} in */*) ;; *) stop guarded "$r" ;; esac
  if covers "$r"; then stop protected "$r"; fi
fi
me=$(id -u)
only() { if [ "$recursive" = -R ]; then find "$r" "$@"; else find "$r" -prune "$@"; fi 2>/dev/null | head -n 1; }
recursive=$1
"""

# `$3` is set where only a look is wanted: everything was checked by then, so that a change would now be tried.
_LOOKED = r"""
[ -z "$3" ] || { begin ok; stat -c '@' "$r"; end; exit 0; }
"""

_CHMOD = pack_script(
    BEGIN
    + GUARD
    + _LOOK
    + r"""
[ "$me" = 0 ] || [ -z "$(only ! -user "$me")" ] || stop foreign
"""
    + _LOOKED.replace("@", "%a")
    + r"""
why=$(chmod ${recursive:+"$recursive"} -- "$2" "$r" 2>&1) || stop ${recursive:+part}failed "$why"
begin ok; stat -c %a "$r"; end
"""
)

_CHOWN = pack_script(
    BEGIN
    + GUARD
    + _LOOK
    + r"""
name=${2%%:*}
case $name in
  '' | [0-9]*) ;;
  *) id -u "$name" >/dev/null 2>&1 || stop unknown_user "$name" ;;
esac
[ "$me" = 0 ] || stop foreign
case $2 in
  *:[0-9]* | *:) ;;
  *:*) if command -v getent >/dev/null 2>&1; then getent group "${2#*:}" >/dev/null || stop unknown_group; fi ;;
esac
"""
    + _LOOKED.replace("@", "%U:%G")
    + r"""
why=$(chown ${recursive:+"$recursive"} -h -- "$2" "$r" 2>&1) || {
  case $why in *"invalid group"* | *"unknown group"* | *"unknown user/group"*) stop unknown_group ;; esac
  stop ${recursive:+part}failed "$why"
}
begin ok; stat -c %U:%G "$r"; end
"""
)


def ask_chmod(path: str, mode: str, *, recursive: bool, look: bool = False) -> PathQuery:
    """Change permissions, or only look whether that may be; the answer's body is what the path has, in octal digits."""
    return ask(_CHMOD, path, ["-R" if recursive else "", mode, "look" if look else ""], words=_WORDS)


def ask_chown(path: str, owner: str, *, recursive: bool, look: bool = False) -> PathQuery:
    """Change owner and group, or only look; the answer's body is what the path itself has, as `user:group`."""
    return ask(_CHOWN, path, ["-R" if recursive else "", owner, "look" if look else ""], words=_WORDS)


class RootRequired(PermissionDenied):
    """Only root may do it; nothing was changed."""


def _foreign(answer: ScriptAnswer) -> ToolError:
    return RootRequired(
        f"{quote_path(answer.path)} is for root to change, in part at least; nothing was changed",
        hint="give `become`, or log in as root",
        details={"path": answer.path},
    )


def _partly(answer: ScriptAnswer) -> ToolError:
    error = failure(answer.path, answer.body)
    error.message += "; some of what is in it may have been changed before"
    return error


def _system_folder(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(
        f"{quote_path(answer.path)} is {answer.text}, a folder of the system; nothing was changed",
        hint="recursive changes begin at a folder further down",
        details={"path": answer.path},
    )


def _unknown_user(answer: ScriptAnswer) -> ToolError:
    return InvalidInput(f"owner: the machine has no account {answer.text!r}", hint="system_users lists them")


def _unknown_group(_answer: ScriptAnswer) -> ToolError:
    return InvalidInput("group: the machine has no such group", hint="see /etc/group with file_read")


_WORDS: ErrorMapping = {
    **WORDS,
    "protected": path_protected,
    "foreign": _foreign,
    "partfailed": _partly,
    "guarded": _system_folder,
    "unknown_user": _unknown_user,
    "unknown_group": _unknown_group,
}
