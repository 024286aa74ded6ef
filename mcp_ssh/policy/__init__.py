"""May this caller do this? Asked once for every call, whichever transport it came through."""

from collections.abc import Collection
from dataclasses import replace

from mcp_ssh.config.models import AuthConfig, SecurityConfig
from mcp_ssh.errors import InvalidInput, Refused
from mcp_ssh.host_patterns import (
    Machine,
    admits,
    is_link_local,
    judges_addresses,
    leads_here,
    literal_names,
    names_outright,
)
from mcp_ssh.messages.suggestions import suggest
from mcp_ssh.params import DryRunParams, Params
from mcp_ssh.policy.limits import CallLimits, Rate
from mcp_ssh.policy.local_places import LocalFolders, LocalPlace, local_place
from mcp_ssh.policy.rules import Rules, rules_for
from mcp_ssh.tool import AnyTool, Caller, Risk, Role

__all__ = [
    "CallLimits",
    "LocalFolders",
    "LocalPlace",
    "Rate",
    "Rules",
    "address_matters",
    "allow",
    "expect_not_local",
    "expect_reach",
    "expect_tools",
    "local_place",
    "may_use_defaults",
    "may_use_identities",
    "needs_confirmation",
    "rules_for",
]


def allow(tool: AnyTool, caller: Caller, *, read_only: bool) -> None:
    """Let the call pass, or say why not.

    Raises:
        Refused: The tool changes machines and this server is read-only, or the caller's role is too low.
    """
    if read_only and tool.risk is not Risk.READ:
        raise Refused(
            f"{tool.name} changes machines, and this server is read-only",
            hint="use a tool that only reads, or start the server without --read-only",
        )
    if caller.role < tool.role:
        bound = "" if caller.hosts is None else "; a token with --host is at most an operator"
        raise Refused(
            f"{tool.name} needs the role {tool.role.name.lower()}; this token has {caller.role.name.lower()}",
            hint=f"use a token with the role {tool.role.name.lower()} (ssh-steward token add NAME --role ROLE){bound}",
        )


def expect_reach(caller: Caller, machine: Machine) -> None:
    """Let the caller go on to this machine, or say why not.

    Raises:
        Refused: Its token is for other machines.
    """
    if not caller.reaches(machine):
        raise Refused(
            f"this token is not for the machine {str(machine)[:255]}",
            hint=f"it is for {', '.join(caller.hosts or ())}; ssh-steward token add NAME --host PATTERN makes another",
        )
    unsure = literal_names(caller.hosts or (), excluding=True) & {*machine.unsure}
    if unsure:
        raise Refused(
            f"this token excludes {', '.join(sorted(unsure))}, which cannot be looked up now, so that it may be the"
            f" machine {str(machine)[:255]}",
            hint="try again when names can be looked up, or make a token that excludes the address as well",
        )


def expect_not_local(caller: Caller, machine: Machine, security: SecurityConfig) -> None:
    """See that a caller from elsewhere does not look around on the machine that this server runs on.

    Raises:
        Refused: The machine is this one, or a link-local address such as a metadata service, and neither the config nor
            the caller's token names it.
    """
    if caller.owner or caller.role is Role.ADMIN or security.allow_local_targets:
        return
    places = (*machine.names, *machine.addresses)
    if not any(leads_here(each) or is_link_local(each) for each in places):
        return
    if caller.hosts is None or not names_outright(machine, caller.hosts):
        raise Refused(
            f"{machine} is the machine of this server itself, or a link-local address, which needs an admin",
            hint="have the owner set security.allow_local_targets, or make a token that names the address",
        )


def address_matters(caller: Caller, machine: Machine) -> bool:
    """Whether the verdict on a machine that has a name depends on where the name leads."""
    if caller.hosts is None:
        return False
    return judges_addresses(caller.hosts, excluding=True) or not admits(replace(machine, addresses=()), caller.hosts)


def needs_confirmation(tool: AnyTool, security: SecurityConfig, params: Params, *, door_confirms: bool) -> bool:
    """Whether a person has to agree to this call first. A dry run is what they are shown to agree to."""
    if isinstance(params, DryRunParams) and params.dry_run:
        return False
    return tool.is_in(security.confirm_tools) or (tool.confirm and door_confirms)


def expect_tools(security: SecurityConfig, tools: Collection[str]) -> None:
    """See that what needs consent is named as tools are: a name that is none would silently ask for nothing.

    Raises:
        InvalidInput: One is not a tool; names those that are spelled nearly so.
    """
    for name in security.confirm_tools:
        if name not in tools:
            # A value of the config: in no transport has a tool another name there, so it does not stand in the hint.
            near = suggest(name, tools, most=3)
            meant = f"; did you mean {', '.join(near)}?" if near else ""
            raise InvalidInput(
                f"security.confirm_tools: there is no tool {name[:80]!r}{meant}", hint="`ssh-steward tools` lists them"
            )


def may_use_identities(caller: Caller, machine: Machine, security: SecurityConfig) -> bool:
    """Whether the caller may log in to the machine with key files or the agent of this server's owner."""
    if caller.owner or caller.role is Role.ADMIN:
        return True
    unsure = literal_names(security.allow_server_identities, excluding=True) & {*machine.unsure}
    return not unsure and admits(machine, security.allow_server_identities)


def may_use_defaults(host: str | None, username: str | None, auth: AuthConfig) -> bool:
    """Whether a call may use the configured secrets: they go to the configured host and account, never elsewhere."""
    return host in {None, "", auth.default_host} and username in {None, "", auth.default_username}
