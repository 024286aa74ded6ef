"""Text from machines and callers, made safe to show: on a terminal, in a log, in an error."""

import json
import re
import unicodedata

SAID_CHARS = 200
"""How much of what a machine said stands in an error."""

_UNSAFE = frozenset({"Cc", "Cf", "Zl", "Zp", "Cs"})
"""Unicode categories of control and format characters, line and paragraph separators, and surrogates. They move a
terminal's cursor, reverse the direction of text, or hide it."""
_NOT_PLAIN = re.compile(r"[^\n\x20-\x7e]")


def printable(text: str) -> str:
    """The text with every unsafe character, line breaks included, spelled out by its number."""
    if text.isprintable():
        return text
    return "".join(map(_spell, text))


def printable_lines(text: str) -> str:
    """The same for text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def json_text(value: object, indent: int | None = None) -> str:
    """A value as JSON that is safe to show; unsafe characters are escaped as JSON has it, so it reads back the same."""
    separators = (",", ":") if indent is None else None
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    return _NOT_PLAIN.sub(lambda found: found[0] if _is_safe(found[0]) else _escape(found[0]), text)


def machine_text(text: str | bytes) -> str | None:
    """The end of what a machine said, for `details["said"]` of an error; `None` where it said nothing.

    A machine's words never stand in a message of our own, which models are told to obey.
    """
    end = text[-4096:]
    whole = end.decode("utf-8", "replace") if isinstance(end, bytes) else end
    return printable(" ".join(whole.split()))[-SAID_CHARS:] or None


def said_details(text: str | bytes, **more: object) -> dict[str, object]:
    """The details of an error: what the machine said, where it said anything, and more."""
    words = machine_text(text)
    return more if words is None else {**more, "said": words}


def _is_safe(character: str) -> bool:
    return unicodedata.category(character) not in _UNSAFE


def _spell(character: str) -> str:
    if _is_safe(character):
        return character
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _escape(character: str) -> str:
    number = ord(character)
    if number < 0x10000:
        return f"\\u{number:04x}"
    # A pair of surrogates (RFC 8259, 7).
    number -= 0x10000
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"
