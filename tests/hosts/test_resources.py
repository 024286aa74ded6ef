"""Files of real machines and the list of sessions as MCP resources, and the completion of their addresses."""

import base64
import json
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from mcp import Client, MCPError, types

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, SecurityConfig
from mcp_ssh.mcp_server import build_server
from mcp_ssh.tool import Caller, Role
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import ToolsetSelection
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import connected, number, outside
from tests.support.ssh_home import config

ERAS = pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
FILE = types.ResourceTemplateReference(uri="ssh://{session}/{+path}")


def client_of(
    app: App, mode: str = "auto", who: Caller | None = None, surface: ToolsetSelection | None = None
) -> Client:
    return Client(build_server(app, REGISTRY, surface or ToolsetSelection(), caller=who or caller()), mode=mode)


async def content(client: Client, uri: str) -> Any:
    (found,) = (await client.read_resource(uri)).contents
    return found


@ERAS
@pytest.mark.requirement("mcp.resources")
async def test_files_are_read_by_their_address_as_text_or_bytes(app: App, host: Host, mode: str) -> None:
    session = await connected(app, host, "dev", DirectCall(caller()))
    name = f"a b-{number()}.bin"
    await outside(host, f"printf 'a\\377b' > '/home/dev/{name}'; printf 'čau' > /home/dev/text", user="dev")
    async with client_of(app, mode) as client:
        template = (await client.list_resource_templates()).resource_templates[0]
        assert template.uri_template == "ssh://{session}/{+path}"
        hosts = await content(client, f"ssh://{session}/etc/hosts")
        by_name = await content(client, f"ssh://dev@{host.ip}//etc/./hosts")
        text = await content(client, f"ssh://{session}/~/text")
        binary = await content(client, f"ssh://{session}/home/dev/{name.replace(' ', '%20')}")
    assert hosts.text == by_name.text == await outside(host, "cat /etc/hosts", user="dev")
    assert text.text == "čau"
    assert base64.b64decode(binary.blob) == b"a\xffb"
    await outside(host, f"rm '/home/dev/{name}' /home/dev/text", user="dev")
    await app.store.history.flush()
    assert {row.tool for row in await app.store.history.list(50)} == {"session_connect", "file_read"}


@ERAS
@pytest.mark.requirement("mcp.resources")
async def test_an_address_that_is_none_reads_nothing_and_says_why(app: App, deb: Host, mode: str) -> None:
    session = await connected(app, deb, "dev", DirectCall(caller()))
    await outside(deb, "head -c 300000 /dev/zero > /home/dev/large", user="dev")
    wrong = {
        f"ssh://{session}/home/../etc/passwd": "must not contain",
        f"ssh://{session}/home/%2e%2e/etc/passwd": "must not contain",
        f"ssh://{session}/~/../ops/.profile": "must not contain",
        f"ssh://{session}/etc%00": "NUL",
        f"ssh://{session}/%ff": "UTF-8",
        f"ssh://{session}/": "must name a session and a file",
        f"ssh://{session}/no/such": "does not exist",
        f"ssh://{session}/etc": "",
        f"ssh://{session}/etc/shadow": "",
        f"ssh://{session}/home/dev/large": "more than 262144 bytes",
        "ssh://nobody/etc/passwd": "No active session 'nobody'",
        "file:///etc/passwd": "no such resource",
    }
    async with client_of(app, mode) as client:
        for uri, message in wrong.items():
            with pytest.raises(MCPError) as refused:
                await client.read_resource(uri)
            assert message.lower() in str(refused.value).lower(), uri
            assert "root:" not in str(refused.value), uri
    await outside(deb, "rm /home/dev/large", user="dev")


@ERAS
@pytest.mark.requirement("mcp.resources")
async def test_each_caller_reads_and_completes_only_what_is_its_own(app: App, deb: Host, mode: str) -> None:
    config(f"Host web1 db*\n HostName {deb.ip}\n User dev\n IdentityFile {deb.key_path}\n")
    session = await connected(app, deb, "dev", DirectCall(caller()))
    stranger = Caller("t-2", Role.VIEWER)
    async with client_of(app, mode) as mine, client_of(app, mode, stranger) as other:
        listed = json.loads((await content(mine, "ssh-steward://sessions")).text)
        assert list(listed["sessions"]) == [session]
        assert json.loads((await content(other, "ssh-steward://sessions")).text) == {"sessions": {}}
        with pytest.raises(MCPError, match="No active session"):
            await other.read_resource(f"ssh://{session}/etc/hosts")
        names = (await mine.complete(FILE, {"name": "session", "value": ""})).completion.values
        assert {session, f"dev@{deb.ip}", "web1"} <= set(names)
        assert not any("*" in name for name in names)
        assert (await mine.complete(FILE, {"name": "session", "value": "we"})).completion.values == ["web1"]
        assert (await other.complete(FILE, {"name": "session", "value": ""})).completion.values == []
    elsewhere = Caller("t-3", Role.ADMIN, hosts=("10.9.*",))
    async with client_of(app, mode, elsewhere) as bound:
        assert (await bound.complete(FILE, {"name": "session", "value": ""})).completion.values == []


@ERAS
@pytest.mark.requirement("mcp.completion")
async def test_paths_are_completed_on_the_machine_and_connect_to_nothing(app: App, deb: Host, mode: str) -> None:
    session = await connected(app, deb, "dev", DirectCall(caller()))
    prompt = types.PromptReference(name="any")
    async with client_of(app, mode) as client:

        async def values(ref: Any, typed: str, machine: str = session) -> list[str]:
            given = await client.complete(ref, {"name": "path", "value": typed}, {"session": machine})
            return given.completion.values

        assert "etc/hostname" in await values(FILE, "etc/hostn")
        assert "etc/" in await values(FILE, "et")
        assert "/etc/hostname" in await values(prompt, "/etc/hostn")
        assert "~/.profile" in await values(FILE, "~/.pro")
        assert await values(FILE, "no/such/folder/x") == []
        assert await values(FILE, "etc/", "nobody") == []
        many = await client.complete(FILE, {"name": "path", "value": "usr/bin/"}, {"session": session})
        assert len(many.completion.values) == 100
        assert many.completion.has_more
        assert (await client.complete(FILE, {"name": "colour", "value": ""})).completion.values == []
    opened = await anyio.to_thread.run_sync(lambda: len(app.sessions.seen_by(caller())))
    assert opened == 1


@pytest.mark.requirement("mcp.resources")
async def test_an_endpoint_without_file_tools_offers_no_files(app: App) -> None:
    async with client_of(app, surface=ToolsetSelection(("hostkey",))) as client:
        assert (await client.list_resources()).resources == []
        assert (await client.list_resource_templates()).resource_templates == []
        with pytest.raises(MCPError, match="no such resource"):
            await client.read_resource("ssh://web1/etc/hosts")


@ERAS
@pytest.mark.requirement("mcp.resources")
async def test_who_types_is_asked_for_no_consent(mcp_home: Path, deb: Host, mode: str) -> None:
    """A folder that is listed only after a person agreed is not listed for a completion."""
    asked: list[str] = []

    async def elicited(_: Any, params: types.ElicitRequestParams) -> types.ElicitResult:
        asked.append(params.message)
        return types.ElicitResult(action="accept", content={"confirm": True})

    async with open_app(mcp_home, Config(security=SecurityConfig(confirm_tools=["file_list"]))) as app:
        session = await connected(app, deb, "dev", DirectCall(caller()))
        server = build_server(app, REGISTRY, ToolsetSelection(), caller=caller())
        async with Client(server, mode=mode, elicitation_callback=elicited) as client:
            given = await client.complete(FILE, {"name": "path", "value": "etc/"}, {"session": session})
    assert (given.completion.values, asked) == ([], [])
