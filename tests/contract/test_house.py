"""Rules of the house that no linter knows."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from mcp_ssh.cli import COMMANDS
from mcp_ssh.config.models import Config, example
from mcp_ssh.tool import Risk
from mcp_ssh.tools import REGISTRY
from rest_bridge.families.registry import FAMILIES

ROOT = Path(__file__).parents[2]


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_file_has_more_than_500_lines() -> None:
    long = {
        path.name: lines
        for path in tracked("*.py", "*.sh")
        if (lines := len(path.read_text("utf-8").splitlines())) > 500
    }
    assert long == {}


def test_no_folder_has_more_than_15_modules() -> None:
    folders = Counter(path.parent.relative_to(ROOT).as_posix() for path in tracked("mcp_ssh/*.py", "rest_bridge/*.py"))
    assert "mcp_ssh/ssh/connection" in folders
    assert {folder: modules for folder, modules in folders.items() if modules > 15} == {}


def type_names(source: str) -> list[str]:
    """Return the public classes and type aliases that a module defines."""
    names: list[str] = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and re.fullmatch("([A-Z][a-z0-9]+)+", target.id):
                names.append(target.id)
    return [name for name in names if not name.startswith("_")]


def test_a_reader_meets_each_public_type_name_once_in_a_package() -> None:
    assert type_names("class A: ...\nBytes = int\nMOST = 1\nCall: T = int\nclass _C: ...") == ["A", "Bytes", "Call"]
    for package in ("mcp_ssh", "rest_bridge"):
        names = Counter(name for path in tracked(f"{package}/*.py") for name in type_names(path.read_text("utf-8")))
        assert len(names) > 30
        assert [name for name, times in names.items() if times > 1] == [], package


def test_only_shell_command_quotes() -> None:
    quoting = [path.name for path in tracked("mcp_ssh/*.py", "rest_bridge/*.py") if "shlex" in path.read_text("utf-8")]
    assert quoting == ["shell_command.py"]


def test_no_sql_numbers_its_placeholders() -> None:
    """Since Python 3.12 sqlite3 takes `?1` for a name; a tuple of values for it is a warning, in 3.14 an error."""
    sql = re.compile(r"[(=,] ?\?[0-9]")
    assert sql.search("WHERE id = ?1")
    assert [path.name for path in tracked("mcp_ssh/*.py") if sql.search(path.read_text("utf-8"))] == []


def test_only_its_package_speaks_the_dialect_of_sqlite() -> None:
    """`rowid` and `sqlite_sequence` stand where a module needs an order of its own that no column has yet."""
    dialect = re.compile(
        r"PRAGMA |INSERT OR |AUTOINCREMENT|COLLATE NOCASE|strftime|CREATE TABLE|ALTER TABLE|rowid|sqlite_"
    )
    inside = ROOT / "mcp_ssh/store/sqlite"
    outside = [path for path in tracked("mcp_ssh/*.py", "rest_bridge/*.py") if inside not in path.parents]
    found = {str(path.relative_to(ROOT)): sorted({*dialect.findall(path.read_text("utf-8"))}) for path in outside}
    assert {name: words for name, words in found.items() if words} == {
        "mcp_ssh/store/tasks.py": ["rowid"],
        "mcp_ssh/store/history_chain.py": ["sqlite_"],
    }


def test_only_a_familys_folder_names_its_paths() -> None:
    """So a family is added as a folder. Documents and hints for people show routes as examples."""
    prefixes = [each for family in FAMILIES for each in family.error_format.prefixes]
    named = re.compile(rf"[\"']({'|'.join(map(re.escape, prefixes))})[/\"']")
    assert named.search('Route("GET", "/session/list")')
    shared = [
        path
        for path in tracked("rest_bridge/*.py")
        if not {"families", "docs"} & set(path.relative_to(ROOT).parts) and path.name != "hints.py"
    ]
    assert len(shared) > 15
    assert [path.name for path in shared if named.search(path.read_text("utf-8"))] == []


def test_what_tests_share_is_in_kits() -> None:
    """A test file is imported by pytest alone, and not by the text of a process that a test starts either."""
    of_tests = re.compile(
        r"^\s*(?:from|import) +[\w.]*\btest_|^\s*from +(?:tests|\.)[\w.]* +import +(?:[\w ,]*|\([^)]*)\btest_", re.M
    )
    for wrong in (
        "from tests.unit.test_pins import pin",
        "import tests.test_a",
        "from tests.unit import (\n  toys,\n  test_pins",
    ):
        assert of_tests.search(wrong)
    assert not of_tests.search("from tests.support.hostkeys import made_key\n\n\ndef test_pins() -> None:")
    assert [path.name for path in tracked("tests/*.py") if of_tests.search(path.read_text("utf-8"))] == []


@pytest.mark.parametrize("name", list(REGISTRY))
def test_every_tool_describes_itself(name: str) -> None:
    tool = REGISTRY[name]
    assert len(name) <= 48
    assert len(tool.description.encode()) < 1024
    for model in (tool.params, tool.result):
        missing = [field for field, info in model.model_fields.items() if not info.description]
        assert missing == [], model.__name__
    schema = tool.input_schema
    assert schema["additionalProperties"] is False
    assert not {"anyOf", "oneOf", "allOf"} & set(schema)


def test_readers_never_ask_for_confirmation() -> None:
    assert [name for name, tool in REGISTRY.items() if tool.risk is Risk.READ and tool.confirm] == []


def test_the_example_config_holds_every_key() -> None:
    assert Config.model_validate_json(example()) == Config()
    assert (ROOT / "config.example.json").read_text("utf-8") == example()


def test_a_page_explains_every_config_key() -> None:
    text = (ROOT / "docs/configuration.md").read_text("utf-8")
    for area, field in Config.model_fields.items():
        for key, info in field.annotation.model_fields.items():  # pyright: ignore
            assert f"| `{area}.{key}` | " in text
            assert info.description in text


def test_every_config_key_is_obeyed_by_code() -> None:
    code = "".join(
        path.read_text("utf-8")
        for path in tracked("mcp_ssh/*.py", "rest_bridge/*.py")
        if path != ROOT / "mcp_ssh/config/models.py"
    )
    keys = [name for area in Config.model_fields.values() for name in area.annotation.model_fields]  # pyright: ignore
    assert [key for key in keys if f".{key}" not in code] == []


def anchors(text: str) -> set[str]:
    """Return what a link can lead to inside a page, as GitHub names it."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)
    named = {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
    return named | set(re.findall(r'<a id="([^"]+)">', text))


def broken_links(pages: dict[Path, str]) -> list[str]:
    """Return the relative links that lead nowhere. A link that begins with / is to a page of the server."""
    broken: list[str] = []
    for page, text in pages.items():
        for link in re.findall(r"\]\(([^):]+)\)", text):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if not link.startswith("/") and (
                not target.exists() or (anchor and target in pages and anchor not in anchors(pages[target]))
            ):
                broken.append(f"{page.name}: {link}")
    return broken


def test_pages_for_people_lead_to_files_that_exist_and_name_commands_that_exist() -> None:
    pages = {page.resolve(): page.read_text("utf-8") for page in tracked("*.md")}
    assert broken_links({(ROOT / "README.md").resolve(): "# A b\n[1](#a-b) [2](#c) [3](x.md)"}) == [
        "README.md: #c", "README.md: x.md",
    ]  # fmt: skip
    assert broken_links(pages) == []
    named = {word for text in pages.values() for word in re.findall(r"[`(] ?ssh-steward ([a-z][a-z-]*)[ `)]", text)}
    assert len(named) > 5
    assert named <= {*COMMANDS}


def test_the_readme_sells_and_the_map_is_a_map() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
    glossary = (ROOT / "ARCHITECTURE.md").read_text("utf-8").partition("## Glossary")[2]
    assert 10 < glossary.count("\n| ") <= 42


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs/decisions"
    pages = sorted(page.name for page in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in pages] == list(range(1, len(pages) + 1))
    assert re.findall(r"\((\d{4}-[a-z-]+\.md)\)", (folder / "README.md").read_text("utf-8")) == pages
