"""A hint is written once, and read in the words of the transport that shows it."""

import ast
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import mcp_ssh
from mcp_ssh.cli import build_parser
from mcp_ssh.cli.commands.check.findings import Finding
from mcp_ssh.cli.hints import OPTIONS, cli_hint
from mcp_ssh.errors import HostKeyUnconfirmed, InvalidInput, NotFound, Refused, ToolError
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import TOOLS
from rest_bridge.errors import ErrorFormat
from rest_bridge.families.registry import FAMILIES, NOT_ON_REST
from rest_bridge.families.ssh_api.family import SSH_API
from rest_bridge.families.viewer.family import VIEWER
from rest_bridge.hints import rest_hint
from tests.support.cli_kit import run
from tests.support.rest_kit import rest_server

pytestmark = pytest.mark.requirement("fault.N9")

ROOT = Path(mcp_ssh.__file__).parent
NAMES = {*REGISTRY, *TOOLS}
ARGUMENTS = {name for each in REGISTRY.values() for name in each.params.model_fields} | {"confirm"}
ROUTED = {route.tool.name: route for family in FAMILIES for route in reversed(family.routes)}
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ABOUT_THE_CLI = ("cli",)
"""Its own hints name commands and options already."""


def literals(node: ast.AST) -> Iterator[str]:
    """The fixed texts of an expression; a place of an f-string is a letter."""
    if isinstance(node, ast.JoinedStr):
        yield "".join(str(each.value) if isinstance(each, ast.Constant) else "x" for each in node.values)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for each in ast.iter_child_nodes(node):
            yield from literals(each)


def hints_of(path: Path) -> Iterator[str]:
    """Hints of a module: given as such, or kept under a name with that word in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "hint":
            yield from literals(node.value)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any("hint" in ast.unparse(each).lower() for each in targets):
                yield from literals(node.value)


HINTS = sorted(
    {
        hint
        for path in ROOT.rglob("*.py")
        if path.relative_to(ROOT).parts[0] not in ABOUT_THE_CLI
        for hint in hints_of(path)
    }
)


def in_rest(hint: str, kind: type[ToolError] = NotFound) -> str:
    return rest_hint(kind("it went wrong", hint=hint, details={"fact": 1})) or ""


def test_the_walk_finds_the_hints() -> None:
    assert len(HINTS) > 250
    assert sum(any(word in NAMES for word in WORD.findall(hint)) for hint in HINTS) > 80


@pytest.mark.parametrize("hint", HINTS)
def test_a_hint_names_a_tool_or_an_argument_as_a_reference(hint: str) -> None:
    bare = re.sub(r"`[^`]*`|\([a-z_]+: \w+\)|\w+\.\w+|\S+ takes .*", "", hint)
    with_underscore = {word for word in WORD.findall(bare) if "_" in word}
    assert not with_underscore & ARGUMENTS - NAMES, "put the argument into backticks"
    for name, argument in re.findall(r"([a-z]+_[a-z_]+)\(([a-z_]+): ", hint):
        assert argument in REGISTRY[name].params.model_fields


@pytest.mark.parametrize("hint", [each for each in HINTS if not NAMES.isdisjoint(WORD.findall(each))])
def test_rest_names_the_route_and_the_command_line_the_command_in_place_of_a_tool(hint: str) -> None:
    for name in NAMES & {*WORD.findall(re.sub(r"\S+ takes .*", "", hint))}:
        rest, cli = in_rest(hint), cli_hint(hint, "exec") or ""
        if name in ROUTED:
            assert not re.search(rf"(?<![\w/.]){name}\b", rest), rest
            assert ROUTED[name].path in rest
        else:
            assert name in NOT_ON_REST
            assert f"{name} over MCP" in rest
        assert not re.search(rf"(?<!ssh-steward call )\b{name}\b", cli), cli
        assert "ssh-steward" in cli


@pytest.mark.parametrize("hint", [each for each in HINTS if "`" in each])
def test_the_command_line_names_an_option_in_place_of_an_argument(hint: str) -> None:
    for name in re.findall(r"`([a-z_.]+)(?:: \w+)?`", hint):
        if name.partition(".")[0] in ARGUMENTS:
            assert f"`{name}" not in (cli_hint(hint, "upload") or "")


def test_what_each_transport_makes_of_a_hint() -> None:
    hint = "make it first, with file_mkdir(parents: true)"
    assert in_rest(hint) == "make it first, with POST /file/mkdir and `parents: true`"
    assert cli_hint(hint, "upload") == "make it first, with ssh-steward exec MACHINE -- mkdir -p FOLDER"
    hint = "send the key as `key_content`, or look with file_stat."
    assert in_rest(hint) == "send the key as `key_content`, or look with GET /file/stat."
    assert cli_hint(hint, "exec") == "send the key as --key FILE, or look with ssh-steward call file_stat."
    hint = "give `become.password`, or connect with `use_config: false`"
    assert in_rest(hint) == hint
    there = "in the JSON of ssh-steward call"
    said = f"give become.password {there}, or connect with use_config: false {there}"
    assert cli_hint(hint, "exec") == said


@pytest.mark.parametrize("command", ["exec", "upload", "download", "check"])
def test_the_command_line_names_only_options_that_the_command_has(command: str) -> None:
    hint = cli_hint("give one of `password`, `key_path`, `key_content`, or `username`", command) or ""
    assert hint == "give one of --ask-password, --key FILE, or -l USER"
    with contextlib.redirect_stdout(io.StringIO()) as help_, pytest.raises(SystemExit):
        build_parser().parse_args([command, "--help"])
    taken = help_.getvalue()
    assert all(option in taken for option in re.findall(r"(?<!\S)-{1,2}[a-z-]+", hint))
    assert cli_hint("command_exec takes session_id, command", command) == f"see ssh-steward {command} --help"


def test_what_only_looks_like_a_reference_stays() -> None:
    for hint in (
        "run `sh` there", "see /srv/file_read/x", "security.protected_paths", "ssh-steward call hostkey_accept '{}'",
        "file_stat takes session_id, path", "no_such_tool", "my-file_stat", "`cat >>`",
    ):  # fmt: skip
        assert cli_hint(hint, "exec") == ("see ssh-steward exec --help" if " takes " in hint else hint)
        assert in_rest(hint.replace("ssh-steward call hostkey_accept", "")) == hint.replace(
            "ssh-steward call hostkey_accept", ""
        )


def test_the_call_command_keeps_the_words_of_mcp() -> None:
    """The negative control: there a tool goes by its name, and its arguments are JSON."""
    hint = "look with file_stat, or give `become.password`"
    assert cli_hint(hint, "call") == hint
    assert NotFound("x", hint=hint).payload()["hint"] == hint
    assert {"key_content", "password", "become"} <= OPTIONS.keys() & ARGUMENTS


@pytest.mark.parametrize("error_format", [SSH_API, VIEWER])
def test_an_unknown_host_key_is_named_as_the_body_has_it(error_format: ErrorFormat) -> None:
    hint = "compare it; if they agree, call hostkey_accept with the fields of details.host_key, and try again"
    error = HostKeyUnconfirmed("unknown", hint=hint, details={"host_key": {"host": "web1"}})
    body = error_format.body(error)
    assert body["detail"]["host_key"] == {"host": "web1"}
    assert "with the fields of detail.host_key" in body["hint"]
    assert "POST /api/remote/known-hosts/accept" in body["hint"]
    other = InvalidInput("wrong", hint="see details.errors", details={"errors": []})
    assert error_format.body(other)["hint"] == "see details.errors"


async def test_a_request_that_fails_names_routes(tmp_path: Path) -> None:
    async with rest_server(tmp_path, REGISTRY, FAMILIES) as rest, rest.client() as client:
        answer = await client.post("/command/exec", json={"command": "id"})
        unknown = await client.post("/session/connect", json={"host": "127.0.0.1", "key_path": "/nonexistent"})
    assert "POST /session/connect" in answer.json()["hint"]
    assert "session_connect" not in answer.text
    assert answer.status_code == 404
    assert not NAMES & {*WORD.findall(unknown.json().get("hint", ""))}


async def test_a_command_that_fails_names_options(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    done = await run(
        "exec", "--key", "/nonexistent/key", "root@127.0.0.1", "--", "true", home=tmp_path, env={"HOME": str(tmp_path)}
    )
    assert done.code != 0
    assert "--key FILE" in done.failure
    assert "key_content" not in done.failure
    assert Finding("fail", "x", "y", "look with file_stat").next_step == "look with ssh-steward call file_stat"


def test_a_hint_that_is_missing_stays_missing() -> None:
    assert rest_hint(Refused("no")) is None
    assert cli_hint(None, "exec") is None
