"""Where in a chain a rule takes effect: before the first that may decide otherwise about some of the same packets."""

import ipaddress
from dataclasses import dataclass, field

from mcp_ssh.linux.firewall.model import FilterRule, Table
from mcp_ssh.linux.lines import is_number, number

_EQUAL = ("target", "protocol", "source", "destination", "ports")
_AGREEING = {
    "ACCEPT": {"ACCEPT", "LOG", ""}, "LOG": {"LOG", ""},
    "DROP": {"DROP", "REJECT", "LOG", ""}, "REJECT": {"DROP", "REJECT", "LOG", ""},
}  # fmt: skip
"""By the target of a rule that is wanted, those that never stand in its way."""
_OTHERS = ("source_ports", "in_interface", "out_interface", "states")


@dataclass(frozen=True)
class RulePosition:
    """Where a rule goes: `number` in its chain, or 0 for its end; `standing` where it is there and takes effect.

    `before` is the rule that has that number now.
    """

    number: int = 0
    standing: bool = False
    before: FilterRule | None = field(default=None, compare=False)


def place_of(wanted: FilterRule, table: Table) -> RulePosition:
    """The place of a rule. A rule that jumps to another chain may decide anything.

    The machine's traffic with itself stays out of it: a rule that blocks goes behind one that accepts that alone.
    """
    for rule in table.rules:
        if rule.chain != wanted.chain:
            continue
        if all(getattr(rule, each) == getattr(wanted, each) for each in _EQUAL) and not _narrower(rule):
            return RulePosition(standing=True)
        if rule.target not in _AGREEING[wanted.target] and not _apart(rule, wanted) and not _with_itself(rule, wanted):
            return RulePosition(rule.number, before=rule)
    return RulePosition()


def overruling(wanted: FilterRule, table: Table) -> FilterRule | None:
    """What decides otherwise about some of a rule's packets, before any rule of the table can."""
    return place_of(wanted, Table(rules=table.above)).before


def _narrower(rule: FilterRule) -> bool:
    return rule.more or any(getattr(rule, each) for each in _OTHERS)


def _with_itself(rule: FilterRule, wanted: FilterRule) -> bool:
    alone = {"INPUT": rule.in_interface, "OUTPUT": rule.out_interface}.get(rule.chain) == "lo"
    end = wanted.source if rule.chain == "INPUT" else wanted.destination
    return alone and rule.target == "ACCEPT" and not (end and ipaddress.ip_network(end).is_loopback)


def _apart(one: FilterRule, other: FilterRule) -> bool:
    """Whether no packet can match both; where that cannot be told, one may."""
    if "all" not in {one.protocol, other.protocol} and one.protocol != other.protocol:
        return not (one.protocol + other.protocol).count("!")
    if one.ports and other.ports and not _common(_ports(one.ports), _ports(other.ports)):
        return True
    return _far(one.source, other.source) or _far(one.destination, other.destination)


def _ports(text: str) -> list[tuple[int, int]]:
    """First and last port of each range. What is not clear, such as a negation or a name, may be any port."""
    found: list[tuple[int, int]] = []
    for part in text.split(",")[:MOST_RANGES]:
        first, _, last = part.partition(":")
        if not (is_number(first) and is_number(last or first)):
            return [(0, 65535)]
        found.append((number(first), number(last or first)))
    return found


MOST_RANGES = 64
"""Ranges of ports that one rule has at most; iptables takes 15."""


def _common(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> bool:
    return any(one[0] <= two[1] and two[0] <= one[1] for one in some for two in others)


def _far(one: str | None, other: str | None) -> bool:
    if not one or not other or "!" in one + other:
        return False
    return not ipaddress.ip_network(one, strict=False).overlaps(ipaddress.ip_network(other, strict=False))
