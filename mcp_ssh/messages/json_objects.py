"""Refuse JSON objects that name a key twice: readers differ in which of the two counts."""

from typing import Any


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for `object_pairs_hook` of the json module.

    Raises:
        ValueError: A key is given twice; names it.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        seen = set[str]()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"{twice[:80]!r} is given twice")
    return found
