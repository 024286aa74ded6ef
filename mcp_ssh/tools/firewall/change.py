"""What all changes of the packet filter have in common: read, plan, make, tell."""

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from mcp_ssh.errors import Conflict, InvalidInput, PermissionDenied, RemoteFailed
from mcp_ssh.linux.firewall.backend import Firewall, FirewallChange, choose
from mcp_ssh.linux.firewall.model import Family, FilterRule, Table
from mcp_ssh.linux.firewall.other_rule_sets import RuleSet, find_other_rule_sets
from mcp_ssh.linux.parts import Parts
from mcp_ssh.params import DryRunParams, Result
from mcp_ssh.sessions.query import parts_of
from mcp_ssh.sessions.session import Session
from mcp_ssh.shell_command import Command
from mcp_ssh.tools.firewall.rules import (
    FAMILIES,
    TABLES_BYTES,
    BackendOutput,
    IpVersion,
    code_in,
    drop_absent_family,
    heard_of,
    overrule_warning,
)
from mcp_ssh.tools.firewall.safe_apply import ReportFields, apply_safely


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text.partition("%")[0], strict=False))
    except ValueError as error:
        raise ValueError("must be an IPv4 or IPv6 address, or a network such as 10.0.0.0/8") from error


NetworkAddress = Annotated[str, Field(max_length=64), AfterValidator(_network)]
"""An address or a network, written as iptables writes it."""


class FirewallChangeParams(DryRunParams):
    rollback_s: int = Field(
        default=30,
        ge=1,
        le=300,
        description="Seconds until the old rules come back by themselves, unless a new connection got in first.",
    )

    def time_limit_s(self) -> float:
        """The way back, and getting in again after it."""
        return 120.0 + 2 * self.rollback_s


class FirewallChangeResult(Result):
    backend: str = Field(description="iptables or firewalld.")
    success: bool = Field(
        description="Whether all commands were done, or none was needed; of a dry run, whether it could be planned."
    )
    changed: bool = Field(description="False where it was so already, where the old rules came back, and of a dry run.")
    rolled_back: bool = Field(description="Whether the change shut us out, so that the old rules came back.")
    commands: list[str] = Field(description="What was run, or would be.")
    ipv4: BackendOutput | None = Field(description="What IPv4's program said; null where it was not run.")
    ipv6: BackendOutput | None = Field(description="What IPv6's program said; null where it was not run.")
    error: str | None = Field(description="Why it failed, else null.")
    warning: str | None = Field(
        default=None,
        description="Set where policy objects of firewalld or other rule sets may keep it from having an effect.",
    )
    note: str | None = Field(default=None, description="Set where the machine has no IPv6.")


@dataclass(frozen=True)
class ChangeStep:
    """One command of a change. `safe` where it can shut nobody out."""

    family: Family
    command: Command
    safe: bool = False


SHUT_OUT = "no new connection got in after the change, so the old rules came back"
NOT_BACK = (
    "no new connection got in after the change, and the machine could not put all of its old rules back:"
    " read them with firewall_rules"
)
COMING_BACK = (
    "no new connection got in after the change; the machine had not finished putting its old rules back when it was"
    " last asked: read them with firewall_rules"
)

_AFTER_FAILURE = {
    "withdrawn": "the rules are as they were",
    "torn": "a part of the change could not be taken back: read the rules with firewall_rules",
}

Planner = Callable[[Firewall, Mapping[Family, Table]], Sequence[ChangeStep]]


def families_of(ip_version: IpVersion, addresses: Mapping[str, str | None]) -> tuple[Family, ...]:
    """The families that a rule with these addresses is for.

    Raises:
        InvalidInput: There is none.
    """
    wanted = FAMILIES[ip_version]
    for name, address in addresses.items():
        if address is not None:
            own: Family = "ipv6" if ipaddress.ip_network(address).version == 6 else "ipv4"
            if own not in wanted:
                other = "an ipv4" if own == "ipv6" else "an ipv6"
                raise InvalidInput(f"{name}: is not {other} address", hint="leave `ip_version` out, or give one family")
            wanted = (own,)
    return wanted


@dataclass(frozen=True)
class _State:
    """What the machine's rules are before a change.

    Attributes:
        heard: What each family's program said.
        tables: The rules of the families that could be read.
        sums: Their checksums, by which a change in between is noticed.
        others: Rule sets of other programs.
        absent: The note on a family that the machine does not have.
    """

    heard: dict[Family, BackendOutput]
    tables: dict[Family, Table]
    sums: dict[Family, str]
    others: list[RuleSet]
    absent: dict[str, str]


async def change(
    host: Session,
    params: FirewallChangeParams,
    families: tuple[Family, ...],
    chain: str | None,
    plan: Planner,
    *,
    rule: FilterRule | None = None,
) -> FirewallChangeResult:
    """Read a chain, or all, plan with it, and make the change unless nothing is left to do.

    Args:
        host: Where.
        params: What was asked for.
        families: Whose rules are changed.
        chain: Which chain is read; all of them if none.
        plan: Says what is to be done, given the rules.
        rule: The one that is to take effect, if that is the change.

    Raises:
        PermissionDenied: The rules may not be read.
        Refused: A command is denied on this machine.
        Conflict: The rules changed on the way; nothing was done.
        RemoteFailed: The old rules could not be kept; nothing was done.
    """
    firewall = choose(await host.platform())
    acting = await host.as_root()
    asked = firewall.ask(chain, families)

    def parse(parts: Parts) -> _State:
        present, absent = drop_absent_family(parts, families)
        heard: dict[Family, BackendOutput] = {family: heard_of(parts, family) for family in present}
        readable: list[Family] = [family for family in present if not heard[family].exit_code]
        return _State(
            heard=heard,
            tables={family: firewall.table(parts, family) for family in readable},
            sums={family: parts[f"{family}_sum"].strip() for family in readable},
            others=[each for family in readable for each in find_other_rule_sets(parts, family, firewall.name)],
            absent=absent,
        )

    state = await parts_of(acting, asked, parse, limit=TABLES_BYTES)
    heard, tables = state.heard, state.tables
    failed: dict[Family, BackendOutput] = {family: each for family, each in heard.items() if each.exit_code}
    steps: Sequence[ChangeStep] = plan(firewall, tables) if tables else ()
    for each in steps:
        acting.protect(each.command)
    said: ReportFields = {}
    if steps and not params.dry_run:
        said = await apply_safely(
            acting,
            FirewallChange(
                firewall,
                [(each.family, each.command) for each in steps],
                chain,
                state.sums,
                0 if all(each.safe for each in steps) else params.rollback_s,
            ),
        )
        expect_done(said)
    told = _change_result(firewall, steps, failed, said)
    return told.model_copy(update={**overrule_warning(tables, state.others, chain, rule), **state.absent})


def _change_result(
    firewall: Firewall, steps: Sequence[ChangeStep], failed: Mapping[Family, BackendOutput], said: ReportFields
) -> FirewallChangeResult:
    heard = {**failed, **{family: heard_after(said, family) for family in FAMILIES["both"] if f"{family}_code" in said}}
    rolled_back = is_rolled_back(said)
    wrong = [each.error or "" for each in heard.values() if each.exit_code]
    done = any(not each.exit_code for each in heard.values()) and "withdrawn" not in said
    return FirewallChangeResult(
        backend=firewall.name,
        success=not wrong and "fired" not in said,
        changed=not rolled_back and (done or "torn" in said or "fired" in said),
        rolled_back=rolled_back,
        commands=[each.command.line() for each in steps],
        ipv4=heard.get("ipv4"),
        ipv6=heard.get("ipv6"),
        error=error_of(wrong, said),
    )


def is_rolled_back(said: ReportFields) -> bool:
    """Whether the machine put its old rules back, as far as it said so itself."""
    return "fired" in said and "undone" in said and "unrestored" not in said


def error_of(wrong: Sequence[str], said: ReportFields) -> str | None:
    """What the commands complained of, and what that left behind."""
    if "fired" in said:
        return SHUT_OUT if is_rolled_back(said) else NOT_BACK if "undone" in said else COMING_BACK
    after = [text for word, text in _AFTER_FAILURE.items() if word in said]
    return "; ".join([*wrong, *after]) or None


def heard_after(said: ReportFields, family: Family) -> BackendOutput:
    """What a family's commands said."""
    code, text = code_in(said, family), said[f"{family}_text"].strip()
    return BackendOutput(exit_code=code, output=text, error=(text or f"exit code {code}") if code else None)


def expect_done(said: ReportFields) -> None:
    """Refuse what the machine did not begin with.

    Raises:
        ToolError: Why it did not.
    """
    if "changed" in said:
        raise Conflict(
            "the rules changed while this was planned, so nothing was done",
            hint="read them with firewall_rules, then repeat",
        )
    if "busy" in said:
        raise Conflict(
            "another change of this machine's firewall is being proved; nothing was done",
            hint="repeat when that call has ended",
        )
    if "no_folder" in said:
        raise PermissionDenied("only root may change the firewall", hint="give `become`, or log in as root")
    if "unkept" in said:
        raise RemoteFailed("the rules could not be kept beforehand, so nothing was done")
    if "no_room" in said:
        raise RemoteFailed(
            "the machine could not write the change down, so nothing was done",
            hint="free some space in /run, or /tmp where there is no /run, then repeat",
        )
    if "called_off" in said:
        raise RemoteFailed(
            "the machine had not begun with the change when it was called off, so nothing was changed, nor will be",
            hint="see with system_processes what keeps iptables-save or firewall-cmd waiting, then repeat",
        )
    if "result" not in said and "fired" not in said:
        raise RemoteFailed(
            "the machine did not say what became of the change", hint="read the rules with firewall_rules"
        )
