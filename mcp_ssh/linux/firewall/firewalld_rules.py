"""Firewalld's rules, as firewall-cmd(1) lists them, told apart in the order in which they take effect.

Chain INPUT is what is let in by the zones that packets come in through, which are the default zone and those that have
interfaces or sources: rich rules (firewalld.richlanguage(5)), services and ports. OUTPUT and FORWARD are direct rules,
which firewalld hands to iptables.
"""

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mcp_ssh.linux.firewall.iptables import conditions
from mcp_ssh.linux.firewall.model import Family, FilterRule, Table, Zone
from mcp_ssh.linux.lines import lines_of, number
from mcp_ssh.shell_command import words

LAST = 32767
"""The priority behind all others. Our rule there, for all packets, stands for the chain's policy."""

_TARGETS = {"default": "REJECT", "%%REJECT%%": "REJECT"}
_LISTS = {"services": "service", "ports": "port", "protocols": "protocol", "source-ports": "source-port"}
"""What a zone accepts beside rich rules, and what one of it is called."""
_SAY_NOTHING = {"priority", "family", "level", "prefix", "type"}
_ACTIONS = {"accept": "ACCEPT", "drop": "DROP", "reject": "REJECT"}
_ORDER = {"LOG": 0, "DROP": 1, "REJECT": 1}
"""What comes first among rich rules of the same priority; what accepts comes after these."""
_ICMP_TYPES = {"icmp-type", "icmp-block"}
_SEPARATORS = str.maketrans("(),", "   ")
_PORTS = re.compile(r"\d+(:\d+)?(,\d+(:\d+)?)*")
_HEAD = re.compile(r'rule(?: priority="(-?\d+)")?(?: family="(\w+)")?')


def policy_rule(family: Family, target: str) -> str:
    """The rich rule that stands for the policy of INPUT."""
    return f'rule priority="{LAST}" family="{family}" {target.lower()}'


def priority_of(rule: FilterRule) -> int:
    """Its priority: that of a rich rule or of a direct one, 0 where it has none."""
    if direct := direct_words(rule):
        return number(direct[3])
    head = _HEAD.match(rule.text)
    return number(head[1] or "0") if head else 0


def direct_words(rule: FilterRule) -> list[str]:
    """The words of a direct rule behind `--add-rule`; none where it is not a direct rule."""
    return _words(rule.text) if rule.text.startswith(f"{rule.family} filter {rule.chain} ") else []


def parse(family: Family, text: str, policies_text: str = "") -> Table:
    """The zones in use and the direct rules, given the answer: the default zone, all zones, `=`, and direct rules.

    Args:
        family: The family that is meant.
        text: The answer.
        policies_text: Policy objects (firewalld.policies(5)) as they are listed.
    """
    listed, _, direct_text = text.partition("\n=\n")
    default, _, listed = listed.partition("\n")
    direct = _directs(family, direct_text)
    zones: list[Zone] = []
    rules = [each for each in direct if not _is_policy(each)]
    for name, values in _in_use(default.strip(), listed):
        interfaces, sources = (tuple(values.get(each, ())) for each in ("interfaces", "sources"))
        zones.append(Zone(name, _policy(family, values), name == default.strip(), interfaces, sources))
        rules += [replace(rule, zone=name) for rule in _zone_rules(family, values)]
    policies = {"INPUT": zones[0].policy if zones else "", "OUTPUT": "ACCEPT", "FORWARD": "REJECT"}
    policies |= {each.chain: each.target for each in direct if _is_policy(each)}
    return Table(policies, tuple(_number_rules(rules)), tuple(zones), tuple(_above(family, policies_text)))


Values = Mapping[str, list[str]]
"""What a zone is made of, by the word that firewall-cmd lists it under."""


def _in_use(default: str, text: str) -> list[tuple[str, Values]]:
    """The zones that packets come in through, the default one first."""
    zones = _listed_by_name(text)
    others = [
        name for name, each in zones.items() if name != default and (each.get("interfaces") or each.get("sources"))
    ]
    return [(name, zones[name]) for name in [default, *others] if name in zones]


def _listed_by_name(text: str) -> dict[str, Values]:
    """Zones, or policy objects. What stands behind a name is listed under `is`: `default`, `active`."""
    zones: dict[str, Values] = {}
    zone, values = dict[str, list[str]](), list[str]()
    for line in lines_of(text):
        if name_and_marks := line.translate(_SEPARATORS).split() if line[:1].strip() else []:
            name, *marks = name_and_marks
            zones[name] = zone = {"is": marks}
        elif line.startswith("  "):
            key, _, rest = line.strip().partition(":")
            zone[key] = values = rest.split()
        elif line.startswith("\t"):
            values.append(line.strip())
    return zones


def _policy(family: Family, zone: Values) -> str:
    for target in ("ACCEPT", "DROP"):
        if policy_rule(family, target) in zone.get("rich rules", ()):
            return target
    target = " ".join(zone.get("target", ()))
    return _TARGETS.get(target, target)


def _above(family: Family, text: str) -> Iterator[FilterRule]:
    """Rules of the active policy objects towards this machine that come before its zones, in order.

    Those about types of ICMP are left out: firewalld has some of its own on every machine, and ours name no types.
    """
    policies = [
        (number((each.get("priority") or ["0"])[0]), name, each) for name, each in _listed_by_name(text).items()
    ]
    for priority, name, policy in sorted(policies, key=lambda each: each[0]):
        if priority >= 0 or "active" not in policy["is"] or "HOST" not in policy.get("egress-zones", ()):
            continue
        target = _TARGETS.get(word := " ".join(policy.get("target", ())), word)
        for rule in [*_rules_of(family, policy), FilterRule(family, "INPUT", 0, f"target {target}", target=target)]:
            if rule.target in _ACTIONS.values() and _ICMP_TYPES.isdisjoint(_words(rule.text)):
                yield replace(rule, text=f"policy {name} (priority {priority}): {rule.text}")


def _zone_rules(family: Family, zone: Values) -> list[FilterRule]:
    own = {policy_rule(family, target) for target in _ACTIONS.values()}
    return [rule for rule in _rules_of(family, zone) if rule.text not in own]


def _rules_of(family: Family, zone: Values) -> list[FilterRule]:
    heads = [(_HEAD.match(text), text) for text in zone.get("rich rules", ())]
    rich = [_rich(family, text) for head, text in heads if head and head[2] in {None, family}]
    listed = [_rule_of_value(family, word, value) for key, word in _LISTS.items() for value in zone.get(key, ())]
    return sorted(listed + rich, key=lambda rule: (priority_of(rule), _ORDER.get(rule.target, 2)))


def _rule_of_value(family: Family, word: str, value: str) -> FilterRule:
    rule = FilterRule(family, "INPUT", 0, f"{word} {value}", target="ACCEPT")
    ports, _, protocol = value.partition("/")
    match word:
        case "port":
            return replace(rule, ports=ports.replace("-", ":"), protocol=protocol)
        case "source-port":
            return replace(rule, source_ports=ports.replace("-", ":"), protocol=protocol)
        case "protocol":
            return replace(rule, protocol=value)
        case _:
            return replace(rule, more=True)


def _rich(family: Family, text: str) -> FilterRule:
    found: dict[str, str] = {}
    target, more, element, negated = "", False, "", ""
    for word in _words(text)[1:]:
        name, equals, value = word.partition("=")
        if not equals and word in _ACTIONS:
            target = _ACTIONS[word]
        elif not equals and word == "log":
            element, target = word, target or "LOG"
        elif word == "NOT":
            negated = "!"
        elif not equals:
            element = word
            more = more or word not in {"source", "destination", "port", "source-port", "protocol"}
        elif field := _field(element, name):
            found[field] = negated + (value.replace("-", ":") if "ports" in field else value)
            negated = ""
        elif name not in _SAY_NOTHING:
            more = True
    return _plain(FilterRule(family, "INPUT", 0, text, target=target, more=more), found)


def _field(element: str, name: str) -> str:
    match element, name:
        case (("source" | "destination"), "address"):
            return element
        case (("port" | "source-port"), "port"):
            return "ports" if element == "port" else "source_ports"
        case (("port" | "source-port"), "protocol") | ("protocol", "value"):
            return "protocol"
        case _:
            return ""


def _plain(rule: FilterRule, found: dict[str, str]) -> FilterRule:
    """The rule with its fields; `more` tells of what is not a number, such as a port's name in a direct rule."""
    known = {field: value for field, value in found.items() if _is_plain(field, value.lstrip("!"))}
    for field in known.keys() & {"source", "destination"}:
        _, negated, address = known[field].rpartition("!")
        known[field] = negated + str(ipaddress.ip_network(address, strict=False))
    return replace(rule, more=rule.more or known.keys() != found.keys(), **known)


def _is_plain(field: str, value: str) -> bool:
    if field in {"ports", "source_ports"}:
        return _PORTS.fullmatch(value) is not None
    if field not in {"source", "destination"}:
        return True
    try:
        ipaddress.ip_network(value, strict=False)
    except ValueError:
        return False
    return True


def _words(text: str) -> list[str]:
    return words(text) or text.split()


def _directs(family: Family, text: str) -> list[FilterRule]:
    rules: list[tuple[int, FilterRule]] = []
    for line in lines_of(text):
        given = _words(line)
        if given[:2] != [family, "filter"] or len(given) < 5:
            continue
        found = dict(conditions(given[4:]))
        more = bool(found.pop("", ""))
        rules.append((number(given[3]), _plain(FilterRule(family, given[2], 0, line.strip(), more=more), found)))
    return [rule for _, rule in sorted(rules, key=lambda each: each[0])]


def _is_policy(rule: FilterRule) -> bool:
    return rule.chain != "INPUT" and direct_words(rule)[3:] == [str(LAST), "-j", rule.target]


def _number_rules(rules: list[FilterRule]) -> Iterator[FilterRule]:
    counts: dict[str, int] = {}
    for rule in rules:
        counts[rule.chain] = counts.get(rule.chain, 0) + 1
        yield replace(rule, number=counts[rule.chain])
