"""Rules of nft(8), as `nft list ruleset` prints them, read into the terms of iptables; and how to read them.

A packet is let in only where every base chain of its hook lets it in, whichever program made the chain. So a rule set
that another program keeps can drop what the firewall that the tools change accepts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mcp_ssh.linux.firewall.model import Family, FilterRule, RuleSet

LIMIT = 262_144
"""How many bytes of a program's rules are read."""

# The rules of the other variant of iptables and of nft, as far as there are any. `iptables-save` without a table lists
# what there is; `iptables-legacy -S` would create the tables that it reads.
SCRIPT = rf"""
read_others() {{
    part "$1"; "$2" $3 2>/dev/null </dev/null | head -c {LIMIT}
}}
part variant; iptables --version 2>/dev/null
case $(iptables --version 2>/dev/null) in *nf_tables*) other=legacy ;; *) other=nft ;; esac
for program in iptables ip6tables; do
    ! command -v "$program-$other-save" >/dev/null 2>&1 || read_others "${{program}}_$other" "$program-$other-save" ""
done
! command -v nft >/dev/null 2>&1 || read_others nft nft "list ruleset"
"""

_FAMILIES: Mapping[str, tuple[Family, ...]] = {
    "ip": ("ipv4",), "ip6": ("ipv6",), "inet": ("ipv4", "ipv6"), "netdev": ("ipv4", "ipv6"),
}  # fmt: skip
_CHAINS = {
    "input": ("INPUT",), "output": ("OUTPUT",), "forward": ("FORWARD",), "postrouting": ("OUTPUT", "FORWARD"),
    "prerouting": ("INPUT", "FORWARD"), "ingress": ("INPUT", "FORWARD"), "egress": ("OUTPUT", "FORWARD"),
}  # fmt: skip
"""The chains of iptables whose packets a hook sees."""
_TARGETS = {"accept": "ACCEPT", "drop": "DROP", "reject": "REJECT", "queue": "QUEUE"}
_LINE_LIMIT = 4096
_PORTS = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?")
_NETWORK = re.compile(r"[0-9a-f.:]{2,45}(?:/[0-9]{1,3})?")
_QUOTED = re.compile(r'"[^"]*"')


@dataclass
class _Chain:
    """A chain as it is listed; `hook` is empty where packets come to it by a jump only."""

    name: str
    hook: str = ""
    policy: str = ""
    lines: list[str] = field(default_factory=list[str])


def parse_nft(text: str, family: Family) -> list[RuleSet]:
    """Read the base chains of all tables that see packets of a family."""
    found: list[RuleSet] = []
    for (table_family, table), chains in _list_tables(text).items():
        if family not in _FAMILIES.get(table_family, ()):
            continue
        for chain in chains:
            rules = [parse_rule(line, family, chain.name, number) for number, line in enumerate(chain.lines, 1)]
            found += [
                RuleSet("nft", f"{table_family} {table}", family, to, chain.name, chain.policy, tuple(rules))
                for to in _CHAINS.get(chain.hook, ("",))
            ]
    return found


def _list_tables(text: str) -> dict[tuple[str, str], list[_Chain]]:
    tables: dict[tuple[str, str], list[_Chain]] = {}
    chains, chain = list[_Chain](), None
    for line in text.splitlines():
        words = line[:_LINE_LIMIT].split()
        match words:
            case ["table", family, name, "{", *_]:
                chains, chain = tables.setdefault((family, name), []), None
            case ["chain", name, "{", *_]:
                chain = _Chain(name)
                chains.append(chain)
            case ["type", _, "hook", hook, *rest] if chain:
                chain.hook = hook
                chain.policy = "DROP" if "policy drop;" in " ".join(rest) else "ACCEPT"
            case [] | ["}"]:
                chain = None if words else chain
            case _ if chain:
                chain.lines.append(" ".join(words))
            case _:
                pass
    return tables


def parse_rule(line: str, family: Family, chain: str, number: int) -> FilterRule:
    """Read one rule. A condition that none of the fields holds sets `more`."""
    fields: dict[str, str] = {}
    more, at = False, 0
    words = _QUOTED.sub(lambda text: '""' if " " in text[0] else text[0], line).split()
    while at < len(words):
        found, at = _read_statement(words, at, family)
        more = more or found is None
        fields |= found or {}
    return FilterRule(family, chain, number, line, more=more, **fields)


def _read_statement(words: list[str], at: int, family: Family) -> tuple[Mapping[str, str] | None, int]:
    """The fields of the statement at a word, None where no field has it, and where the next statement begins."""
    match words[at : at + 3]:
        case ["counter", "packets", _]:
            return {}, at + 5
        case ["counter", *_]:
            return {}, at + 1
        case ["log" | "comment" | "with", *_]:
            return {}, next((place for place in range(at, len(words)) if words[place] in _TARGETS), len(words))
        case ["accept" | "drop" | "reject" | "queue" as verdict, *_]:
            return {"target": _TARGETS[verdict]}, at + 1
        case ["jump" | "goto", chain, *_]:
            return {"target": chain}, at + 2
        case _:
            return _read_condition(words, at, family)


def _read_condition(words: list[str], at: int, family: Family) -> tuple[Mapping[str, str] | None, int]:
    match words[at : at + 3]:
        case ["iif" | "iifname", name, *_] if name.startswith('"'):
            return {"in_interface": name.strip('"')}, at + 2
        case ["tcp" | "udp" as protocol, "dport", _]:
            return _read_ports(words, at, protocol)
        case ["ip" | "ip6" as table, "saddr" | "daddr" as side, network] if _NETWORK.fullmatch(network):
            own = (table == "ip") == (family == "ipv4")
            return ({"source" if side == "saddr" else "destination": network} if own else None), at + 3
        case _:
            return None, at + 1


def _read_ports(words: list[str], at: int, protocol: str) -> tuple[Mapping[str, str] | None, int]:
    """The ports of `tcp dport 22`, `tcp dport 8000-9000` and `tcp dport { 22, 443 }`, as iptables writes them."""
    end = at + 3
    values = [words[at + 2]]
    if values == ["{"]:
        end = next((place for place in range(end, len(words)) if words[place] == "}"), len(words)) + 1
        values = [word.rstrip(",") for word in words[at + 3 : end - 1]]
    if not values or not all(_PORTS.fullmatch(value) for value in values):
        return None, end
    return {"protocol": protocol, "ports": ",".join(values).replace("-", ":")}, end
