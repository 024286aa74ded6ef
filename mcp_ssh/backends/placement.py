"""Where in a chain a rule takes effect: before the first that may decide otherwise about some of the same packets."""

import ipaddress
from dataclasses import dataclass

from mcp_ssh.backends.iptables import FilterRule, Table

_EQUAL = ("target", "protocol", "source", "destination", "ports")
_OTHERS = ("source_ports", "in_interface", "out_interface", "states")


@dataclass(frozen=True)
class Place:
    """Where a rule goes: `number` in its chain, or 0 for its end; `standing` where it is there and takes effect."""

    number: int = 0
    standing: bool = False


def allowed_at(wanted: FilterRule, table: Table) -> Place:
    """The place of a rule that accepts. Rules that only log or accept never stand in its way; all others may."""
    for rule in table.rules:
        if rule.chain != wanted.chain:
            continue
        if all(getattr(rule, each) == getattr(wanted, each) for each in _EQUAL) and _plain(rule):
            return Place(standing=True)
        if rule.target not in {"ACCEPT", "LOG", ""} and not _apart(rule, wanted):
            return Place(rule.number)
    return Place()


def _plain(rule: FilterRule) -> bool:
    """Whether every condition is one that we know of."""
    shown = rule.text.split(" --comment ")[0]
    return not any(getattr(rule, each) for each in _OTHERS) and not any(
        f" -m {each}" in shown for each in ("limit", "set", "recent", "owner", "mark", "time", "string", "mac")
    )


def _apart(one: FilterRule, other: FilterRule) -> bool:
    """Whether no packet can match both; where that cannot be told, one may."""
    if "all" not in {one.protocol, other.protocol} and one.protocol != other.protocol:
        return not (one.protocol + other.protocol).count("!")
    if one.ports and other.ports and not _ports(one.ports) & _ports(other.ports):
        return True
    return _far(one.source, other.source) or _far(one.destination, other.destination)


def _ports(text: str) -> set[int]:
    if text.startswith("!"):
        return set(range(65536))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition(":")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _far(one: str | None, other: str | None) -> bool:
    if not one or not other or "!" in one + other:
        return False
    return not ipaddress.ip_network(one, strict=False).overlaps(ipaddress.ip_network(other, strict=False))
