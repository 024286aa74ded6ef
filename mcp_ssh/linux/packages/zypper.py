"""zypper(8); rpm(8) for what is installed."""

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mcp_ssh.linux.lines import LINE_LIMIT
from mcp_ssh.linux.packages.base import (
    Inventory,
    ManagerOutput,
    PackageAction,
    PackageMatch,
    PlannedChange,
    english,
    inventory_of_rpms,
    others_removed,
)
from mcp_ssh.shell_command import Command

_DONE = {0, 102, 103, 106}
"""Done; done, and the machine or zypper itself should restart; done, without a repository that could not be read."""


@dataclass(frozen=True)
class Zypper:
    """openSUSE and SLES."""

    name: str = "zypper"
    locks: tuple[str, ...] = ("/run/zypp.pid", "/var/run/zypp.pid")
    plans_as_root: bool = True

    def refresh(self) -> Command:
        """By zypper refresh."""
        return english("zypper", "--non-interactive", "refresh")

    def change(self, action: PackageAction, names: Sequence[str]) -> Command:
        """By zypper install, remove or update."""
        return english("zypper", "--non-interactive", *_words(action), *_operands(names))

    def with_dependents(self, names: Sequence[str]) -> Command:
        """A removal always takes them."""
        return self.change("remove", names)

    def plan(self, action: PackageAction, names: Sequence[str]) -> Command:
        """By zypper --dry-run."""
        return english("zypper", "--non-interactive", "--xmlout", *_words(action), "--dry-run", *_operands(names))

    def parse_plan(self, output: str) -> list[PlannedChange]:
        """The solvables of the summary."""
        found: list[PlannedChange] = []
        for section, body in _sections(output):
            gone = section == "remove"
            packages = [each for each in _tags("solvable", body) if each.get("type") == "package"]
            found += [PlannedChange(each.get("name", ""), None if gone else each.get("edition")) for each in packages]
        return found

    def succeeded(self, said: ManagerOutput) -> bool:
        """Some codes of 100 and more are no failures."""
        return said.exit_code in _DONE

    def dependents(self, output: str, names: Sequence[str]) -> list[str]:
        """What goes unasked."""
        return others_removed(self.parse_plan(output), names)

    def list_installed(self) -> Command:
        """By rpm -qa."""
        return english("rpm", "-qa", "--qf", r"%{NAME} %{VERSION}-%{RELEASE} %{ARCH}\n")

    def inventory(self, output: str) -> Inventory:
        """A line each."""
        return inventory_of_rpms(output)

    def upgradable(self) -> Command:
        """By zypper list-updates."""
        return english("zypper", "--non-interactive", "--xmlout", "list-updates")

    def newer(self, output: str) -> Mapping[str, str]:
        """The updates of kind package."""
        updates = (each for each in _tags("update", output) if each.get("kind") == "package")
        return {each.get("name", ""): each.get("edition", "") for each in updates}

    def search(self, word: str) -> Command:
        """By zypper search, in summaries too."""
        return english(
            "zypper", "--non-interactive", "--xmlout", "search", "--type", "package", "--search-descriptions",
            "--", word,
        )  # fmt: skip

    def parse_search(self, output: str) -> list[PackageMatch]:
        """The solvables."""
        return [PackageMatch(each.get("name", ""), each.get("summary", "")) for each in _tags("solvable", output)]

    def is_locked(self, output: str) -> bool:
        """It tells who holds the lock."""
        return "is locked by the application" in output


def _words(action: PackageAction) -> tuple[str, ...]:
    return ("remove",) if action == "remove" else (action, "--auto-agree-with-licenses")


def _operands(names: Sequence[str]) -> tuple[str, ...]:
    return ("--", *names) if names else ()


def _sections(text: str) -> Iterator[tuple[str, str]]:
    """The parts of a summary, such as `to-install`, with what stands in them."""
    at = 0
    while (start := text.find("<to-", at)) >= 0:
        name, mark, _ = text[start + 4 : start + 64].partition(">")
        end = text.find(f"</to-{name}>", start) if mark else -1
        if end < 0:
            return
        yield name, text[start + len(name) + 5 : end]
        at = end + 1


def _tags(tag: str, text: str) -> Iterator[dict[str, str]]:
    """The attributes of each tag of the name. Other lines may stand between, so this is not an XML document."""
    for part in text.split(f"<{tag} ")[1:]:
        # Names stand before the quotes, values between them.
        words = part.partition(">")[0][: 4 * LINE_LIMIT].split('"')
        names = [word.strip().removesuffix("=") for word in words[::2]]
        if found := dict(zip(names, map(html.unescape, words[1::2]), strict=False)):
            yield found
