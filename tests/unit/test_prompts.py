"""The prompts: files that say only what is there, served to MCP clients of both eras, and packed into the wheel."""

import re
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mcp import Client, MCPError, types
from mcp.client.streamable_http import streamable_http_client

from mcp_ssh import prompts
from mcp_ssh.app import App, open_app
from mcp_ssh.cli.commands.client_config import CLIENTS
from mcp_ssh.errors import InvalidInput, NotFound
from mcp_ssh.mcp_server import build_server
from mcp_ssh.prompts import Argument, Prompt
from mcp_ssh.tool import Caller, Risk, Role
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import ToolsetSelection
from rest_bridge.families.registry import FAMILIES
from tests.support.cli_kit import ROOT, run
from tests.support.rest_kit import serving

OWNER = Caller(id="stdio", role=Role.ADMIN, owner=True)
NAMES = sorted(file.stem for file in (ROOT / "prompts").iterdir())
ROOMS = {tool.room for tool in REGISTRY.values()}
FIELDS = {name for tool in REGISTRY.values() for name in [*tool.params.model_fields, *tool.result.model_fields]}
ADDRESSES = {route.address for family in FAMILIES for route in family.routes}
each_prompt = pytest.mark.parametrize("name", NAMES)
ERAS = pytest.mark.parametrize("mode", ["auto", "legacy", "2026-07-28"])
GREET = Prompt(
    name="greet",
    title="Greet",
    description="Greet somebody.",
    arguments={"who": Argument(description="Who it is."), "how": Argument(description="How.", default="kindly")},
    text="Greet {{who}} {{how}}.\n",
)


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    async with open_app(tmp_path) as opened:
        yield opened


def example(prompt: Prompt) -> dict[str, str]:
    return {name: f"the {name}" for name, each in prompt.arguments.items() if each.required}


# What the files say


@pytest.mark.requirement("prompts.true")
@each_prompt
def test_a_prompt_names_only_tools_that_exist(name: str) -> None:
    text = prompts.load()[name].text
    named = set(re.findall(rf"\b(?:{'|'.join(ROOMS)})_[a-z_]+\b", text)) - FIELDS
    assert named <= {*REGISTRY, "host_key_unconfirmed"}


@pytest.mark.requirement("prompts.true")
def test_the_prompt_that_sets_a_client_up_names_every_client() -> None:
    described = prompts.load()["set-up-ssh-steward"].arguments["client"].description
    assert re.findall(r"[a-z]+(?:-[a-z]+)*", described.partition(": ")[2].replace(" or ", " ")) == [*CLIENTS]


@pytest.mark.requirement("prompts.true")
@each_prompt
def test_a_prompt_names_tools_the_way_that_is_looked_for(name: str) -> None:
    text = prompts.load()[name].text
    assert {tool for tool in REGISTRY if re.search(rf"\b{tool}\b", text)} == {
        tool for tool in REGISTRY if f"`{tool}`" in text
    } | ({"connection_add"} if "ssh-steward call connection_add" in text else set())


@pytest.mark.requirement("prompts.true")
@each_prompt
def test_a_prompt_names_only_routes_that_exist(name: str) -> None:
    text = prompts.load()[name].text.replace("{{url}}", "")
    named = set(re.findall(r"\b((?:GET|POST|PUT|PATCH|DELETE) /[^\s?`]*)", text))
    assert named <= ADDRESSES
    paths = {address.partition(" ")[2] for address in ADDRESSES}
    short = set(re.findall(r"`(/(?:session|command|file|blob|api)/[^\s?`]*)", text))
    assert short <= paths


@pytest.mark.requirement("prompts.true")
@each_prompt
def test_a_prompt_asks_for_no_secret(name: str) -> None:
    asked = " ".join(prompts.load()[name].arguments)
    assert not re.search(r"password|passphrase|secret|token|private", asked)


@each_prompt
def test_a_prompt_is_short_and_says_when_to_ask_and_what_to_report(name: str) -> None:
    text = prompts.load()[name].text
    assert len(text.splitlines()) <= 65
    assert len(text.encode()) <= 5000
    assert re.search(r"\bask me\b|my yes|Change nothing", text)
    assert re.search(r"^## Report$|\bReport what\b", text, re.MULTILINE)


def test_every_job_has_its_prompt() -> None:
    assert NAMES == [
        "add-user", "back-up-folder", "deploy-site", "disk-full", "failing-service", "firewall", "first-look",
        "hand-over-api", "harden-ssh", "high-load", "schedule-job", "set-up-ssh-steward",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("# No front\n", "TOML between two lines"),
        ('+++\ntitle = "T"\ndescription = "D d."\n', "TOML between two lines"),
        ('+++\ntitle = "T"\ndescription = "D d."\n+++\nHello {{who}}.\n', "its arguments are not the places"),
        (
            '+++\ntitle = "T"\ndescription = "D d."\n[arguments.who]\ndescription = "W."\n+++\nHello.\n',
            "its arguments are not the places",
        ),
        ('+++\ntitle = "T"\n+++\nHello.\n', "description"),
        ('+++\ntitle = "T"\ndescription = "D d."\nmood = "x"\n+++\nHello.\n', "mood"),
    ],
)
def test_a_file_that_is_no_prompt_is_named(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "greet.md").write_text(text)
    with pytest.raises(ValueError, match=wrong):
        prompts._read(tmp_path / "greet.md")


# Filling in


def test_arguments_come_into_their_places_once() -> None:
    assert GREET.fill({"who": "{{how}}"}) == "Greet {{how}} kindly.\n"
    assert GREET.fill({"who": "\\1 and \\g<0>", "how": "twice"}) == "Greet \\1 and \\g<0> twice.\n"


def test_an_empty_argument_counts_as_left_out() -> None:
    assert GREET.fill({"who": "Ann", "how": ""}) == "Greet Ann kindly.\n"
    with pytest.raises(InvalidInput, match="who: greet needs it"):
        GREET.fill({"who": ""})


@pytest.mark.requirement("prompts.refused")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "who: greet needs it"),
        ({"who": "Ann", "whom": "x"}, "whom: greet has no such argument"),
        ({"who": "x" * 2001}, "who: must be at most 2000 characters"),
    ],
)
def test_what_does_not_fit_names_the_argument_and_the_rule(given: dict[str, str], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        GREET.fill(given)
    assert caught.value.message == said
    assert caught.value.hint


def test_a_mistyped_name_is_told_the_nearest() -> None:
    with pytest.raises(NotFound) as caught:
        prompts.find("frist-look")
    assert caught.value.hint == "did you mean first-look?"
    with pytest.raises(NotFound) as caught:
        prompts.find("zzz")
    assert "add-user, back-up-folder" in str(caught.value.hint)


# As MCP clients have them


@pytest.mark.requirement("prompts.served")
@ERAS
async def test_the_files_are_what_clients_list_and_get(app: App, mode: str) -> None:
    async with Client(build_server(app, REGISTRY, ToolsetSelection(), caller=OWNER), mode=mode) as client:
        listed = (await client.list_prompts()).prompts
        assert [each.name for each in listed] == NAMES
        for shown in listed:
            prompt = prompts.load()[shown.name]
            assert (shown.title, shown.description) == (prompt.title, prompt.description)
            asked = {each.name: (each.required, each.description) for each in shown.arguments or ()}
            assert asked == {name: (each.required, each.description) for name, each in prompt.arguments.items()}
            got = await client.get_prompt(shown.name, example(prompt))
            assert got.description == prompt.description
            assert [message.role for message in got.messages] == ["user"]
            content = got.messages[0].content
            assert isinstance(content, types.TextContent)
            assert content.text == prompt.fill(example(prompt))
            assert "{{" not in content.text


@pytest.mark.requirement("prompts.served")
@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_they_come_over_http_too(tmp_path: Path, mode: str) -> None:
    async with (
        serving(tmp_path) as served,
        served.client() as http,
        Client(streamable_http_client(f"{served.url}/mcp", http_client=http), mode=mode) as client,
    ):
        assert [each.name for each in (await client.list_prompts()).prompts] == NAMES
        got = await client.get_prompt("first-look", {"machine": "web1"})
    assert "web1" in str(got.messages[0].content)


@pytest.mark.requirement("prompts.refused")
@ERAS
@pytest.mark.parametrize(
    ("asked", "said", "code"),
    [
        (("first-look", None), "machine: first-look needs it", "invalid_input"),
        (("first-look", {"machine": "web1", "colour": "red"}), "colour: first-look has no such", "invalid_input"),
        (("frist-look", {}), "did you mean first-look", "not_found"),
    ],
)
async def test_a_wrong_request_is_an_error_of_the_protocol(
    app: App, mode: str, asked: tuple[str, dict[str, str] | None], said: str, code: str
) -> None:
    async with Client(build_server(app, REGISTRY, ToolsetSelection(), caller=OWNER), mode=mode) as client:
        with pytest.raises(MCPError, match=said) as caught:
            await client.get_prompt(*asked)
    assert caught.value.error.code == types.INVALID_PARAMS
    assert caught.value.error.data["code"] == code


async def test_an_endpoint_lists_the_prompts_it_has_the_tools_for(app: App) -> None:
    async def listed(surface: ToolsetSelection) -> set[str]:
        async with Client(build_server(app, REGISTRY, surface, caller=OWNER)) as client:
            return {each.name for each in (await client.list_prompts()).prompts}

    named = {name: [tool for tool in REGISTRY if f"`{tool}`" in prompts.load()[name].text] for name in NAMES}
    readers = {name for name, tools in named.items() if all(REGISTRY[tool].risk is Risk.READ for tool in tools)}
    assert await listed(ToolsetSelection(read_only=True)) == readers
    assert "hand-over-api" in readers
    assert "harden-ssh" not in readers
    assert await listed(ToolsetSelection(tuple(ROOMS - {"connection"}))) == {*NAMES} - {"set-up-ssh-steward"}


# Where people and packages find them


@pytest.mark.requirement("prompts.files")
def test_a_wheel_carries_the_files(tmp_path: Path) -> None:
    building = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(building, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    program = "from mcp_ssh import prompts\nprint(prompts._folder(), *prompts.load())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "installed")}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [str(tmp_path / "installed/mcp_ssh/_prompts"), *NAMES]
    assert (tmp_path / "installed/rest_bridge/docs/guide.md").is_file()


@pytest.mark.requirement("prompts.files")
async def test_the_page_for_people_has_every_prompt_whole(tmp_path: Path) -> None:
    page = (ROOT / "AGENT_PROMPTS.md").read_text("utf-8")
    for prompt in prompts.load().values():
        assert f"````text\n{prompt.text}````\n" in page
        assert f"](#{prompt.name}): {prompt.description}\n" in page
        assert f'<a id="{prompt.name}"></a>' in page
        assert all(f"- `{{{{{name}}}}}`: {each.description}" in page for name, each in prompt.arguments.items())
    assert (await run("guide", "--prompts", home=tmp_path)).out == page
