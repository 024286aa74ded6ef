"""Firewalld (firewall-cmd(1)): its running rules read and changed, and kept as its own commands keep them.

Rules of INPUT are rich rules in every zone that packets come in through: the default zone, and those with interfaces or
sources. Each has a priority that puts it before what would decide otherwise in its zone. A policy is a rule behind all
others, for a zone's own target cannot be changed while it runs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mcp_ssh.errors import Unsupported
from mcp_ssh.linux.firewall.firewalld_rules import LAST, direct_words, parse, policy_rule, priority_of
from mcp_ssh.linux.firewall.iptables import words_of
from mcp_ssh.linux.firewall.model import Family, FilterRule, Table, Zone
from mcp_ssh.linux.firewall.nft_rules import SCRIPT as OTHER_RULE_SETS
from mcp_ssh.linux.firewall.placement import place_of
from mcp_ssh.linux.parts import PartsAsked, ask_parts
from mcp_ssh.shell_command import Command, command, script

_FIRST = -32768

# $1: the policy's rule that goes. $2: the one that comes. $3: the zone.
_POLICY = 'firewall-cmd "--zone=$3" "--remove-rich-rule=$1" && firewall-cmd "--zone=$3" "--add-rich-rule=$2"'

# `state` is asked of the program once and kept in $dir, for each of its calls takes a fifth of a second; it is the
# same for both families. What was kept and what is are compared line by line: zone, option, value. A zone's target can
# be changed only in the kept configuration, so it is put there, loaded, and what was kept there put back.
FUNCTIONS = r"""
listed() {
    firewall-cmd --get-default-zone && firewall-cmd --list-all-zones && echo = && firewall-cmd --direct --get-all-rules
}
state() {
    [ -s "$dir/firewalld" ] || listed >"$dir/firewalld" || { rm -f "$dir/firewalld"; return 1; }
    cat "$dir/firewalld"
}
keep() { state "$1" >/dev/null; }
flat() {
    awk '
        NR == 1 { next }
        direct { print "=", $0; next }
        $0 == "=" { direct = 1; next }
        /^[^ \t]/ { zone = $1; next }
        /^\t/ { sub(/^[ \t]+/, ""); print zone, key, $0; next }
        {
            key = $1 == "rich" ? "rich-rule" : $1
            sub(/s?:$/, "", key)
            if (key ~ /^(forward|masquerade|icmp-block-inversion)$/) { if ($2 == "yes") print zone, key }
            else if (key != "rich-rule") for (i = 2; i <= NF; i++) print zone, key, $i
        }
    '
}
put() {
    verb=$1
    while read -r zone option value; do
        case $zone.$option in
            =.*) eval "set -- $option $value"; firewall-cmd --direct "--$verb-rule" "$@" ;;
            *.target) [ "$verb" = remove ] || target "$zone" "$value" ;;
            *) firewall-cmd "--zone=$zone" "--$verb-$option${value:+=$value}" ;;
        esac </dev/null
    done
}
target() {
    before=$(firewall-cmd --permanent "--zone=$1" --get-target)
    firewall-cmd --permanent "--zone=$1" "--set-target=$2" && firewall-cmd --reload
    firewall-cmd --permanent "--zone=$1" "--set-target=$before"
}
differ() { grep -vxFf "$dir/$1" "$dir/$2"; }
undo() {
    [ ! -e "$dir/old" ] || return 0
    flat <"$dir/firewalld" >"$dir/old"
    listed | flat >"$dir/now"
    if differ now old | grep "^[^ ]* target " >"$dir/targets"; then
        put add <"$dir/targets"
        listed | flat >"$dir/now"
    fi
    differ now old | put add
    differ old now | put remove
    are_back
}
are_back() { [ "$(listed | flat | sort)" = "$(sort "$dir/old")" ]; }
withdraw() {
    [ -s "$dir/firewalld" ] || return 0
    undo
    if are_back; then : >"$dir/withdrawn"; else : >"$dir/torn"; fi
}
"""

# $1, $2: which of the families are asked for. Policy objects are no part of what is compared and put back, since no
# change touches them; they are listed meanwhile.
_RULES = r"""
read_by_people() {
    awk '
        NR == 1 { zone = $1; next }
        $0 == "=" { direct = 1; next }
        /^[^ \t]/ { here = $1 == zone || /active\)$/ }
        here || direct
    '
}
firewall-cmd --list-all-policies 2>/dev/null </dev/null | {
    rules=$(listed 2>/dev/null </dev/null); code=$?
    [ "$code" = 0 ] || rules=$(listed 2>&1 </dev/null)
    for family in $1 $2; do
        part "${family}_text"
        printf "%s\n" "$rules" | if [ "$code" = 0 ]; then read_by_people; else cat; fi
        part "${family}_code"; echo "$code"
        part "${family}_sum"; printf "%s\n" "$rules" | cksum
        part "${family}_rules"; printf "%s\n" "$rules"
    done
    part policies; cat
}
"""

_RAW = r"""
rules=$(listed 2>/dev/null); code=$?
for family in $1 $2; do part "$family"; printf "%s\n" "$rules"; part "${family}_code"; echo "$code"; done
"""


@dataclass(frozen=True)
class Firewalld:
    """The zones that packets come in through, and direct rules."""

    name: str = "firewalld"
    functions: str = FUNCTIONS

    def ask(self, _chain: str | None, families: tuple[Family, ...]) -> PartsAsked:
        """The question for the rules, of every chain."""
        return ask_parts(FUNCTIONS + _RULES + OTHER_RULE_SETS, _both(families))

    def ask_raw(self, families: tuple[Family, ...]) -> PartsAsked:
        """The question for all zones and direct rules as firewall-cmd lists them."""
        return ask_parts(FUNCTIONS + _RAW, _both(families))

    def table(self, parts: Mapping[str, str], family: Family) -> Table:
        """A family's rules. What names no family is in both."""
        return parse(family, parts.get(f"{family}_rules", ""), parts.get("policies", ""))

    def add(self, rule: FilterRule, table: Table) -> list[Command]:
        """Put a rule before what would decide otherwise, in every zone that packets come in through.

        Raises:
            Unsupported: Firewalld has no such rule, or none that would take effect.
        """
        if rule.chain != "INPUT":
            return _add_commands(rule, table, None)
        # A rule that goes before direct rules is itself direct, and then the same for all zones.
        added = {each.line(): each for zone in table.zones for each in _add_commands(rule, table.of(zone), zone)}
        return list(added.values())

    def delete(self, rule: FilterRule) -> Command:
        """Take a rule away, from its zone alone. What names no family goes for both."""
        return _direct("remove", words) if (words := direct_words(rule)) else _removing([rule])

    def flush(self, _family: Family, chain: str | None, table: Table) -> list[Command]:
        """Take all rules away, services and ports too; policies stay."""
        meant = [rule for rule in table.rules if chain in {None, rule.chain}]
        direct = [self.delete(rule) for rule in meant if direct_words(rule)]
        kinds: dict[tuple[str | None, str], list[FilterRule]] = {}
        for rule in meant:
            if not direct_words(rule):
                kinds.setdefault((rule.zone, rule.text.split()[0]), []).append(rule)
        return direct + [_removing(rules) for rules in kinds.values()]

    def policy(self, family: Family, chain: str, target: str, table: Table) -> list[Command]:
        """What becomes of packets that no rule of the chain decides; of INPUT, in every zone that they come in through.

        Raises:
            Unsupported: The chain can have no such policy.
        """
        if chain == "INPUT":
            other = "ACCEPT" if target == "DROP" else "DROP"
            rules = [policy_rule(family, other), policy_rule(family, target)]
            return [script(_POLICY, [*rules, zone.name]) for zone in table.zones if zone.policy != target]
        if table.policies.get(chain) == target:
            return []
        if chain == "FORWARD" and target == "ACCEPT":
            raise Unsupported(
                "firewalld forwards only what its zones and policies say", hint="use firewall-cmd, with command_exec"
            )
        return [_direct("add" if target == "DROP" else "remove", [family, "filter", chain, str(LAST), "-j", "DROP"])]

    def ask_kept(self) -> PartsAsked:
        """Nothing need be asked: firewalld knows by itself how rules are kept."""
        return ask_parts(":\n")

    def save(self, _parts: Mapping[str, str]) -> list[tuple[Family, Command]]:
        """Keep the rules as they are for the next boot."""
        return [("ipv4", command("firewall-cmd", "--runtime-to-permanent"))]

    def kept_files(self, _parts: Mapping[str, str]) -> list[str]:
        """None that firewalld names: it keeps them in its own configuration."""
        return []

    def restore(self, _parts: Mapping[str, str]) -> list[tuple[Family, Command]]:
        """Restore the saved rules."""
        return [("ipv4", command("firewall-cmd", "--reload"))]


def _both(families: tuple[Family, ...]) -> list[str]:
    return [each if each in families else "" for each in ("ipv4", "ipv6")]


def _direct(verb: str, words: list[str]) -> Command:
    return command("firewall-cmd", "--direct", f"--{verb}-rule", *words)


def _add_commands(rule: FilterRule, table: Table, zone: Zone | None) -> list[Command]:
    place = place_of(rule, table)
    if place.standing:
        return []
    before = place.before
    priority = min(0, priority_of(before) if before else 0) - 1
    if priority < _FIRST:
        raise Unsupported(f"no priority is left before {before and before.text!r}", hint="delete that rule first")
    behind_direct = before is not None and bool(direct_words(before))
    if rule.target == "ACCEPT" and (rule.chain == "FORWARD" or (zone and behind_direct)):
        raise Unsupported(
            "firewalld still refuses what a direct rule accepts, so this would not take effect",
            hint="delete the rule that blocks; for FORWARD use its policies, with command_exec",
        )
    if not zone or behind_direct:
        return [_direct("add", [rule.family, "filter", rule.chain, str(priority), *words_of(rule)])]
    if rule.comment:
        raise Unsupported(
            "comment: firewalld's rich rules have none, and what a direct rule with one accepts is still refused",
            hint="leave it out on INPUT; firewall_rules tells each rule's fields and zone",
        )
    return [_in(zone.name, f"--add-rich-rule={' '.join(_rich_words(rule, priority))}")]


def _in(zone: str | None, *options: str) -> Command:
    return command("firewall-cmd", *([f"--zone={zone}"] if zone else []), *options)


def _removing(rules: list[FilterRule]) -> Command:
    """Take away rules of one zone and one kind, which is their first word."""
    kinds = [each.text.partition(" ") for each in rules]
    return _in(
        rules[0].zone,
        *(
            f"--remove-rich-rule=rule {rest}" if kind == "rule" else f"--remove-{kind}={rest}"
            for kind, _, rest in kinds
        ),
    )


def _rich_words(rule: FilterRule, priority: int) -> Iterator[str]:
    yield f'rule priority="{priority}" family="{rule.family}"'
    for name, address in (("source", rule.source), ("destination", rule.destination)):
        if address:
            yield f'{name} address="{address}"'
    if rule.ports:
        yield f'port port="{rule.ports.replace(":", "-")}" protocol="{rule.protocol}"'
    elif rule.protocol != "all":
        yield f'protocol value="{rule.protocol}"'
    yield rule.target.lower()
