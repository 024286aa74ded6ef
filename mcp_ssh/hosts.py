"""Patterns of machines' names and addresses: the one language in which tokens and config say which machines."""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

_BARE = re.compile(r"\[(.*)\](?::\d+)?")


def matches(host: str, patterns: Sequence[str]) -> bool:
    """Whether a machine fits the patterns: one of them, and none of those that start with `!`.

    `*` and `?` stand for any text and any character, dots included, and for nothing else; letter case, brackets and the
    dot at the end of a full name do not count, and an IPv6 address is compared in its short form.
    """
    return any_matches([host], patterns)


def any_matches(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether a machine with these names fits: one name fits a pattern, and no name fits one that starts with `!`."""
    plain = [canonical(name) for name in names]
    excluded = [each[1:] for each in patterns if each.startswith("!")]
    if any(_glob(canonical(each)).fullmatch(name) for each in excluded for name in plain):
        return False
    wanted = [each for each in patterns if not each.startswith("!")]
    return any(_glob(canonical(each)).fullmatch(name) for each in wanted for name in plain)


def canonical(host: str) -> str:
    """A host name or address in the one form that is compared."""
    text = host.strip().lower()
    if found := _BARE.fullmatch(text):
        text = found[1]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text.rstrip(".")
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def is_loopback(host: str) -> bool:
    """Whether a name or address means the machine that looks it up."""
    text = canonical(host)
    try:
        return ipaddress.ip_address(text).is_loopback
    except ValueError:
        return text == "localhost"


@lru_cache(1024)
def _glob(pattern: str) -> re.Pattern[str]:
    """A pattern in which `*` and `?` alone are special."""
    parts = (".*" if each == "*" else "." if each == "?" else re.escape(each) for each in pattern)
    return re.compile("".join(parts), re.DOTALL)
