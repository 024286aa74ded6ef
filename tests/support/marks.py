"""The requirements that tests name."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
MARK = re.compile(r"\bpytest\.mark\.requirement\(([^)]*)\)")


def named() -> set[str]:
    """The ids of all requirements that a test is marked with."""
    text = "\n".join(path.read_text("utf-8") for path in TESTS.rglob("test_*.py"))
    return {name for match in MARK.finditer(text) for name in re.findall(r'"([^"]+)"', match[0])}
