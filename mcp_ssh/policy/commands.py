"""Which command lines the owner's patterns let pass.

An allow list is a promise: what is not on it is not sent. So its patterns are compared word by word, and only with
lines in which nothing is special to a shell but blanks and quotes; every other line has to be on the list letter by
letter.

A deny list is a net, not a wall: a shell has countless ways to write a command, and only the plain ones are found. Its
patterns take more than those of an allow list: one word is the program with any arguments, as in sudoers, and short
options are compared as a set, however they are grouped and ordered.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from mcp_ssh.shell_command import words as words_of

_SPECIAL = frozenset(";&|<>()$`\\*?[]{}!#~^")
"""What a shell may read as something else than itself: with one of these, also in quotes, a line is not plain."""

_SEPARATORS = re.compile(r"&&|\|\||[;&|\n\r(){}`]|\$\(|<\(|>\(")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=.*", re.DOTALL)
_REDIRECTION = re.compile(r"[0-9]*[<>]")
_BLANK = re.compile(r"[\s;&|]")
_RESERVED = frozenset({"if", "then", "elif", "else", "while", "until", "do", "!", "time", "case", "in"})

_WRAPPERS = frozenset({
    "sudo", "doas", "su", "env", "exec", "command", "builtin", "nohup", "nice", "ionice", "setsid", "stdbuf", "time",
    "timeout", "xargs", "find", "watch", "chroot", "unshare", "nsenter", "chrt", "taskset", "flock", "script", "strace",
    "runuser", "setpriv", "systemd-run", "busybox", "toybox", "parallel", "ssh", "eval",
    "sh", "bash", "dash", "ash", "zsh", "ksh", "fish",
})  # fmt: skip
"""Programs that run what their arguments say: any of these may begin another command."""

_SHORT_OPTIONS = re.compile(r"-[A-Za-z0-9]+")

_WORD_OPTIONS = frozenset({
    "find", "java", "javac", "openssl", "ffmpeg", "gcc", "g++", "cc", "clang", "go", "terraform", "convert", "magick",
})  # fmt: skip
"""Programs whose options are whole words behind one dash, which are no set of letters."""

MOST_OPTIONS = 64
"""How many words of a command are looked through for its short options."""

MAX_NESTED = 3
"""How many command lines within command lines are looked into."""

MAX_LINE = 8 * 1024
"""The longest line, in characters, that is compared with a deny list."""


def plain_words(line: str) -> list[str] | None:
    """The words of a line that every shell reads alike; `None` for any other line."""
    if not line.isprintable() or not _SPECIAL.isdisjoint(line):
        return None
    words = words_of(line)
    return None if words and any(word.startswith("=") for word in words) else words  # zsh expands =NAME


def allows(line: str, patterns: Sequence[str]) -> bool:
    """Whether a line is on an allow list: letter by letter, or as a plain line whose words fit a pattern's."""
    if line in patterns:
        return True
    words = plain_words(line)
    return bool(words) and any(_fit(words, words_of(pattern) or ()) for pattern in patterns)


def denied_by(line: str, patterns: Sequence[str]) -> str | None:
    """The first pattern of a deny list that fits the whole line, or one of the simple commands that are found in it."""
    whole = [each for each in patterns if _matches(line.strip(), each)]
    return whole[0] if whole else _first_fit(simple_commands(line), patterns)


def denied_program(argv: Sequence[str], patterns: Sequence[str]) -> str | None:
    """The first pattern of a deny list that fits a program and its arguments."""
    return _first_fit(_commands_of(argv)[0], patterns)


def simple_commands(line: str) -> list[list[str]]:
    """The simple commands that may be in a line, more rather than fewer: also parts of what stands in quotes."""
    found: list[list[str]] = []
    todo, seen = [(line, 0)], set[str]()
    while todo:
        text, depth = todo.pop()
        if text in seen:
            continue
        seen.add(text)
        for part in {text, *_SEPARATORS.split(text), *_outside_quotes(text)}:
            commands, texts = _commands_of(_words(part))
            found += commands
            if depth < MAX_NESTED:
                todo += [(each, depth + 1) for each in texts]
    return found


def _first_fit(commands: Sequence[Sequence[str]], patterns: Sequence[str]) -> str | None:
    for pattern in patterns:
        wanted = words_of(pattern)
        if wanted and any(_denies(wanted, words) for words in commands):
            return pattern
    return None


def _denies(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Whether a command fits a pattern of a deny list. A second word `""` stands for no arguments, as in sudoers."""
    if len(pattern) == 1 or (len(words) == 1 and list(pattern[1:]) == [""]):
        return _fit(words[:1], pattern[:1], sure=False)
    return _fit(words, pattern, sure=False) or _fits_as_set(words, pattern)


def _fits_as_set(words: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a command has all short options of a pattern, among others, and the pattern's other words in order."""
    if pattern[0] in _WORD_OPTIONS or not _fit(words[:1], pattern[:1], sure=False):
        return False
    wanted, rest = _split_options(pattern[1:])
    if not wanted:
        return False
    given, operands = _split_options(words[1:MOST_OPTIONS])
    if not any(each.startswith("--") for each in rest):
        operands = [each for each in operands if not each.startswith("--")]
    return wanted <= given and _fit(operands, rest, sure=False)


def _split_options(words: Sequence[str]) -> tuple[set[str], list[str]]:
    """The letters of the short options, and the other words. Behind `--` everything is an operand."""
    letters, others = set[str](), list[str]()
    for index, word in enumerate(words):
        if word == "--":
            return letters, [*others, *words[index + 1 :]]
        if _SHORT_OPTIONS.fullmatch(word):
            letters.update(word[1:])
        else:
            others.append(word)
    return letters, others


def _commands_of(words: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """The commands that these words may run, and those of the words that may be command lines themselves."""
    own = _strip_prefixes(list(words))
    if not own or own[-1][0] not in _WRAPPERS:
        return own, []
    words = own[-1]
    found = [command for index in range(1, len(words)) for command in _strip_prefixes(words[index:])]
    return own + found, [each for each in words[1:] if _BLANK.search(each)]


def _strip_prefixes(words: list[str]) -> list[list[str]]:
    """A command without what may stand before its name, by the name given and by the program's own."""
    while words and (words[0] in _RESERVED or _ASSIGNMENT.fullmatch(words[0]) or _REDIRECTION.match(words[0])):
        words = words[1:]
    if not words:
        return []
    program = words[0].rpartition("/")[2]
    return [words] if program in {words[0], ""} else [words, [program, *words[1:]]]


def _words(text: str) -> list[str]:
    found = words_of(text.replace("\\\n", ""))
    return text.replace('"', " ").replace("'", " ").split() if found is None else found


def _outside_quotes(line: str) -> list[str]:
    """The parts of a line between separators that do not stand in quotes."""
    parts, quote, begun, index = list[str](), "", 0, 0
    while index < len(line):
        each = line[index]
        if each == "\\" and quote != "'":
            index += 1
        elif quote:
            quote = "" if each == quote else quote
        elif each in "'\"":
            quote = each
        elif found := _SEPARATORS.match(line, index):
            parts.append(line[begun:index])
            begun = found.end()
            index = begun - 1
        index += 1
    return [*parts, line[begun:]]


def _fit(words: Sequence[str], pattern: Sequence[str], *, sure: bool = True) -> bool:
    """Whether words fit a pattern's words one by one; a last word `*` stands for any number of them, none included.

    Args:
        words: The words of a command.
        pattern: The words of a pattern.
        sure: A wildcard stands for no path that climbs by `..`.
    """
    if pattern and pattern[-1] == "*":
        pattern = pattern[:-1]
        if len(words) < len(pattern):
            return False
    elif len(words) != len(pattern):
        return False
    return all(
        word == wanted or (_matches(word, wanted) and not (sure and _climbs(word)))
        for word, wanted in zip(words, pattern, strict=False)
    )


def _matches(text: str, pattern: str) -> bool:
    """Whether text fits a pattern of `*` and `?`. Brackets stand for themselves, since they do in commands."""
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _climbs(word: str) -> bool:
    return ".." in re.split(r"[/=:,]", word)
