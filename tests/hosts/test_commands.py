"""Commands on real hosts, through every door."""

import base64
import functools
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import blob, command, session
from tests.fleet.hosts import Host
from tests.support.doors import Fault, Way
from tests.support.machine import login, outside, trust


class On:
    """A session through a door."""

    def __init__(self, way: Way, host: Host, session_id: str) -> None:
        self.way, self.host, self.session_id = way, host, session_id

    async def exec(self, text: str, **more: Any) -> dict[str, Any]:
        return await self.way.call(command.run_command, {"command": text, "session_id": self.session_id, **more})


@pytest.fixture
async def on(app: App, way: Way, host: Host) -> On:
    await trust(app, host)
    return On(way, host, (await way.call(session.connect, login(host, "dev")))["session_id"])


@pytest.mark.requirement("command.exec", "exec.streams")
async def test_a_command_answers_with_both_streams_and_its_exit_code(on: On) -> None:
    answer = await on.exec("echo out; echo err >&2; exit 3")
    documented = {key: answer.pop(key) for key in ("status", "command", "stdout", "stderr", "exit_code")}
    assert documented == {
        "status": "completed",
        "command": "echo out; echo err >&2; exit 3",
        "stdout": "out\n",
        "stderr": "err\n",
        "exit_code": 3,
    }
    assert answer.pop("duration_ms") > 0
    assert answer == {}


async def test_a_signal_is_named_and_numbered(on: On) -> None:
    answer = await on.exec("kill -TERM $$")
    assert (answer["exit_code"], answer["signal"]) == (143, "TERM")


@pytest.mark.requirement("exec.get_exit_code")
async def test_the_exit_code_is_null_where_it_is_not_wanted(on: On) -> None:
    answer = await on.exec("exit 3", get_exit_code=False)
    assert answer["exit_code"] is None


@pytest.mark.requirement("exec.stdin")
async def test_standard_input_is_closed_unless_given(on: On) -> None:
    assert (await on.exec("cat; echo end", timeout=5))["stdout"] == "end\n"
    assert (await on.exec("cat; echo end", stdin="žluť\n"))["stdout"] == "žluť\nend\n"


@pytest.mark.requirement("exec.cwd", "exec.env")
async def test_folder_and_environment_are_set_and_no_process_list_shows_the_values(on: On) -> None:
    odd = "a'b\"c $(id) `id` \\ \n*"
    answer = await on.exec('pwd; printf %s "$ODD"; cat; ps -ef >&2', cwd="/usr", env={"ODD": odd}, stdin="in")
    assert answer["stdout"] == f"/usr\n{odd}in"
    assert "$(id)" not in answer["stderr"]
    with pytest.raises(Fault) as fault:
        await on.exec("pwd", cwd="/no such")
    assert fault.value.code == "not_found"


@pytest.mark.requirement("exec.bytes")
async def test_bytes_that_are_not_utf8_are_kept_as_base64_and_marked_as_text(on: On) -> None:
    text = await on.exec(r"printf '\377\376ok'")
    assert (text["stdout"], text["invalid_utf8"]) == ("��ok", True)
    exact = await on.exec(r"printf '\377\376\000ok'", encoding="base64")
    assert base64.b64decode(exact["stdout"]) == b"\xff\xfe\0ok"


@pytest.mark.requirement("exec.output.capped", "blob.read")
async def test_long_output_is_cut_in_the_middle_and_paged_from_a_blob(on: On) -> None:
    answer = await on.exec("seq 1 20000; echo short >&2", max_output_bytes=2000)
    expected = "".join(f"{n}\n" for n in range(1, 20001))
    head, _, tail = answer["stdout"].partition("\n[… ")
    assert expected.startswith(head)
    assert expected.endswith(tail.partition("…]\n")[2])
    assert len(answer["stdout"]) < 2100
    assert (answer["truncated"], answer["stdout_bytes"], answer["stderr"]) == (True, len(expected), "short\n")
    read, offset = "", 0
    while offset is not None:
        page: Mapping[str, Any] = await on.way.call(
            blob.read, {"blob_id": answer["stdout_blob"], "offset": offset, "length": 60_000}
        )
        read, offset = read + page["text"], page.get("next_offset")
    assert read == expected


@pytest.mark.requirement("exec.timeout.result")
async def test_a_timeout_is_a_result(on: On) -> None:
    answer = await on.exec("echo early; sleep 60", timeout=1.5)
    assert (answer["status"], answer["exit_code"], answer["stdout"], answer["stopped"]) == (
        "timed_out",
        None,
        "early\n",
        True,
    )


@pytest.mark.requirement("exec.parallel")
async def test_twenty_commands_at_once_all_run_although_the_machine_takes_ten(on: On) -> None:
    answers: dict[int, str] = {}

    async def run(n: int) -> None:
        answers[n] = (await on.exec(f"sleep 0.1; echo {n}"))["stdout"]

    async with anyio.create_task_group() as group:
        for n in range(20):
            group.start_soon(run, n)
    assert answers == {n: f"{n}\n" for n in range(20)}


@pytest.mark.requirement("exec.never_twice")
async def test_a_command_whose_link_dies_is_not_run_again(app: App, way: Way, deb: Host) -> None:
    await trust(app, deb)
    session_id = (await way.call(session.connect, login(deb, "dev")))["session_id"]
    on = On(way, deb, session_id)
    counted = "/home/dev/counted"
    await outside(deb, f"rm -f {counted}")
    with pytest.raises(Fault) as fault:
        # The machine's side of the connection is killed under the command.
        await on.exec(f"echo ran >> {counted}; kill -KILL $PPID; sleep 60", timeout=20)
    assert fault.value.code == "connect_failed"
    assert await outside(deb, f"cat {counted}") == "ran\n"
    status = await way.call(session.status, {"session_id": session_id})
    assert status["connected"] is False


@pytest.mark.requirement("exec.rc_output")
async def test_what_an_rc_file_prints_stays_in_the_output(app: App, way: Way, deb: Host) -> None:
    await trust(app, deb)
    session_id = (await way.call(session.connect, login(deb, "noisy")))["session_id"]
    answer = await On(way, deb, session_id).exec("echo mine; echo err >&2")
    second = await anyio.to_thread.run_sync(functools.partial(deb.ssh, "echo mine; echo err >&2", user="noisy"))
    assert (answer["stdout"], answer["stderr"]) == (second.stdout, second.stderr)


@pytest.mark.requirement("input.refused")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"command": ""}, "command"),
        ({"command": "true", "timeout": 0}, "timeout"),
        ({"command": "true", "timeout": "soon"}, "timeout"),
        ({"command": "true", "tiemout": 3}, "timeout"),
        ({"command": "a\0b"}, "command"),
        ({"command": "true", "env": {"A B": "x"}}, "env"),
        ({"command": "true", "env": {"MCP_SSH_CALL": "x"}}, "env"),
        ({"command": "true", "max_output_bytes": 1 << 40}, "max_output_bytes"),
    ],
)
async def test_bad_input_names_the_field_and_runs_nothing(on: On, arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(Fault) as fault:
        await on.way.call(command.run_command, {"session_id": on.session_id, **arguments})
    assert fault.value.code == "invalid_input"
    assert named in str(fault.value.payload)
