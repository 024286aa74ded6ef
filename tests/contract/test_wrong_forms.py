"""An error about the form of a value uses words and an example: few callers read regular expressions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest

from mcp_ssh.dispatch import validate
from mcp_ssh.errors import InvalidInput
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import TOOLS
from rest_bridge.families.registry import FAMILIES

STREAMS = [route.stream.tool for family in FAMILIES for route in family.routes if route.stream is not None]
WRONG = ("a b,", "-", "\n")
"""No pattern of a tool takes all of them."""
UNSEEN = [("system_chmod", "mode"), ("system_find", "size"), ("system_find", "mtime")]
"""Fields that take numbers, too: their patterns do not reach the schema."""


def _wrong(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Values whose one mistake is the form of a text somewhere in them."""
    for each in cast("list[Mapping[str, Any]]", schema.get("anyOf") or [schema]):
        if pattern := each.get("pattern"):
            yield next(text for text in WRONG if not re.search(pattern, text))
        if isinstance(each.get("items"), dict):
            yield from ([value] for value in _wrong(each["items"]))
        for pattern in each.get("patternProperties", ()):
            yield {next(text for text in WRONG if not re.search(pattern, text)): "x"}
        for name, inner in each.get("properties", {}).items():
            yield from ({name: value} for value in _wrong(inner))


CASES = [
    (each, given) for each in (*REGISTRY.values(), *TOOLS.values(), *STREAMS) for given in _wrong(each.input_schema)
]

CASES += [(REGISTRY[name], {field: WRONG[0]}) for name, field in UNSEEN]


def test_there_are_such_fields() -> None:
    assert len(CASES) > 30
    assert {"system_chmod", "command_exec", "blob_read", "setup_update", "file_write"} <= {
        each.name for each, _ in CASES
    }


@pytest.mark.requirement("fault.R18.values")
@pytest.mark.parametrize(("each", "given"), CASES, ids=[f"{each.name}-{next(iter(given))}" for each, given in CASES])
def test_the_rule_of_a_form_is_words_with_an_example(each: AnyTool, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        validate(each, given)
    [field] = given
    [rule] = [wrong["rule"] for wrong in caught.value.details["errors"] if wrong["field"].partition(".")[0] == field]
    assert rule.startswith("must ")
    assert "such as " in rule
    assert not any(sign in rule for sign in ("^", "(?:", "[0-9", "pattern"))
    assert rule in str(caught.value.message)
