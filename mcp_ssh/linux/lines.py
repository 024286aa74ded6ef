"""Split the text of a machine in time that grows as the text does.

A machine may answer with anything. Parsers split its text into lines of bounded length and take these apart by
`split` and `partition`; a pattern sees at most one such line.
"""

from collections.abc import Iterator

LINE_LIMIT = 4096
"""Characters of a line that a parser looks at; the rest of a longer line is dropped."""

ROW_LIMIT = 10_000
"""Rows of a typed list at most. Where a list has more, its result says `truncated`."""

_DIGITS_LIMIT = 18


def lines_of(text: str) -> Iterator[str]:
    """Yield the lines of a text, without their ends, each cut at `LINE_LIMIT`."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield text[start : min(end, start + LINE_LIMIT)].rstrip("\r")
        start = end + 1


def number(text: str, otherwise: int = 0) -> int:
    """Read a decimal number that 64 bits hold; `otherwise` where the text is not one."""
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) <= _DIGITS_LIMIT:
        return int(text)
    return otherwise


def is_number(text: str) -> bool:
    """Whether `number` reads the text as a number."""
    return number(text, -1) != -1 or text == "-1"
