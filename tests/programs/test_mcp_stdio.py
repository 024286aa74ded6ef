"""MCP over standard input and output, as a real process driven by raw lines: how it answers, and how it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from mcp_ssh.mcp_server.stdio_transport import MAX_LINE_BYTES
from tests.support.json_lines import COMMAND, END_S, HELLO, MODERN, REPOSITORY, START_S, Lines, call, ended, parented


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Lines]:
    client = Lines(tmp_path)
    yield client
    client.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lines]:
    """One process, greeted, for the tests that leave it as they found it: starting one takes a while."""
    client = Lines(tmp_path_factory.mktemp("shared"))
    client.hello()
    yield client
    client.close()


# How it answers


def test_a_session_of_the_handshake_era(shared: Lines) -> None:
    shared.write({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, call(3, "toys_echo", {"text": "hé"}))
    answers = {each["id"]: each["result"] for each in (shared.read(), shared.read())}
    assert "toys_echo" in [tool["name"] for tool in answers[2]["tools"]]
    assert answers[3]["structuredContent"]["text"] == "hé"


def test_a_session_of_the_stateless_era(lines: Lines) -> None:
    lines.write(call(1, "toys_echo", {"text": "x"}, _meta=MODERN))
    answer = lines.read(START_S)["result"]
    assert answer["resultType"] == "complete"
    assert answer["structuredContent"] == {"text": "x", "title": "", "tags": []}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_sdks_own_client_works_over_the_pipes(tmp_path: Path, mode: str) -> None:
    where = StdioServerParameters(command=COMMAND[0], args=[*COMMAND[1:], str(tmp_path)], cwd=str(REPOSITORY))
    async with Client(where, mode=mode, read_timeout_seconds=START_S) as client:
        assert (await client.call_tool("toys_echo", {"text": "x"})).structured_content is not None
        large = await client.call_tool("toys_large", {"size": 3_000_000})
        assert large.structured_content is not None
        assert len(large.structured_content["text"]) == 3_000_000


def test_lines_that_are_no_messages_are_answered_and_the_next_one_works(shared: Lines) -> None:
    shared.write(
        b"{nonsense\n", b"\n", b'{"jsonrpc":"2.0","id":5}\n', b'{"id":6,"method":"x\\ud800","jsonrpc":"2.0"}\n'
    )
    assert [(each["id"], each["error"]["code"]) for each in (shared.read(), shared.read(), shared.read())] == [
        (None, -32700),
        (5, -32600),
        (6, -32700),
    ]
    shared.write(call(8, "toys_echo", {"text": "x"}))
    assert shared.read()["id"] == 8


def test_a_line_beyond_the_limit_is_refused_and_the_next_one_works(shared: Lines) -> None:
    shared.write(
        b'{"jsonrpc":"2.0","id":5,"x":"' + b"x" * MAX_LINE_BYTES + b'"}\n', call(6, "toys_echo", {"text": "x"})
    )
    refused = shared.read()
    assert (refused["id"], refused["error"]["code"]) == (None, -32600)
    assert shared.read()["id"] == 6


def test_the_last_line_needs_no_newline(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, str(tmp_path)], input=json.dumps(HELLO).encode(), cwd=REPOSITORY, timeout=START_S,
        capture_output=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["id"] == 1


def test_messages_may_come_from_a_file_and_go_to_one(tmp_path: Path) -> None:
    (tmp_path / "in").write_text(json.dumps(HELLO) + "\n")
    with (tmp_path / "in").open("rb") as given, (tmp_path / "out").open("wb") as answers:
        subprocess.run(
            [*COMMAND, str(tmp_path / "home")], stdin=given, stdout=answers, cwd=REPOSITORY, timeout=START_S, check=True
        )
    assert json.loads((tmp_path / "out").read_text())["id"] == 1


def test_what_tools_print_does_not_reach_the_protocol(shared: Lines) -> None:
    shared.write(call(2, "toys_loud"))
    assert shared.read()["result"]["structuredContent"] == {"done": True}
    shared.until(lambda: b"printed by a tool" in (shared.folder / "stderr").read_bytes())
    assert b"printed by a child" in (shared.folder / "stderr").read_bytes()


# How it ends


def test_it_ends_when_its_input_does(lines: Lines) -> None:
    lines.hello()
    assert lines.process.stdin
    lines.process.stdin.close()
    assert lines.ended() == 0
    assert (lines.folder / "closed").exists()


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGHUP])
def test_it_ends_at_a_signal_while_its_input_stays_open(lines: Lines, sent: signal.Signals) -> None:
    lines.hello()
    lines.process.send_signal(sent)
    assert lines.ended() == 0
    assert (lines.folder / "closed").exists()


def test_a_running_call_cleans_up_before_it_ends_for_want_of_input(lines: Lines) -> None:
    lines.hello()
    lines.waiting()
    assert lines.process.stdin
    lines.process.stdin.close()
    assert lines.ended() == 0
    assert (lines.folder / "cleaned").exists()
    assert (lines.folder / "closed").exists()


def test_a_running_call_cleans_up_before_a_signal_ends_it(lines: Lines) -> None:
    lines.hello()
    lines.waiting()
    lines.process.send_signal(signal.SIGTERM)
    assert lines.ended() == 0
    assert (lines.folder / "cleaned").exists()
    assert (lines.folder / "closed").exists()
    answer = lines.read()
    assert answer["id"] == 7
    assert json.loads(answer["result"]["content"][0]["text"])["code"] == "shutting_down"


def test_signals_during_the_clean_up_do_not_cut_it_short(lines: Lines) -> None:
    lines.hello()
    lines.waiting()
    assert lines.process.stdin
    lines.process.stdin.close()
    while lines.process.poll() is None:
        lines.process.send_signal(signal.SIGTERM)
        time.sleep(0.01)
    assert lines.process.returncode == 0
    assert (lines.folder / "cleaned").exists()
    assert (lines.folder / "closed").exists()


def test_cancelling_ends_the_call_and_not_the_server(shared: Lines) -> None:
    shared.waiting()
    shared.write({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 7}})
    shared.until((shared.folder / "cleaned").exists)
    shared.write(call(8, "toys_echo", {"text": "x"}))
    assert shared.read()["id"] == 8


def test_it_ends_when_nobody_reads_its_output_any_more(lines: Lines) -> None:
    lines.hello()
    assert lines.process.stdout
    lines.process.stdout.close()
    lines.write(call(2, "toys_echo", {"text": "x"}))
    assert lines.ended() == 0


def test_it_ends_though_its_output_is_stuck(lines: Lines) -> None:
    lines.hello()
    lines.write(call(2, "toys_large", {"size": 3_000_000}))
    lines.waiting()
    lines.process.send_signal(signal.SIGTERM)
    assert lines.ended() == 0
    assert (lines.folder / "cleaned").exists()


def test_it_ends_by_force_when_a_call_never_lets_go(tmp_path: Path) -> None:
    client = Lines(tmp_path, [*COMMAND, str(tmp_path), "--limit", "1"])
    try:
        client.hello()
        client.write(call(7, "toys_hang"))
        client.until((tmp_path / "waiting").exists)
        client.process.send_signal(signal.SIGTERM)
        assert client.ended() == 1
    finally:
        client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_cleans_up_and_ends_when_the_kernel_tells_that_its_parent_was_killed(tmp_path: Path) -> None:
    client, pid = parented(tmp_path, "main", [*COMMAND[1:], str(tmp_path), "--look", "3600"])
    try:
        client.waiting()
        client.process.kill()
        assert ended(pid, END_S)
        assert (tmp_path / "cleaned").exists()
        assert (tmp_path / "closed").exists()
    finally:
        client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_ends_when_it_sees_its_parent_gone_where_the_kernel_does_not_tell(tmp_path: Path) -> None:
    client, pid = parented(tmp_path, "main", [*COMMAND[1:], str(tmp_path), "--no-signal"])
    try:
        client.process.kill()
        assert ended(pid, END_S)
        assert (tmp_path / "closed").exists()
    finally:
        client.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_lives_on_when_only_the_thread_that_started_it_ended(tmp_path: Path) -> None:
    client, pid = parented(tmp_path, "thread", [*COMMAND[1:], str(tmp_path)])
    try:
        # That thread was gone before the server could ask for the signal, so the test sends what the kernel would.
        os.kill(pid, signal.SIGUSR1)
        for number in (2, 3):
            client.write(call(number, "toys_echo", {"text": "x"}))
            assert client.read()["result"]["structuredContent"]["text"] == "x"
    finally:
        client.close()
