"""Scheduled jobs."""

from typing import Annotated

from pydantic import AfterValidator, Field

from mcp_ssh.linux.lines import ROW_LIMIT
from mcp_ssh.linux.parts import Parts
from mcp_ssh.linux.system.cron import Crontab, ForeignCrontab, ask_cron, check_schedule, entry, parse_cron
from mcp_ssh.params import AccountName, CommandLine, DryRunParams, OnSession, Result, ShellText
from mcp_ssh.sessions.query import parts_of
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool

CRON_BYTES = 1024 * 1024
"""The largest table that is read."""


class SystemCronListParams(OnSession):
    user: AccountName | None = Field(default=None, description="Whose jobs; another account's need root.")


class SystemCronListResult(Result):
    jobs: list[str] = Field(description="Lines of the crontab: jobs and settings, without comments.")
    count: int = Field(description="How many there are.")
    truncated: bool | None = Field(default=None, description="True where there are more than are listed.")


@tool(Risk.READ, room="system")
async def cron_list(host: Session, params: SystemCronListParams, call: Call) -> SystemCronListResult:
    """List the scheduled jobs (crontab) of an account of the machine."""
    table = await _ask_crontab(host, "list", "", params.user)
    result = SystemCronListResult(jobs=table.lines[:ROW_LIMIT], count=len(table.lines))
    if len(table.lines) > ROW_LIMIT:
        result.truncated = True
    return result


class SystemCronAddParams(DryRunParams):
    schedule: Annotated[str, AfterValidator(check_schedule)] = Field(
        max_length=256, description="Five fields of crontab, such as `30 2 * * 1-5`, or @daily, @hourly, @reboot …"
    )
    command: CommandLine = Field(
        min_length=1, max_length=4096, description="Command line; a `%` in it needs a backslash."
    )
    user: AccountName | None = Field(default=None, description="Whose job; another account's needs root.")


class SystemCronAddResult(Result):
    success: bool = Field(description="Always true; a failure is an error.")
    entry: str = Field(description="The line of the crontab.")
    changed: bool | None = Field(default=None, description="False where the line was there already, and of a dry run.")
    commands: list[str] | None = Field(default=None, description="With dry_run: what would be done.")


@tool(Risk.CHANGE, room="system", idempotent=True, audit="scheduled[ for {user}] at {schedule}: {command}")
async def cron_add(host: Session, params: SystemCronAddParams, call: Call) -> SystemCronAddResult:
    """Schedule a job with cron. A job that is there already is not added again."""
    line = entry(params.schedule, params.command)
    table = await _ask_crontab(host, "list" if params.dry_run else "add", line, params.user)
    result = SystemCronAddResult(success=True, entry=line, changed=not table.had)
    if params.dry_run:
        result.changed, result.commands = False, [] if table.had else [f"crontab: add {line}"]
    return result


class SystemCronRemoveParams(DryRunParams):
    entry: ShellText = Field(min_length=3, max_length=8192, description="The whole line, as system_cron_list shows it.")
    user: AccountName | None = Field(default=None, description="Whose job; another account's needs root.")


class SystemCronRemoveResult(Result):
    success: bool = Field(description="Always true; a failure is an error.")
    entry: str = Field(description="The line.")
    changed: bool | None = Field(default=None, description="False where there was no such line, and of a dry run.")
    commands: list[str] | None = Field(default=None, description="With dry_run: what would be done.")


@tool(Risk.CHANGE, room="system", idempotent=True, audit="removed the job[ of {user}]: {entry}")
async def cron_remove(host: Session, params: SystemCronRemoveParams, call: Call) -> SystemCronRemoveResult:
    """Remove a scheduled job from a crontab, by its whole line."""
    line = entry("", params.entry, percent=False)
    table = await _ask_crontab(host, "list" if params.dry_run else "remove", line, params.user)
    result = SystemCronRemoveResult(success=True, entry=line, changed=table.had)
    if params.dry_run:
        result.changed, result.commands = False, [f"crontab: remove {line}"] if table.had else []
    return result


async def _ask_crontab(host: Session, does: str, line: str, user: str | None) -> Crontab:
    asked = ask_cron(does, line, user)

    def parse(parts: Parts) -> Crontab:
        return parse_cron(parts, user)

    try:
        return await parts_of(host, asked, parse, limit=CRON_BYTES)
    except ForeignCrontab:
        privileged = await host.as_root()
        if privileged is host:
            raise
        return await parts_of(privileged, asked, parse, limit=CRON_BYTES)
