"""What a packet filter consists of, in the terms of iptables(8), whichever program keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Family = Literal["ipv4", "ipv6"]


@dataclass(frozen=True)
class FilterRule:
    """One rule of a chain.

    Attributes:
        number: Its place in the chain, from 1.
        target: ACCEPT, DROP …, the name of another chain, or empty where the rule only counts.
        ports: Destination ports, such as `443`, `8000:9000` or `80,443`.
        text: The rule as the program itself writes it.
        more: Whether it has conditions beyond these fields.
        zone: Whose packets it decides about, by name; None where it is for all.
    """

    family: Family
    chain: str
    number: int
    text: str
    target: str = ""
    protocol: str = "all"
    source: str | None = None
    destination: str | None = None
    ports: str | None = None
    source_ports: str | None = None
    in_interface: str | None = None
    out_interface: str | None = None
    states: str | None = None
    comment: str | None = None
    more: bool = False
    zone: str | None = None

    def of(self, family: Family) -> "FilterRule":
        """The same rule for another family."""
        protocol = "ipv6-icmp" if family == "ipv6" and self.protocol == "icmp" else self.protocol
        return replace(self, family=family, protocol=protocol)


@dataclass(frozen=True)
class Zone:
    """What packets come in through, with rules of its own.

    Attributes:
        policy: What becomes of those that no rule of the zone decides.
        default: Whether it takes what no other zone does.
        interfaces: Those whose packets it takes.
        sources: Addresses, networks and sets of them whose packets it takes, whichever interface they come from.
    """

    name: str
    policy: str
    default: bool = False
    interfaces: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The filter table of one family.

    Attributes:
        policies: What becomes of packets that no rule of a chain decides, by chain.
        rules: The rules in order.
        zones: The zones, if it has such.
        above: What decides before any of the rules, and is not a part of them: of firewalld, its policy objects.
    """

    policies: Mapping[str, str] = field(default_factory=dict[str, str])
    rules: tuple[FilterRule, ...] = ()
    zones: tuple[Zone, ...] = ()
    above: tuple[FilterRule, ...] = ()

    def of(self, zone: Zone) -> "Table":
        """The rules that packets of a zone meet."""
        return replace(self, rules=tuple(rule for rule in self.rules if rule.zone in {None, zone.name}))


@dataclass(frozen=True)
class RuleSet:
    """The rules that another program keeps, and that one chain's packets must pass too.

    Attributes:
        program: Who lists them, such as `iptables-legacy` or `nft`.
        table: Their table as the program calls it.
        chain: Whose packets they see: INPUT, OUTPUT or FORWARD; empty for a chain that is reached by a jump only.
        name: The chain as the program calls it.
        policy: What becomes of packets that none of them decides.
    """

    program: str
    table: str
    family: Family
    chain: str
    name: str
    policy: str
    rules: tuple[FilterRule, ...]
