"""`ssh-steward client-config` prints what each client reads, and what it names works."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mcp_ssh.cli.commands.client_config import CLIENTS
from tests.support.cli_kit import ROOT, environment, run

pytestmark = pytest.mark.requirement("cli.client_config")

URL = "http://127.0.0.1:8754"


async def config(home: Path, *words: str) -> Any:
    done = await run("client-config", *words, home=home, env={"MCP_SSH_TOKEN": "a-secret-0123456789abcdef"})
    assert done.code == 0, done.err
    assert done.err
    assert "a-secret" not in done.out + done.err
    return tomllib.loads(done.out) if words[0] == "codex" else json.loads(done.out)


@pytest.mark.parametrize("client", list(CLIENTS))
async def test_the_server_that_a_client_starts_answers(client: str, tmp_path: Path) -> None:
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    whole = await config(tmp_path, client)
    [key] = whole
    assert key == {"vscode": "servers", "zed": "context_servers", "codex": "mcp_servers"}.get(client, "mcpServers")
    entry = whole[key]["ssh-steward"]
    assert Path(entry["command"]).is_absolute()
    assert entry["env"] == {"MCP_SSH_HOME": str(tmp_path / "state")}
    if client not in {"codex", "cursor"}:
        return
    start = StdioServerParameters(
        command=entry["command"], args=entry["args"], env=environment(tmp_path) | entry["env"], cwd=ROOT
    )
    async with Client(stdio_client(start)) as mcp:
        assert "command_exec" in {tool.name for tool in (await mcp.list_tools()).tools}


@pytest.mark.parametrize("client", [name for name, known in CLIENTS.items() if known.remote])
async def test_a_server_over_http_is_named_by_its_endpoint_and_the_token_is_none_of_ours(
    client: str, tmp_path: Path
) -> None:
    whole = await config(tmp_path, client, "--http", URL)
    entry = whole[CLIENTS[client].key]["ssh-steward"]
    assert f"{URL}/mcp" in entry.values()
    if client == "codex":
        assert entry["bearer_token_env_var"] == "MCP_SSH_TOKEN"
    else:
        assert entry["headers"] == {"Authorization": f"Bearer {CLIENTS[client].token}"}
    assert ("inputs" in whole) == (client == "vscode")


async def test_read_only_narrows_both_ways_in(tmp_path: Path) -> None:
    assert (await config(tmp_path, "cursor", "--read-only"))["mcpServers"]["ssh-steward"]["args"][-1] == "--read-only"
    over_http = await config(tmp_path, "cursor", "--read-only", "--http", URL)
    assert over_http["mcpServers"]["ssh-steward"]["url"] == f"{URL}/mcp/readonly"


async def test_without_a_client_the_known_ones_are_listed(tmp_path: Path) -> None:
    listed = await run("client-config", home=tmp_path)
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == list(CLIENTS)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["emacs"], "claude-code"),
        (["claude-desktop", "--http", URL], "leave --http out"),
        (["cursor", "--http", "localhost"], "http://127.0.0.1:8754"),
        (["cursor", "--http", f"{URL}/mcp/all", "--read-only"], "--read-only"),
    ],
)
async def test_what_cannot_be_is_refused_in_one_line(words: list[str], says: str, tmp_path: Path) -> None:
    refused = await run("client-config", *words, home=tmp_path)
    assert refused.code == 2
    assert says in refused.failure
