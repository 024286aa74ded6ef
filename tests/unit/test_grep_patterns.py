r"""Patterns that every grep reads alike: `\d` finds digits with GNU's grep and BusyBox's, what differs is refused."""

import shutil
import subprocess

import pytest

from mcp_ssh.errors import InvalidInput
from mcp_ssh.linux.files.grep_patterns import portable

TEXT = "2024 error one\nfoo\tbar\nddd\nabc-def\na]b\nunder_score\n\\ back\n"
PROGRAMS = [["grep", "-E"], *([["busybox", "grep", "-E"]] if shutil.which("busybox") else [])]


def found(program: list[str], pattern: str) -> list[str]:
    ended = subprocess.run([*program, "-e", pattern], input=TEXT, capture_output=True, text=True, check=False)
    assert ended.returncode < 2, ended.stderr
    assert not ended.stderr
    return ended.stdout.splitlines()


@pytest.mark.requirement("fault.R9a")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        (r"\d+", ["2024 error one"]),
        (r"[\d]+ \w+", ["2024 error one"]),
        (r"foo\tbar", ["foo\tbar"]),
        (r"^\D+$", ["foo\tbar", "ddd", "abc-def", "a]b", "under_score", "\\ back"]),
        (r"\bone\b", ["2024 error one"]),
        (r"(?:ddd|bar)$", ["foo\tbar", "ddd"]),
        (r"^\w+$", ["ddd", "under_score"]),
        (r"c\-d", ["abc-def"]),
        (r"[]]b", ["a]b"]),
        (r"^[\\]", ["\\ back"]),
        ("[[:digit:]]{4}", ["2024 error one"]),
    ],
)
def test_a_pattern_of_perl_finds_what_it_means(program: list[str], pattern: str, lines: list[str]) -> None:
    assert found(program, portable(pattern)) == lines


@pytest.mark.requirement("fault.R9a")
@pytest.mark.parametrize(
    "pattern", [r"(a)\1", r"(?=a)", r"(?i)a", r"\p{L}", r"\x41", r"[\]]", r"[\-a]", r"\Aa", r"\Qa", "a\\", r"a\n"]
)
def test_what_greps_read_differently_is_refused_with_a_way_on(pattern: str) -> None:
    with pytest.raises(InvalidInput) as error:
        portable(pattern)
    assert error.value.message.startswith("pattern: ")
    assert error.value.hint


@pytest.mark.parametrize(
    "pattern", [r"a\.b", "a(b|c)+", "[^]a]", "^$", r"\(x\)", "[a-z]{2,3}", r"\<a\>", "[[:space:]]"]
)
def test_what_every_grep_reads_alike_stays_as_it_is(pattern: str) -> None:
    assert portable(pattern) == pattern
