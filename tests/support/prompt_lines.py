"""The command lines and tools that a prompt names in code spans, in the order of its text, for a machine of a kind."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mcp_ssh import prompts
from mcp_ssh.tools import REGISTRY

Kind = Literal["tool", "line"]
Arguments = dict[str, Any]
MARKS = {"systemd": "deb", "GNU": "deb", "Alpine": "alpine", "BusyBox": "alpine", "SELinux": ""}
"""A word with a colon before a span, and the host that the span is for."""
OPTIONAL = {
    "apachectl", "apt-get", "ausearch", "bash", "caddy", "curl", "dnf", "docker", "mysqldump", "nft", "nginx", "pacman",
    "podman", "restorecon", "sqlite3", "ufw", "wget", "zypper",
}  # fmt: skip
"""Programs whose lines are for machines that have them, as the text says: `such as`, `of those that are there`."""
_SPAN = re.compile(r"`([^`]+)`")
# Configuration, JSON, requests, options, parts of names, and placeholders for more than a word are no command lines.
_NO_LINE = re.compile(
    r'[A-Z][A-Za-z0-9]+( [\w-]+)?|\{"?\w.*|"become".*|(GET|POST) .*|-.*|#!.*|[^\s;|&$]+|.*\.\.\.|[A-Za-z]+=.*'
)


@dataclass(frozen=True)
class Step:
    """A tool by name, or a command line."""

    kind: Kind
    text: str


@dataclass
class Job:
    """What a test gives a prompt to run it.

    Attributes:
        values: What the words in capitals stand for.
        before: A script of the machine's owner beforehand.
        after: Another one afterwards.
        tools: Arguments of the tools that are named, one for each time; a list where it is called several times then.
        cwd: The folder of the command lines, once it is there.
    """

    arguments: dict[str, str] = field(default_factory=dict[str, str])
    values: dict[str, str] = field(default_factory=dict[str, str])
    before: str = ":"
    after: str = ":"
    tools: dict[str, Sequence[Arguments | Sequence[Arguments]]] = field(default_factory=dict[str, Any])
    cwd: str | None = None


def steps(name: str, arguments: dict[str, str], host: str) -> Iterator[Step]:
    """The steps of a prompt that are for a host."""
    text = prompts.load()[name].fill(arguments)
    last_end, last_mark = 0, None
    for span in _SPAN.finditer(text):
        between = text[last_end : span.start()]
        mark = last_mark if between.strip() in {"and", "or", ","} else _mark_of(between)
        last_end, last_mark = span.end(), mark
        words = " ".join(span[1].split())
        if mark is not None and MARKS[mark] != host:
            continue
        if words in REGISTRY:
            yield Step("tool", words)
        elif not _NO_LINE.fullmatch(words):
            yield Step("line", words)


def _mark_of(before: str) -> str | None:
    word = before.rstrip().removesuffix("(").rstrip()
    marked = word.endswith((":", "SELinux"))
    last = re.split(r"[\s(,;]+", word.removesuffix(":"))[-1]
    return last if marked and last in MARKS else None


def filled(line: str, values: dict[str, str]) -> str:
    """A line with its words in capitals replaced."""
    return re.sub(r"\b[A-Z][A-Z0-9]+\b", lambda word: values.get(word[0], word[0]), line)


def programs(line: str) -> set[str]:
    """The optional programs that a line names as commands."""
    return set(re.findall(r"(?:^|[;|&{(] ?|&& )([a-z][\w-]+)", line)) & OPTIONAL
