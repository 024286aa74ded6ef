"""The generated files follow from the code, and `--check` finds one that does not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mcp_ssh.config.models import Config
from mcp_ssh.tools import REGISTRY
from tests.support.cli_kit import ROOT, environment

PAGE = "# Title\n\n<!-- config -->\nyesterday\n<!-- /config -->\n\nThe end.\n"


def generate(root: Path, *words: str, tree: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(tree / "scripts" / "generate.py"), "--root", str(root), *words]
    env = environment(root.parent / "person", PYTHONPATH="")
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the script writes."""
    root = tmp_path_factory.mktemp("generated") / "root"
    root.mkdir()
    (root / "docs").mkdir()
    (root / "docs/configuration.md").write_text(PAGE)
    done = generate(root)
    assert (done.returncode, done.stderr) == (0, "")
    names = done.stdout.removeprefix("wrote ").split("\nwrote ")
    pages = [name.strip() for name in names if "toolsnaps" not in name]
    assert pages == [
        "docs/tools.md",
        "AGENT_PROMPTS.md",
        "config.example.json",
        "tests/contract/openapi.json",
        "docs/configuration.md",
    ]
    assert len(names) - len(pages) > len(REGISTRY)
    return root


def test_every_tool_and_parameter_is_on_the_page(written: Path) -> None:
    page = (written / "docs/tools.md").read_text()
    for tool in REGISTRY.values():
        assert f"\n### {tool.name}\n" in page
        section = page.partition(f"\n### {tool.name}\n")[2].partition("\n### ")[0]
        for name, schema in tool.input_schema.get("properties", {}).items():
            assert f"| `{name}` | " in section
            assert schema["description"].replace("|", "\\|") in section
    assert "| `all` | " in page
    assert "| `readonly` | " not in page


def test_the_example_holds_every_key_with_its_default(written: Path) -> None:
    example = json.loads((written / "config.example.json").read_text())
    assert Config.model_validate(example) == Config()
    assert set(example) == set(Config.model_fields)


def test_a_page_has_the_table_between_its_marks_and_is_else_untouched(written: Path) -> None:
    text = (written / "docs/configuration.md").read_text()
    assert text.startswith("# Title\n\n<!-- config -->\n")
    assert text.endswith("<!-- /config -->\n\nThe end.\n")
    assert "yesterday" not in text.partition("<!-- config -->")[2].partition("<!-- /config -->")[0].split()
    assert "| `server.port` | integer, ≥ 0, ≤ 65535 | `8754` |" in text


@pytest.mark.parametrize("name", ["docs/tools.md", "AGENT_PROMPTS.md", "config.example.json", "docs/configuration.md"])
def test_check_names_the_file_that_differs_and_changes_nothing(written: Path, tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    shutil.copytree(written, root)
    wrong = (root / name).read_text().replace("session_connect", "session_conect").replace("8754", "8755")
    (root / name).write_text(wrong)
    done = generate(root, "--check")
    assert done.returncode == 1
    assert [line.split()[0] for line in done.stderr.splitlines()] == [name]
    assert (root / name).read_text() == wrong


def test_check_is_content_with_what_was_written(written: Path) -> None:
    done = generate(written, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "tools/list of core: " in done.stdout


def test_the_tree_that_the_script_stands_in_is_described(tmp_path: Path) -> None:
    """And not the one that the virtual environment was installed from."""
    tree, root = tmp_path / "tree", tmp_path / "root"
    for part in ("mcp_ssh", "rest_bridge", "scripts", "prompts"):
        shutil.copytree(ROOT / part, tree / part)
    changed = tree / "mcp_ssh/tools/session.py"
    changed.write_text(changed.read_text().replace("List your open SSH sessions.", "List sessions of this tree."))
    root.mkdir()
    assert generate(root, tree=tree).returncode == 0
    assert "List sessions of this tree." in (root / "docs/tools.md").read_text()
