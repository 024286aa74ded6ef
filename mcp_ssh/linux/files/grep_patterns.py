r"""Write a pattern so that every grep reads it alike.

POSIX (XBD 9.4) leaves open what `\d` means in an extended regular expression. GNU grep takes it for `d`, musl's for a
digit, and neither fails. What has one meaning in POSIX's own words is written in these; everything else is refused.
"""

from mcp_ssh.errors import InvalidInput

_CLASSES = {"d": "0-9", "w": "[:alnum:]_", "s": "[:space:]"}
"""Perl's classes, as POSIX writes them between brackets."""

_KEPT = "bB<>"
"""Letters and signs that GNU's and musl's expressions read alike behind a backslash: edges of words."""

_SPECIAL = "^.[]$()|*+?{}\\"
"""Signs of an extended regular expression that a backslash makes plain."""

_CONTROLS = {"t": "\t", "f": "\f", "v": "\v", "a": "\a", "e": "\x1b"}


def portable(pattern: str) -> str:
    r"""The pattern with `\d`, `\w`, `\s` and the like in POSIX's words.

    Raises:
        InvalidInput: Something in it has another meaning, or none, on some machines.
    """
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        sign = pattern[at]
        if sign == "[":
            part, at = _bracket(pattern, at)
        elif sign == "\\":
            part, at = _escape(pattern[at : at + 2]), at + 2
        elif pattern.startswith("(?", at):
            part, at = _group(pattern, at)
        else:
            part, at = sign, at + 1
        parts.append(part)
    return "".join(parts)


def _escape(text: str) -> str:
    letter = text[1:]
    if letter.lower() in _CLASSES and letter:
        return f"[{'^' if letter.isupper() else ''}{_CLASSES[letter.lower()]}]"
    if letter and (letter in _KEPT or letter in _SPECIAL):
        return text
    if letter in _CONTROLS:
        return _CONTROLS[letter]
    if letter and not letter.isalnum() and letter not in {"`", "'"}:
        return letter  # a backslash before a sign that has no meaning of its own
    raise _ambiguous_pattern(text)


def _group(pattern: str, at: int) -> tuple[str, int]:
    if pattern.startswith("(?:", at):
        return "(", at + 3
    if pattern.startswith("(?i)", at):
        raise InvalidInput("pattern: grep does not know `(?i)`", hint="leave it out and set `ignore_case: true`")
    raise _ambiguous_pattern(pattern[at : at + 3])


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """The bracket expression that begins here, and where it ends. POSIX takes a backslash in it for itself."""
    start = at
    at += 2 if pattern.startswith("[^", at) else 1
    parts = [pattern[start:at]]
    first = at
    while at < len(pattern):
        sign = pattern[at]
        if sign == "]" and at > first:
            return "".join([*parts, "]"]), at + 1
        if sign == "[" and pattern[at + 1 : at + 2] in {":", ".", "="}:
            end = pattern.find(pattern[at + 1] + "]", at + 2)
            end = end + 2 if end >= 0 else len(pattern)
            parts.append(pattern[at:end])
            at = end
        elif sign == "\\":
            parts.append(_escape_between(pattern[at : at + 2]))
            at += 2
        else:
            parts.append(sign)
            at += 1
    return pattern[start:], len(pattern)  # grep says itself that it has no end


def _escape_between(text: str) -> str:
    letter = text[1:]
    if letter in _CLASSES:
        return _CLASSES[letter]
    if letter in _CONTROLS:
        return _CONTROLS[letter]
    if letter == "\\":
        return "\\"
    if letter and not letter.isalnum() and letter not in "]^-[":
        return letter
    raise InvalidInput(
        f"pattern: between brackets grep takes the backslash of `{text}` for itself",
        hint="put `]` first and `-` last between the brackets, as in []abc-]; put `^` anywhere but first",
    )


def _ambiguous_pattern(text: str) -> InvalidInput:
    return InvalidInput(
        f"pattern: `{text}` does not mean the same to every grep",
        hint="use an extended regular expression (POSIX): ( ) | ? + * {2,3} [a-z] ^ $, \\d \\w \\s and \\b; or set"
        " fixed: true to search for the text itself",
    )
