"""Packages installed, removed and updated, with what became of each."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from pydantic import Field

from mcp_ssh.audit import always
from mcp_ssh.errors import Conflict
from mcp_ssh.linux.packages import choose
from mcp_ssh.linux.packages.base import Inventory, ManagerOutput, PackageAction, reason, unread_repositories
from mcp_ssh.linux.packages.debian_names import ESSENTIALS, resolve
from mcp_ssh.linux.system.platform import Platform
from mcp_ssh.params import DryRunParams, Result
from mcp_ssh.sessions.session import Session
from mcp_ssh.shell_command import Command
from mcp_ssh.tool import AuditCase, Call, Risk, tool
from mcp_ssh.tools.setup.models import LOCK_WAIT, UNREAD, PackageChange, PackageName, changes
from mcp_ssh.tools.setup.runner import ManagerRun

PackageChangeStatus = Literal["completed", "partial", "failed", "planned"]


class PackageChangeParams(DryRunParams):
    lock_wait_s: float = LOCK_WAIT
    timeout: float = Field(default=900, ge=1, le=7200, description="Seconds the package manager may take in all.")

    def time_limit_s(self) -> float:
        """The manager's time, and a little to end it and to tell."""
        return self.timeout + self.lock_wait_s + 30


class PackageJob:
    """One call that changes packages: what it did so far, and the lines that tell of it."""

    def __init__(self, host: Session, platform: Platform, call: Call, params: PackageChangeParams) -> None:
        self.host = host
        self.manager = choose(platform)
        self.lines = [f"[PLATFORM] {platform.pretty_name}", f"[PACKAGE_MANAGER] {self.manager.name}"]
        self._work = ManagerRun(
            host, self.manager, call, timeout_s=params.timeout, lock_wait_s=params.lock_wait_s
        )  # fmt: skip
        self.index_read = True
        self.unread: list[str] = []
        self.before = Inventory({})
        self.after = Inventory({})

    async def look(self, names: Sequence[str]) -> list[str]:
        """Read what the machine has, and return the names as they are there, each once."""
        self.before = self.after = await self._work.inventory()
        return list(dict.fromkeys(map(self.before.name_of, names)))

    async def with_rights(self) -> None:
        """From here on as root."""
        self._work.host = await self.host.as_root()

    async def refresh(self) -> None:
        """Read the repositories; `unread` tells why those that could not be read were passed over."""
        said = await self._work.change(self.manager.refresh(), "reading the repositories")
        self.index_read = self.manager.succeeded(said)
        self.unread = unread_repositories(said.output) or ([] if self.index_read else [reason(said.output)])
        failed = "" if self.index_read else f": {reason(said.output)}"
        self.lines.append(f"[UPDATE] exit={said.exit_code}{failed}")
        self.lines += [f"[WARN] {line}" for line in self.unread if self.index_read]

    async def simulate(self, action: PackageAction, names: Sequence[str]) -> ManagerOutput:
        """What it would do."""
        return (await self._work.ask(self.manager.plan(action, names)))[0]

    async def transact(
        self, action: PackageAction, names: Sequence[str], *, dependents: bool = False
    ) -> dict[str, str]:
        """One transaction of all; where it fails, one for each. Gives the reason of each that failed.

        A name that no package has, such as one that another provides, is done where the manager says so.
        """
        said = await self._attempt(action, names, dependents=dependents)
        reasons = {} if self.manager.succeeded(said) else {name: reason(said.output) for name in names or ("",)}
        if reasons and len(names) > 1:
            reasons = await self._one_by_one(action, names, dependents=dependents)
        broken = self.after.broken.intersection(names)
        reasons = {**dict.fromkeys(broken, reason(said.output)), **reasons}
        ordered = {name: reasons[name] for name in names or ("",) if name in reasons}
        return self._unless_done(action, ordered)

    async def _one_by_one(self, action: PackageAction, names: Sequence[str], *, dependents: bool) -> dict[str, str]:
        reasons: dict[str, str] = {}
        for name in names:
            if not self._is_done(action, name):
                said = await self._attempt(action, [name], dependents=dependents)
                if not self.manager.succeeded(said) or name in self.after.broken:
                    reasons[name] = reason(said.output)
        return reasons

    async def _attempt(self, action: PackageAction, names: Sequence[str], *, dependents: bool) -> ManagerOutput:
        command = self.manager.with_dependents(names) if dependents else self.manager.change(action, names)
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "") if names else "everything"
        said = await self._work.change(command, f"{action} {shown}")
        self.after = await self._work.inventory()
        return said

    def _unless_done(self, action: PackageAction, reasons: dict[str, str]) -> dict[str, str]:
        """The reasons, without those of packages that were seen done: a manager fails for others' sake, too."""
        return {name: why for name, why in reasons.items() if not self._is_done(action, name)}

    def _is_done(self, action: PackageAction, name: str) -> bool:
        now, then = self.after.versions.get(name), self.before.versions.get(name)
        if action == "update":
            return now is not None and now != then
        return (now is None and name not in self.after.broken) if action == "remove" else now is not None

    async def changes(self) -> list[PackageChange]:
        """What differs from before. Where something does, the machine may have other programs than it had."""
        found = changes(self.before, self.after)
        if found:
            await self.host.platform(refresh=True)
        return found


def _changed_no_package(_params: PackageChangeParams, said: Mapping[str, Any]) -> bool:
    return said.get("status") == "completed" and said.get("changes") == []


def _audit(what: str) -> tuple[AuditCase, ...]:
    """Return the texts for the history of a tool that changes packages."""
    return (
        (_changed_no_package, f"nothing to change: asked for {what}"),
        (always, f"asked for {what}[; not done: {{result.failed}}]"),
    )


def _status(done: Sequence[str], failed: Sequence[str]) -> PackageChangeStatus:
    return "completed" if not failed else "partial" if done else "failed"


def _more(job: PackageJob, params: PackageChangeParams, commands: Sequence[Command]) -> dict[str, list[str]]:
    """The fields that are left out where there is nothing to say."""
    return {
        **({"commands": _lines(commands)} if params.dry_run else {}),
        **({"unread": job.unread} if job.unread else {}),
    }


def _lines(commands: Sequence[Command]) -> list[str]:
    return [each.line() for each in commands]


# ---- setup_requirements ------------------------------------------------------------------------------------------


class SetupRequirementsParams(PackageChangeParams):
    packages: list[PackageName] = Field(
        default=[], max_length=200, description="Packages; Debian package names are accepted. None: an essentials set."
    )
    update_first: bool = Field(default=True, description="Read the repositories again before.")


class OfPlatform(Result):
    os: str = Field(description="Distribution.")
    family: str = Field(description="Its family.")
    pretty_name: str = Field(description="Its name for people.")
    version_id: str = Field(description="Its version.")


class SetupRequirementsResult(Result):
    status: PackageChangeStatus = Field(description="completed, partial, failed; planned with dry_run.")
    installed: list[str] = Field(description="Packages that are there now.")
    failed: list[str] = Field(description="Packages that are not.")
    output: str = Field(description="A line a step and package.")
    package_manager: str = Field(description="Who did it.")
    platform: OfPlatform = Field(description="What the machine is.")
    resolved_packages: list[str] = Field(description="Names as the machine has them.")
    changes: list[PackageChange] = Field(description="All that changed, dependencies too.")
    unread: list[str] | None = UNREAD
    commands: list[str] | None = Field(default=None, description="With dry_run: the commands.")


@tool(
    Risk.CHANGE,
    room="setup",
    idempotent=True,
    audit=_audit("the installation of [{packages}|the default set: {result.resolved_packages}]"),
)
async def requirements(host: Session, params: SetupRequirementsParams, call: Call) -> SetupRequirementsResult:
    """Install packages with the machine's own package manager: apt-get, dnf, yum, zypper, apk or pacman.

    What is installed already stays as it is. Debian's names are translated. All go in one transaction; where it fails,
    each is tried alone. Needs root: without become, sudo -n is tried.
    """
    platform = await host.platform()
    job = PackageJob(host, platform, call, params)
    manager = job.manager
    resolved = resolve(manager.name, params.packages or ESSENTIALS[manager.name])
    names = await job.look(resolved.names)
    missing = [name for name in names if name not in job.before.versions]
    commands = [manager.refresh()] if params.update_first else []
    commands += [manager.change("install", missing)] if missing else []
    job.lines += [f"[SKIP] {name}: {manager.name} has no such package" for name in resolved.skipped]
    reasons: dict[str, str] = {}
    if not params.dry_run and commands:
        await job.with_rights()
        if params.update_first:
            await job.refresh()
        reasons = await job.transact("install", missing) if missing else {}
    installed = [name for name in names if name not in reasons] if not params.dry_run else []
    if not params.dry_run:
        job.lines += [f"[FAIL] {name}: {reasons[name]}" if name in reasons else f"[OK] {name}" for name in names]
    result = SetupRequirementsResult(
        status="planned" if params.dry_run else _status(installed, list(reasons)),
        installed=installed,
        failed=list(reasons),
        output="\n".join(job.lines),
        package_manager=manager.name,
        platform=OfPlatform(**{name: getattr(platform, name) for name in OfPlatform.model_fields}),
        resolved_packages=names,
        changes=await job.changes(),
    )
    return result.model_copy(update=_more(job, params, commands))


# ---- setup_remove ------------------------------------------------------------------------------------------------


class SetupRemoveParams(PackageChangeParams):
    packages: list[PackageName] = Field(
        min_length=1, max_length=200, description="Packages; Debian package names are accepted."
    )
    dependents: bool = Field(default=False, description="Remove packages that need these, too.")


class PackageChangeResult(Result):
    status: PackageChangeStatus = Field(
        description="completed, partial, failed; planned with dry_run. Without all repositories it is not completed."
    )
    changes: list[PackageChange] = Field(description="All that changed.")
    failed: list[str] = Field(description="Packages that were not changed.")
    output: str = Field(description="A line a step and package.")
    package_manager: str = Field(description="Who did it.")
    unread: list[str] | None = UNREAD
    commands: list[str] | None = Field(default=None, description="With dry_run: the commands.")


@tool(Risk.DESTROY, room="setup", idempotent=True, audit=_audit("the removal of {packages}"))
async def remove(host: Session, params: SetupRemoveParams, call: Call) -> PackageChangeResult:
    """Remove packages with the machine's own package manager; config files stay where it keeps them.

    Refused where other packages need them, unless dependents is true. Needs root: without become, sudo -n is tried.
    """
    job = PackageJob(host, await host.platform(), call, params)
    manager = job.manager
    resolved = resolve(manager.name, params.packages)
    names = await job.look(resolved.names)
    present = [name for name in names if name in job.before.versions or name in job.before.broken]
    job.lines += [f"[SKIP] {name}: {manager.name} has no such package" for name in resolved.skipped]
    job.lines += [f"[SKIP] {name}: not installed" for name in names if name not in present]
    removal = manager.with_dependents if params.dependents else partial(manager.change, "remove")
    commands = [removal(present)] if present else []
    reasons: dict[str, str] = {}
    if present:
        if not params.dry_run or manager.plans_as_root:
            await job.with_rights()
        if not params.dependents:
            await _refuse_dependents(job, present)
        if not params.dry_run:
            reasons = await job.transact("remove", present, dependents=params.dependents)
    return await _change_result(job, params, commands, present, reasons)


async def _refuse_dependents(job: PackageJob, names: list[str]) -> None:
    """Nothing goes that nobody named.

    Raises:
        Conflict: Other packages need the named ones.
    """
    said = await job.simulate("remove", names)
    if others := job.manager.dependents(said.output, names):
        raise Conflict(
            f"packages: {', '.join(others[:20])} would be removed too, or would break; nothing was changed",
            hint="see all of it with setup_check, then name them too or set `dependents: true`",
            details={"dependents": others},
        )


# ---- setup_update ------------------------------------------------------------------------------------------------


class SetupUpdateParams(PackageChangeParams):
    packages: list[PackageName] = Field(
        default=[], max_length=200, description="Packages; Debian package names are accepted. None: all of the machine."
    )
    update_first: bool = Field(default=True, description="Read the repositories again before.")
    index_only: bool = Field(default=False, description="Read the repositories again and change no package.")


@tool(
    Risk.CHANGE,
    room="setup",
    idempotent=True,
    audit=(
        (lambda params, _: params.index_only, "refreshed the package lists"),
        *_audit("an update of [{packages}|all packages]"),
    ),
)
async def update(host: Session, params: SetupUpdateParams, call: Call) -> PackageChangeResult:
    """Bring packages of the machine to their newest version with its own package manager: all, or the named ones.

    Nothing is installed that was not there, but for new dependencies. Needs root: without become, sudo -n is tried.
    """
    job = PackageJob(host, await host.platform(), call, params)
    manager = job.manager
    resolved = resolve(manager.name, params.packages)
    names = await job.look(resolved.names)
    present = [name for name in names if name in job.before.versions]
    absent = [name for name in names if name not in present]
    job.lines += [f"[SKIP] {name}: {manager.name} has no such package" for name in resolved.skipped]
    refresh = params.update_first or params.index_only
    changing = not params.index_only and (bool(present) or not params.packages)
    commands = [manager.refresh()] if refresh else []
    commands += [manager.change("update", present)] if changing else []
    reasons = dict.fromkeys(absent, "not installed")
    if not params.dry_run and commands:
        await job.with_rights()
        if refresh:
            await job.refresh()
        if changing:
            reasons |= await job.transact("update", present)
    return await _change_result(job, params, commands, present, reasons)


async def _change_result(
    job: PackageJob, params: PackageChangeParams, commands: list[Command], names: Sequence[str], reasons: dict[str, str]
) -> PackageChangeResult:
    found = await job.changes()
    done = [name for name in names if name not in reasons] or [each.name for each in found]
    if params.dry_run:
        return PackageChangeResult(
            status="planned", changes=[], failed=[], output="\n".join(job.lines), package_manager=job.manager.name,
            commands=_lines(commands),
        )  # fmt: skip
    status = _status(done, list(reasons))
    if status == "completed" and job.unread:
        # What was asked for, index_only or the newest of all, needs every repository.
        status = "partial" if job.index_read or commands[1:] else "failed"
    job.lines += [f"[OK] {name}" for name in done]
    job.lines += [f"[FAIL] {name or 'all'}: {why}" for name, why in reasons.items()]
    changed = PackageChangeResult(
        status=status,
        changes=found,
        failed=[name for name in reasons if name],
        output="\n".join(job.lines),
        package_manager=job.manager.name,
    )
    return changed.model_copy(update=_more(job, params, commands))
