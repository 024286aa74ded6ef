"""Paths that our tools leave alone: judged on the machine, at the end of all links, by the script that changes them.

A script that changes something has `OPEN` in its text and asks `protected PATH`, and of folders `covers` and `lands`.
`guarded` puts what is protected on this machine in the place of `OPEN`. The patterns are the owner's; everything in
them but `*` and `?` is quoted. As in a `case` of the shell, these two stand for slashes, too.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from mcp_ssh.errors import Refused, ToolError
from mcp_ssh.host_patterns import pattern_matches
from mcp_ssh.linux.framing import ScriptAnswer, quote_path
from mcp_ssh.shell_command import Command, quote

OPEN = "protected() { return 1; }\ncovers() { return 1; }\nlands() { return 1; }"
"""Nothing is protected. `covers FOLDER`: whether something protected is in it. `lands FOLDER GOAL`: whether something
in it would be in the place of something protected, if it were put into the other folder."""

GUARD = (
    OPEN
    + """
spare() { if protected "$1"; then stop protected "$1"; fi; }
"""
)


def add_protection(command: Command, patterns: Sequence[str]) -> Command:
    """A command with what is protected in it, where it asks for that; else as it was."""
    if not patterns or command.argv[:2] != ("sh", "-c") or OPEN not in command.argv[2]:
        return command
    text = command.argv[2].replace(OPEN, _functions([each.removesuffix("/*") for each in patterns]))
    return replace(command, argv=(*command.argv[:2], text, *command.argv[3:]))


def is_protected(path: bytes, patterns: Sequence[str]) -> bool:
    """The same judgement here, for machines without a shell; the path is the real one."""
    text = path.decode("utf-8", "surrogateescape")
    bare = [each.removesuffix("/*") for each in patterns]
    return any(pattern_matches(each, text) or pattern_matches(f"{each}/*", text) for each in bare)


def may_hold(folder: bytes, patterns: Sequence[str]) -> bool:
    """Whether a folder may have something protected in it, as far as patterns tell without looking."""
    start = folder.decode("utf-8", "surrogateescape").rstrip("/") + "/"
    return any(each.startswith(start) or _wild(each) for each in patterns)


def refusal(path: str) -> ToolError:
    """The error of what would change a protected path."""
    return Refused(
        f"{quote_path(path)} is protected; nothing was changed",
        hint="the owner's list is security.protected_paths; visudo, passwd and the like do it through command_exec",
        details={"path": path},
    )


def path_protected(answer: ScriptAnswer) -> ToolError:
    """What the word `protected` means."""
    return refusal(answer.text or answer.path)


def _functions(patterns: Sequence[str]) -> str:
    exact = [each for each in patterns if not _wild(each)]
    wild = [each for each in patterns if _wild(each)]
    cases = "|".join(f"{_case(each)}|{_case(each)}/*" for each in patterns)
    paths = [f"-path {quote(_find_pattern(each))}" for each in wild]
    names = [f"-name {quote(_find_pattern(each.rpartition('/')[2]))}" for each in wild]
    return "\n".join(
        (
            f"protected() {{ case $1 in {cases}) return 0;; esac; return 1; }}",
            'any() { [ -n "$(find "$@" 2>/dev/null | head -n 1)" ]; }',
            'at() { case $1 in "${3%/}"/*) there "$2/${1#"${3%/}"/}";; *) return 1;; esac; }',
            'there() { [ -e "$1" ] || [ -L "$1" ]; }',
            "covers() {",
            *(f'case {quote(each)} in "${{1%/}}"/*) return 0;; esac' for each in exact),
            *(f'any "$1" {each} && return' for each in paths),
            "return 1; }",
            "lands() {",
            *(f'at {quote(each)} "$1" "$2" && return' for each in exact),
            *(f'any "$1" {each} && return' for each in names),
            "return 1; }",
        )
    )


def _wild(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def _case(pattern: str) -> str:
    """A pattern of `case`: only our two signs are special."""
    return "".join(each if each in {"*", "?"} else quote(each) for each in re.split(r"([*?])", pattern) if each)


def _find_pattern(pattern: str) -> str:
    """A pattern of find; a bracket would be special to it."""
    return pattern.replace("[", "[[]")
