"""What every package manager can be asked, and how its answers are told."""

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from mcp_ssh.linux.lines import lines_of
from mcp_ssh.shell_command import Command, command

PackageAction = Literal["install", "remove", "update"]


@dataclass(frozen=True)
class ManagerOutput:
    """What the manager answered, both streams in one."""

    exit_code: int
    output: str


@dataclass(frozen=True)
class Inventory:
    """The packages of a machine.

    Attributes:
        versions: By name, of those that are installed and whole; several versions of one, such as kernels, in one text.
        broken: Those whose installation began and failed.
        native: What may follow a name and means the machine's own architecture, such as `:amd64` or `.x86_64`. The
            name of a package of another architecture ends with that.
    """

    versions: Mapping[str, str]
    broken: frozenset[str] = frozenset()
    native: frozenset[str] = frozenset()

    def name_of(self, given: str) -> str:
        """The name that a package has here: one of the machine's own architecture goes without it."""
        ending = next((each for each in self.native if given.endswith(each)), "")
        return given if given in self.versions else given.removesuffix(ending)


@dataclass(frozen=True)
class PlannedChange:
    """A change that a simulated transaction names; `to_version` is None for a package that goes."""

    name: str
    to_version: str | None


@dataclass(frozen=True)
class PackageMatch:
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
        """Read again which packages there are."""
        ...

    def change(self, action: PackageAction, names: Sequence[str]) -> Command:
        """One transaction. An update without names is of everything."""
        ...

    def with_dependents(self, names: Sequence[str]) -> Command:
        """Remove packages, and those that need them."""
        ...

    def plan(self, action: PackageAction, names: Sequence[str]) -> Command:
        """The same, simulated."""
        ...

    def parse_plan(self, output: str) -> list[PlannedChange]:
        """What the simulation would do."""
        ...

    def succeeded(self, said: ManagerOutput) -> bool:
        """Whether a transaction, or a simulation of one, came to its end."""
        ...

    def dependents(self, output: str, names: Sequence[str]) -> list[str]:
        """Of a simulated removal: the packages that need the named ones."""
        ...

    def list_installed(self) -> Command:
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

    def parse_search(self, output: str) -> list[PackageMatch]:
        """What it named."""
        ...

    def is_locked(self, output: str) -> bool:
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


def inventory_of_rpms(output: str) -> Inventory:
    """Read lines with a name, a version and an architecture each; the machine's own is the one most of them have."""
    rows = [line.split() for line in output.splitlines()]
    named = [_architecture_of(row) for row in rows]
    counts = Counter(each for each in named if each not in {"", "noarch", "(none)"})
    own = counts.most_common(1)[0][0] if counts else ""
    lines = [
        f"{row[0]}{'' if architecture in {own, '', 'noarch', '(none)'} else '.' + row[2]} {row[1]}"
        for row, architecture in zip(rows, named, strict=True)
        if len(row) > 1
    ]
    native = {f".{each}" for each in ("noarch", own) if each}
    return replace(inventory_of_lines("\n".join(lines)), native=frozenset(native))


def _architecture_of(row: Sequence[str]) -> str:
    """A row's architecture; i386 to i686 are one."""
    architecture = row[2] if len(row) > 2 else ""
    return "i386" if architecture in {"i386", "i486", "i586", "i686"} else architecture


_RPM_ARCHITECTURES = (
    *(".noarch", ".x86_64", ".i386", ".i486", ".i586", ".i686"),
    *(".aarch64", ".armv7hl", ".ppc64le", ".s390x", ".riscv64"),
)


def others_removed(planned: Sequence[PlannedChange], names: Sequence[str]) -> list[str]:
    """Packages that go though nobody named them. What is planned may lack the architecture that a name has."""
    named = {*names, *(name.rpartition(".")[0] for name in names if name.endswith(_RPM_ARCHITECTURES))}
    return [each.name for each in planned if each.to_version is None and each.name not in named]


_UNREAD = (
    "W: Failed to fetch", "W: Some index files failed", "W: GPG error", "W: An error occurred during the signature",
    "Ignoring repositories:", "Skipping repository", "Warning: Skipping repository", "Some of the repositories have",
    "WARNING: opening", "WARNING: updating", "WARNING: fetching", "error: failed retrieving", "error: failed to sync",
)  # fmt: skip
"""How the lines begin by which a manager says that it continues without a repository, most often with exit code 0."""


def unread_repositories(output: str) -> list[str]:
    """The lines that say which repositories could not be read, so that older data or none counts; the first 20."""
    lines = [line.strip()[:500] for line in output.splitlines() if line.strip().startswith(_UNREAD)]
    return list(dict.fromkeys(lines))[:20]


def has_failed(said: ManagerOutput) -> bool:
    """Whether an answer holds a line of error: exit codes alone also say that nothing was found."""
    lines = (line.strip().lower() for line in said.output.splitlines())
    errors = ("e: ", "error", "fatal", '<message type="error"')
    return said.exit_code != 0 and any(line.startswith(errors) for line in lines)


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
