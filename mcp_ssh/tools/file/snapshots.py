"""Listings of long folders, kept for a moment so that their later pages need not list the folder again."""

import time
from collections import OrderedDict
from dataclasses import dataclass

from anyio.lowlevel import RunVar

KEPT_S = 60.0
"""Seconds after its last page until a listing is forgotten."""

KEPT_BYTES = 32 * 1024 * 1024
"""Bytes of listings that are kept in all; the one that was used longest ago goes first."""

RECORD_BYTES = 48
"""What a record takes beside its text."""

SnapshotKey = tuple[str, str]
"""A session's id and the path as the caller gave it."""


@dataclass
class Snapshot:
    """A folder as it was listed: its path, and a record for each entry, by name."""

    path: str
    records: list[bytes]
    size: int
    used: float


_kept: RunVar["OrderedDict[SnapshotKey, Snapshot]"] = RunVar("listings")


def _all() -> "OrderedDict[SnapshotKey, Snapshot]":
    try:
        kept = _kept.get()
    except LookupError:
        _kept.set(kept := OrderedDict())
    while kept and next(iter(kept.values())).used < time.monotonic() - KEPT_S:
        kept.popitem(last=False)
    return kept


def keep(key: SnapshotKey, path: str, records: list[bytes]) -> None:
    """Keep a listing for its later pages."""
    kept = _all()
    kept.pop(key, None)
    size = sum(map(len, records)) + RECORD_BYTES * len(records)
    kept[key] = Snapshot(path, records, size, time.monotonic())
    while sum(each.size for each in kept.values()) > KEPT_BYTES:
        kept.popitem(last=False)


def find(key: SnapshotKey) -> Snapshot | None:
    """The listing that is kept, if there is one."""
    kept = _all()
    if (found := kept.get(key)) is not None:
        found.used = time.monotonic()
        kept.move_to_end(key)
    return found
