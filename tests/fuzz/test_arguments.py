"""Whatever a caller gives reaches the other side unharmed and does nothing on the way."""

import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import NotFound
from mcp_ssh.shell_command import command, quote, script
from mcp_ssh.ssh.wire.command import StartLine, build_envelope, waiting
from mcp_ssh.tools import command as commands
from mcp_ssh.tools import file
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.hostile import HOSTILE
from tests.support.machine import SOAK, connected

SHELLS = {"dash": ["dash", "-c"], "bash": ["bash", "-c"], "ash": ["busybox", "ash", "-c"]}


words = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60),
    st.lists(st.sampled_from(HOSTILE), min_size=2, max_size=4).map("".join),
)


def ran(shell: str, line: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    argv = SHELLS[shell]
    assert shutil.which(argv[0]), f"{argv[0]} is missing: `make test` as root installs it"
    return subprocess.run([*argv, line], input=stdin, capture_output=True, timeout=20, check=False)


@pytest.mark.requirement("quoting")
@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=1000 if SOAK else 100, deadline=None)
@given(arguments=st.lists(words, max_size=5))
def test_arguments_come_through_every_shell_unchanged(shell: str, arguments: list[str]) -> None:
    printed = ran(shell, command("printf", r"%s\0", *arguments, "end").line())
    assert printed.stdout.split(b"\0")[:-1] == [each.encode() for each in [*arguments, "end"]]
    counted = ran(shell, script('printf "%s\\0" "$#" "$@"', arguments).line())
    assert counted.stdout.split(b"\0")[:-1] == [str(len(arguments)).encode(), *(each.encode() for each in arguments)]


def test_the_negative_control_without_quoting_does_what_the_payload_says(tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    payload = HOSTILE[0].replace("/tmp/pwned", str(mark))
    for shell in SHELLS:
        ran(shell, command("printf", "%s", payload).line())
        assert not mark.exists()
        ran(shell, f"printf %s {payload}")
        assert mark.exists()
        mark.unlink()


@pytest.mark.requirement("quoting")
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("kind", ["posix", "other", "waiting"])
@settings(max_examples=500 if SOAK else 40, deadline=None)
@given(value=words, body=words)
def test_environment_values_come_through_the_preamble_unchanged(shell: str, kind: Any, value: str, body: str) -> None:
    shown = f'printf %s "$VALUE"; cat; : {quote(body)}'
    prepared = build_envelope(shown, shell="other" if kind == "other" else "posix", cwd="/", env={"VALUE": value})
    text = prepared.text
    if kind == "waiting":
        prepared, text = prepared.handed_to("0" * 32), waiting("0" * 32)
    done = ran(shell, text, prepared.stdin + body.encode())
    errors = done.stderr
    if kind == "waiting":  # once when it waits, once when it begins
        first, errors = errors.split(b"\n", 1)
        assert errors == first + b"\n"
    assert done.stdout == value.encode() + body.encode()
    line = StartLine(prepared.start_line)
    assert line.feed(errors) == b""
    assert line.pid is not None


@pytest.mark.requirement("quoting")
@pytest.mark.parametrize("shell", SHELLS)
def test_a_long_script_comes_through_in_words_that_csh_takes(shell: str) -> None:
    """Debian's csh takes none of over 8 KiB."""
    text = "'!\\\n\u010d" * 3000
    line = build_envelope(f"printf %s {quote(text)}", shell="other", ours=True).text  # noqa: S604 it starts nothing
    assert max(map(len, shlex.split(line))) <= 8192
    assert ran(shell, line).stdout.decode() == text


@pytest.fixture
def who() -> DirectCall:
    return DirectCall(caller())


@pytest.mark.requirement("quoting.hosts")
@pytest.mark.parametrize("user", ["dev", "dash"])
async def test_arguments_of_tools_do_nothing_on_a_real_host(app: App, host: Host, who: DirectCall, user: str) -> None:
    """bash and dash on Debian, BusyBox ash on Alpine."""
    session_id = await connected(app, host, user, who)
    host.console(["rm", "-rf", "/tmp/pwned", f"/home/{user}/fuzz"])
    host.console(["sh", "-c", f"mkdir /home/{user}/fuzz && chown {user} /home/{user}/fuzz"])
    for word in HOSTILE:
        arguments = {"command": 'printf "%s" "$WORD"; cat', "env": {"WORD": word}, "stdin": word}
        answer = await dispatch(app, commands.run_command, {"session_id": session_id, **arguments}, who)
        assert answer.stdout == word * 2
        with pytest.raises(NotFound):
            missing = {"session_id": session_id, "command": "true", "cwd": f"no{word}"}
            await dispatch(app, commands.run_command, missing, who)
        path = f"fuzz/a{word.replace('/', '%')}"
        written = {"session_id": session_id, "path": path, "content": word}
        await dispatch(app, file.write, written, who)
        assert (await dispatch(app, file.read, {"session_id": session_id, "path": path}, who)).content == word
    listed = await dispatch(app, file.list_folder, {"session_id": session_id, "path": "fuzz"}, who)
    assert sorted(each.name for each in listed.items) == sorted({f"a{word.replace('/', '%')}" for word in HOSTILE})
    assert host.console(["test", "-e", "/tmp/pwned"]).returncode == 1


@pytest.mark.requirement("quoting.hosts")
@settings(max_examples=200 if SOAK else 25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(word=words.filter(lambda word: word.strip("/.") and len(word.encode()) < 200))
async def test_any_path_is_written_and_read_back(app: App, alpine: Host, word: str) -> None:
    who = DirectCall(caller())
    if not app.sessions.seen_by(who.caller):
        await connected(app, alpine, "dev", who)
    path = f"any-{word.replace('/', '%')}"
    await dispatch(app, file.write, {"path": path, "content": word}, who)
    assert (await dispatch(app, file.read, {"path": path}, who)).content == word
    assert (await dispatch(app, file.stat, {"path": path}, who)).size == len(word.encode())
