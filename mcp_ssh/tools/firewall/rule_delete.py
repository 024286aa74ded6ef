"""Taking rules away, and what becomes of packets that no rule decides."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from mcp_ssh.errors import Conflict, NotFound
from mcp_ssh.linux.firewall.backend import Firewall
from mcp_ssh.linux.firewall.model import Family, FilterRule, Table
from mcp_ssh.params import ShellText
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.firewall.change import ChangeStep, FirewallChangeParams, FirewallChangeResult, change
from mcp_ssh.tools.firewall.rules import FAMILIES, Chain, IpVersion

# ---- firewall_rule_delete ----------------------------------------------------------------------------------------


class FirewallRuleDeleteParams(FirewallChangeParams):
    chain: Chain = Field(description="Which chain.")
    rule_num: int = Field(ge=1, le=1_000_000, description="Its number in the chain, as firewall_rules tells it.")
    ip_version: IpVersion = Field(default="both", description="Which family; with both, those that have this rule.")
    expected_rule: ShellText | None = Field(
        default=None, max_length=4096, description="Its text as firewall_rules told it; with another nothing is done."
    )
    zone: ShellText | None = Field(
        default=None, max_length=64, description="Its zone as firewall_rules told it; with another nothing is done."
    )


class FirewallRuleDeleteResult(FirewallChangeResult):
    rule: str | None = Field(default=None, description="The rule's text, as it was.")


@tool(
    Risk.DESTROY,
    room="firewall",
    audit="removed rule {rule_num} of {chain}[ in the zone {zone}][ ({ip_version})][: {result.rule}]",
)
async def rule_delete(host: Session, params: FirewallRuleDeleteParams, call: Call) -> FirewallRuleDeleteResult:
    """Delete a firewall rule by its number; give expected_rule, since numbers shift with every change.

    Of firewalld in its zone alone: give the zone too, since rules of two zones can have one text.
    Where that shuts us out the machine undoes it (rolled_back). Running rules only: firewall_save keeps them. Needs
    root; sudo -n is tried.
    """
    meant: list[FilterRule] = []

    def plan(firewall: Firewall, tables: Mapping[Family, Table]) -> list[ChangeStep]:
        meant[:] = _matching_rules(params, tables)
        return [ChangeStep(each.family, firewall.delete(each)) for each in meant]

    changed = await change(host, params, FAMILIES[params.ip_version], params.chain, plan)
    deleted = FirewallRuleDeleteResult.model_validate(changed.model_dump(exclude_unset=True))
    if meant:
        deleted.rule = meant[0].text
    return deleted


def _matching_rules(params: FirewallRuleDeleteParams, tables: Mapping[Family, Table]) -> list[FilterRule]:
    where = {"chain": params.chain, "number": params.rule_num}
    found = [
        rule
        for table in tables.values()
        for rule in table.rules
        if (rule.chain, rule.number) == (params.chain, params.rule_num)
    ]
    there = {rule.family: rule.text for rule in found}
    expected = [rule for rule in found if _as_expected(params, rule)]
    if not expected and {params.expected_rule, params.zone} != {None}:
        raise Conflict(
            f"expected_rule, zone: are not those of rule {params.rule_num} of {params.chain}; nothing was deleted",
            hint="the list changed: read it again with firewall_rules",
            details={**where, "rules": there},
        )
    found = expected
    if not found:
        raise NotFound(
            f"rule_num: {params.chain} has no rule {params.rule_num}", hint="firewall_rules lists them", details=where
        )
    if len({(rule.text.replace(rule.family, ""), rule.zone) for rule in found}) > 1:
        raise Conflict(
            f"rule {params.rule_num} of {params.chain} is not the same in IPv4 and IPv6; nothing was deleted",
            hint="give `ip_version`, `zone` or `expected_rule`",
            details={**where, "rules": there},
        )
    return found


def _as_expected(params: FirewallRuleDeleteParams, rule: FilterRule) -> bool:
    text_is = params.expected_rule is None or rule.text.split() == params.expected_rule.split()
    return text_is and params.zone in {None, rule.zone}


# ---- firewall_flush ----------------------------------------------------------------------------------------------


class FirewallFlushParams(FirewallChangeParams):
    chain: Chain | None = Field(default=None, description="One chain only; omitted: all rules of the filter table.")
    ip_version: IpVersion = Field(default="both", description="Which family.")


@tool(
    Risk.DESTROY,
    room="firewall",
    idempotent=True,
    audit="removed the firewall rules of [{chain}|all chains][ ({ip_version})]",
)
async def flush(host: Session, params: FirewallFlushParams, call: Call) -> FirewallChangeResult:
    """Delete all firewall rules, of one chain or of all; policies stay as they are.

    Of firewalld also services and ports of all zones in use, which go for both families. Where that shuts us out, as
    under a DROP policy, the machine undoes it (rolled_back). Running rules only: firewall_save keeps them. Needs root;
    sudo -n is tried.
    """

    def plan(firewall: Firewall, tables: Mapping[Family, Table]) -> list[ChangeStep]:
        return [
            ChangeStep(family, each)
            for family, table in tables.items()
            if any(params.chain in {None, rule.chain} for rule in table.rules)
            for each in firewall.flush(family, params.chain, table)
        ]

    return await change(host, params, FAMILIES[params.ip_version], params.chain, plan)


# ---- firewall_policy ---------------------------------------------------------------------------------------------


class FirewallPolicyParams(FirewallChangeParams):
    chain: Chain = Field(description="Which chain.")
    target: Literal["ACCEPT", "DROP"] = Field(description="ACCEPT or DROP.")
    ip_version: IpVersion = Field(default="both", description="Which family.")


@tool(Risk.CHANGE, room="firewall", idempotent=True, audit="set the policy of {chain} to {target}[ ({ip_version})]")
async def policy(host: Session, params: FirewallPolicyParams, call: Call) -> FirewallChangeResult:
    """Set what becomes of packets that no rule of a chain decides.

    Of firewalld's INPUT in every zone in use. Where DROP shuts us out the machine undoes it (rolled_back): let your
    address in first. Running rules only: firewall_save keeps them. Needs root; sudo -n is tried.
    """

    def plan(firewall: Firewall, tables: Mapping[Family, Table]) -> list[ChangeStep]:
        return [
            ChangeStep(family, each, safe=params.target == "ACCEPT")
            for family, table in tables.items()
            for each in firewall.policy(family, params.chain, params.target, table)
        ]

    return await change(host, params, FAMILIES[params.ip_version], params.chain, plan)
