"""Accounts whose shell is csh or fish, which read a quote, a newline and `!` otherwise than POSIX."""

from pathlib import Path

import pytest

from mcp_ssh.app import App
from mcp_ssh.commandline import quote
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ToolError
from mcp_ssh.ssh import wire
from mcp_ssh.tools import command, file, system
from tests.doors import DirectCall, caller
from tests.fleet.hosts import Host
from tests.hosts.machine import connected, number, processes

SHELLS = ("tcsh", "fish")
HOSTILE = r"a\'b!c $HOME `id` %s \\ \n ü{x}*" + "\n!!\\"
OWN_LINES = {
    "tcsh": "set word = one\nif ($word == one) then\n  echo $word'\\\\'\nendif",
    "fish": "set w one\necho $w'\\\\'",
}


async def folder_of(app: App, auth: Host, user: str, who: DirectCall) -> str:
    folder = f"/home/{user}/quotes"
    await connected(app, auth, user, who)
    made = auth.console(["sh", "-c", f"rm -rf {folder} && install -d -o {user} {folder}"])
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.requirement("exec.warm.plain")
@pytest.mark.parametrize("user", SHELLS)
async def test_a_command_of_several_lines_is_the_shells_own(app: App, auth: Host, user: str) -> None:
    who = DirectCall(caller())
    await folder_of(app, auth, user, who)
    ran = await dispatch(app, command.exec_, {"command": OWN_LINES[user]}, who)
    theirs = auth.ssh(OWN_LINES[user], user=user)
    assert ran.exit_code == theirs.returncode == 0, ran.stderr
    assert ran.stdout == theirs.stdout
    assert ran.stdout.startswith("one\\")


async def written(app: App, auth: Host, user: str) -> str:
    """What the machine's console finds, once our tool has written a hostile text under a hostile name."""
    who = DirectCall(caller())
    folder = await folder_of(app, auth, user, who)
    name = f"{folder}/{HOSTILE.replace('/', '')}"
    await dispatch(app, file.write, {"path": name, "content": HOSTILE}, who)
    return auth.console(["cat", "--", name]).stdout


@pytest.mark.requirement("file.exec")
@pytest.mark.parametrize("user", SHELLS)
async def test_our_scripts_run_there(app: App, auth: Host, user: str, tmp_path: Path) -> None:
    assert await written(app, auth, user) == HOSTILE
    who = DirectCall(caller())
    assert (await dispatch(app, system.disk, {}, who)).model_dump()
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(bytes(range(256)) * 4096)
    there = f"/home/{user}/quotes/it's ! \\"
    await dispatch(app, file.upload, {"remote_path": there, "local_path": str(source)}, who)
    await dispatch(app, file.download, {"remote_path": there, "local_path": str(back)}, who)
    assert back.read_bytes() == source.read_bytes()


@pytest.mark.requirement("file.exec")
@pytest.mark.parametrize("user", SHELLS)
async def test_without_the_digits_they_do_not(app: App, auth: Host, user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "_through_sh", lambda script: f"exec sh -c {quote(script)}")
    try:
        found = await written(app, auth, user)
    except ToolError:  # the shell stumbled over it
        return
    assert found != HOSTILE


@pytest.mark.requirement("file.exec")
@pytest.mark.parametrize("user", SHELLS)
async def test_a_deadline_ends_what_runs_there(app: App, auth: Host, user: str) -> None:
    who = DirectCall(caller())
    await folder_of(app, auth, user, who)
    mine = number()
    ran = await dispatch(app, command.exec_, {"command": f"sleep {mine}\necho late", "timeout": 1}, who)
    assert (ran.status, ran.stopped) == ("timed_out", True)
    assert not await processes(auth, mine)


@pytest.mark.requirement("system.env")
@pytest.mark.parametrize("user", SHELLS)
async def test_a_variable_that_the_shell_would_not_read_is_not_told_as_saved(app: App, auth: Host, user: str) -> None:
    who = DirectCall(caller())
    await folder_of(app, auth, user, who)
    with pytest.raises(ToolError) as refused:
        await dispatch(app, system.env_set, {"name": "OURS", "value": "x", "persist": True}, who)
    assert (refused.value.code, user in refused.value.message) == ("unsupported", True)
    assert "OURS" not in auth.console(["sh", "-c", f"cat /home/{user}/.profile"]).stdout
