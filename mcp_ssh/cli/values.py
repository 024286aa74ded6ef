"""Values of options: each is read by its rule while the command line is, before anything else happens."""

from argparse import ArgumentTypeError
from collections.abc import Callable


def port(text: str) -> int:
    """Read a TCP port to listen on; 0 is a free one."""
    if not _is_number(text) or int(text) > 65535:
        raise ArgumentTypeError(f"{text[:40]!r} is not a port, which is 0 to 65535")
    return int(text)


def machine_port(text: str) -> int:
    """Read the TCP port of an SSH server."""
    if not _is_number(text) or not 1 <= int(text) <= 65535:
        raise ArgumentTypeError(f"{text[:40]!r} is not a port, which is 1 to 65535")
    return int(text)


def number(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number within bounds."""

    def read(text: str) -> int:
        if not _is_number(text) or not least <= int(text) <= most:
            raise ArgumentTypeError(f"{text[:40]!r} is not a number from {least} to {most}")
        return int(text)

    return read


def seconds(most: float) -> Callable[[str], float]:
    """Return what reads a time limit."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0.1 <= value <= most:  # NaN is not
            raise ArgumentTypeError(f"{text[:40]!r} is not a time limit, which is 0.1 to {most:g} seconds")
        return value

    return read


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19
