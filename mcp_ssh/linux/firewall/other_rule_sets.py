"""Rule sets beside the firewall that the tools change: they can drop what it accepts.

They are the other variant of iptables (legacy beside nf_tables, or the reverse) and the tables of nft that neither
iptables nor firewalld keeps.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from mcp_ssh.linux.firewall.iptables import parse
from mcp_ssh.linux.firewall.model import Family, FilterRule, RuleSet, Table
from mcp_ssh.linux.firewall.nft_rules import LIMIT, parse_nft
from mcp_ssh.linux.firewall.placement import place_of

_CHAINS = ("INPUT", "OUTPUT", "FORWARD")
_DROPPING = {"DROP", "REJECT", "QUEUE", "NFQUEUE"}
_TABLES = {"filter", "nat", "mangle", "raw", "security"}
_PROGRAMS: Mapping[Family, str] = {"ipv4": "iptables", "ipv6": "ip6tables"}


def find_other_rule_sets(parts: Mapping[str, str], family: Family, own: str) -> list[RuleSet]:
    """Find the rule sets that can drop packets of a family, each reduced to the rules that drop or accept.

    Args:
        parts: What the machine answered to `nft_rules.SCRIPT`.
        family: Whose packets.
        own: The firewall whose rules these stand beside: `iptables` or `firewalld`.
    """
    found: list[RuleSet] = []
    program = _PROGRAMS[family]
    for variant in ("legacy", "nft"):
        found += _parse_saved(parts.get(f"{program}_{variant}", ""), family, f"{program}-{variant}")
    kept_by_iptables = "nf_tables" in parts.get("variant", "") or f"{program}_nft" in parts
    for each in parse_nft(parts.get("nft", ""), family):
        own_table = own == "firewalld" and each.table.endswith(" firewalld")
        if not own_table and not (kept_by_iptables and _is_from_iptables(each)):
            found.append(each)
    cut = {f"{program}_legacy", f"{program}_nft", "nft"} & {
        name for name, text in parts.items() if len(text) >= LIMIT - 4
    }
    found += [_unread(name.replace("_", "-"), family, chain) for name in sorted(cut) for chain in _CHAINS]
    dropping = _find_dropping_chains(found)
    reduced = [_reduce(each, dropping[each.program, each.table]) for each in found if each.chain]
    return [each for each in reduced if each.policy == "DROP" or any(_drops(rule) for rule in each.rules)]


def explain_overruling(sets: Iterable[RuleSet], wanted: FilterRule) -> list[str]:
    """Name what may drop the packets that a rule is to accept, a text for each rule set."""
    texts: list[str] = []
    for each in sets:
        if wanted.target != "ACCEPT" or (each.chain, each.family) != (wanted.chain, wanted.family):
            continue
        place = place_of(replace(wanted, chain=each.name), Table(rules=each.rules))
        if place.before or (each.policy == "DROP" and not place.standing):
            texts.append(f"{describe(each)}: {place.before.text if place.before else 'policy DROP'}")
    return texts


def describe(rule_set: RuleSet) -> str:
    """Name a rule set, such as `nft, table inet filter, chain input`."""
    return f"{rule_set.program}, table {rule_set.table}, chain {rule_set.name}"


def _is_from_iptables(rule_set: RuleSet) -> bool:
    """Whether iptables made a chain of nft: it keeps its own in tables of fixed names, in capital letters."""
    family, _, name = rule_set.table.partition(" ")
    return family in {"ip", "ip6"} and name in _TABLES and rule_set.name.isupper()


def _parse_saved(text: str, family: Family, program: str) -> list[RuleSet]:
    """The filter table, as `iptables-save` writes it."""
    lines = text.partition("*filter\n")[2].partition("\nCOMMIT")[0].splitlines()
    table = parse(family, "\n".join(line.replace(":", "-P ", 1) if line.startswith(":") else line for line in lines))
    by_chain: dict[str, list[FilterRule]] = {name: [] for name in table.policies}
    for rule in table.rules:
        by_chain.setdefault(rule.chain, []).append(rule)
    return [
        RuleSet(program, "filter", family, _hook_of(name), name, table.policies.get(name, ""), tuple(rules))
        for name, rules in by_chain.items()
    ]


def _unread(program: str, family: Family, chain: str) -> RuleSet:
    """What stands for the rules that are too many to be read: any of them may drop any packet."""
    rule = FilterRule(family, chain, 0, "there are more rules than are read", target="DROP", more=True)
    return RuleSet(program, "any", family, chain, chain, "", (rule,))


def _hook_of(chain: str) -> str:
    return chain if chain in _CHAINS else ""


def _find_dropping_chains(found: Iterable[RuleSet]) -> Mapping[tuple[str, str], set[str]]:
    """The chains that drop some packet, also by a jump to another chain, for each table of a program."""
    dropping: dict[tuple[str, str], set[str]] = {}
    callers: dict[tuple[str, str, str], list[str]] = {}
    for each in found:
        names = dropping.setdefault((each.program, each.table), set())
        for rule in each.rules:
            callers.setdefault((each.program, each.table, rule.target), []).append(each.name)
            if rule.target in _DROPPING:
                names.add(each.name)
    for (program, table), names in dropping.items():
        waiting = list(names)
        while waiting:
            new = set(callers.get((program, table, waiting.pop()), ())) - names
            names.update(new)
            waiting += new
    return dropping


def _drops(rule: FilterRule) -> bool:
    return rule.target not in {"ACCEPT", ""}


def _reduce(rule_set: RuleSet, dropping: set[str]) -> RuleSet:
    targets = _DROPPING | dropping | {"ACCEPT"}
    return replace(rule_set, rules=tuple(rule for rule in rule_set.rules if rule.target in targets))
