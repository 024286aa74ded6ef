"""What clients see of each tool changes only on purpose: `make docs` writes the snapshots, a review reads them."""

from pathlib import Path

import pytest

from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import TOOLS
from scripts.generate import SNAPSHOTS, generated

ROOT = Path(__file__).parents[2]


@pytest.mark.requirement("mcp.toolsnaps")
def test_each_tool_is_listed_as_its_snapshot_says() -> None:
    stored = {path.name: path.read_text("utf-8") for path in (ROOT / SNAPSHOTS).iterdir()}
    listed = {path.name: text for path, text in generated(ROOT).items() if path.parent == ROOT / SNAPSHOTS}
    assert listed.keys() == {f"{name}.json" for name in (*REGISTRY, *TOOLS)}
    assert stored == listed, "run `make docs`, and look at what changed"
