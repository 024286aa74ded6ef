"""`ssh-steward exec` behaves as the command it runs: both streams apart and at once, its exit code, its end."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from mcp_ssh.ssh.demo.host import DemoHost, demo_host
from tests.support.cli_kit import COMMAND, ROOT, alive, environment, needs_proc, on_terminal, run, running
from tests.support.demo import trust

pytestmark = pytest.mark.requirement("cli.exec")


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[DemoHost]:
    """A host whose key is known and that is saved as web1."""
    async with demo_host() as made:
        await trust(made, tmp_path)
        login = {"host": made.host, "port": made.port, "username": made.username, "password": made.password}
        added = await run("call", "connection_add", "-", home=tmp_path, stdin=json.dumps({"name": "web1", **login}))
        assert added.code == 0, added.err
        yield made


async def test_streams_come_apart_and_the_exit_code_is_passed_on(host: DemoHost, tmp_path: Path) -> None:
    done = await run("exec", "web1", "--", "echo out; echo err >&2; exit 7", home=tmp_path)
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")
    killed = await run("exec", "web1", "--", "kill -9 $$", home=tmp_path)
    assert killed.code == 137


async def test_several_words_reach_the_program_as_they_are(host: DemoHost, tmp_path: Path) -> None:
    words = ["printf", "<%s>", "a b", "*", "$HOME", "'", "", "--", "-v", "--help", "ü\n"]
    done = await run("exec", "web1", "--", *words, home=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert done.out == "".join(f"<{word}>" for word in words[2:])


@pytest.mark.requirement("fault.N13")
async def test_a_pipe_is_passed_on_and_n_keeps_it_back(host: DemoHost, tmp_path: Path) -> None:
    passed = await run("exec", "web1", "--", "cat", home=tmp_path, stdin="for it\n")
    assert (passed.code, passed.out) == (0, "for it\n")
    kept = await run("exec", "-n", "web1", "--", "cat", home=tmp_path, stdin="not for it")
    assert (kept.code, kept.out) == (0, "")
    told = await run("exec", "--json", "web1", "--", "cat", home=tmp_path, stdin="for it\n")
    assert json.loads(told.out)["stdout"] == "for it\n"


@pytest.mark.requirement("fault.N13")
async def test_input_that_never_ends_keeps_no_command_waiting(host: DemoHost, tmp_path: Path) -> None:
    async with running("exec", "web1", "--", "head -n 1; echo done", home=tmp_path) as command:
        assert command.process.stdin is not None
        await command.process.stdin.send(b"first\n")
        assert await command.ended() == 0
        assert command.said["out"] == "first\ndone\n"


@needs_proc
@pytest.mark.requirement("fault.N13")
async def test_standard_input_that_cannot_be_read_is_told_and_ends_there(host: DemoHost, tmp_path: Path) -> None:
    unreadable = os.open("/proc/self/mem", os.O_RDONLY)  # its first page is nobody's
    try:
        with anyio.fail_after(30):
            done = await anyio.run_process(
                [*COMMAND, "exec", "web1", "--", "cat; echo done"],
                stdin=unreadable, cwd=ROOT, env=environment(tmp_path), check=False,
            )  # fmt: skip
    finally:
        os.close(unreadable)
    assert (done.returncode, done.stdout) == (0, b"done\n")
    assert done.stderr == b"ssh-steward: standard input cannot be read, so it ends here: Input/output error\n"


@pytest.mark.requirement("fault.N13")
async def test_what_is_typed_reaches_the_command_with_i_alone(host: DemoHost, tmp_path: Path) -> None:
    def typed(*options: str) -> tuple[int, str]:
        return on_terminal(["exec", *options, "web1", "--", "sed s/^/got-/"], home=tmp_path, typed=b"abc\n\x04")

    code, shown = await anyio.to_thread.run_sync(typed, "-i")
    assert (code, "got-abc" in shown) == (0, True)
    code, shown = await anyio.to_thread.run_sync(typed)
    assert (code, "got-" in shown) == (0, False)


async def test_output_of_any_size_and_any_bytes_comes_whole(host: DemoHost, tmp_path: Path) -> None:
    line = "yes 0123456789 | head -c 20000000; printf '\\377\\000\\n'"
    target = tmp_path / "out"
    with target.open("wb") as file, anyio.fail_after(60):
        done = await anyio.run_process(
            [*COMMAND, "exec", "web1", "--", line], stdout=file, cwd=ROOT, env=environment(tmp_path), check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")
    whole = target.read_bytes()
    assert len(whole) == 20_000_003
    assert whole.endswith(b"\xff\x00\n")


async def test_output_comes_while_the_command_runs(host: DemoHost, tmp_path: Path) -> None:
    line = "echo first; while [ ! -e go ]; do sleep 0.05; done; echo last"
    async with running("exec", "web1", "--", line, home=tmp_path) as command:
        await command.until("first\n", "out")
        (host.home / "go").touch()
        assert await command.ended() == 0
        assert command.said == {"out": "first\nlast\n", "err": ""}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_ctrl_c_ends_the_remote_process(
    host: DemoHost, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    line = "trap : TERM INT; echo $$; while :; do sleep 600; done"
    async with running("exec", "web1", "--", line, home=tmp_path) as command:
        pid = int((await command.until(r"(\d+)\n", "out"))[1])
        assert alive(pid)
        assert await command.end(number) == code
        assert not alive(pid)


async def test_a_reader_that_leaves_ends_the_remote_process(host: DemoHost, tmp_path: Path) -> None:
    line = "echo $$ > pid; exec yes"
    script = f"{sys.executable} -m mcp_ssh exec web1 -- '{line}' | head -n 1; exit ${{PIPESTATUS[0]}}"
    with anyio.fail_after(60):
        done = await anyio.run_process(
            ["bash", "-c", script], cwd=ROOT, env=environment(tmp_path), stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stdout, done.stderr) == (141, b"y\n", b"")
    assert not alive(int((host.home / "pid").read_text()))


async def test_the_deadline_ends_it_and_has_a_code_of_its_own(host: DemoHost, tmp_path: Path) -> None:
    done = await run("exec", "--timeout", "0.5", "web1", "--", "echo $$; sleep 600", home=tmp_path)
    assert done.code == 124
    assert "did not end within 0.5 s" in done.err
    assert not alive(int(done.out))


async def test_json_has_both_streams_and_the_code(host: DemoHost, tmp_path: Path) -> None:
    done = await run("exec", "web1", "--json", "--cwd", "/", "--", "pwd; echo err >&2; exit 3", home=tmp_path)
    assert (done.code, done.err) == (3, "")
    body = json.loads(done.out)
    assert (body["stdout"], body["stderr"], body["exit_code"]) == ("/\n", "err\n", 3)


async def test_a_folder_that_is_missing_is_said_once_and_what_a_command_says_alike_is_shown(
    host: DemoHost, tmp_path: Path
) -> None:
    done = await run("exec", "web1", "--cwd", "/nonexistent", "--", "id", home=tmp_path)
    assert (done.code, done.out) == (255, "")
    assert "working folder does not exist" in done.err
    assert not re.search(r"[0-9a-f]{32}", done.err)
    line = "printf '%032d cwd\\n' 1 >&2; printf 'abc\\nabc'"
    shown = await run("exec", "web1", "--cwd", "/", "--", line, home=tmp_path)
    assert (shown.code, shown.out, shown.err) == (0, "abc\nabc", f"{1:032d} cwd\n")


async def test_what_could_not_run_ends_in_one_line_and_255(host: DemoHost, tmp_path: Path) -> None:
    closed = await run("exec", "ops@127.0.0.1:1", "--", "true", home=tmp_path)
    assert closed.code == 255
    assert closed.failure
    nobody = await run("exec", "--ask-password", "ops@web2", "--", "true", home=tmp_path)
    assert "nobody to ask" in nobody.failure
    wrong = await run("exec", "a@b@c", "--", "true", home=tmp_path)
    assert wrong.code == 2
    assert "is not a machine" in wrong.failure
    forgotten = await run("exec", "web1", "ls", "-l", "/", home=tmp_path)
    assert forgotten.code == 2
    assert "ssh-steward exec web1 -- uptime" in forgotten.failure
    empty = await run("exec", "web1", home=tmp_path)
    assert empty.code == 2
    assert "ssh-steward exec web1 -- uptime" in empty.failure


async def test_an_unknown_host_key_is_shown_with_the_command_that_trusts_it(host: DemoHost, tmp_path: Path) -> None:
    (tmp_path / "state/known_hosts").unlink()
    refused = await run("exec", "web1", "--", "true", home=tmp_path)
    assert refused.code == 255
    assert host.fingerprint in refused.failure
    assert "ssh-steward call hostkey_accept" in refused.failure


async def test_on_a_terminal_a_password_is_asked_for_and_not_shown(host: DemoHost, tmp_path: Path) -> None:
    words = ["exec", "--ask-password", f"{host.username}@{host.host}:{host.port}", "--", "echo done"]
    code, shown = await anyio.to_thread.run_sync(
        lambda: on_terminal(words, home=tmp_path, typed=f"{host.password}\n".encode(), after=b"password: ")
    )
    assert code == 0, shown
    assert "done" in shown
    assert host.password not in shown


@pytest.mark.requirement("fault.N13")
async def test_a_password_that_a_tool_asks_for_is_not_shown(host: DemoHost, tmp_path: Path) -> None:
    words = ["exec", f"{host.username}@{host.host}:{host.port}", "--", "echo done"]
    code, shown = await anyio.to_thread.run_sync(
        lambda: on_terminal(words, home=tmp_path, typed=f"{host.password}\n".encode(), after=b"Password: ")
    )
    assert (code, "Password" in shown, "done" in shown) == (0, True, True), shown
    assert host.password not in shown


async def test_it_is_on_record(host: DemoHost, tmp_path: Path) -> None:
    from mcp_ssh.store import Store

    await run("exec", "web1", "--", "true", home=tmp_path)
    store = await Store.open(tmp_path / "state")
    try:
        [row, *_] = await store.history.list(5, tool="command_exec")
    finally:
        await store.close()
    assert (row.caller, row.door, row.outcome) == ("cli", "cli", "ok")
    assert (row.target or "").endswith(f":{host.port}")
