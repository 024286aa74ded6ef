"""Keeping the rules for the next boot, and going back to those that were kept."""

from pydantic import Field

from mcp_ssh.linux.firewall.backend import FirewallChange, choose
from mcp_ssh.params import DryRunParams, Result
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.firewall.change import FirewallChangeParams, error_of, expect_done, heard_after, is_rolled_back
from mcp_ssh.tools.firewall.rules import FAMILIES
from mcp_ssh.tools.firewall.safe_apply import ReportFields, apply_safely


class FirewallPersistenceResult(Result):
    backend: str = Field(description="iptables or firewalld.")
    success: bool = Field(description="Whether all of it was done; of a dry run, whether it could be planned.")
    rolled_back: bool = Field(description="Whether the rules shut us out, so that those before came back.")
    commands: list[str] = Field(description="What was run, or would be.")
    output: str = Field(description="What the commands said.")
    error: str | None = Field(description="Why it failed, else null.")
    files: list[str] | None = Field(
        default=None, description="The files that the rules are kept in; omitted where firewalld keeps them."
    )


@tool(Risk.CHANGE, room="firewall", idempotent=True, audit="saved the firewall rules")
async def save(host: Session, params: DryRunParams, call: Call) -> FirewallPersistenceResult:
    """Keep the firewall's running rules, so that they are there after a reboot.

    In the files that the machine's own packages read at boot; where there are none, a small service is set up for it.
    Fails where the service that puts them back does not start with the machine. Needs root; sudo -n is tried.
    """
    firewall = choose(await host.platform())
    acting = await host.as_root()
    asked = firewall.ask_kept()
    parts = asked.parts((await acting.run(asked.command)).stdout)
    return await _apply(
        acting, params, FirewallChange(firewall, firewall.save(parts), None, {}, 0), firewall.kept_files(parts)
    )


@tool(Risk.DESTROY, room="firewall", idempotent=True, audit="restored the saved firewall rules")
async def restore(host: Session, params: FirewallChangeParams, call: Call) -> FirewallPersistenceResult:
    """Have the firewall's rules as they were last saved, in the place of those that run.

    Where they shut us out the machine goes back (rolled_back). Needs root; sudo -n is tried.
    """
    firewall = choose(await host.platform())
    acting = await host.as_root()
    asked = firewall.ask_kept()
    parts = asked.parts((await acting.run(asked.command)).stdout)
    change = FirewallChange(firewall, firewall.restore(parts), None, {}, params.rollback_s)
    return await _apply(acting, params, change, firewall.kept_files(parts))


async def _apply(
    acting: Session, params: DryRunParams, change: FirewallChange, files: list[str]
) -> FirewallPersistenceResult:
    for _, each in change.steps:
        acting.protect(each)
    said: ReportFields = {}
    if not params.dry_run:
        expect_done(said := await apply_safely(acting, change))
    heard = [heard_after(said, family) for family in FAMILIES["both"] if f"{family}_code" in said]
    wrong = error_of([each.error or "" for each in heard if each.exit_code], said)
    kept = FirewallPersistenceResult(
        backend=change.firewall.name,
        success=not wrong,
        rolled_back=is_rolled_back(said),
        commands=[each.line() for _, each in change.steps],
        output="\n".join(each.output for each in heard if each.output),
        error=wrong,
    )
    return kept.model_copy(update={"files": files}) if files else kept
