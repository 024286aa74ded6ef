"""The pages for agents: open to everybody, true, and every example of the guide works as it stands."""

import json
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from mcp_ssh.config.models import Config
from mcp_ssh.ssh.demo.host import demo_host
from mcp_ssh.tools import REGISTRY
from rest_bridge.docs.guide import guide, llms
from rest_bridge.errors import STATUS
from rest_bridge.families.registry import FAMILIES
from rest_bridge.families.ssh_api.family import SSH_API
from tests.support.cli_kit import run, running
from tests.support.rest_kit import Rest, rest_server

PAGES = {"/guide": "text/markdown", "/prompts": "text/markdown", "/llms.txt": "text/plain"}
TEXT = guide(REGISTRY, FAMILIES, Config())
ROUTES = {route.address: route for family in FAMILIES for route in family.routes}
TOKEN = "the-token-of-this-test-0123456789"
KEY_FIELDS = ("host", "port", "key_type", "public_key", "fingerprint_sha256")


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncGenerator[Rest]:
    async with rest_server(tmp_path, REGISTRY, FAMILIES) as server:
        yield server


@pytest.mark.requirement("guide.open")
@pytest.mark.parametrize("path", PAGES)
async def test_a_page_is_open_and_loads_nothing(rest: Rest, path: str) -> None:
    async with rest.client(None) as client:
        answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == f"{PAGES[path]}; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "{{" not in answer.text or path == "/prompts"


@pytest.mark.requirement("guide.open")
async def test_the_root_and_the_document_lead_to_the_pages_and_the_pages_to_one_another(rest: Rest) -> None:
    async with rest.client(None) as client:
        root = (await client.get("/")).json()
        about = (await client.get("/openapi.json")).json()["info"]["description"]
        assert (root["guide"], root["llms"]) == ("/guide", "/llms.txt")
        assert {*re.findall(r"\]\((/[^)]*)\)", about)} == {*PAGES}
        prompts_page = (await client.get("/prompts")).text
        for path in PAGES:
            links = re.findall(r"\]\(([^)]*)\)", (await client.get(path)).text)
            assert links
            for link in links:
                place, _, anchor = link.partition("#")
                assert (await client.get(place or path)).status_code == 200
                assert not anchor or f'<a id="{anchor}"></a>' in prompts_page


@pytest.mark.requirement("guide.open")
def test_the_index_has_the_form_of_llms_txt() -> None:
    lines = llms().splitlines()
    assert lines[0].startswith("# ")
    assert lines[2].startswith("> ")
    assert [line for line in lines[1:] if line.startswith("#")] == ["## Docs", "## Prompts", "## Optional"]
    below = lines[lines.index("## Docs") :]
    assert all(re.fullmatch(r"(?:## \w+|- \[[^]]+\]\(/[^)]+\): .+)?", line) for line in below)


def test_the_guide_names_only_routes_that_exist_and_every_tool_with_its_routes() -> None:
    named = set(re.findall(r"\b((?:GET|POST|PUT|PATCH|DELETE) /[^\s?`]*)", TEXT))
    assert named == set(ROUTES)
    for name, tool in REGISTRY.items():
        (row,) = re.findall(rf"^\| `{name}` \| (.*?) \| (\w+) \|", TEXT, re.MULTILINE)
        assert row[1] == tool.role.name.lower()
        assert set(re.findall(r"`([^`]+)`", row[0])) == {at for at, route in ROUTES.items() if route.tool.name == name}


def test_the_guide_lists_every_error_with_its_status() -> None:
    for kind in STATUS:
        status = SSH_API.status(kind("x"))
        assert re.search(rf"^\| `{kind.code}` \| {status}\b", TEXT, re.MULTILINE)
    assert re.search(r"^\| `host_key_unconfirmed` \| 409 \|", TEXT, re.MULTILINE)
    assert "| `invalid_input` | 400 (422 below `/api/remote`) |" in TEXT


def test_the_guide_says_the_limits_of_this_server() -> None:
    config = Config.model_validate({"server": {"max_body_mb": 7}, "ssh": {"max_concurrent_connections": 123}})
    text = guide(REGISTRY, FAMILIES, config)
    assert "| request body | 7 MiB |" in text
    assert "| open sessions of one token | 123 |" in text


async def test_the_command_line_prints_the_guide(tmp_path: Path) -> None:
    assert (await run("guide", home=tmp_path)).out == TEXT


def examples() -> list[str]:
    """The commands of the guide, in order, the one that ends the session last."""
    blocks = re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    commands = [each for block in blocks for each in re.split(r"\n(?=curl )", block.strip())]
    return sorted(commands, key=lambda each: "/session/disconnect/" in each)


class Agent:
    """Somebody with a shell, curl and the guide."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self.variables = {"PATH": "/usr/bin:/bin:/usr/local/bin", "no_proxy": "*", "URL": url}
        self.write("token.txt", f"Authorization: Bearer {TOKEN}\n")

    def write(self, name: str, content: Any) -> None:
        (self._folder / name).write_text(content if isinstance(content, str) else json.dumps(content))

    async def does(self, command: str) -> tuple[int, Any]:
        """Run a command of the guide; the status and the body that came."""
        told = ["sh", "-c", command.replace("curl -sS", "curl -sS --max-time 30 -w '\\n%{http_code}'", 1)]
        done = await anyio.to_thread.run_sync(
            lambda: subprocess.run(
                told, cwd=self._folder, env=self.variables, capture_output=True, text=True, check=True
            )
        )
        body, _, status = done.stdout.rpartition("\n")
        return int(status), body if " -N " in command else json.loads(body)


@pytest.mark.requirement("guide.examples")
@pytest.mark.skipif(shutil.which("curl") is None, reason="the guide's examples are for curl")
async def test_every_example_of_the_guide_works_as_it_stands(tmp_path: Path) -> None:
    environment = {"MCP_SSH_TOKEN": TOKEN}
    async with demo_host() as host, running("serve", "--port", "0", home=tmp_path, env=environment) as server:
        agent = Agent(tmp_path, (await server.until(r"serves (\S+) ")).group(1))
        login = {"host": host.host, "port": host.port, "username": host.username, "password": host.password}
        agent.write("connect.json", login)
        connect, *others = examples()
        status, refused = await agent.does(connect)
        assert (status, refused["code"]) == (409, "host_key_unconfirmed")
        assert "details" not in refused
        assert "offered is\n`detail.host_key`" in TEXT
        key = refused["detail"]["host_key"]
        assert key["fingerprint_sha256"] == host.fingerprint
        agent.write("key.json", {name: key[name] for name in KEY_FIELDS})
        (accept,) = [each for each in others if "known-hosts/accept" in each]
        assert await agent.does(accept) == (200, {"ok": True})
        status, connected = await agent.does(connect)
        assert status == 200
        assert "a `session_id` of 12 hexadecimal digits" in TEXT
        assert re.fullmatch("[0-9a-f]{12}", connected["session_id"])
        agent.variables["SESSION"] = connected["session_id"]
        long = 'curl -sS -H @token.txt "$URL/command/run?session_id=$SESSION&cmd=seq+300000"'
        status, output = await agent.does(long)
        assert output["truncated"]
        agent.variables["BLOB"] = output["stdout_blob"]
        for command in others:
            status, answer = await agent.does(command)
            assert status == 200, (command, answer)
            if "/stream?" in command:
                events = re.findall(r"^event: (\w+)\n(?:id: .+\n)?data: (.+)\n\n", answer, re.MULTILINE)
                assert events == [("content", '{"content":"hello\\n"}'), ("end", '{"reason":"max_s"}')]
        assert (host.home / "notes.txt").read_text() == "hello\n"
        assert (host.home / "upload.bin").read_bytes() == b"\x00\x01\x02"
        assert len(others) == 15
