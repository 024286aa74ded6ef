"""apt-get(8) and dpkg-query(1)."""

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
    escape_word,
    others_removed,
)
from mcp_ssh.shell_command import Command

_ALL = ("dist-upgrade",)

# Pattern-Only: a name that no package has is not taken for a regular expression, which could remove half the machine.
_EXACT = ("-o", "APT::Cmd::Pattern-Only=true")
_KEEP_CONFIG = ("-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold")


@dataclass(frozen=True)
class Apt:
    """Debian and its relatives. Config files that were changed by hand stay; what is installed takes nothing away."""

    name: str = "apt-get"
    locks: tuple[str, ...] = (
        "/var/lib/dpkg/lock-frontend",
        "/var/lib/dpkg/lock",
        "/var/lib/apt/lists/lock",
        "/var/cache/apt/archives/lock",
    )
    plans_as_root: bool = False

    def refresh(self) -> Command:
        """By apt-get update."""
        return english("apt-get", "-q", "update")

    def change(self, action: PackageAction, names: Sequence[str]) -> Command:
        """By apt-get install, remove or upgrade."""
        return english("DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", *_KEEP_CONFIG, *_words(action, names))

    def with_dependents(self, names: Sequence[str]) -> Command:
        """A removal always takes them."""
        return self.change("remove", names)

    def plan(self, action: PackageAction, names: Sequence[str]) -> Command:
        """By apt-get --simulate."""
        return english("apt-get", "-q", "-s", *_words(action, names))

    def parse_plan(self, output: str) -> list[PlannedChange]:
        """The lines that begin with Inst and Remv."""
        return [
            PlannedChange(name, new if word == "Inst" else None) for word, name, _, new in _parse_simulation(output)
        ]

    def succeeded(self, said: ManagerOutput) -> bool:
        """Exit code 0."""
        return said.exit_code == 0

    def dependents(self, output: str, names: Sequence[str]) -> list[str]:
        """What goes unasked."""
        return others_removed(self.parse_plan(output), names)

    def list_installed(self) -> Command:
        """By dpkg-query -W."""
        return english("dpkg-query", "-W", "-f", r"${db:Status-Abbrev} ${Package} ${Version} ${Architecture}\n")

    def inventory(self, output: str) -> Inventory:
        """The second letter of the state: i, and W and t with triggers to come, are installed; F, H and U half-way.

        The machine's own architecture is that of dpkg. A package of another one is called as apt calls it: `lib:i386`.
        """
        rows = [words for line in lines_of(output) if len(words := line.split()) > 2]
        architectures = {words[1]: words[3] for words in rows if len(words) > 3 and words[1] == "dpkg"}
        native = {"all", "", architectures.get("dpkg", "")}
        versions: dict[str, str] = {}
        broken: set[str] = set()
        for state, package, version, *architecture in rows:
            foreign = architecture[:1] if not native.issuperset(architecture[:1]) else []
            name = ":".join([package, *foreign])
            if state[1:2] in {"i", "W", "t"}:
                versions[name] = version
            elif state[1:2] in {"F", "H", "U"}:
                broken.add(name)
        return Inventory(versions, frozenset(broken), frozenset(f":{each}" for each in native if each))

    def upgradable(self) -> Command:
        """A simulated dist-upgrade: it names those, too, that a mere upgrade keeps back."""
        return english("apt-get", "-q", "-s", *_ALL)

    def newer(self, output: str) -> Mapping[str, str]:
        """Those with an old version in brackets."""
        return {name: new for word, name, old, new in _parse_simulation(output) if word == "Inst" and old and new}

    def search(self, word: str) -> Command:
        """By apt-cache search, which takes an extended regular expression."""
        return english("apt-cache", "search", "--", escape_word(word))

    def parse_search(self, output: str) -> list[PackageMatch]:
        """Lines of a name, a dash and a summary."""
        pairs = [line.partition(" - ") for line in lines_of(output)]
        return [PackageMatch(name, summary) for name, dash, summary in pairs if dash]

    def is_locked(self, output: str) -> bool:
        """It names the lock."""
        return "Could not get lock" in output or "Unable to acquire the dpkg frontend lock" in output


def _parse_simulation(output: str) -> Iterator[tuple[str, str, str, str]]:
    """Lines such as `Inst name [old] (new origin [architecture])`; a version that is missing is empty."""
    for line in lines_of(output):
        word, _, rest = line.partition(" ")
        if word not in {"Inst", "Remv"}:
            continue
        name, _, rest = rest.partition(" ")
        old = ""
        if rest.startswith("["):
            old, _, rest = rest[1:].partition("]")
            rest = rest.lstrip()
        yield word, name, old, rest[1:].split(" ", 1)[0].rstrip(")") if rest.startswith("(") else ""


def _words(action: PackageAction, names: Sequence[str]) -> tuple[str, ...]:
    if action == "remove":
        return (*_EXACT, "remove", "--", *names)
    if action == "install":
        return (*_EXACT, "--no-remove", "install", "--", *names)
    if names:
        return (*_EXACT, "--no-remove", "--only-upgrade", "install", "--", *names)
    return ("--no-remove", "--with-new-pkgs", "upgrade")
