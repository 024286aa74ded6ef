"""What a package manager knows, without changing anything."""

from pydantic import Field

from mcp_ssh.errors import RemoteFailed
from mcp_ssh.linux.lines import ROW_LIMIT
from mcp_ssh.linux.packages import PackageManager, choose
from mcp_ssh.linux.packages.base import ManagerOutput, PackageAction, has_failed, reason, unread_repositories
from mcp_ssh.linux.packages.debian_names import resolve
from mcp_ssh.messages.printable import said_details
from mcp_ssh.params import BecomeParams, Result
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.setup.models import LOCK_WAIT, UNREAD, PackageChange, PackageName, change_of
from mcp_ssh.tools.setup.runner import ManagerRun

# ---- setup_search ------------------------------------------------------------------------------------------------


class SetupUpgradableParams(BecomeParams):
    lock_wait_s: float = LOCK_WAIT

    def time_limit_s(self) -> float:
        """A manager may read its repositories first."""
        return 120.0 + self.lock_wait_s


class SetupSearchParams(SetupUpgradableParams):
    query: PackageName = Field(description="Part of a name or summary.")
    max_results: int = Field(default=100, ge=1, le=1000, description="How many at most.")


class FoundPackage(Result):
    name: str = Field(description="Name, as the machine's package manager has it.")
    summary: str = Field(description="What it is.")
    installed_version: str | None = Field(description="Version on the machine, or null.")


class SetupSearchResult(Result):
    packages: list[FoundPackage] = Field(description="Packages, those with the word in the name first.")
    count: int = Field(description="How many are listed.")
    truncated: bool = Field(description="Whether there are more.")
    package_manager: str = Field(description="Who was asked.")
    unread: list[str] | None = UNREAD


@tool(Risk.READ, room="setup")
async def search(host: Session, params: SetupSearchParams, call: Call) -> SetupSearchResult:
    """Search the packages that the machine's package manager can install, by a part of name or summary.

    It knows what it last read of its repositories; setup_update reads them again.
    """
    manager = choose(await host.platform())
    work = _work(host, manager, call, params)
    said, inventory = await work.ask(manager.search(params.query))
    listed = manager.parse_search(said.output)
    if not listed:
        _refuse_failure(manager, said)
    word = params.query.lower()
    found = sorted(listed, key=lambda each: (word not in each.name.lower(), each.name))
    packages = [
        FoundPackage(name=each.name, summary=each.summary, installed_version=inventory.versions.get(each.name))
        for each in found[: params.max_results]
    ]
    told = SetupSearchResult(
        packages=packages, count=len(packages), truncated=len(found) > len(packages), package_manager=manager.name
    )
    return told.model_copy(update=_unread(said))


# ---- setup_upgradable --------------------------------------------------------------------------------------------


class SetupUpgradableResult(Result):
    packages: list[PackageChange] = Field(description="Packages with a newer version.")
    count: int = Field(description="How many there are.")
    truncated: bool | None = Field(default=None, description="True where there are more than are listed.")
    package_manager: str = Field(description="Who was asked.")
    unread: list[str] | None = UNREAD


@tool(Risk.READ, room="setup")
async def upgradable(host: Session, params: SetupUpgradableParams, call: Call) -> SetupUpgradableResult:
    """List the packages of the machine for which its package manager knows a newer version.

    It knows what it last read of its repositories; setup_update reads them again.
    """
    manager = choose(await host.platform())
    said, inventory = await _work(host, manager, call, params).ask(manager.upgradable())
    newer = manager.newer(said.output)
    if not newer:
        _refuse_failure(manager, said)
    changes = [change_of(name, inventory, version) for name, version in sorted(newer.items())]
    result = SetupUpgradableResult(packages=changes[:ROW_LIMIT], count=len(changes), package_manager=manager.name)
    cut = {"truncated": True} if len(changes) > ROW_LIMIT else {}
    return result.model_copy(update={**_unread(said), **cut})


def _refuse_failure(manager: PackageManager, said: ManagerOutput) -> None:
    """Raise where the manager failed: then that it named nothing does not mean that there is nothing.

    Raises:
        RemoteFailed: It said an error.
    """
    if not manager.succeeded(said) and has_failed(said):
        raise RemoteFailed(
            f"{manager.name} failed",
            hint="`details.said` has its last line; see with command_exec what it says",
            details=said_details(reason(said.output)),
        )


def _unread(said: ManagerOutput) -> dict[str, list[str]]:
    lines = unread_repositories(said.output)
    return {"unread": lines} if lines else {}


# ---- setup_check -------------------------------------------------------------------------------------------------


class SetupCheckParams(SetupUpgradableParams):
    action: PackageAction = Field(
        default="install", description="What would be done; update without packages is of all."
    )
    packages: list[PackageName] = Field(
        default=[], max_length=200, description="Packages; Debian package names are accepted."
    )


class SetupCheckResult(Result):
    success: bool = Field(description="Whether it could be done.")
    changes: list[PackageChange] = Field(description="All that would change, dependencies too.")
    dependents: list[str] = Field(description="Of remove: packages that need the named ones.")
    truncated: bool | None = Field(default=None, description="True where there are more than are listed.")
    skipped: list[str] = Field(description="Names that this distribution has no package for.")
    error: str | None = Field(description="Why it could not be done, else null.")
    package_manager: str = Field(description="Who was asked.")


@tool(Risk.READ, room="setup")
async def check(host: Session, params: SetupCheckParams, call: Call) -> SetupCheckResult:
    """Tell what installing, removing or updating packages would change, dependencies included. Changes nothing.

    dnf, yum and zypper tell root only: without become, sudo -n is tried.
    """
    manager = choose(await host.platform())
    resolved = resolve(manager.name, params.packages)
    if not resolved.names and (params.packages or params.action != "update"):
        return SetupCheckResult(
            success=True, changes=[], dependents=[], skipped=list(resolved.skipped), error=None,
            package_manager=manager.name,
        )  # fmt: skip
    acting = await host.as_root() if manager.plans_as_root else host
    work = _work(acting, manager, call, params)
    said, inventory = await work.ask(manager.plan(params.action, resolved.names))
    dependents = manager.dependents(said.output, resolved.names) if params.action == "remove" else []
    worked = manager.succeeded(said) or bool(dependents)
    planned = manager.parse_plan(said.output)
    result = SetupCheckResult(
        success=worked,
        changes=[change_of(each.name, inventory, each.to_version) for each in planned[:ROW_LIMIT]],
        dependents=dependents[:ROW_LIMIT],
        skipped=list(resolved.skipped),
        error=None if worked else reason(said.output),
        package_manager=manager.name,
    )
    if max(len(planned), len(dependents)) > ROW_LIMIT:
        result.truncated = True
    return result


def _work(host: Session, manager: PackageManager, call: Call, params: SetupUpgradableParams) -> ManagerRun:
    return ManagerRun(host, manager, call, timeout_s=110.0, lock_wait_s=params.lock_wait_s)
