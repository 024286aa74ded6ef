"""Trees on their way to their place, in sh: collected in a folder beside it, or in it, and moved from there.

The script says in `$p` where the tree goes, in `$there` whether that is a folder already, in `$goal` where that really
is, and in `$room` the folder to collect it in. The tree is `$stage/t`. What is cut off leaves nothing half-done.
"""

# No call lasts longer than a day, so what is a week old is nobody's. Our folder that others may write to could
# have got its name from them, and is not removed with what is in it.
SWEEP = r"""
sweep() {
  find "$room/." ! -name . -prune -name ".mcp-ssh-[0-9a-f]*.$1" -type "$2" -user "$(id -u)" -mtime +6 -exec rm -rf {} +
}
{
  sweep part f
  [ -z "$(find "$room/." -prune ! -perm -020 ! -perm -002)" ] || sweep tree d
} 2>/dev/null
"""
"""Removes from `$room` what calls that nobody could end left there."""

CLEAN = r"""
stage=$room/.mcp-ssh-$1.tree
# Folders of the tree may be closed to their owner, too.
clean() {
  rm -rf "$stage" 2>/dev/null && return
  find "$stage" -type d ! -perm -700 -exec chmod u+rwx {} \; 2>/dev/null
  rm -rf "$stage"
}
"""
"""Takes `$1`, a name that no other call has. `clean` removes the stage."""

STAGE = (
    CLEAN
    + r"""
why=$(umask 077; mkdir "$stage" 2>&1) || stop failed "$why"
trap clean EXIT
trap "exit 1" HUP INT PIPE TERM
"""
)
"""Makes the stage, and has it removed at the end."""

PLACE_TREE = r"""
if lands "$stage/t" "$goal"; then stop protected "$goal"; fi
# Folders that are links there lead elsewhere.
through=$(find "$stage/t" -type d -exec sh -c '
  from=$1 goal=$2
  shift 2
  for each; do
    to=$goal${each#"$from"}
    [ ! -L "$to" ] || readlink -f "$to"
  done' sh "$stage/t" "$goal" {} +)
line=$(printf "\nx")
line=${line%x}
while [ -n "$through" ]; do
  spare "${through%%"$line"*}"
  if covers "${through%%"$line"*}"; then stop protected "${through%%"$line"*}"; fi
  case $through in *"$line"*) through=${through#*"$line"} ;; *) through='' ;; esac
done
count=$(find "$stage/t" ! -type d -print0 | tr -dc '\0' | wc -c)
if [ -z "$there" ]; then
  why=$(mv -T "$stage/t" "$p" 2>&1) || stop failed "$why"
else
  cd "$stage" || stop denied
  # A folder that is not there yet is moved whole; of one that is, first the files, then each folder in it. The braces
  # of the inner find are written so that the outer one does not take them for its own.
  step='to=$1${2#t}
    if [ ! -d "$to" ]; then mv "$2" "$to"; exit; fi
    find "$2" -mindepth 1 -maxdepth 1 ! -type d -exec sh -c "$3" "$to" {""} +
    exit 1'
  why=$(find t -type d -exec sh -c "$step" sh "$p" {} 'mv -f "$@" "$0/"' \; -prune 2>&1)
  [ "$(find t ! -type d -print0 | tr -dc '\0' | wc -c)" = 0 ] || stop tar "$why"
fi
"""
"""Moves the tree, `$count` files, to its place, merged into what is there; refused where something is protected."""
