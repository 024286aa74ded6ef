"""The manifest and the tests name the same behaviours."""

from tests.contract.requirements import REQUIREMENTS
from tests.support.marks import named


def test_every_requirement_has_a_test() -> None:
    assert {each.id for each in REQUIREMENTS} - named() == set()


def test_every_test_names_a_requirement_that_exists() -> None:
    assert named() - {each.id for each in REQUIREMENTS} == set()


def test_every_requirement_has_an_id_of_its_own() -> None:
    assert len({each.id for each in REQUIREMENTS}) == len(REQUIREMENTS)
