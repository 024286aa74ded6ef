"""`ssh-steward demo` shows a real session, what it prints works when pasted, and it leaves nothing behind."""

import json
import re
import signal
import socket
from pathlib import Path

import anyio
import pytest
from mcp import Client, StdioServerParameters

from mcp_ssh.cli import mcp_client
from tests.support.cli_kit import ROOT, environment, needs_proc, on_terminal, run, running

STEPS = ["session_connect", "hostkey_accept", "session_connect", "command_exec", "file_write", "file_read"]
TOKEN = "the-token-of-this-test-0123456789"


def leftovers(folder: Path) -> list[Path]:
    """What is left in the folder for temporary files."""
    return sorted(folder.iterdir())


@pytest.fixture
def temporary(tmp_path: Path) -> dict[str, str]:
    """A folder for temporary files of its own, and no folder of state given."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return {"TMPDIR": str(folder), "MCP_SSH_HOME": ""}


async def test_once_shows_the_session_of_a_newcomer_and_ends(tmp_path: Path, temporary: dict[str, str]) -> None:
    done = await run("demo", "--once", "--port", "0", home=tmp_path, env=temporary)
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out
    assert re.findall(r"^  > (\w+)", done.out, re.MULTILINE) == STEPS
    asked = re.findall(r"^  < (.+)$", done.out, re.MULTILINE)
    [fingerprint] = re.findall(r"its key +ssh-ed25519 (SHA256:\S+)", done.out)
    assert asked[0].startswith("host_key_unconfirmed: ")
    assert fingerprint in asked[0]
    assert asked[1] == "ok=true"
    assert 'status="connected"' in asked[2]
    assert re.search(r'stdout="hello from \w+, in /', asked[3])
    assert "exit_code=0" in asked[3]
    assert "atomic=true" in asked[4]
    assert 'content="Written through MCP.\\n"' in asked[5]
    assert "not a sandbox" in done.out
    assert leftovers(tmp_path / "tmp") == []
    assert not (tmp_path / "state").exists()


@needs_proc
async def test_what_it_prints_works_when_pasted_and_ctrl_c_ends_it_cleanly(
    tmp_path: Path, temporary: dict[str, str]
) -> None:
    async with running("demo", "--port", "0", home=tmp_path, env=temporary) as demo:
        await demo.until(r"Serving until Ctrl-C", "out")
        text = demo.said["out"]
        connect, execute = re.findall(r"^curl .+$", text, re.MULTILINE)
        for line, expected in ((connect, '"status":"connected"'), (execute, "notes.txt")):
            pasted = await anyio.run_process(["/bin/sh", "-c", line], check=False)
            assert pasted.returncode == 0
            assert expected in pasted.stdout.decode().replace(" ", "")
        configuration = json.loads(text[text.index('{\n  "mcpServers"') : text.rindex("}\n") + 1])["mcpServers"]

        over_http = configuration["ssh-steward-demo"]
        scheme, _, token = over_http["headers"]["Authorization"].partition(" ")
        assert scheme == "Bearer"
        async with mcp_client.connect_client(over_http["url"], token) as client:
            sessions = await mcp_client.call(client, "session_list", {})
        assert len(sessions.body["sessions"]) == 2

        started = configuration["ssh-steward"]
        parameters = StdioServerParameters(
            command=started["command"], args=started["args"], env=environment(tmp_path), cwd=str(ROOT)
        )
        async with Client(parameters) as client:
            assert len((await client.list_tools()).tools) > 5

        # A command that is running, and one left in the background, end with it.
        await anyio.run_process(
            ["/bin/sh", "-c", execute.replace("uname -sr; pwd; ls -l", "sleep 602 > /dev/null 2>&1 &")]
        )
        home = re.findall(r"on this machine, in (\S+):", text)[0]
        assert standing(home) != []
        assert await demo.end(signal.SIGINT) == 0
        assert demo.said["err"] == ""
    assert leftovers(tmp_path / "tmp") == []
    assert standing(home) == []


def standing(home: str) -> list[str]:
    """Processes that stand in the folder."""
    return [each.name for each in Path("/proc").iterdir() if each.name.isdigit() and _cwd(each).startswith(home)]


def _cwd(process: Path) -> str:
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return ""


async def test_a_folder_that_was_given_stays_as_it_was(tmp_path: Path) -> None:
    env = {"MCP_SSH_TOKEN": TOKEN}
    assert (await run("token", "add", "mine", home=tmp_path)).code == 0
    done = await run("demo", "--once", "--port", "0", home=tmp_path, env=env)
    assert done.code == 0
    assert TOKEN in done.out
    described = json.loads((await run("token", "list", "--json", home=tmp_path)).out)
    assert [each["name"] for each in described] == ["mine"]
    assert json.loads((await run("call", "hostkey_list", home=tmp_path)).out) == {"entries": []}


async def test_a_port_that_was_asked_for_and_is_taken_is_one_line(tmp_path: Path, temporary: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = await run("demo", "--once", "--port", str(taken.getsockname()[1]), home=tmp_path, env=temporary)
        assert done.code == 1
        assert "--port" in done.failure
    assert leftovers(tmp_path / "tmp") == []


async def test_the_usual_port_is_left_to_whoever_has_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (state / "config.json").write_text(json.dumps({"server": {"port": port}}))
        done = await run("demo", "--once", home=tmp_path)
    assert done.code == 0
    assert f"http://127.0.0.1:{port}/" not in done.out


def test_a_terminal_gets_the_same_words_and_lines_that_can_be_pasted(tmp_path: Path) -> None:
    code, shown = on_terminal(["demo", "--once", "--port", "0"], home=tmp_path)
    assert code == 0
    assert re.findall(r"^  > (\w+)", shown, re.MULTILINE) == STEPS
    curls = re.findall(r"^curl .+$", shown, re.MULTILINE)
    assert len(curls) == 2
    assert all(len(each) > 130 and re.search(r" http://\S+$", each) for each in curls)


async def test_a_step_with_another_answer_than_it_must_get_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MCP_SSH_HOME", str(tmp_path / "state"))
    (tmp_path / "state").mkdir(mode=0o700)
    # This server takes any key at first sight, so nobody is asked: not the session that was to be shown.
    (tmp_path / "state" / "config.json").write_text('{"security": {"host_keys": "accept-new"}}')
    done = await run("demo", "--once", "--port", "0", home=tmp_path)
    assert done.code == 1
    assert re.search(r"ssh-steward: session_connect gave another answer than it must \(.+\)\n$", done.err)
