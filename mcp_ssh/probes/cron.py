"""Jobs of cron: the account's crontab(1), read, and changed by whole lines."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mcp_ssh.errors import InvalidInput, NotFound, PermissionDenied, RemoteFailed, ToolError, Unsupported
from mcp_ssh.probes.parts import PartsAsked, ask_parts

NAMED = ("@reboot", "@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly")

BLANKS = " \t\r\v\f"

# $1: list, add or remove. $2: the line. $3: whose table, empty for the account's own. Blanks around a line do not
# count. A table that cannot be read is not an empty one. Who changes one holds a lock, where there is flock, since what
# others write between reading and writing it would be lost; it waits for ten seconds at most.
_CRON = r"""
does=$1 line=$2 who=$3 unread=
table() { if [ -n "$who" ]; then crontab -u "$who" "$@"; else crontab "$@"; fi; }
bare() { bare=${1#"${1%%[![:space:]]*}"}; bare=${bare%"${bare##*[![:space:]]}"}; }
same() { while IFS= read -r each; do bare "$each"; if [ "$bare" = "$line" ]; then echo 1; break; fi; done; }
rest() { while IFS= read -r each; do bare "$each"; [ "$bare" = "$line" ] || printf "%s\n" "$each"; done; }
alone() {
    command -v flock >/dev/null 2>&1 && [ -r /etc/passwd ] || return 0
    exec 9</etc/passwd
    tries=0
    until flock -n 9 || [ "$tries" -ge 100 ]; do
        sleep 0.1 2>/dev/null || { sleep 1; tries=$((tries + 9)); }
        tries=$((tries + 1))
    done
}
[ "$who" != "$(id -un)" ] || who=
if ! command -v crontab >/dev/null 2>&1; then
    part lacks
elif [ -n "$who" ] && ! id -u "$who" >/dev/null 2>&1; then
    part nobody
elif [ -n "$who" ] && [ "$(id -u)" != 0 ]; then
    part denied
else
    [ "$does" = list ] || alone
    nl=$(printf "\nx")
    nl=${nl%x}
    old=$(table -l 2>/dev/null && echo x) || unread=$(table -l 2>&1)
    case $unread in
        '' | *"no crontab for"* | *"o such file or directory"*)
            old=${old%x}
            case $old in '' | *"$nl") ;; *) old=$old$nl ;; esac
            has=$(printf %s "$old" | same)
            why= code=0
            case $does$has in
                add) why=$(printf "%s%s\n" "$old" "$line" | table - 2>&1); code=$? ;;
                remove1) why=$(printf %s "$old" | rest | table - 2>&1); code=$? ;;
            esac
            if [ "$code" != 0 ]; then part failed; printf "%s\n" "$why"; fi
            part had; printf "%s\n" "$has"
            part table; printf %s "$old"
            ;;
        *) part unread; printf "%s\n" "$unread" ;;
    esac
fi
"""


@dataclass(frozen=True)
class Crontab:
    """A table as it was: its jobs and settings without comments, and whether it had the line."""

    lines: list[str]
    had: bool


def ask_cron(does: str, line: str = "", user: str | None = None) -> PartsAsked:
    """List a table, or add or remove a line of it; a line that is there is not added again."""
    return ask_parts(_CRON, [does, line, user or ""])


class Foreign(PermissionDenied):
    """The table is another account's; nothing was changed."""


def parse_cron(parts: Mapping[str, str], user: str | None) -> Crontab:
    """The table.

    Raises:
        Unsupported: There is no cron.
        NotFound: There is no such account.
        PermissionDenied: The table is another account's, or the account may not use cron.
        RemoteFailed: The table could not be read, or crontab refused the new one; the old one stands.
    """
    for word, make in _REFUSALS.items():
        if word in parts:
            raise make(user, parts[word])
    lines = [line.strip(BLANKS) for line in parts["table"].split("\n")]
    return Crontab([line for line in lines if line and not line.startswith("#")], bool(parts["had"].strip()))


def _lacks(_user: str | None, _said: str) -> ToolError:
    return Unsupported("the machine has no crontab", hint="install cron, or use a systemd timer")


def _nobody(user: str | None, _said: str) -> ToolError:
    return NotFound(f"user: the machine has no account {user!r}", hint="system_users lists them")


def _denied(user: str | None, _said: str) -> ToolError:
    return Foreign(
        f"user: only root may work on the crontab of {user}", hint="give `become`, or log in as that account"
    )


def _failed(_user: str | None, said: str) -> ToolError:
    return _refused("crontab refused the new table", said)


def _unread(_user: str | None, said: str) -> ToolError:
    return _refused("crontab does not show the table", said)


def _refused(what: str, said: str) -> ToolError:
    if re.search(r"not allowed|denied|you must", said, re.IGNORECASE):
        return PermissionDenied(f"crontab: {said.strip()[-300:]}", hint="see /etc/cron.allow and /etc/cron.deny there")
    return RemoteFailed(f"{what}: {said.strip()[-300:]}", hint="the old table stands; see what `crontab -l` says there")


_REFUSALS: Mapping[str, Callable[[str | None, str], ToolError]] = {
    "lacks": _lacks,
    "nobody": _nobody,
    "denied": _denied,
    "unread": _unread,
    "failed": _failed,
}

_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("day of week", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)


def check_schedule(schedule: str) -> str:
    """A schedule as crontab(5) has it, in one form: five fields with single blanks, or a name with `@`.

    Raises:
        ValueError: Names the field and its range.
    """
    words = schedule.split()
    if len(words) == 1 and words[0].startswith("@"):
        if words[0].lower() not in NAMED:
            raise ValueError(f"must be one of {', '.join(NAMED)}, or five fields")
        return words[0].lower()
    if len(words) != 5:
        raise ValueError("must be five fields (minute, hour, day of month, month, day of week), such as `30 2 * * 1-5`")
    for word, field in zip(words, _FIELDS, strict=True):
        if not all(_fits(part, *field[1:]) for part in word.split(",")):
            name, least, most, _ = field
            raise ValueError(
                f"{name} {word!r} must be numbers from {least} to {most}, ranges, lists, or steps like */5"
            )
    return " ".join(words)


def _fits(part: str, least: int, most: int, names: Sequence[str]) -> bool:
    ends, slash, step = part.partition("/")
    if slash and not (step.isascii() and step.isdigit() and int(step) > 0):
        return False
    if ends == "*":
        return True
    numbers = [_number(each, least, names) for each in ends.split("-", 1)]
    within = all(least <= number <= most for number in numbers)
    return within and numbers == sorted(numbers) and (len(numbers) == 2 or not slash)


def _number(text: str, least: int, names: Sequence[str]) -> int:
    """What a word of a schedule counts; -1 where it is none."""
    if text.lower() in names:
        return names.index(text.lower()) + least
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1


def entry(schedule: str, job: str) -> str:
    """A line of a table.

    Raises:
        InvalidInput: The command would be more than one line, or nothing.
    """
    if "\n" in job or "\r" in job:
        raise InvalidInput("command: must be one line, at whose end cron ends the job", hint="put it into a script")
    if not job.strip(BLANKS):
        raise InvalidInput("command: holds nothing but blanks", hint="give the command that is to run")
    return f"{schedule} {job}".strip(BLANKS)
