"""Environment variables of an account: what a command gets, and what a block in its rc files sets for later ones.

The block stands at the top of the file, since many an rc file returns early for shells that are not interactive.
"""

from mcp_ssh.errors import ToolError, Unsupported
from mcp_ssh.linux.files.protected_paths import GUARD, path_protected
from mcp_ssh.linux.framing import BEGIN, WORDS, ErrorMapping, PathQuery, ScriptAnswer, ask, pack_script
from mcp_ssh.linux.parts import Parts, PartsAsked, ask_parts
from mcp_ssh.shell_command import quote, unquote

FIRST, LAST = "# >>> mcp-ssh environment >>>", "# <<< mcp-ssh environment <<<"

# $2: the line, or nothing.
_FILES = r"""
case ${2:+${SHELL##*/}} in *csh | fish) stop unread "${SHELL##*/}" ;; esac
files=$HOME/.profile
case ${SHELL##*/} in
    bash) files="$files $HOME/.bashrc"; [ ! -e "$HOME/.bash_profile" ] || files="$files $HOME/.bash_profile" ;;
    zsh) files="$files $HOME/.zshenv" ;;
esac
"""

_FIRST = """
told=$(printenv "$3" && echo x)
"""

# $1: the name. $2, $3: the block's first and last line.
_GET = r"""
if [ -n "$told" ]; then part value; printf %s "${told%?x}"; fi
part saved
sed -n "/^$2\$/,/^$3\$/p" "$HOME/.profile" 2>/dev/null | grep "^export $1=" | tail -n 1
"""

# $1: the name. $2: the line, or nothing. $3, $4: the block's first and last line.
_SAVE = pack_script(
    BEGIN
    + GUARD
    + r"""
need readlink cp mv
[ -d "$HOME" ] || stop failed "$HOME: No such file or directory"
[ -w "$HOME" ] || stop denied
nl=$(printf "\nx")
nl=${nl%x}
case $HOME in *[[:space:]]*) stop failed "$HOME: Invalid argument" ;; esac
"""
    + _FILES
    + r"""
for file in $files; do spare "$(readlink -f "$file")"; done
done=
for file in $files; do
  real=$(readlink -f "$file") || real=$file
  inside='' kept='' rest='' part=$real.mcp-ssh-$$
  if [ -e "$real" ]; then
    why=$(cp -p "$real" "$part" 2>&1) || { rm -f "$part"; stop failed "$why"; }
    while IFS= read -r each || [ -n "$each" ]; do
      case $each in
        "$3") inside=1 ;;
        "$4") inside='' ;;
        *)
          if [ -z "$inside" ]; then rest=$rest$each$nl
          else case $each in "export $1="*) ;; *) kept=$kept$each$nl ;; esac; fi
          ;;
      esac
    done <"$real"
  elif [ -z "$2" ]; then
    continue
  fi
  kept=$kept${2:+"$2$nl"}
  { { [ -z "$kept" ] || printf "%s\n%s%s\n" "$3" "$kept" "$4"; } && printf %s "$rest"; } >"$part" || {
    rm -f "$part"
    stop failed "$part: No space left on device"
  }
  why=$(mv -f "$part" "$real" 2>&1) || { rm -f "$part"; stop failed "$why"; }
  done=$done$file$nl
done
begin ok; printf %s "$done"; end
"""
)


def _unread(answer: ScriptAnswer) -> ToolError:
    return Unsupported(
        f"persist: the account's shell, {answer.text}, does not read what POSIX shells read at login",
        hint="leave `persist` out, or add a line in that shell's own language to its rc file with file_write",
    )


_WORDS: ErrorMapping = {**WORDS, "protected": path_protected, "unread": _unread}


def ask_get(name: str) -> PartsAsked:
    """What is a variable's value for a command, and what was saved for later ones?"""
    return ask_parts(_GET, [name, FIRST, LAST], first=_FIRST)


def parse_get(parts: Parts, name: str) -> tuple[str | None, str | None]:
    """The value that a command gets, and the saved one; None where there is none."""
    saved = parts["saved"].strip()
    return parts.get("value"), unquote(saved.removeprefix(f"export {name}=")) if saved else None


def ask_save(name: str, value: str | None) -> PathQuery:
    """Set a variable for later shells of the account, or no longer; the answer's body are the files, a line each."""
    line = f"export {name}={quote(value)}" if value is not None else ""
    return ask(_SAVE, "~", [name, line, FIRST, LAST], words=_WORDS)
