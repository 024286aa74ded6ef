"""Letting packets in: rules that accept, put where they take effect. Nothing here can cut a way in."""

import ipaddress

from pydantic import Field, IPvAnyAddress

from mcp_ssh.backends import iptables
from mcp_ssh.backends.iptables import Family, FilterRule, Table
from mcp_ssh.backends.placement import allowed_at
from mcp_ssh.commandline import Command, command
from mcp_ssh.errors import InvalidInput, PermissionDenied
from mcp_ssh.params import Planned, Result
from mcp_ssh.ssh.session import Session
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.firewall.rules import FAMILIES, Heard, IpVersion, on_iptables


class AllowIp(Planned):
    ip: IPvAnyAddress = Field(description="Address to let in.")
    ip_version: IpVersion = Field(default="both", description="With an address, its own family alone is changed.")


class Allowed(Result):
    backend: str = Field(description="iptables.")
    success: bool = Field(description="Whether the rule stands now, or would.")
    changed: bool = Field(description="False where it stood already, and of a dry run.")
    commands: list[str] = Field(description="What was run, or would be.")
    ipv4: Heard | None = Field(description="What iptables said; null where it was not run.")
    ipv6: Heard | None = Field(description="What ip6tables said.")


@tool(Risk.CHANGE, idempotent=True)
async def allow_ip(host: Session, params: AllowIp, call: Call) -> Allowed:
    """Let an address in: all its packets are accepted, before any rule that would drop them.

    In the running rules, not the saved ones. Needs root: without become, sudo -n is tried.
    """
    family: Family = "ipv6" if params.ip.version == 6 else "ipv4"
    if family not in FAMILIES[params.ip_version]:
        raise InvalidInput(f"ip: is not an {params.ip_version} address", hint="leave ip_version out")
    await on_iptables(host)
    source = str(ipaddress.ip_network(params.ip.packed))  # without the zone of a link-local address
    rule = FilterRule(family, "INPUT", 0, "", target="ACCEPT", source=source)
    acting = await host.privileged()
    asked = iptables.ask_rules("INPUT", (family,))
    parts = asked.parts((await acting.run(asked.command)).stdout)
    if parts.get(f"{family}_code", "").strip() != "0":
        said = parts.get(f"{family}_text", f"{iptables.PROGRAMS[family]} is not installed").strip()
        raise PermissionDenied(f"the rules cannot be read: {said[:300]}", hint="give become, or log in as root")
    planned = _planned(rule, iptables.parse(family, parts[f"{family}_rules"]))
    heard: dict[str, Heard] = {}
    if planned and not params.dry_run:
        output = await acting.run(planned)
        failed = output.exit_code != 0
        heard[family] = Heard(
            exit_code=output.exit_code,
            output=output.stdout.decode("utf-8", "replace"),
            error=output.error_text if failed else None,
        )
    success = all(each.exit_code == 0 for each in heard.values())
    return Allowed(
        backend="iptables",
        success=success,
        changed=bool(heard) and success,
        commands=[planned.line()] if planned else [],
        ipv4=heard.get("ipv4"),
        ipv6=heard.get("ipv6"),
    )


def _planned(rule: FilterRule, table: Table) -> Command | None:
    place = allowed_at(rule, table)
    if place.standing:
        return None
    where = ["-I", rule.chain, str(place.number)] if place.number else ["-A", rule.chain]
    return command(iptables.PROGRAMS[rule.family], "-w", "5", *where, "-s", rule.source or "", "-j", rule.target)
