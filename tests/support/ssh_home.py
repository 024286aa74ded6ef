"""The HOME of a server under test: its ~/.ssh/config, keys, known hosts and agent, as its owner would have them."""

import contextlib
import functools
import os
import shutil
import subprocess
from collections.abc import Generator
from pathlib import Path

import anyio
import anyio.to_thread

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.tools import command, session
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import number, processes, started


def dot_ssh() -> Path:
    folder = Path.home() / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def config(text: str) -> None:
    """Write ~/.ssh/config."""
    file = dot_ssh() / "config"
    file.write_text(text)
    file.chmod(0o600)


def know(host: Host) -> None:
    """Put what the fleet's hosts were built with into ~/.ssh/known_hosts."""
    (dot_ssh() / "known_hosts").write_bytes(host.known_hosts_path.read_bytes())


def key(host: Host, name: str = "id_ed25519", passphrase: str = "") -> Path:
    """Put the fleet's key into ~/.ssh."""
    place = dot_ssh() / name
    shutil.copy(host.key_path, place)
    place.chmod(0o600)
    if passphrase:
        subprocess.run(["ssh-keygen", "-q", "-p", "-f", place, "-P", "", "-N", passphrase], check=True)
    return place


@contextlib.contextmanager
def agent(folder: Path, *keys: Path) -> Generator[str]:
    """A running ssh-agent with some keys; gives its socket."""
    path = str(folder / "agent")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        environment = {**os.environ, "SSH_AUTH_SOCK": path}
        while not Path(path).exists():
            assert process.poll() is None
        for each in keys:
            copy = folder / f"for-agent-{each.name}"
            copy.write_bytes(each.read_bytes())
            copy.chmod(0o600)
            subprocess.run(["ssh-add", "-q", copy], check=True, env=environment, stderr=subprocess.DEVNULL)
            copy.unlink()
        yield path
    finally:
        process.terminate()
        process.wait(10)


OWNER = DirectCall(caller())


async def opened(app: App, who: DirectCall = OWNER, **arguments: object) -> session.SessionConnectResult:
    """A session of the server's owner."""
    return await dispatch(app, session.connect, {"timeout": 20, **arguments}, who)


async def said(app: App, session_id: str, text: str, who: DirectCall = OWNER) -> str:
    """What a command on a session prints."""
    return (await dispatch(app, command.run_command, {"session_id": session_id, "command": text}, who)).stdout


async def ends_what_it_ran(app: App, host: Host, session_id: str) -> None:
    """By deadline and by cancellation, nothing is left."""
    n = number()
    arguments = {"session_id": session_id, "command": f"sleep {n} & setsid sleep {n} & sleep {n}", "timeout": 1}
    ran = await dispatch(app, command.run_command, arguments, OWNER)
    assert (ran.status, ran.stopped) == ("timed_out", True)
    assert await processes(host, n) == []
    n = number()
    async with anyio.create_task_group() as group:
        arguments = {"session_id": session_id, "command": f"sleep {n}"}
        group.start_soon(functools.partial(dispatch, app, command.run_command, arguments, OWNER))
        await started(host, n)
        group.cancel_scope.cancel()
    assert await processes(host, n) == []
    assert await said(app, session_id, "echo still here") == "still here\n"
