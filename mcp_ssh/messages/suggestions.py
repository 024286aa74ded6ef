"""Near names for a name that does not exist, at a bounded cost."""

import difflib
from collections.abc import Iterable, Mapping
from itertools import islice

LONGEST = 80
"""Characters of the longest name that is compared; comparing longer ones takes time and helps nobody."""

MOST_NAMES = 8
"""How many unknown names of one request get a suggestion."""

_CUTOFF = 0.7
_LONGEST_ABBREVIATION = 4
_VOWELS = frozenset("aeiou")


def spelled_like(name: str, known: Iterable[str], most: int = 1, cutoff: float = _CUTOFF) -> list[str]:
    """Return the known names that are spelled nearly like `name`, best first; none for a very long name."""
    if not name or len(name) > LONGEST:
        return []
    return difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)


def suggest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """Return the known names that `name` may mean, best first.

    An abbreviation stands for the name that starts with the same letter and has its letters in order: `cmd` means
    `command`. Do not pass names of what destroys: a spelling says nothing about what a caller wants to do.
    """
    candidates = list(known)
    meant = [each for each in candidates if _abbreviates(name, each)]
    return list(dict.fromkeys([*meant, *spelled_like(name, candidates, most)]))[:most]


def suggest_each(unknown: Iterable[str], known: Iterable[str]) -> Mapping[str, str]:
    """Return a near name for each of the first unknown names that has one."""
    candidates = list(known)
    found = {name: suggest(name, candidates) for name in islice(unknown, MOST_NAMES)}
    return {name: near[0] for name, near in found.items() if near}


def _abbreviates(name: str, word: str) -> bool:
    if not 2 <= len(name) <= _LONGEST_ABBREVIATION or len(word) <= len(name) or word[0] != name[0]:
        return False
    if not _VOWELS.isdisjoint(name[1:]):
        return False  # `fiel` is a mistyped `file`, and no short form of `firewall`
    letters = iter(word)
    return all(letter in letters for letter in name)
