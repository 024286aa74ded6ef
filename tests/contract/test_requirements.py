"""The manifest and the tests name the same behaviours."""

import re
from pathlib import Path

from tests.contract.requirements import REQUIREMENTS

TESTS = Path(__file__).parents[1]
MARK = re.compile(r"\bpytest\.mark\.requirement\(([^)]*)\)")


def named() -> set[str]:
    text = "\n".join(path.read_text("utf-8") for path in TESTS.rglob("test_*.py"))
    return {name for match in MARK.finditer(text) for name in re.findall(r'"([^"]+)"', match[0])}


def test_every_requirement_has_a_test() -> None:
    assert {each.id for each in REQUIREMENTS} - named() == set()


def test_every_test_names_a_requirement_that_exists() -> None:
    assert named() - {each.id for each in REQUIREMENTS} == set()


def test_every_requirement_has_an_id_of_its_own() -> None:
    assert len({each.id for each in REQUIREMENTS}) == len(REQUIREMENTS)
