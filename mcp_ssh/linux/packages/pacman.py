"""pacman(8)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_ssh.linux.lines import lines_of
from mcp_ssh.linux.packages.base import (
    Inventory,
    ManagerOutput,
    PackageAction,
    PackageMatch,
    PlannedChange,
    english,
    escape_word,
    inventory_of_lines,
)
from mcp_ssh.shell_command import Command


@dataclass(frozen=True)
class Pacman:
    """Arch and its relatives."""

    name: str = "pacman"
    locks: tuple[str, ...] = ("/var/lib/pacman/db.lck",)
    plans_as_root: bool = False

    def refresh(self) -> Command:
        """By pacman -Sy."""
        return english("pacman", "--noconfirm", "-Sy")

    def change(self, action: PackageAction, names: Sequence[str]) -> Command:
        """By pacman -S, -R or -Su."""
        return english("pacman", "--noconfirm", "--noprogressbar", *_words(action, names))

    def with_dependents(self, names: Sequence[str]) -> Command:
        """By pacman -Rc."""
        return english("pacman", "--noconfirm", "--noprogressbar", "-Rc", "--", *names)

    def plan(self, action: PackageAction, names: Sequence[str]) -> Command:
        """By pacman --print, which needs no rights."""
        shown = "- %n" if action == "remove" else "%n %v"
        return english("pacman", "--print", "--print-format", shown, *_words(action, names))

    def parse_plan(self, output: str) -> list[PlannedChange]:
        """A line each."""
        rows = [line.split(" ") for line in lines_of(output)]
        pairs = [row for row in rows if len(row) == 2]
        come = [
            PlannedChange(name, version) for name, version in pairs if _is_name(name) and any(map(str.isdigit, version))
        ]
        return [*come, *(PlannedChange(name, None) for dash, name in pairs if dash == "-" and _is_name(name))]

    def succeeded(self, said: ManagerOutput) -> bool:
        """Exit code 0."""
        return said.exit_code == 0

    def dependents(self, output: str, names: Sequence[str]) -> list[str]:
        """Those whose dependencies would break."""
        told = (line.partition("breaks dependency '")[2].rpartition("' required by ")[2] for line in lines_of(output))
        needing = [words[0] for words in map(str.split, told) if words]
        return [name for name in dict.fromkeys(needing) if name not in names]

    def list_installed(self) -> Command:
        """By pacman -Q."""
        return english("pacman", "-Q")

    def inventory(self, output: str) -> Inventory:
        """A line each."""
        return inventory_of_lines(output)

    def upgradable(self) -> Command:
        """By pacman -Qu."""
        return english("pacman", "-Qu")

    def newer(self, output: str) -> Mapping[str, str]:
        """Name, old version, arrow, new version."""
        rows = (line.split(" ") for line in lines_of(output))
        return {row[0]: row[3] for row in rows if len(row) == 4 and row[2] == "->"}

    def search(self, word: str) -> Command:
        """By pacman -Ss, which takes an extended regular expression."""
        return english("pacman", "-Ss", "--", escape_word(word))

    def parse_search(self, output: str) -> list[PackageMatch]:
        """Two lines each: repository/name with the version, and the summary."""
        found: list[PackageMatch] = []
        name = ""
        for line in lines_of(output):
            if name and line[:1].isspace() and line.strip():
                found.append(PackageMatch(name, line.strip()))
            # A repository and a name, then the version: a line of a summary begins with blanks.
            words = line.split(" ") if line[:1].strip() else []
            name = words[0].partition("/")[2] if len(words) > 1 else ""
        return found

    def is_locked(self, output: str) -> bool:
        """It cannot lock its database."""
        return "lock database" in output


def _is_name(word: str) -> bool:
    return len(word) > 0 and all(each.isalnum() or each in "_@.+-" for each in word) and word != "-"


def _words(action: PackageAction, names: Sequence[str]) -> tuple[str, ...]:
    if action == "remove":
        return ("-R", "--", *names)
    return ("-S", "--needed", "--", *names) if names else ("-Su",)
