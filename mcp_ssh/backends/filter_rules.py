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

    def of(self, family: Family) -> "FilterRule":
        """The same rule for another family."""
        protocol = "ipv6-icmp" if family == "ipv6" and self.protocol == "icmp" else self.protocol
        return replace(self, family=family, protocol=protocol)


@dataclass(frozen=True)
class Table:
    """The filter table of one family: policies by chain, and the rules in order."""

    policies: Mapping[str, str] = field(default_factory=dict[str, str])
    rules: tuple[FilterRule, ...] = ()
