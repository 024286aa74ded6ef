"""Iptables and ip6tables (iptables(8)), on nf_tables or legacy: the filter table's rules, read and told apart.

Rules are read as `iptables -S` writes them: one line a rule, in the words that would add it again.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from mcp_ssh.probes.parts import PartsAsked, ask_parts

Family = Literal["ipv4", "ipv6"]
PROGRAMS: Mapping[Family, str] = {"ipv4": "iptables", "ipv6": "ip6tables"}


@dataclass(frozen=True)
class FilterRule:
    """One rule of a chain.

    Attributes:
        number: Its place in the chain, from 1.
        target: ACCEPT, DROP …, the name of another chain, or empty where the rule only counts.
        ports: Destination ports, such as `443`, `8000:9000` or `80,443`.
        text: The rule as `iptables -S` writes it.
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


@dataclass(frozen=True)
class Table:
    """The filter table of one family: policies by chain, and the rules in order."""

    policies: Mapping[str, str] = field(default_factory=dict[str, str])
    rules: tuple[FilterRule, ...] = ()


# Not the shell's quoting: between double quotes, a backslash stands before each quote of either kind.
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_ESCAPED = re.compile(r"\\(.)")
_FIELDS = {
    "-p": "protocol", "-s": "source", "-d": "destination", "-i": "in_interface", "-o": "out_interface",
    "-j": "target", "-g": "target", "--dport": "ports", "--dports": "ports", "--sport": "source_ports",
    "--sports": "source_ports", "--ctstate": "states", "--state": "states", "--comment": "comment",
}  # fmt: skip


def parse(family: Family, text: str) -> Table:
    """The table that `iptables -S` tells of. A condition that is negated has `!` before its value."""
    policies: dict[str, str] = {}
    rules: list[FilterRule] = []
    counts: dict[str, int] = {}
    for line in text.splitlines():
        words = _words(line)
        if words[:1] == ["-P"] and len(words) > 2:
            policies[words[1]] = words[2]
        elif words[:1] == ["-A"] and len(words) > 1:
            number = counts[words[1]] = counts.get(words[1], 0) + 1
            rules.append(FilterRule(family, words[1], number, line.strip(), **dict(_conditions(words[2:]))))
    return Table(policies, tuple(rules))


def _words(line: str) -> list[str]:
    return [_ESCAPED.sub(r"\1", quoted) if quoted or not plain else plain for quoted, plain in _WORD.findall(line)]


def _conditions(words: list[str]) -> Iterator[tuple[str, str]]:
    negated = ""
    for index, word in enumerate(words[:-1]):
        if word == "!":
            negated = "!"
        elif word in _FIELDS:
            yield _FIELDS[word], negated + words[index + 1]
            negated = ""


# $1: the chain, or nothing for all. $2, $3: which of the families are asked for.
_RULES = r"""
ask() {
    if ! command -v "$1" >/dev/null 2>&1; then
        part "$2_lacks"
        return
    fi
    part "$2_text"; said=$("$1" -w 5 -L ${chain:+"$chain"} -n -v -x --line-numbers 2>&1); code=$?
    printf "%s\n" "$said"
    part "$2_code"; echo "$code"
    part "$2_rules"; "$1" -w 5 -S ${chain:+"$chain"} 2>/dev/null
}
chain=$1
[ -z "$2" ] || ask iptables ipv4
[ -z "$3" ] || ask ip6tables ipv6
"""

# iptables-save leaves out a table that has no rules yet, so the filter table is named.
_RAW = r"""
ask() { part "$2"; "$1-save" -t filter 2>/dev/null; code=$?; part "$2_code"; echo "$code"; }
[ -z "$1" ] || ask iptables ipv4
[ -z "$2" ] || ask ip6tables ipv6
"""


def ask_rules(chain: str | None, families: tuple[Family, ...]) -> PartsAsked:
    """The question for the rules: as people read them, and as the programs do."""
    return ask_parts(_RULES, [chain or "", *_asked(families)])


def ask_raw(families: tuple[Family, ...]) -> PartsAsked:
    """The question for the filter table as `iptables-restore` takes it."""
    return ask_parts(_RAW, _asked(families))


def _asked(families: tuple[Family, ...]) -> list[str]:
    return ["x" if each in families else "" for each in PROGRAMS]
