"""Iptables and ip6tables (iptables(8)), on nf_tables or legacy: the filter table read, told apart and changed.

Rules are read as `iptables -S` writes them: one line a rule, in the words that would add it again.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mcp_ssh.linux.firewall import iptables_persistence
from mcp_ssh.linux.firewall.iptables_persistence import PROGRAMS
from mcp_ssh.linux.firewall.model import Family, FilterRule, Table
from mcp_ssh.linux.firewall.nft_rules import SCRIPT as OTHER_RULE_SETS
from mcp_ssh.linux.firewall.placement import place_of
from mcp_ssh.linux.lines import lines_of
from mcp_ssh.linux.parts import PartsAsked, ask_parts
from mcp_ssh.shell_command import Command, command

WAIT = ("-w", "5")
"""How many seconds another program at work on the same table is waited for."""

# Not the shell's quoting: between double quotes, a backslash stands before each quote of either kind.
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_ESCAPED = re.compile(r"\\(.)")
_FIELDS = {
    "-p": "protocol", "-s": "source", "-d": "destination", "-i": "in_interface", "-o": "out_interface",
    "-j": "target", "-g": "target", "--dport": "ports", "--dports": "ports", "--sport": "source_ports",
    "--sports": "source_ports", "--ctstate": "states", "--state": "states", "--comment": "comment",
}  # fmt: skip
_SAY_NOTHING = {"--reject-with", "--log-prefix", "--log-level"}
"""Options with a value that has no part in which packets are meant."""
_MATCHES = {"tcp", "udp", "icmp", "icmp6", "multiport", "comment", "conntrack", "state"}
"""Matches that ask nothing by themselves: what they are for stands in the options behind."""


def parse(family: Family, text: str) -> Table:
    """The table that `iptables -S` tells of. A condition that is negated has `!` before its value."""
    policies: dict[str, str] = {}
    rules: list[FilterRule] = []
    counts: dict[str, int] = {}
    for line in lines_of(text):
        words = _words(line)
        if words[:1] == ["-P"] and len(words) > 2:
            policies[words[1]] = words[2]
        elif words[:1] == ["-A"] and len(words) > 1:
            number = counts[words[1]] = counts.get(words[1], 0) + 1
            found = dict(conditions(words[2:]))
            more = bool(found.pop("", ""))
            rules.append(replace(FilterRule(family, words[1], number, line.strip(), more=more), **found))
    return Table(policies, tuple(rules))


def _words(line: str) -> list[str]:
    return [_ESCAPED.sub(r"\1", quoted) if quoted or not plain else plain for quoted, plain in _WORD.findall(line)]


def conditions(words: list[str]) -> Iterator[tuple[str, str]]:
    """Fields and their values; an empty name stands for a condition that no field has."""
    left, negated = iter(words), ""
    for word in left:
        if word == "!":
            negated = "!"
            continue
        if word in _FIELDS:
            yield _FIELDS[word], negated + next(left, "")
        elif word in _SAY_NOTHING:
            next(left, "")
        elif word.startswith("-") and (word != "-m" or next(left, "") not in _MATCHES):
            yield "", word
        negated = ""


# $chain: the chain, or nothing for all. iptables-save leaves out a table that has no rules yet, and restoring that
# would put nothing back, so the filter table is named. Tables that were not there before are emptied. A family is
# changed by one command, which fails as a whole, so there is nothing to withdraw.
FUNCTIONS = r"""
program() { if [ "$1" = ipv4 ]; then echo iptables; else echo ip6tables; fi; }
lacks_family() { case $1:$2:$3 in ipv6:0:*) return 1 ;; ipv6:*"Address family not supported"*) ;; *) return 1 ;; esac; }
state() { "$(program "$1")" -w 5 -S ${chain:+"$chain"}; }
saved() { "$1-save" -t filter && "$1-save" | sed "/^[*]filter/,/^COMMIT/d"; }
keep() { saved "$(program "$1")" >"$dir/$1.kept" && [ -s "$dir/$1.kept" ]; }
withdraw() { :; }
undo() {
    tables=$(program "$1")
    for table in $("$tables-save" | sed -n "s/^[*]//p"); do
        grep -q "^[*]$table" "$dir/$1.kept" || printf "*%s\nCOMMIT\n" "$table" >>"$dir/$1.kept"
    done
    "$tables-restore" -w 5 <"$dir/$1.kept" || "$tables-restore" <"$dir/$1.kept"
}
"""

# $1: the chain, or nothing for all. $2, $3: which of the families are asked for.
_RULES = r"""
ask() {
    tables=$(program "$1")
    if ! command -v "$tables" >/dev/null 2>&1; then
        part "$1_lacks"
        [ "$1" != ipv6 ] || [ -e /proc/net/if_inet6 ] || part no_ipv6
        return
    fi
    part "$1_text"; said=$("$tables" -w 5 -L ${chain:+"$chain"} -n -v -x --line-numbers 2>&1); code=$?
    printf "%s\n" "$said"
    part "$1_code"; echo "$code"
    ! lacks_family "$1" "$code" "$said" || part no_ipv6
    rules=$(state "$1" 2>/dev/null)
    part "$1_sum"; printf "%s\n" "$rules" | cksum
    part "$1_rules"; printf "%s\n" "$rules"
}
chain=$1
[ -z "$2" ] || ask ipv4
[ -z "$3" ] || ask ipv6
"""

_RAW = r"""
ask() { part "$2"; "$1-save" -t filter 2>/dev/null; code=$?; part "$2_code"; echo "$code"; }
[ -z "$1" ] || ask iptables ipv4
[ -z "$2" ] || ask ip6tables ipv6
"""


def _family_flags(families: tuple[Family, ...]) -> list[str]:
    return ["x" if each in families else "" for each in PROGRAMS]


@dataclass(frozen=True)
class Iptables:
    """The filter table of both families."""

    name: str = "iptables"
    functions: str = FUNCTIONS

    def ask(self, chain: str | None, families: tuple[Family, ...]) -> PartsAsked:
        """The question for the rules: as people read them, and as the programs do."""
        return ask_parts(FUNCTIONS + _RULES + OTHER_RULE_SETS, [chain or "", *_family_flags(families)])

    def ask_raw(self, families: tuple[Family, ...]) -> PartsAsked:
        """The question for the filter table as `iptables-restore` takes it."""
        return ask_parts(_RAW, _family_flags(families))

    def table(self, parts: Mapping[str, str], family: Family) -> Table:
        """A family's rules."""
        return parse(family, parts.get(f"{family}_rules", ""))

    def add(self, rule: FilterRule, table: Table) -> list[Command]:
        """Put a rule where it takes effect."""
        place = place_of(rule, table)
        if place.standing:
            return []
        where = ["-I", rule.chain, str(place.number)] if place.number else ["-A", rule.chain]
        return [_on(rule.family, *where, *words_of(rule))]

    def delete(self, rule: FilterRule) -> Command:
        """Take the rule with this number away."""
        return _on(rule.family, "-D", rule.chain, str(rule.number))

    def flush(self, family: Family, chain: str | None, _table: Table) -> list[Command]:
        """Take all rules away, of a chain or of the table; policies stay."""
        return [_on(family, "-F", *([chain] if chain else []))]

    def policy(self, family: Family, chain: str, target: str, table: Table) -> list[Command]:
        """What becomes of packets that no rule of the chain decides."""
        return [] if table.policies.get(chain) == target else [_on(family, "-P", chain, target)]

    def ask_kept(self) -> PartsAsked:
        """Ask how the machine saves rules for the next boot."""
        return iptables_persistence.ask_kept()

    def save(self, parts: Mapping[str, str]) -> list[tuple[Family, Command]]:
        """Keep the rules as they are for the next boot."""
        return iptables_persistence.save(iptables_persistence.parse_kept(parts))

    def kept_files(self, parts: Mapping[str, str]) -> list[str]:
        """The files that the rules are kept in."""
        return list(iptables_persistence.parse_kept(parts).files.values())

    def restore(self, parts: Mapping[str, str]) -> list[tuple[Family, Command]]:
        """Restore the saved rules."""
        return iptables_persistence.restore(iptables_persistence.parse_kept(parts))


def _on(family: Family, *words: str) -> Command:
    return command(PROGRAMS[family], *WAIT, *words)


def words_of(rule: FilterRule) -> Iterator[str]:
    """The rule in the words that add it, its chain aside."""
    if rule.protocol != "all":
        yield from ("-p", rule.protocol)
    for option, value in (("-s", rule.source), ("-d", rule.destination), ("--dport", rule.ports)):
        if value:
            yield from (option, value)
    if rule.comment:
        yield from ("-m", "comment", "--comment", rule.comment)
    yield from ("-j", rule.target)
