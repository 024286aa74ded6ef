"""The command line says what is wrong in one line, and is there at once."""

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from mcp_ssh import __version__
from tests.support.cli_kit import COMMAND, ROOT, environment, on_terminal, run, running

OPEN = "0.0.0.0"
HEAVY = (
    "anyio",
    "asyncssh",
    "httpx2",
    "mcp",
    "pydantic",
    "rest_bridge",
    "rich",
    "starlette",
    "uvicorn",
    "cryptography",
)


async def test_the_version_is_the_one_of_the_package(tmp_path: Path) -> None:
    done = await run("--version", home=tmp_path)
    assert (done.code, done.out, done.err) == (0, f"ssh-steward {__version__}\n", "")


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["serve", "--help"], ["call", "x", "{"], ["serv"]])
def test_nothing_heavy_is_imported_before_a_command_needs_it(words: list[str]) -> None:
    program = (
        "import sys\nfrom mcp_ssh.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        "print('IMPORTED', *sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    imported = done.stdout.rpartition("IMPORTED ")[2].split()
    assert "mcp_ssh.cli" in imported
    assert [name for name in HEAVY if name in imported] == []


WRONG: dict[str, tuple[list[str], int, list[str]]] = {
    "unknown command": (["serv"], 2, ["no command 'serv'", "did you mean serve?"]),
    "unknown command like no other": (["xyzzy"], 2, ["no command 'xyzzy'", "stdio", "token"]),
    "unknown option": (["tools", "--frobnicate"], 2, ["--frobnicate", "ssh-steward"]),
    "abbreviated option": (["tools", "--mark"], 2, ["--mark"]),
    "option of another command": (
        ["history", "verify", "--until", "1h"],
        2,
        ["--until", "ssh-steward history verify --help"],
    ),
    "a word too many": (
        ["upload", "h", "README.md", "--json", "there", "more"],
        2,
        ["more", "ssh-steward upload --help"],
    ),
    "a name with a dash": (["token", "revoke", "--", "-x"], 1, ["'-x'", "token list"]),
    "operands with dashes": (["upload", "--", "h", "-dash"], 1, ["-dash: no such file"]),
    "a word too many behind --": (["guide", "--", "-x"], 2, ["it takes no -x", "ssh-steward guide --help"]),
    "a wrong choice behind --": (["client-config", "--", "-x"], 2, ["'-x'", "codex"]),
    "unknown shell": (["completion", "tcsh"], 2, ["'tcsh'", "there are bash, zsh, fish (see"]),
    "no machine to run on": (["exec"], 2, ["required: MACHINE, COMMAND"]),
    "port of a machine": (["exec", "-p", "0", "h", "--", "id"], 2, ["'0' is not a port, which is 1 to 65535"]),
    "port in an address": (["exec", "127.0.0.1:70000", "--", "id"], 2, ["'70000' is not a port", "[user@]host[:port]"]),
    "no time at all": (["exec", "--timeout", "0", "h", "--", "id"], 2, ["'0' is not a time limit"]),
    "a time that is no number": (["download", "h", "x", "--timeout", "nan"], 2, ["'nan'", "0.1 to 86400 seconds"]),
    "no calls at most": (["history", "--limit", "0"], 2, ["--limit", "from 1 to 1000"]),
    "before the first call": (["history", "--before", "0"], 2, ["--before", "from 1"]),
    "session of another process": (
        ["call", "session_status", '{"session_id": "x"}'],
        1,
        ["saved connection", "--connect"],
    ),
    "unknown tool like no other": (["call", "zzz"], 1, ["no tool 'zzz'", "ssh-steward tools"]),
    "nothing to log in with": (
        ["exec", "root@127.0.0.1:1", "--", "id"],
        255,
        ["give one of --ask-password, --key FILE, interactive_answers"],
    ),
    "missing argument": (["call"], 2, ["TOOL", "ssh-steward call --help"]),
    "missing action": (["token"], 2, ["ACTION", "ssh-steward token --help"]),
    "unknown role": (["token", "add", "x", "--role", "king"], 2, ["king", "viewer"]),
    "wrong port": (["serve", "--port", "70000"], 2, ["'70000' is not a port"]),
    "bad JSON": (["call", "session_list", "{bad"], 2, ["not JSON", "line 1", "'{"]),
    "JSON that is no object": (["call", "session_list", "[1]"], 2, ["must be a JSON object"]),
    "bad JSON to connect": (["call", "command_exec", "{}", "--connect", "x"], 2, ["--connect is not JSON", "username"]),
    "input wanted twice": (["call", "command_exec", "-", "--connect", "-"], 2, ["read only once"]),
    "unknown tool": (["call", "comand_exec", "{}"], 1, ["no tool 'comand_exec'", "did you mean command_exec"]),
    "unknown argument": (["call", "hostkey_scan", '{"hots": "x"}'], 1, ["hots", "host"]),
    "no machine": (["call", "command_exec", '{"command": "id"}'], 1, ["runs on a machine", "--connect"]),
    "no such address": (["call", "session_list", "--url", "ftp://x"], 2, ["'ftp://x'", "http://"]),
    "nobody listens": (["call", "session_list", "--url", "http://127.0.0.1:9"], 1, ["no answer", "ssh-steward serve"]),
    "unknown toolset": (["stdio", "--toolsets", "fiel"], 1, ["no toolset 'fiel'", "did you mean file"]),
    "unknown toolset for HTTP": (["serve", "--toolsets", "fiel"], 1, ["no toolset 'fiel'", "did you mean file"]),
    "open bind without TLS": (["serve", "--host", OPEN, "--port", "0"], 1, [OPEN, "TLS"]),
    "address of nobody": (["serve", "--host", "no.such.host.invalid"], 1, ["no.such.host.invalid"]),
    "key without certificate": (["serve", "--tls-key", "x"], 2, ["--tls-cert"]),
    "no such certificate": (["serve", "--port", "0", "--tls-cert", "/nonexistent"], 1, ["certificate"]),
    "no such token": (["token", "revoke", "nobody"], 1, ["'nobody'", "token list"]),
    "demo on an open address": (["demo", "--once", "--host", OPEN], 1, [OPEN]),
}


@pytest.mark.parametrize("command", ["exec", "upload", "download", "check"])
async def test_every_command_that_logs_in_takes_the_key_alike(command: str, tmp_path: Path) -> None:
    done = await run(command, "--help", home=tmp_path)
    assert re.search(r"^  -k( FILE)?, (-i( FILE)?, )?--key FILE", done.out, re.MULTILINE), done.out


@pytest.mark.parametrize("name", WRONG)
async def test_a_mistake_is_one_line_with_a_hint(name: str, tmp_path: Path) -> None:
    words, code, said = WRONG[name]
    # What makes the server go on far enough to find the mistake, without a line about a new token.
    done = await run(*words, home=tmp_path, env={"MCP_SSH_TOKEN": "t" * 32})
    for part in said:
        assert part in done.failure
    assert done.code == code


@pytest.mark.parametrize(
    ("command", "text", "said"),
    [
        (["stdio"], '{"server": {"prot": 1}}', "server.prot"),
        (["serve", "--port", "0"], '{"ssh": {"timeout": "soon"}}', "ssh.timeout"),
        (["call", "session_list"], "{", "line 1"),
        (["demo", "--once"], "[]", "config.json"),
    ],
)
async def test_a_wrong_config_is_named_by_key_and_file(
    command: list[str], text: str, said: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "config.json").write_text(text)
    done = await run(*command, home=tmp_path)
    assert said in done.failure
    assert str(state / "config.json") in done.failure
    assert done.code == 1


async def test_a_state_folder_that_is_none_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    done = await run("token", "list", home=tmp_path)
    assert done.code == 1
    assert "MCP_SSH_HOME" in done.failure


async def test_a_port_in_use_is_one_line_with_a_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = await run("serve", "--port", port, home=tmp_path, env={"MCP_SSH_TOKEN": "t" * 32})
        assert done.code == 1
        assert port in done.failure
        assert "--port" in done.failure


def test_a_mistake_of_ours_is_one_line_and_with_v_a_traceback() -> None:
    program = (
        "from mcp_ssh.cli import main, tools\n"
        "def broken(parsed): raise ZeroDivisionError('secret /etc/x')\n"
        "tools.run = broken\nimport sys\nmain(sys.argv[1:])"
    )
    for words, traceback in ((["tools"], False), (["tools", "-v"], True)):
        command = [sys.executable, "-c", program, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("ssh-steward: ")
        assert "ZeroDivisionError" in done.stderr.splitlines()[-1]
        assert ("Traceback" in done.stderr) is traceback
        assert ("secret" in done.stderr) is traceback


def test_a_person_without_a_command_gets_a_short_help(tmp_path: Path) -> None:
    code, shown = on_terminal([], home=tmp_path)
    assert code == 0
    assert "ssh-steward demo" in shown
    assert len(shown.splitlines()) < 15


async def test_without_a_command_a_client_gets_the_server(tmp_path: Path) -> None:
    parameters = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:]], env=environment(tmp_path), cwd=str(ROOT)
    )
    async with Client(parameters) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
    assert {"session_connect", "command_exec", "file_write"} <= set(names)


async def test_stdio_lists_the_toolsets_it_was_told_to(tmp_path: Path) -> None:
    words = [*COMMAND[1:], "stdio", "--toolsets", "session,file", "--read-only"]
    parameters = StdioServerParameters(command=COMMAND[0], args=words, env=environment(tmp_path), cwd=str(ROOT))
    async with Client(parameters) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
    assert {"session_connect", "file_read"} <= names
    assert not names & {"file_write", "command_exec"}


async def test_stdio_ends_when_its_input_does(tmp_path: Path) -> None:
    done = await run("stdio", home=tmp_path, stdin="")
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stdio_ends_on_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    async with running("stdio", "-v", home=tmp_path) as server:
        assert server.process.stdin is not None
        await server.process.stdin.send(b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        await server.until(r"\n", "out")
        assert await server.end(number) == 0


def test_who_reads_no_further_ends_the_command_quietly(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "tools", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=environment(tmp_path),
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(60) == 141
    process.stderr.close()


async def test_tools_are_listed_for_people_programs_and_pages(tmp_path: Path) -> None:
    from mcp_ssh.tools import REGISTRY

    plain = (await run("tools", home=tmp_path)).out.splitlines()
    assert plain[0].split() == ["tool", "risk", "what", "it", "does"]
    assert [line.split()[0] for line in plain[1:]] == list(REGISTRY)
    assert any(line.split()[:2] == ["command_exec", "destroy"] for line in plain)
    described = json.loads((await run("tools", "--json", home=tmp_path)).out)
    assert [each["name"] for each in described] == list(REGISTRY)
    assert described[0]["input_schema"] == REGISTRY["session_connect"].input_schema
    page = (await run("tools", "--markdown", home=tmp_path)).out.splitlines()
    assert page[0].startswith("| Tool | Risk ")
    assert len(page) == len(REGISTRY) + 2
    code, shown = on_terminal(["tools"], home=tmp_path)
    assert code == 0
    assert "command_exec" in shown
