"""Accounts whose shell is csh or fish, which read a quote, a newline and `!` otherwise than POSIX."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ConnectFailed, InvalidInput, NotFound, PermissionDenied, ToolError, Unsupported
from mcp_ssh.shell_command import quote
from mcp_ssh.ssh.wire import command as wire
from mcp_ssh.tools import command, file, session, shell, system
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import connected, login, number, processes, started, trust
from tests.support.task_kit import directly

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
    ran = await dispatch(app, command.run_command, {"command": OWN_LINES[user]}, who)
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
    ran = await dispatch(app, command.run_command, {"command": f"sleep {mine}\necho late", "timeout": 1}, who)
    assert (ran.status, ran.stopped) == ("timed_out", True)
    assert not await processes(auth, mine)


NAME = HOSTILE.replace("/", "")
EVERYTHING = {
    # The folder, two variables, standard input, and the exit code, in the shell's own language.
    "tcsh": f"{OWN_LINES['tcsh']}\npwd\nprintenv A\nprintenv B\ncat\nexit 7",
    "fish": f"{OWN_LINES['fish']}\npwd\nprintenv A\nprintenv B\ncat\nexit 7",
}


async def surroundings(app: App, auth: Host, user: str, who: DirectCall) -> tuple[dict[str, Any], str]:
    """Arguments as hostile as they come for the command above, and what it has to say of them."""
    folder = f"{await folder_of(app, auth, user, who)}/{NAME}"
    made = auth.console(["install", "-d", "-m", "777", "--", folder])
    assert made.returncode == 0, made.stderr
    given = {"cwd": folder, "env": {"A": HOSTILE, "B": "\\'"}, "stdin": HOSTILE}
    return given, f"one\\\n{folder}\n{HOSTILE}\n\\'\n{HOSTILE}"


@pytest.fixture
def sudoer(auth: Host) -> Iterator[None]:
    """Both accounts may become root with their password, and dash without one."""
    rules = "".join(f"{user} ALL=(root) ALL\n{user} ALL=(dash) NOPASSWD: ALL\n" for user in SHELLS)
    made = auth.console(["sh", "-c", "umask 227; cat >/etc/sudoers.d/other_shells"], input=rules)
    assert made.returncode == 0, made.stderr
    yield
    auth.console(["rm", "/etc/sudoers.d/other_shells"])


@pytest.mark.requirement("exec.cwd", "exec.env", "exec.stdin")
@pytest.mark.parametrize("user", SHELLS)
async def test_a_command_has_its_folder_variables_and_input(app: App, auth: Host, user: str) -> None:
    who = DirectCall(caller())
    given, said = await surroundings(app, auth, user, who)
    ran = await dispatch(app, command.run_command, {"command": EVERYTHING[user], **given}, who)
    assert (ran.stdout, ran.stderr, ran.exit_code) == (said, "", 7)
    with pytest.raises(NotFound):
        await dispatch(app, command.run_command, {"command": "true", "cwd": given["cwd"] + "'"}, who)


@pytest.mark.requirement("become")
@pytest.mark.parametrize("user", SHELLS)
@pytest.mark.usefixtures("sudoer")
async def test_from_there_one_becomes_another_account(app: App, auth: Host, user: str) -> None:
    """By sudo with a password and without, by su, and su to an account whose shell is the other of the two."""
    who = DirectCall(caller())
    given, said = await surroundings(app, auth, user, who)
    password = auth.password
    for become, name in (
        ({"password": password}, "root"),
        ({"user": "dash"}, "dash"),
        ({"method": "su", "password": password}, "root"),
    ):
        arguments = {"command": "id -un; pwd; printenv A; cat; exit 7", "become": become, **given}
        ran = await dispatch(app, command.run_command, arguments, who)
        assert (ran.stdout, ran.exit_code) == (f"{name}\n{given['cwd']}\n{HOSTILE}\n{HOSTILE}", 7), ran.stderr
    for other in SHELLS:
        become = {"user": other, "method": "su", "password": password}
        ran = await dispatch(app, command.run_command, {"command": EVERYTHING[other], "become": become, **given}, who)
        assert (ran.stdout, ran.stderr, ran.exit_code) == (said, "", 7)
    with pytest.raises(PermissionDenied, match="refused the password"):
        await dispatch(app, command.run_command, {"command": "id", "become": {"password": "'!\\"}}, who)


@pytest.mark.requirement("become.kills", "become.files")
@pytest.mark.parametrize("user", SHELLS)
@pytest.mark.usefixtures("sudoer")
async def test_what_root_runs_from_there_ends_and_writes_as_its_own(app: App, auth: Host, user: str) -> None:
    who = DirectCall(caller())
    folder = await folder_of(app, auth, user, who)
    become, n = {"password": auth.password}, number()
    text = f"trap '' TERM; setsid sleep {n} & sleep {n}"
    ran = await dispatch(app, command.run_command, {"command": text, "become": become, "timeout": 1}, who)
    assert (ran.status, ran.stopped) == ("timed_out", True)
    assert not await processes(auth, n)
    await dispatch(app, file.write, {"path": f"{folder}/{NAME}", "content": HOSTILE, "become": become}, who)
    assert auth.console(["cat", "--", f"{folder}/{NAME}"]).stdout == HOSTILE
    assert auth.console(["stat", "-c", "%U", "--", f"{folder}/{NAME}"]).stdout == "root\n"


@pytest.mark.requirement("task.start", "task.cancel")
@pytest.mark.parametrize("user", SHELLS)
async def test_a_background_task_is_in_the_shells_own_language(app: App, auth: Host, user: str) -> None:
    who = DirectCall(caller())
    given, said = await surroundings(app, auth, user, who)
    on = await directly(app, auth, user)
    output, error, seen = await on.follow(await on.start(EVERYTHING[user], **given))
    assert (output, error, seen["exit_code"]) == (said, "", 7)
    n = number()
    task_id = await on.start(f"sh -c 'trap \"\" TERM; setsid sleep {n} & sleep {n}'")
    await started(auth, n)
    ended = await on.cancel(task_id)
    assert (ended["status"], ended["stopped"]) == ("cancelled", True)
    assert not await processes(auth, n)


@pytest.mark.requirement("shell.exec", "shell.shells", "shell.close")
@pytest.mark.parametrize("user", SHELLS)
async def test_a_shell_of_another_kind_is_told_by_what_has_the_prompt(app: App, auth: Host, user: str) -> None:
    """fish and the sh that was started in it take a command; csh says what to do, and the sh in it takes one."""
    who = DirectCall(caller())
    given, _ = await surroundings(app, auth, user, who)
    await dispatch(app, shell.open_shell, {"shell": "a", "cwd": given["cwd"]}, who)
    typed = {"shell": "a", "command": "pwd\necho 'a!b'\nsh -c 'exit 7'"}
    if user == "tcsh":
        with pytest.raises(Unsupported, match="tcsh has the prompt"):
            await dispatch(app, shell.run_in_shell, typed, who)
    else:
        ran = await dispatch(app, shell.run_in_shell, typed, who)
        assert (ran.status, ran.output, ran.exit_code) == ("completed", f"{given['cwd']}\na!b\n", 7)
    await dispatch(app, shell.send, {"shell": "a", "command": "exec sh" if user == "fish" else "sh"}, who)
    await dispatch(app, shell.read, {"shell": "a", "wait_s": 10}, who)
    ran = await dispatch(app, shell.run_in_shell, typed, who)
    assert (ran.status, ran.output, ran.exit_code) == ("completed", f"{given['cwd']}\na!b\n", 7)
    n = number()
    await dispatch(app, shell.send, {"shell": "a", "command": f"setsid sleep {n} & sleep {n}"}, who)
    await started(auth, n)
    closed = await dispatch(app, shell.close, {"shell": "a"}, who)
    assert closed.stopped is True
    assert not await processes(auth, n)


@pytest.mark.requirement("exec.too_long")
@pytest.mark.parametrize("user", ["dev", *SHELLS])
async def test_a_command_that_no_machine_takes_is_refused_and_the_connection_stays(
    app: App, auth: Host, user: str
) -> None:
    who = DirectCall(caller())
    await folder_of(app, auth, user, who)
    for text in (f"echo {'x' * 120_000} | wc -c", f"echo {'é' * 12_000} | wc -c"):
        ran = await dispatch(app, command.run_command, {"command": text}, who)
        assert (ran.exit_code, int(ran.stdout)) == (0, len(text.encode()) - len("echo  | wc -c") + 1), ran.stderr
    for text in ("x" * 131_071, "é" * 131_071):
        with pytest.raises(InvalidInput, match="bytes too long"):
            await dispatch(app, command.run_command, {"command": f": {text}"[:131_071]}, who)
    assert (await dispatch(app, command.run_command, {"command": "echo here"}, who)).stdout == "here\n"


@pytest.mark.requirement("exec.too_long")
async def test_dropbear_takes_less(app: App, auth: Host) -> None:
    who = DirectCall(caller())
    await trust(app, auth)
    await dispatch(app, session.connect, login(auth, "tcsh") | {"port": auth.ports["dropbear"]}, who)
    ran = await dispatch(app, command.run_command, {"command": f"echo {'x' * 8000} | wc -c"}, who)
    assert ran.stdout == "8001\n"
    with pytest.raises(InvalidInput, match="this machine takes 9000"):
        await dispatch(app, command.run_command, {"command": f"echo {'x' * 9000} | wc -c"}, who)
    assert (await dispatch(app, command.run_command, {"command": "echo here"}, who)).stdout == "here\n"


@pytest.mark.requirement("exec.too_long")
@pytest.mark.parametrize(("port", "length"), [("normal", 131_071), ("dropbear", 9000)])
async def test_without_being_refused_it_takes_the_connection_with_it(
    app: App, auth: Host, port: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control."""
    monkeypatch.setattr(wire, "LONGEST_TEXT", 2**30)
    monkeypatch.setattr(wire, "LONGEST_TEXT_FOR_DROPBEAR", 2**30)
    who = DirectCall(caller())
    await trust(app, auth)
    await dispatch(app, session.connect, login(auth, "tcsh") | {"port": auth.ports[port]}, who)
    with pytest.raises(ConnectFailed):
        await dispatch(app, command.run_command, {"command": f": {'é' * length}"[:length]}, who)
    with pytest.raises(ToolError):
        await dispatch(app, command.run_command, {"command": "true"}, who)


@pytest.mark.requirement("system.env")
@pytest.mark.parametrize("user", SHELLS)
async def test_a_variable_is_not_said_to_be_saved_where_the_shell_would_not_read_it(
    app: App, auth: Host, user: str
) -> None:
    who = DirectCall(caller())
    await folder_of(app, auth, user, who)
    saved = {"name": "MCP_SAVED", "value": HOSTILE.splitlines()[0]}
    with pytest.raises(Unsupported, match=user):
        await dispatch(app, system.env_set, saved | {"persist": True}, who)
    assert auth.console(["grep", "-rs", "MCP_SAVED", f"/home/{user}"]).stdout == ""
    await dispatch(app, system.env_set, saved, who)
    ran = await dispatch(app, command.run_command, {"command": "printenv MCP_SAVED"}, who)
    assert ran.stdout == saved["value"] + "\n"
