"""Rules that accept, block or log, put where they take effect and added once."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from mcp_ssh.linux.firewall.backend import Firewall
from mcp_ssh.linux.firewall.model import Family, FilterRule, Table
from mcp_ssh.params import ShellText
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.firewall.change import (
    ChangeStep,
    FirewallChangeParams,
    FirewallChangeResult,
    NetworkAddress,
    change,
    families_of,
)
from mcp_ssh.tools.firewall.rules import Chain, IpVersion

Protocol = Literal["tcp", "udp", "icmp", "all"]
PortProtocol = Literal["tcp", "udp"]
RuleTarget = Literal["ACCEPT", "DROP", "REJECT", "LOG"]
SAFE = frozenset({"ACCEPT", "LOG"})
"""Targets of rules that can shut nobody out."""


async def add(
    host: Session, params: FirewallChangeParams, families: tuple[Family, ...], rule: FilterRule
) -> FirewallChangeResult:
    """Put a rule, its family aside, where it takes effect in each of the families."""

    def plan(firewall: Firewall, tables: Mapping[Family, Table]) -> list[ChangeStep]:
        return [
            ChangeStep(family, each, safe=rule.target in SAFE)
            for family, table in tables.items()
            for each in firewall.add(rule.of(family), table)
        ]

    return await change(host, params, families, rule.chain, plan, rule=rule)


def _rule(ports: str, more: str = "") -> str:
    """Return how the history words a rule: what becomes of which packets."""
    return f"{{target}} {{protocol}}[ port {ports}][ from {{source}}]{more}[ ({{ip_version}})]"


class OneRule(FirewallChangeParams):
    chain: Chain = Field(default="INPUT", description="Which chain.")
    protocol: Protocol = Field(default="tcp", description="Which packets.")
    source: NetworkAddress | None = Field(default=None, description="Address or network they come from.")
    target: RuleTarget = Field(default="ACCEPT", description="What becomes of them.")
    ip_version: IpVersion = Field(default="both", description="Which family; an address goes before.")


# ---- firewall_rule_add -------------------------------------------------------------------------------------------


class FirewallRuleAddParams(OneRule):
    port: int | None = Field(default=None, ge=1, le=65535, description="Destination port, of tcp and udp.")
    destination: NetworkAddress | None = Field(default=None, description="Address or network they go to.")
    comment: ShellText | None = Field(
        default=None, max_length=200, description="A note for readers of the rules; firewalld keeps none on INPUT."
    )

    @model_validator(mode="after")
    def _only_these_have_ports(self) -> "FirewallRuleAddParams":
        if self.port is not None and self.protocol not in {"tcp", "udp"}:
            raise ValueError(f"port: {self.protocol} has none; use tcp or udp, or leave it out")
        return self


@tool(
    Risk.CHANGE,
    room="firewall",
    idempotent=True,
    audit=f"added a rule to {{chain}}: {_rule('{port}', '[ to {destination}]')}",
)
async def rule_add(host: Session, params: FirewallRuleAddParams, call: Call) -> FirewallChangeResult:
    """Add a firewall rule where it takes effect, unless it stands already.

    An ACCEPT goes before what would drop its packets, a DROP before what would accept them. In firewalld it goes into
    the default zone and every zone with interfaces or sources, or into none. One that shuts us out is undone by the
    machine (rolled_back). Running rules only: firewall_save keeps them. Needs root; sudo -n is tried.
    """
    rule = FilterRule(
        "ipv4", params.chain, 0, "",
        target=params.target,
        protocol=params.protocol,
        source=params.source,
        destination=params.destination,
        ports=None if params.port is None else str(params.port),
        comment=params.comment,
    )  # fmt: skip
    addresses = {"source": params.source, "destination": params.destination}
    return await add(host, params, families_of(params.ip_version, addresses), rule)


# ---- firewall_rule_add_range -------------------------------------------------------------------------------------


class FirewallRuleAddRangeParams(OneRule):
    protocol: PortProtocol = Field(default="tcp", description="Which packets.")  # pyright: ignore[reportIncompatibleVariableOverride]
    port_start: int = Field(ge=1, le=65535, description="First destination port.")
    port_end: int = Field(ge=1, le=65535, description="Last destination port.")

    @model_validator(mode="after")
    def _starts_before_its_end(self) -> "FirewallRuleAddRangeParams":
        if self.port_start > self.port_end:
            raise ValueError("port_end: must not be below port_start")
        return self


@tool(
    Risk.CHANGE,
    room="firewall",
    idempotent=True,
    audit=f"added a rule to {{chain}}: {_rule('{port_start}:{port_end}')}",
)
async def rule_add_range(host: Session, params: FirewallRuleAddRangeParams, call: Call) -> FirewallChangeResult:
    """Add a firewall rule for a range of ports, where it takes effect.

    As firewall_rule_add otherwise.
    """
    rule = FilterRule(
        "ipv4", params.chain, 0, "",
        target=params.target,
        protocol=params.protocol,
        source=params.source,
        ports=f"{params.port_start}:{params.port_end}",
    )  # fmt: skip
    return await add(host, params, families_of(params.ip_version, {"source": params.source}), rule)


# ---- firewall_allow_port, firewall_block_port --------------------------------------------------------------------


class PortRuleParams(FirewallChangeParams):
    port: int = Field(ge=1, le=65535, description="Port of this machine.")
    protocol: PortProtocol = Field(default="tcp", description="tcp or udp.")
    ip_version: IpVersion = Field(default="both", description="Which family.")


class FirewallAllowPortParams(PortRuleParams):
    source: NetworkAddress | None = Field(default=None, description="Only from this address or network.")


@tool(
    Risk.CHANGE, room="firewall", idempotent=True, audit="opened port {port}/{protocol} for {source}[ ({ip_version})]"
)
async def allow_port(host: Session, params: FirewallAllowPortParams, call: Call) -> FirewallChangeResult:
    """Open a port: its packets are accepted, before any rule that would drop them.

    Running rules only: firewall_save keeps them. Needs root; sudo -n is tried.
    """
    rule = FilterRule(
        "ipv4", "INPUT", 0, "",
        target="ACCEPT", protocol=params.protocol, source=params.source, ports=str(params.port),
    )  # fmt: skip
    return await add(host, params, families_of(params.ip_version, {"source": params.source}), rule)


@tool(Risk.CHANGE, room="firewall", idempotent=True, audit="blocked port {port}/{protocol}[ ({ip_version})]")
async def block_port(host: Session, params: PortRuleParams, call: Call) -> FirewallChangeResult:
    """Close a port: its packets are dropped, before any rule that would accept them.

    Where that shuts us out the machine undoes it (rolled_back). Running rules only: firewall_save keeps them. Needs
    root; sudo -n is tried.
    """
    rule = FilterRule("ipv4", "INPUT", 0, "", target="DROP", protocol=params.protocol, ports=str(params.port))
    return await add(host, params, families_of(params.ip_version, {}), rule)


# ---- firewall_allow_ip, firewall_block_ip ------------------------------------------------------------------------


class AddressRuleParams(FirewallChangeParams):
    ip: NetworkAddress = Field(description="Address or network.")
    ip_version: IpVersion = Field(default="both", description="An address has its own family.")


@tool(Risk.CHANGE, room="firewall", idempotent=True, audit="allowed {ip}")
async def allow_ip(host: Session, params: AddressRuleParams, call: Call) -> FirewallChangeResult:
    """Let an address in: all its packets are accepted, before any rule that would drop them.

    Running rules only: firewall_save keeps them. Needs root; sudo -n is tried.
    """
    rule = FilterRule("ipv4", "INPUT", 0, "", target="ACCEPT", source=params.ip)
    return await add(host, params, families_of(params.ip_version, {"ip": params.ip}), rule)


@tool(Risk.CHANGE, room="firewall", idempotent=True, audit="blocked {ip}")
async def block_ip(host: Session, params: AddressRuleParams, call: Call) -> FirewallChangeResult:
    """Shut an address out: all its packets are dropped, before any rule that would accept them.

    Where that shuts us out the machine undoes it (rolled_back). Running rules only: firewall_save keeps them. Needs
    root; sudo -n is tried.
    """
    rule = FilterRule("ipv4", "INPUT", 0, "", target="DROP", source=params.ip)
    return await add(host, params, families_of(params.ip_version, {"ip": params.ip}), rule)
