"""The threat model says nothing that no test shows."""

import re
from pathlib import Path

from tests.contract.faults import FAULTS
from tests.contract.requirements import REQUIREMENTS
from tests.support.marks import named

TEXT = (Path(__file__).parents[2] / "docs/threat-model.md").read_text("utf-8")
ROW = re.compile(
    r"^\| (?P<party>[^|]+) \| (?P<trusted>[^|]+) \| (?P<stopped>[^|]+) \| (?P<shown>[^|]+) \|$", re.MULTILINE
)
PARTIES = (
    "owner", "admin", "operator", "viewer", "hostile machine", "web page", "another local user", "server process",
)  # fmt: skip


def rows() -> list[re.Match[str]]:
    """The lines of the threat model, without its head."""
    return [each for each in ROW.finditer(TEXT) if each["shown"].startswith("`")]


def shown_by() -> set[str]:
    return {name for each in rows() for name in re.findall(r"`([^`]+)`", each["shown"])}


def test_every_party_is_in_the_threat_model_and_every_line_names_what_shows_it() -> None:
    table = TEXT.partition("# Threat model")[2]
    assert len(rows()) == table.count("\n| ") - 2
    parties = " ".join(each["party"].lower() for each in rows())
    assert [each for each in PARTIES if each not in parties] == []


def test_what_shows_a_line_is_a_requirement_with_a_test() -> None:
    assert shown_by() - {each.id for each in REQUIREMENTS} == set()
    assert shown_by() - named() == set()


def test_every_fault_of_trust_is_in_the_threat_model() -> None:
    assert {f"fault.{each}" for each in FAULTS if each.startswith("S")} - shown_by() == set()
