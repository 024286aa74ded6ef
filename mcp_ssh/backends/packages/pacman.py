"""pacman(8)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mcp_ssh.backends.packages.manager import Action, Found, Inventory, Planned, Said, english, inventory_of_lines
from mcp_ssh.commandline import Command

_LINE = re.compile(r"^([\w@.+-]+) (\S*\d\S*)$", re.MULTILINE)
_GONE = re.compile(r"^- ([\w@.+-]+)$", re.MULTILINE)
_FOUND = re.compile(r"^[\w.+-]+/(\S+) \S+.*\n\s+(\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Pacman:
    """Arch and its relatives."""

    name: str = "pacman"
    locks: tuple[str, ...] = ("/var/lib/pacman/db.lck",)
    plans_as_root: bool = False

    def refresh(self) -> Command:
        """By pacman -Sy."""
        return english("pacman", "--noconfirm", "-Sy")

    def change(self, action: Action, names: Sequence[str]) -> Command:
        """By pacman -S, -R or -Su."""
        return english("pacman", "--noconfirm", "--noprogressbar", *_words(action, names))

    def with_dependents(self, names: Sequence[str]) -> Command:
        """By pacman -Rc."""
        return english("pacman", "--noconfirm", "--noprogressbar", "-Rc", "--", *names)

    def plan(self, action: Action, names: Sequence[str]) -> Command:
        """By pacman --print, which needs no rights."""
        shown = "- %n" if action == "remove" else "%n %v"
        return english("pacman", "--print", "--print-format", shown, *_words(action, names))

    def planned(self, output: str) -> list[Planned]:
        """A line each."""
        come = [Planned(name, version) for name, version in _LINE.findall(output)]
        return [*come, *(Planned(name, None) for name in _GONE.findall(output))]

    def worked(self, said: Said) -> bool:
        """Exit code 0."""
        return said.exit_code == 0

    def dependents(self, output: str, names: Sequence[str]) -> list[str]:
        """Those whose dependencies would break."""
        needing = re.findall(r"breaks dependency '.*' required by (\S+)", output)
        return [name for name in dict.fromkeys(needing) if name not in names]

    def installed(self) -> Command:
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
        return dict(re.findall(r"^(\S+) \S+ -> (\S+)$", output, re.MULTILINE))

    def search(self, word: str) -> Command:
        """By pacman -Ss, which takes an extended regular expression."""
        return english("pacman", "-Ss", "--", re.sub(r"[.+]", r"\\\g<0>", word))

    def found(self, output: str) -> list[Found]:
        """Two lines each: repository/name with the version, and the summary."""
        return [Found(name, summary) for name, summary in _FOUND.findall(output)]

    def locked(self, output: str) -> bool:
        """It cannot lock its database."""
        return "lock database" in output


def _words(action: Action, names: Sequence[str]) -> tuple[str, ...]:
    if action == "remove":
        return ("-R", "--", *names)
    return ("-S", "--needed", "--", *names) if names else ("-Su",)
