"""A shell is known to stand at its prompt, or not, whatever the prompt looks like and whatever a program prints."""

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.sessions import shell_exec
from mcp_ssh.sessions.shell_exec import _Reader  # pyright: ignore[reportPrivateUsage]
from mcp_ssh.tools import shell
from tests.fleet.hosts import Host
from tests.support.doors import Fault, caller
from tests.support.machine import in_thread, number, outside, processes, started
from tests.support.shell_room import Room, room

LOOKS_LIKE_A_PROMPT = ["50%% ", "a <b> ", "half > ", "total $ ", "dev@deb:~$ "]


async def prints_and_waits(here: Room, host: Host, text: str) -> int:
    """Have a program print something that ends like a prompt, and then take a while."""
    n = number()
    await here(shell.send, command=f"clear; printf '{text}'; sleep {n}")
    await started(host, n)
    return n


@pytest.mark.requirement("fault.C6")
@pytest.mark.parametrize("text", LOOKS_LIKE_A_PROMPT)
async def test_nothing_is_typed_into_a_program_whose_line_ends_like_a_prompt(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(shell_exec, "PROMPT_LIMIT_S", 2.0)
    here = await room(app, deb)
    n = await prints_and_waits(here, deb, text)
    with pytest.raises(Fault, match="not at its prompt"):
        await here(shell.run_in_shell, command="touch /tmp/typed-into-it")
    await here(shell.key, key="ctrl+c")
    assert (await here(shell.run_in_shell, command="ls /tmp/typed-into-it"))["exit_code"] != 0
    assert await processes(deb, n) == []


@pytest.mark.requirement("fault.C6")
async def test_without_the_look_at_the_machine_it_would_be(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: where nobody can tell who has the terminal, the line is all there is."""

    async def nobody(*_: object) -> None:
        return None

    monkeypatch.setattr(shell_exec, "_reader", nobody)
    monkeypatch.setattr(shell_exec, "BEGIN_LIMIT_S", 2.0)
    here = await room(app, deb)
    await prints_and_waits(here, deb, "total $ ")
    with pytest.raises(Fault, match="whether it runs, or will, is unknown"):
        await here(shell.run_in_shell, command="true")


@pytest.mark.requirement("fault.C6")
@pytest.mark.parametrize("text", ["50%% ", "a <b> ", "total $ "])
async def test_a_command_that_prints_such_a_line_is_not_said_to_be_interrupted(app: App, host: Host, text: str) -> None:
    here = await room(app, host)
    ran = await here(shell.run_in_shell, command=f"printf '{text}'; sleep 3; echo; echo done", timeout=20)
    assert (ran["status"], ran["output"].split("\n")[1]) == ("completed", "done")


@pytest.mark.requirement("fault.C6")
@pytest.mark.parametrize("prompt", ["ready: ", "", ">>> ", "50% ", "\\w\\n-- "])
async def test_any_prompt_will_do(app: App, deb: Host, prompt: str) -> None:
    here = await room(app, deb)
    await here(shell.send, command=f"PS1='{prompt}'")
    for folder in ("/usr", "/srv"):
        ran = await here(shell.run_in_shell, command=f"cd {folder}; pwd")
        assert (ran["status"], ran["output"]) == ("completed", f"{folder}\n")
    ran = await here(shell.run_in_shell, command="sleep 1000", timeout=1)
    assert ran["status"] == "running"
    await here(shell.key, key="ctrl+c")
    assert (await here(shell.run_in_shell, command="pwd"))["output"] == "/srv\n"


@pytest.mark.requirement("fault.C6")
async def test_the_first_screen_of_less_is_a_pager(app: App, host: Host) -> None:
    await outside(host, "seq 1 200 >/tmp/shell-pages")
    here = await room(app, host)
    await here(shell.send, command="clear; less /tmp/shell-pages")
    assert "shell_" in (await here.asks("pager"))["waiting_input"]["next"]
    with pytest.raises(Fault, match="not at its prompt"):
        await here(shell.run_in_shell, command="true")
    await here(shell.send, command="q", enter=False)
    assert (await here(shell.run_in_shell, command="true"))["exit_code"] == 0


@pytest.mark.requirement("fault.C2")
async def test_of_a_command_that_a_stopped_shell_was_given_nobody_says_that_it_did_not_run(
    app: App, deb: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shell_exec, "BEGIN_LIMIT_S", 1.5)
    here = await room(app, deb)
    await here(shell.run_in_shell, command="rm -f /tmp/ran-late")
    live = app.sessions.find(caller(), here.on["session_id"]).shells.find("stdio", "default")
    await in_thread(deb.console, ["kill", "-STOP", str(live.pid)])
    with pytest.raises(Fault) as error:
        await here(shell.run_in_shell, command="echo ran >>/tmp/ran-late")
    assert error.value.payload["details"]["ran"] == "unknown"
    assert "did not begin" not in error.value.payload["message"]
    await in_thread(deb.console, ["kill", "-CONT", str(live.pid)])
    with anyio.fail_after(10):  # it was right not to say so
        while (await in_thread(deb.console, ["cat", "/tmp/ran-late"])).stdout != "ran\n":
            await anyio.sleep(0.05)


@pytest.mark.parametrize(
    ("reader", "line", "known", "prompt"),
    [
        (_Reader("bash", own=True, raw=True, script=False), "", None, True),
        (_Reader("bash", own=True, raw=False, script=False), "x $ ", "x $ ", False),  # `read` of the shell itself
        (_Reader("bash", own=False, raw=True, script=False), "anything", None, True),
        (_Reader("dash", own=True, raw=False, script=False), "$ ", None, True),
        (_Reader("sh", own=False, raw=False, script=True), "$ ", None, False),
        (_Reader("sudo", own=False, raw=True, script=True), "root@x:~# ", None, True),
        (_Reader("sudo", own=False, raw=True, script=True), "50% ", None, False),
        (_Reader("sudo", own=False, raw=True, script=True), "ready: ", "ready: ", True),
        (_Reader("sleep", own=False, raw=False, script=True), "$ ", "$ ", False),
        (_Reader("vim", own=True, raw=True, script=True), ":", None, False),
    ],
)
def test_who_has_the_terminal_and_how_decides(reader: _Reader, line: str, known: str | None, prompt: bool) -> None:
    assert reader.at_prompt(line, known) is prompt
