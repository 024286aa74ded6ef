"""dnf(8), and yum(8) which takes the same words; rpm(8) for what is installed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mcp_ssh.linux.lines import lines_of
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

_ROW_WORDS = 5
"""Name, architecture, version, repository, size: a row of the table of a transaction, at least."""

_VERBS = {"install": "install", "remove": "remove", "update": "upgrade"}
_ACTIONS = ("Install", "Upgrad", "Remov", "Downgrad", "Reinstall")
_LOCKED = ("already locked by ", "exit_on_lock", "holding the yum lock")


@dataclass(frozen=True)
class Dnf:
    """Fedora, Red Hat and their relatives."""

    name: str = "dnf"
    locks: tuple[str, ...] = ("/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock", "/run/yum.pid")
    plans_as_root: bool = True

    def _dnf(self, *argv: str) -> Command:
        return english(self.name, "--setopt=exit_on_lock=True", *argv)

    def refresh(self) -> Command:
        """By dnf makecache --refresh; yum's makecache has always read them again, and knows no such option."""
        return self._dnf("makecache", *(["--refresh"] if self.name == "dnf" else []))

    def change(self, action: PackageAction, names: Sequence[str]) -> Command:
        """By dnf install, remove or upgrade; a removal takes nothing but the dependents."""
        return self._dnf("-y", "--setopt=clean_requirements_on_remove=False", _VERBS[action], *_operands(names))

    def with_dependents(self, names: Sequence[str]) -> Command:
        """A removal always takes them."""
        return self.change("remove", names)

    def plan(self, action: PackageAction, names: Sequence[str]) -> Command:
        """The same, answered with no."""
        return self._dnf("--assumeno", "--setopt=clean_requirements_on_remove=False", _VERBS[action], *_operands(names))

    def parse_plan(self, output: str) -> list[PlannedChange]:
        """The rows of the table."""
        return [
            PlannedChange(row[0], None if section.startswith("Removing") else row[2]) for section, row in _table(output)
        ]

    def succeeded(self, said: ManagerOutput) -> bool:
        """Exit code 0; 1 where the answer was no."""
        return said.exit_code == 0 or "Operation aborted" in said.output or "Exiting on user command" in said.output

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
        """By dnf check-update."""
        return self._dnf("-q", "check-update")

    def newer(self, output: str) -> Mapping[str, str]:
        """Rows of name.architecture, version and repository; a long row is broken into two lines."""
        found: dict[str, str] = {}
        row: list[str] = []
        for line in lines_of(output.partition("Obsoleting Packages")[0]):
            row = [*row[:3], *line.split()] if line.startswith(" ") else line.split()
            if len(row) == 3 and "." in row[0]:
                found[row[0].rpartition(".")[0]] = row[1]
        return found

    def search(self, word: str) -> Command:
        """By dnf search."""
        return self._dnf("-q", "search", "--", word)

    def parse_search(self, output: str) -> list[PackageMatch]:
        """Lines of name.architecture and summary."""
        found: dict[str, PackageMatch] = {}
        for line in lines_of(output):
            package, mark, summary = line.partition("\t" if "\t" in line else " : ")
            name, dot, architecture = package.strip().rpartition(".")
            if mark and dot and name and " " not in name and _is_architecture(architecture) and summary.strip():
                found[name] = PackageMatch(name, summary.strip())
        return list(found.values())

    def is_locked(self, output: str) -> bool:
        """It tells whom it would wait for."""
        if any(each in output for each in _LOCKED):
            return True
        return any("lock" in line.partition("Failed to obtain ")[2] for line in lines_of(output))


def _is_architecture(word: str) -> bool:
    return len(word) > 1 and word[0].islower() and word.replace("_", "").isalnum()


def _operands(names: Sequence[str]) -> tuple[str, ...]:
    return ("--", *names) if names else ()


def _table(output: str) -> Iterator[tuple[str, list[str]]]:
    """The rows of a transaction's table, each with its section; a long row is broken into two lines."""
    section, row = "", list[str]()
    for line in lines_of(output.partition("Transaction Summary")[0]):
        if line.startswith(_ACTIONS) and line.endswith(":"):
            section, row = line, []
        elif section and line.startswith(" ") and not line.strip().startswith("replacing "):
            row += line.split()
            if len(row) >= _ROW_WORDS:
                yield section, row
                row = []
