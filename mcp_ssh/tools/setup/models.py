"""What the tools of packages take and tell alike."""

from typing import Annotated, Any, Literal

from pydantic import Field

from mcp_ssh.linux.packages.base import Inventory
from mcp_ssh.messages.validation import word_pattern
from mcp_ssh.params import Result

PackageName = Annotated[
    str,
    Field(
        pattern=word_pattern(
            r"^[A-Za-z0-9]([A-Za-z0-9+._:-]*[A-Za-z0-9+])?$",
            "must be the plain name of a package: letters, digits and + . _ : -, without version or wildcard",
        ),
        max_length=200,
        examples=["nginx"],
    ),
]
"""No sign that a manager reads as more than a name: neither globs nor versions, groups or files."""

LOCK_WAIT: Any = Field(
    default=60, ge=0, le=600, description="Seconds to wait for another package manager at work on the machine."
)
UNREAD: Any = Field(
    default=None,
    description="What the package manager said of repositories that it could not read; it continues without them.",
)


class PackageChange(Result):
    name: str = Field(description="Package.")
    action: Literal["install", "upgrade", "remove"] = Field(description="What happens to it.")
    from_version: str | None = Field(description="Version before, null where there is none.")
    to_version: str | None = Field(description="Version after, null where it goes.")


def change_of(name: str, inventory: Inventory, to_version: str | None) -> PackageChange:
    """The change of a package from what the machine has."""
    before = inventory.versions.get(name)
    action = "remove" if to_version is None else "install" if before is None else "upgrade"
    return PackageChange(name=name, action=action, from_version=before, to_version=to_version)


def changes(before: Inventory, after: Inventory) -> list[PackageChange]:
    """All that differs between two inventories."""
    names = sorted(before.versions.keys() | after.versions.keys())
    differing = [name for name in names if before.versions.get(name) != after.versions.get(name)]
    return [change_of(name, before, after.versions.get(name)) for name in differing]
