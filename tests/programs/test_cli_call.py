"""`ssh-steward call` reaches machines by itself and through a running server, and leaves nothing running."""

import base64
import contextlib
import json
import os
import shlex
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.ssh.demo.host import DemoHost, demo_host
from tests.support.cli_kit import COMMAND, Running, alive, environment, on_terminal, run, running
from tests.support.demo import login, trust

TOKEN = "the-token-of-this-test-0123456789"


@pytest.fixture
async def host() -> AsyncIterator[DemoHost]:
    async with demo_host() as made:
        yield made


@contextlib.asynccontextmanager
async def serving(home: Path, *words: str) -> AsyncGenerator[tuple[Running, str]]:
    async with running("serve", "--port", "0", *words, home=home, env={"MCP_SSH_TOKEN": TOKEN}) as server:
        url = (await server.until(r"serves (\S+) ")).group(1)
        yield server, url
        assert await server.end() == 0


async def test_an_unknown_key_is_refused_with_the_command_that_accepts_it_and_then_the_call_works(
    host: DemoHost, tmp_path: Path
) -> None:
    words = ["call", "command_exec", '{"command": "echo out; echo err >&2; exit 3"}', "--connect", "-"]
    refused = await run(*words, home=tmp_path, stdin=login(host))
    assert refused.code == 1
    assert host.fingerprint in refused.failure
    assert host.password not in refused.failure
    program, *accept = shlex.split(refused.failure.rpartition("if they agree: ")[2].removesuffix(")"))
    assert program == "ssh-steward"

    accepted = await run(*accept, home=tmp_path)
    assert (accepted.code, accepted.out) == (0, '{"ok":true}\n')

    done = await run(*words, home=tmp_path, stdin=login(host))
    assert (done.code, done.err) == (0, "")
    assert done.out.count("\n") == 1
    result = json.loads(done.out)
    assert (result["stdout"], result["stderr"], result["exit_code"]) == ("out\n", "err\n", 3)


async def test_a_reader_that_has_enough_of_a_result_is_no_failure(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    words = [*COMMAND, "call", "hostkey_list", "{}"]
    done = await anyio.run_process(words, stdout=write, stderr=subprocess.PIPE, check=False, env=environment(tmp_path))
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


async def test_a_key_logs_in_and_files_go_both_ways(host: DemoHost, tmp_path: Path) -> None:
    await trust(host, tmp_path)
    key_file = tmp_path / "key"
    key_file.write_bytes(base64.b64decode(host.private_key))
    by_file = login(host, password=None, key_path=str(key_file))
    content = "Umlaut: ü\n"
    arguments = json.dumps({"path": "note", "content": content})
    written = await run("call", "file_write", "-", "--connect", by_file, home=tmp_path, stdin=arguments)
    assert json.loads(written.out)["size_bytes"] == len(content.encode())
    assert (host.home / "note").read_text() == content
    read = await run("call", "file_read", '{"path": "note"}', "--connect", by_file, home=tmp_path)
    assert json.loads(read.out)["content"] == content
    assert "ü" in read.out


async def test_a_tool_s_error_is_one_line(host: DemoHost, tmp_path: Path) -> None:
    await trust(host, tmp_path)
    missing = await run("call", "file_read", '{"path": "nothing"}', "--connect", login(host), home=tmp_path)
    assert missing.code == 1
    assert "nothing" in missing.failure
    wrong = await run(
        "call", "command_exec", '{"command": "id"}', "--connect", login(host, password="x"), home=tmp_path
    )
    assert wrong.code == 1
    assert "refused the login" in wrong.failure


async def test_output_that_was_cut_is_said_to_be(host: DemoHost, tmp_path: Path) -> None:
    await trust(host, tmp_path)
    arguments = '{"command": "yes | head -c 2000000"}'
    done = await run("call", "command_exec", arguments, "--connect", login(host), home=tmp_path)
    assert json.loads(done.out)["stdout_bytes"] == 2_000_000
    assert "output was cut" in done.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
async def test_a_signal_ends_the_remote_command_first(
    number: signal.Signals, code: int, host: DemoHost, tmp_path: Path
) -> None:
    await trust(host, tmp_path)
    arguments = '{"command": "trap : TERM; echo $$ > pid; while :; do sleep 600; done"}'
    async with running("call", "command_exec", arguments, "--connect", login(host), home=tmp_path) as call:
        pid = 0
        with anyio.fail_after(30):
            while not pid:
                with contextlib.suppress(OSError, ValueError):
                    pid = int(await anyio.Path(host.home / "pid").read_text())
                await anyio.sleep(0.02)
        assert alive(pid)
        assert await call.end(number) == code
        assert not alive(pid)
        assert call.said == {"out": "", "err": ""}


@pytest.mark.requirement("fault.N13")
async def test_a_person_is_shown_the_fingerprint_and_asked(host: DemoHost, tmp_path: Path) -> None:
    words = ["call", "command_exec", '{"command": "echo hello"}', "--connect", login(host)]

    def answered(typed: bytes) -> tuple[int, str]:
        return on_terminal(words, home=tmp_path, typed=typed)

    code, shown = await anyio.to_thread.run_sync(answered, b"n\n")
    assert code == 1
    assert host.fingerprint in shown
    assert "[y/N]" in shown
    code, shown = await anyio.to_thread.run_sync(answered, b"\x04")
    assert (code, shown.count("[y/N]")) == (1, 1)
    code, shown = await anyio.to_thread.run_sync(answered, b"y\n")
    assert code == 0
    assert '"stdout": "hello\\n"' in shown
    code, shown = await anyio.to_thread.run_sync(answered, b"")
    assert code == 0
    assert "[y/N]" not in shown


async def test_a_running_server_is_called_with_a_token_and_its_session_is_closed(
    host: DemoHost, tmp_path: Path
) -> None:
    await trust(host, tmp_path)
    env = {"MCP_SSH_TOKEN": TOKEN}
    async with serving(tmp_path) as (_, url):
        words = ["call", "command_exec", '{"command": "echo $SSH_CONNECTION"}', "--connect", "-", "--url", url]
        done = await run(*words, home=tmp_path, env=env, stdin=login(host))
        assert (done.code, done.err) == (0, "")
        assert json.loads(done.out)["stdout"].startswith("127.0.0.1 ")
        left = await run("call", "session_list", "--url", url, home=tmp_path, env=env)
        assert json.loads(left.out) == {"sessions": {}}

        # Another session of the same caller is older; the call must not land there.
        other = await run("call", "session_connect", "-", "--url", url, home=tmp_path, env=env, stdin=login(host))
        assert json.loads(other.out)["status"] == "connected"
        async with demo_host() as second:
            await trust(second, tmp_path)
            words = ["call", "command_exec", '{"command": "pwd"}', "--connect", login(second), "--url", url]
            done = await run(*words, home=tmp_path, env=env)
            assert json.loads(done.out)["stdout"] == f"{second.home}\n"

        failed = await run("call", "file_stat", '{"path": "nothing"}', "--url", url, home=tmp_path, env=env)
        assert failed.code == 1
        assert "nothing" in failed.failure
        unknown = await run("call", "file_sat", "--url", url, home=tmp_path, env=env)
        assert "did you mean file_stat" in unknown.failure


async def test_a_running_server_s_questions_reach_the_person(host: DemoHost, tmp_path: Path) -> None:
    key_type, _, _ = host.public_key.partition(" ")
    accepted = {"host": host.host, "port": host.port, "key_type": key_type, "public_key": host.public_key}
    arguments = json.dumps(accepted | {"fingerprint_sha256": host.fingerprint})
    env = {"MCP_SSH_TOKEN": TOKEN}
    async with serving(tmp_path) as (_, url):
        words = ["call", "hostkey_accept", arguments, "--url", url]

        def answered(typed: bytes) -> tuple[int, str]:
            return on_terminal(words, home=tmp_path, typed=typed, env=env)

        code, shown = await anyio.to_thread.run_sync(answered, b"n\n")
        assert code == 1
        assert "[y/N]" in shown
        assert "declined" in shown
        code, shown = await anyio.to_thread.run_sync(answered, b"y\n")
        assert code == 0
        assert '"ok": true' in shown
        nobody = await run(*words, home=tmp_path, env=env)
        assert nobody.code == 1
        assert "confirm" in nobody.failure


async def test_a_server_without_the_right_token_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, url):
        for env in ({}, {"MCP_SSH_TOKEN": "wrong" * 8}):
            refused = await run("call", "session_list", "--url", url, home=tmp_path, env=env)
            assert refused.code == 1
            assert "MCP_SSH_TOKEN" in refused.failure
            assert "wrong" not in refused.failure
        lost = await run("call", "session_list", "--url", f"{url}/nowhere", home=tmp_path, env={"MCP_SSH_TOKEN": TOKEN})
        assert lost.code == 1
        assert "404" in lost.failure


async def test_a_config_that_no_server_starts_with_lets_no_call_pass(tmp_path: Path) -> None:
    """Else a tool whose name is misspelled in `confirm_tools` would run without consent."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "config.json").write_text(json.dumps({"security": {"confirm_tools": ["comand_exec"]}}))
    for words in (("call", "session_list"), ("exec", "nobody@127.0.0.1", "--", "true")):
        ran = await run(*words, home=tmp_path)
        assert ran.code != 0
        assert "comand_exec" in ran.err, words
