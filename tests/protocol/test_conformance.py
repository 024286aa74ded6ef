"""The official conformance suite, all of it, at both eras of the protocol."""

import re
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.protocol.npm import SUITE, fixture_server, run

EXPECTED = Path(__file__).with_name("expected_failures.yml")
ERAS = {"2025-11-25": 33, "2026-07-28": 40}
"""How many scenarios the suite has for each: fewer would mean that some were not run."""


@pytest.fixture(scope="module")
def url(node: str) -> Iterator[str]:
    with fixture_server() as address:
        yield address


@pytest.mark.requirement("mcp.conformance")
@pytest.mark.parametrize("era", ERAS)
def test_nothing_fails_that_is_not_left_out_on_purpose(node: str, url: str, era: str, tmp_path: Path) -> None:
    done = suite(node, url, era, tmp_path, "--expected-failures", str(EXPECTED))
    assert done.returncode == 0, done.stdout[-6000:]
    assert len(re.findall(r"^[✓✗~] ", done.stdout, re.MULTILINE)) == ERAS[era], done.stdout[-6000:]


def test_the_suite_sees_what_is_missing(node: str, url: str, tmp_path: Path) -> None:
    """The negative control: with nothing excused, what is left out on purpose fails."""
    done = suite(node, url, "2025-11-25", tmp_path)
    assert done.returncode != 0
    assert "✗ logging-set-level" in done.stdout


def suite(node: str, url: str, era: str, home: Path, *more: str) -> "CompletedProcess[str]":
    argv = [node, str(SUITE), "server", "--url", url, "--suite", "all", "--spec-version", era]
    return run([*argv, "--timeout", "20000", "-o", str(home / "results"), *more], home)
