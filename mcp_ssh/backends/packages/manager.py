"""What every package manager can be asked, and how its answers are told."""

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mcp_ssh.commandline import Command, command
from mcp_ssh.probes.lines import lines_of

Action = Literal["install", "remove", "update"]


@dataclass(frozen=True)
class Said:
    """What the manager answered, both streams in one."""

    exit_code: int
    output: str


@dataclass(frozen=True)
class Inventory:
    """The packages of a machine.

    Attributes:
        versions: By name, of those that are installed and whole; several versions of one, such as kernels, in one text.
        broken: Those whose installation began and failed.
    """

    versions: Mapping[str, str]
    broken: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Planned:
    """A change that a simulated transaction names; `to_version` is None for a package that goes."""

    name: str
    to_version: str | None


@dataclass(frozen=True)
class Found:
    """A package that a search named."""

    name: str
    summary: str


class PackageManager(Protocol):
    """A machine's package manager. Commands ask nothing, wait for no lock, and speak English."""

    @property
    def name(self) -> str:
        """Its command."""
        ...

    @property
    def locks(self) -> tuple[str, ...]:
        """The files that its lock is, for finding who holds it."""
        ...

    @property
    def plans_as_root(self) -> bool:
        """Whether even a simulation needs root."""
        ...

    def refresh(self) -> Command:
        """Read anew which packages there are."""
        ...

    def change(self, action: Action, names: Sequence[str]) -> Command:
        """One transaction. An update without names is of everything."""
        ...

    def with_dependents(self, names: Sequence[str]) -> Command:
        """Remove packages, and those that need them."""
        ...

    def plan(self, action: Action, names: Sequence[str]) -> Command:
        """The same, simulated."""
        ...

    def planned(self, output: str) -> list[Planned]:
        """What the simulation would do."""
        ...

    def worked(self, said: Said) -> bool:
        """Whether a transaction, or a simulation of one, came to its end."""
        ...

    def dependents(self, output: str, names: Sequence[str]) -> list[str]:
        """Of a simulated removal: the packages that need the named ones."""
        ...

    def installed(self) -> Command:
        """Ask for all packages."""
        ...

    def inventory(self, output: str) -> Inventory:
        """All packages."""
        ...

    def upgradable(self) -> Command:
        """Ask for what has a newer version, as far as the machine has read."""
        ...

    def newer(self, output: str) -> Mapping[str, str]:
        """The newer versions by name."""
        ...

    def search(self, word: str) -> Command:
        """Look for a word in names and summaries."""
        ...

    def found(self, output: str) -> list[Found]:
        """What it named."""
        ...

    def locked(self, output: str) -> bool:
        """Whether it gave up since somebody else is at work."""
        ...


def english(*argv: str) -> Command:
    """A command that speaks English."""
    return command("env", "LC_ALL=C", *argv)


def escape_word(word: str) -> str:
    """A word as an extended regular expression that means it literally; a package's name holds no other such sign."""
    return word.replace(".", "\\.").replace("+", "\\+")


def inventory_of_lines(output: str) -> Inventory:
    """Of lines with a name and a version each."""
    versions: dict[str, set[str]] = {}
    for line in lines_of(output):
        name, space, version = line.strip().partition(" ")
        if space:
            versions.setdefault(name, set()).add(version)
    return Inventory({name: ", ".join(sorted(each)) for name, each in versions.items()})


def others_removed(planned: Sequence[Planned], names: Sequence[str]) -> list[str]:
    """Packages that go though nobody named them."""
    return [each.name for each in planned if each.to_version is None and each.name not in names]


_REASONS = (
    "E:", "W: Fail", "dpkg: error", "Error", "error", "ERROR", "No provider", "No match", "Fail", "* ",
)  # fmt: skip
REASON_LINES = 1000
"""Lines at the end of what a manager said in which its reason is looked for."""
_TAG = re.compile(r"</?[a-z][^<>]{0,1000}>")


def _is_reason(line: str) -> bool:
    line = line.lstrip()
    count, _, word = line.partition(" ")
    return line.startswith(_REASONS) or (count.isdigit() and word.startswith("error"))


def reason(output: str) -> str:
    """Why a transaction failed: the manager's lines of error, else its last line."""
    said = [line for part in lines_of(output) for line in part.split("\r")]
    if output.startswith("<?xml"):
        said = html.unescape("\n".join(_TAG.sub("\n", line) for line in said[1:])).split("\n")
    lines = [line.rstrip() for line in said if line.strip()][-REASON_LINES:]
    errors = [index for index, line in enumerate(lines) if _is_reason(line)]
    if not errors:
        return lines[-1].strip()[:500] if lines else "it said nothing"
    # A line of error often ends in a colon, and what it is about follows.
    wanted = sorted({each for at in errors for each in (at, at + 1) if each == at or lines[at].endswith(":")})
    return "; ".join(lines[each].strip() for each in wanted if each < len(lines))[-500:]
