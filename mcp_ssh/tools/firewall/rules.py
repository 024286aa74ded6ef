"""Looking at a machine's packet filter: which there is, and its rules."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Literal

from pydantic import Field

from mcp_ssh.errors import PermissionDenied
from mcp_ssh.linux.firewall.backend import choose
from mcp_ssh.linux.firewall.iptables_persistence import PROGRAMS
from mcp_ssh.linux.firewall.model import Family, FilterRule, RuleSet, Table, Zone
from mcp_ssh.linux.firewall.other_rule_sets import describe, explain_overruling, find_other_rule_sets
from mcp_ssh.linux.firewall.placement import overruling
from mcp_ssh.linux.lines import ROW_LIMIT
from mcp_ssh.linux.parts import Parts
from mcp_ssh.params import BecomeParams, OnSession, Result
from mcp_ssh.sessions.query import parts_of
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool

TABLES_BYTES = 8 * 1024 * 1024
"""The most that all tables may have, as people and as programs read them."""

IpVersion = Literal["ipv4", "ipv6", "both"]
Chain = Literal["INPUT", "OUTPUT", "FORWARD"]
FAMILIES: Mapping[IpVersion, tuple[Family, ...]] = {
    "ipv4": ("ipv4",), "ipv6": ("ipv6",), "both": ("ipv4", "ipv6"),
}  # fmt: skip

# ---- firewall_backend --------------------------------------------------------------------------------------------


class Backend(Result):
    backend: str | None = Field(description="firewalld, iptables, nftables, or null.")
    platform: str = Field(description="The distribution.")
    family: str = Field(description="Its family.")
    service_manager: str | None = Field(description="systemd, openrc, sysvinit or null.")


class FirewallBackendResult(Result):
    firewall: Backend = Field(description="What filters packets there.")


@tool(Risk.READ, room="firewall")
async def backend(host: Session, params: OnSession, call: Call) -> FirewallBackendResult:
    """Tell which firewall the machine has: firewalld where it runs, else iptables or nftables."""
    machine = await host.platform()
    return FirewallBackendResult(
        firewall=Backend(
            backend=machine.firewall_backend,
            platform=machine.pretty_name,
            family=machine.family,
            service_manager=machine.service_manager,
        )
    )


# ---- firewall_rules ----------------------------------------------------------------------------------------------


class FirewallRulesParams(BecomeParams):
    chain: Chain | None = Field(default=None, description="One chain only.")
    ip_version: IpVersion = Field(default="both", description="Which family.")


class Rule(Result):
    family: Family = Field(description="ipv4 or ipv6.")
    chain: str = Field(description="Its chain.")
    number: int = Field(description="Its place in the chain, from 1.")
    text: str = Field(description="The rule as the program writes it.")
    target: str = Field(description="ACCEPT, DROP, REJECT, LOG, another chain, or empty.")
    protocol: str = Field(description="tcp, udp, icmp … or all.")
    source: str | None = Field(default=None, description="Address or network; `!` before it negates, here and below.")
    destination: str | None = Field(default=None, description="Address or network.")
    ports: str | None = Field(default=None, description="Destination ports, such as 443 or 8000:9000.")
    source_ports: str | None = Field(default=None, description="Source ports.")
    in_interface: str | None = Field(default=None, description="Where packets come in.")
    out_interface: str | None = Field(default=None, description="Where packets go out.")
    states: str | None = Field(default=None, description="States of a connection.")
    comment: str | None = Field(default=None, description="Its comment.")
    more: bool = Field(default=False, description="Whether it has conditions beyond these fields.")
    zone: str | None = Field(default=None, description="The firewalld zone that it is for; omitted: all packets.")


class ZoneInUse(Result):
    name: str = Field(description="Its name.")
    default: bool = Field(default=False, description="Whether it takes what comes in by no other zone.")
    interfaces: list[str] = Field(description="Interfaces whose packets it takes.")
    sources: list[str] = Field(description="Addresses and networks whose packets it takes, before any interface.")
    policies: dict[str, str] = Field(description="What becomes of packets that none of its rules decides, by family.")


class BackendOutput(Result):
    exit_code: int = Field(description="Of the family's program.")
    output: str = Field(description="What it said.")
    error: str | None = Field(description="The same where it failed, else null.")


class OtherRules(Result):
    program: str = Field(description="Who lists them: iptables-legacy, iptables-nft, nft ….")
    table: str = Field(description="Their table.")
    family: Family = Field(description="ipv4 or ipv6.")
    chain: str = Field(description="Whose packets must pass them too.")
    policy: str = Field(description="What becomes of packets that none of them decides.")
    rules: list[str] = Field(description="The first of those that accept or drop.")
    count: int = Field(description="How many there are.")


class FirewallRulesResult(Result):
    backend: str = Field(description="iptables or firewalld.")
    success: bool = Field(description="Whether all that was asked could be read.")
    ipv4: BackendOutput | None = Field(description="Rules as people read them.")
    ipv6: BackendOutput | None = Field(description="Rules as people read them.")
    rules: list[Rule] = Field(description="The same rules in fields, in order.")
    truncated: bool | None = Field(default=None, description="True where there are more rules than are listed.")
    policies: dict[str, dict[str, str]] = Field(
        description="Policy of each chain, by family; of firewalld's INPUT, the default zone's."
    )
    zones: list[ZoneInUse] | None = Field(
        default=None, description="Of firewalld, the zones that packets come in through, the default one first."
    )
    warning: str | None = Field(
        default=None, description="Set where firewalld's policy objects decide before, or other rule sets drop packets."
    )
    other_rules: list[OtherRules] | None = Field(
        default=None, description="Rules of other programs that can drop what these accept; omitted: none were found."
    )
    note: str | None = Field(default=None, description="Set where the machine has no IPv6.")


@tool(Risk.READ, room="firewall")
async def rules(host: Session, params: FirewallRulesParams, call: Call) -> FirewallRulesResult:
    """List the firewall's rules and policies, numbered, as fields and as text.

    The filter table of iptables; of firewalld, direct rules, the default zone, and zones with interfaces or sources.
    Needs root: without become, sudo -n is tried.
    """
    firewall = choose(await host.platform())
    families = FAMILIES[params.ip_version]
    asked = firewall.ask(params.chain, families)

    def parse(parts: Parts) -> tuple[dict[Family, BackendOutput], dict[Family, Table], list[RuleSet], dict[str, str]]:
        present, absent = drop_absent_family(parts, families)
        heard: dict[Family, BackendOutput] = {family: heard_of(parts, family) for family in present}
        tables: dict[Family, Table] = {family: firewall.table(parts, family) for family in present}
        others = [each for family in present for each in find_other_rule_sets(parts, family, firewall.name)]
        return heard, tables, others, absent

    heard, tables, others, absent = await parts_of(await host.as_root(), asked, parse, limit=TABLES_BYTES)
    found = [rule for table in tables.values() for rule in table.rules]
    cut = len(found) > ROW_LIMIT
    listed = FirewallRulesResult(
        backend=firewall.name,
        success=all(each.exit_code == 0 for each in heard.values()),
        ipv4=heard.get("ipv4"),
        ipv6=heard.get("ipv6"),
        rules=[_rule_result(rule) for rule in found[:ROW_LIMIT]],
        policies={family: dict(table.policies) for family, table in tables.items()},
    )
    shown = [_show_other(each) for each in others if params.chain in {None, each.chain}]
    more = {**({"other_rules": shown} if shown else {}), **absent, **({"truncated": True} if cut else {})}
    return listed.model_copy(update={**_zones(tables), **overrule_warning(tables, others, params.chain, None), **more})


def drop_absent_family(
    parts: Mapping[str, str], families: tuple[Family, ...]
) -> tuple[tuple[Family, ...], dict[str, str]]:
    """Leave out IPv6 where the machine has none, unless it was asked for alone; with the note that tells of it."""
    if "no_ipv6" not in parts or "ipv4" not in families:
        return families, {}
    return ("ipv4",), {"note": "the machine has no IPv6, so there are only rules of IPv4"}


def overrule_warning(
    tables: Mapping[Family, Table], others: Sequence[RuleSet], chain: str | None, rule: FilterRule | None
) -> dict[str, str]:
    """The warning that a rule, or all of them, may not decide, as a field that is left out where there is none."""
    texts = [_warn_of_policies(tables, rule)] if chain in {None, "INPUT"} else []
    if rule:
        found = [text for family in tables for text in explain_overruling(others, rule.of(family))]
    else:
        found = [describe(each) for each in others if chain in {None, each.chain}]
    if found:
        what = "what this rule accepts" if rule else "what these rules accept"
        texts.append(f"other rule sets of the machine may drop {what}: {'; '.join(dict.fromkeys(found))[:2000]}")
    warning = "; ".join(text for text in texts if text)
    return {"warning": warning} if warning else {}


def _warn_of_policies(tables: Mapping[Family, Table], rule: FilterRule | None) -> str:
    if rule:
        found = [overruling(rule.of(family), table) for family, table in tables.items()]
        texts = dict.fromkeys(each.text for each in found if each)
    else:
        texts = dict.fromkeys(each.text.partition(":")[0] for table in tables.values() for each in table.above)
    if not texts:
        return ""
    what = "the rule, which may have no effect" if rule else "its zones"
    return (
        f"policy objects of firewalld decide before {what}: {'; '.join(texts)}"
        " (to see all of them: firewall-cmd --list-all-policies, with command_exec)"
    )


def _show_other(rule_set: RuleSet) -> OtherRules:
    return OtherRules(
        program=rule_set.program,
        table=rule_set.table,
        family=rule_set.family,
        chain=rule_set.chain,
        policy=rule_set.policy,
        rules=[rule.text[:500] for rule in rule_set.rules[:20]],
        count=len(rule_set.rules),
    )


def _zones(tables: Mapping[Family, Table]) -> dict[str, list[ZoneInUse]]:
    policies: dict[str, dict[str, str]] = {}
    zones: dict[str, Zone] = {}
    for family, table in tables.items():
        for zone in table.zones:
            zones[zone.name] = zone
            policies.setdefault(zone.name, {})[family] = zone.policy
    shown = [
        ZoneInUse(
            name=name,
            **({"default": True} if zone.default else {}),
            interfaces=list(zone.interfaces),
            sources=list(zone.sources),
            policies=policies[name],
        )
        for name, zone in zones.items()
    ]
    return {"zones": shown} if shown else {}


def _rule_result(rule: FilterRule) -> Rule:
    return Rule(**{name: value for name, value in asdict(rule).items() if value is not None and value is not False})


def heard_of(parts: Mapping[str, str], family: Family) -> BackendOutput:
    """What a family's program said when its rules were read.

    Raises:
        PermissionDenied: That they may not be.
    """
    if f"{family}_lacks" in parts:
        error = f"{PROGRAMS[family]} is not installed"
        return BackendOutput(exit_code=127, output="", error=error)
    code, text = code_in(parts, family), parts[f"{family}_text"].strip()
    if code and re.search("denied|authorization failed", text.lower()):
        raise PermissionDenied("only root may read the firewall's rules", hint="give `become`, or log in as root")
    return BackendOutput(exit_code=code, output=text, error=(text or f"exit code {code}") if code else None)


def code_in(parts: Mapping[str, str], family: Family) -> int:
    """The exit code that an answer has for a family."""
    text = parts[f"{family}_code"].strip()
    return int(text) if text.isdecimal() else 1


# ---- firewall_raw ------------------------------------------------------------------------------------------------


class FirewallRawParams(BecomeParams):
    ip_version: IpVersion = Field(default="both", description="Which family.")


class FirewallRawResult(Result):
    backend: str = Field(description="iptables or firewalld.")
    ipv4: str | None = Field(
        description="The filter table as iptables-restore takes it, or firewalld's lists; else null."
    )
    ipv6: str | None = Field(description="The same of IPv6.")


@tool(Risk.READ, room="firewall")
async def raw(host: Session, params: FirewallRawParams, call: Call) -> FirewallRawResult:
    """Give the firewall's filter table in the form that iptables-restore takes, for a backup.

    Of firewalld, all zones and direct rules as it lists them. Needs root: without become, sudo -n is tried.
    """
    firewall = choose(await host.platform())
    families = FAMILIES[params.ip_version]
    asked = firewall.ask_raw(families)

    def parse(parts: Parts) -> dict[Family, str | None]:
        return {family: parts[family].strip() + "\n" if code_in(parts, family) == 0 else None for family in families}

    texts = await parts_of(await host.as_root(), asked, parse, limit=TABLES_BYTES)
    return FirewallRawResult(backend=firewall.name, ipv4=texts.get("ipv4"), ipv6=texts.get("ipv6"))
