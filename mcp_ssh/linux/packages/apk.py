"""apk(8)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from mcp_ssh.linux.lines import lines_of
from mcp_ssh.linux.packages.base import Inventory, ManagerOutput, PackageAction, PackageMatch, PlannedChange, english
from mcp_ssh.shell_command import Command

_PLANNED = re.compile(r"^\(\d+/\d+\) (\w+) (\S+) \((?:\S+ -> )?([^)\s]+)\)")
_UPGRADING = re.compile(r"^\(\d+/\d+\) Upgrading (\S+) \(\S+ -> ([^)\s]+)\)")
_FOUND = re.compile(r"^(\S+)-\d[^-\s]*(?:-r\d+)? - (.*)$")
_COUNT = re.compile(r"^\d+ errors?; ")
_WORDS = {"install": ("add",), "remove": ("del",), "update": ("upgrade",)}
_DATABASES = ("/lib/apk/db/installed", "/usr/lib/apk/db/installed")


@dataclass(frozen=True)
class Apk:
    """Alpine."""

    name: str = "apk"
    locks: tuple[str, ...] = ("/lib/apk/db/lock", "/usr/lib/apk/db/lock")
    plans_as_root: bool = False

    def refresh(self) -> Command:
        """By apk update."""
        return english("apk", "update")

    def change(self, action: PackageAction, names: Sequence[str]) -> Command:
        """By apk add, del or upgrade; del takes what nobody needs any more with it."""
        return english("apk", "--no-progress", *_WORDS[action], *_operands(names))

    def with_dependents(self, names: Sequence[str]) -> Command:
        """By apk del --rdepends."""
        return english("apk", "--no-progress", "del", "--rdepends", *_operands(names))

    def plan(self, action: PackageAction, names: Sequence[str]) -> Command:
        """By apk --simulate."""
        return english("apk", "--no-progress", *_WORDS[action], "--simulate", *_operands(names))

    def parse_plan(self, output: str) -> list[PlannedChange]:
        """Its numbered lines."""
        steps = filter(None, map(_PLANNED.match, lines_of(output)))
        return [PlannedChange(step[2], None if step[1] == "Purging" else step[3]) for step in steps]

    def succeeded(self, said: ManagerOutput) -> bool:
        """Exit code 0; or nothing but the count of packages that were broken before, which is an error of each call."""
        return said.exit_code == 0 or (any(map(_COUNT.match, lines_of(said.output))) and "ERROR:" not in said.output)

    def dependents(self, output: str, names: Sequence[str]) -> list[str]:
        """Those for whose sake a package is not removed."""
        kept = lines_of(output.partition("not removed due to:\n")[2])
        lines = list(takewhile(lambda line: line.startswith(" ") and line.strip(), kept))
        needing = [name for line in lines for name in line.partition(":")[2].split()]
        return [name for name in dict.fromkeys(needing) if name not in names]

    def list_installed(self) -> Command:
        """Names, versions and flags of its database."""
        files = 'for file; do [ ! -r "$file" ] || exec sed -n "/^[PVf]:/p" "$file"; done'
        return english("sh", "-c", f'{files}; echo "no database" >&2; exit 1', "sh", *_DATABASES)

    def inventory(self, output: str) -> Inventory:
        """The flag s says that a script of the package failed."""
        versions: dict[str, str] = {}
        broken: set[str] = set()
        name = ""
        for line in lines_of(output):
            kind, _, value = line.partition(":")
            if kind == "P":
                name = value
            elif kind == "V":
                versions[name] = value
            elif kind == "f" and "s" in value:
                broken.add(name)
        whole = {each: version for each, version in versions.items() if each not in broken}
        return Inventory(whole, frozenset(broken))

    def upgradable(self) -> Command:
        """A simulated upgrade."""
        return self.plan("update", ())

    def newer(self, output: str) -> Mapping[str, str]:
        """Its lines that say upgrading."""
        return {step[1]: step[2] for step in map(_UPGRADING.match, lines_of(output)) if step}

    def search(self, word: str) -> Command:
        """By apk search, in descriptions too."""
        return english("apk", "search", "-v", "-d", "--", word)

    def parse_search(self, output: str) -> list[PackageMatch]:
        """Lines of name-version, a dash and a summary; each version has one."""
        rows = [row for row in map(_FOUND.match, lines_of(output)) if row]
        return list({row[1]: PackageMatch(row[1], row[2]) for row in rows}.values())

    def is_locked(self, output: str) -> bool:
        """It cannot lock its database."""
        return "Unable to lock database" in output


def _operands(names: Sequence[str]) -> tuple[str, ...]:
    return ("--", *names) if names else ()
