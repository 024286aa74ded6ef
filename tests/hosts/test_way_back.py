"""What the prompts have an agent do, on real hosts: their own lines, as an agent would run them.

Above all the way back that they arm before a risky change.

Time is an event here: where the prompt waits three minutes, the test waits until the console says so.
"""

import functools
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh import prompts
from mcp_ssh.app import App
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import command, file, hostkey, session
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault
from tests.support.machine import login, number, outside, trust

FIREWALL = prompts.load()["firewall"].text
HARDEN = prompts.load()["harden-ssh"].text
ADD_USER = prompts.load()["add-user"].text
SCHEDULE = prompts.load()["schedule-job"].text


def line(text: str, start: str) -> str:
    """The command of a prompt that starts so."""
    (found,) = re.findall(rf"`({re.escape(start)}[^`]*)`", text)
    return found


async def console(host: Host, text: str) -> str:
    return (await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-c", text]))).stdout


class Root:
    """An agent that is root on a host."""

    def __init__(self, app: App, host: Host) -> None:
        self._way, self.host = Direct(app), host

    async def connects(self) -> None:
        await self._way.call(session.connect, login(self.host, "root"))

    async def leaves(self) -> None:
        for each in (await self._way.call(session.list_sessions, {}))["sessions"]:
            await self._way.call(session.disconnect, {"session_id": each})

    async def call(self, tool: AnyTool, **arguments: Any) -> dict[str, Any]:
        return await self._way.call(tool, arguments)

    async def run(self, text: str) -> str:
        answer = await self._way.call(command.run_command, {"command": text, "timeout": 20})
        assert (answer["status"], answer["exit_code"]) == ("completed", 0), answer
        return answer["stdout"]

    async def gets_in_anew(self) -> bool:
        """Whether the scan that the prompt names answers."""
        where = {"host": self.host.ip, "port": self.host.port, "timeout": 1}
        try:
            return bool(await self._way.call(hostkey.scan, where))
        except Fault:
            return False

    async def until_in(self) -> None:
        with anyio.fail_after(20):
            while not await self.gets_in_anew():
                await anyio.sleep(0.05)


@pytest.fixture
async def root(app: App, host: Host) -> AsyncIterator[Root]:
    await trust(app, host)
    agent = Root(app, host)
    await agent.connects()
    yield agent
    await console(
        host, "iptables -F INPUT; rm -f /root/rules? /run/go /run/undone; systemctl stop sshd-undo.timer 2>&1"
    )


@pytest.mark.requirement("prompts.way_back")
@pytest.mark.parametrize("armed", [True, False], ids=["armed", "not armed"])
async def test_who_locks_everybody_out_gets_in_again_because_a_way_back_was_armed(root: Root, armed: bool) -> None:
    await root.run("iptables-save -t filter > /root/rules4")
    before = await root.run("iptables -S")
    if armed:
        undo = "iptables-restore < /root/rules4"
        arm = line(FIREWALL, "nohup sh").replace("sleep 180", "until test -e /run/go; do sleep 0.1; done")
        assert (await root.run(arm.replace("UNDO", f"{undo}; touch /run/undone"))).strip().isdecimal()
    await root.run(f"iptables -I INPUT -p tcp --syn --dport {root.host.port} -j DROP")
    assert not await root.gets_in_anew()
    assert await root.run("echo still here") == "still here\n"  # which is why an open session proves nothing
    await root.leaves()
    await console(root.host, "touch /run/go")
    if armed:
        await root.until_in()
        await root.connects()
        assert await root.run("iptables -S") == before
    else:
        assert not await root.gets_in_anew()


@pytest.mark.requirement("prompts.way_back")
async def test_a_way_back_that_was_called_off_does_nothing(root: Root) -> None:
    arm = line(FIREWALL, "nohup sh").replace("sleep 180", "until test -e /run/go; do sleep 0.1; done")
    process = (await root.run(arm.replace("UNDO", "touch /run/undone"))).strip()
    await root.run(f"kill {process}; while kill -0 {process} 2>/dev/null; do sleep 0.1; done; touch /run/go")
    assert await console(root.host, "ls /run/undone 2>/dev/null") == ""


@pytest.mark.requirement("prompts.way_back")
async def test_systemd_keeps_the_way_back_too(app: App, deb: Host) -> None:
    await trust(app, deb)
    agent = Root(app, deb)
    await agent.connects()
    arm = line(HARDEN, "systemd-run").replace("600", "0.1")
    try:
        await agent.run(arm.replace("UNDO", "touch /run/undone"))
        with anyio.fail_after(20):
            while not await console(deb, "ls /run/undone 2>/dev/null"):
                await anyio.sleep(0.05)
        await agent.run(line(HARDEN, "systemd-run").replace("UNDO", "touch /run/never"))
        await agent.run(line(HARDEN, "systemctl stop"))
        assert "sshd-undo" not in await agent.run("systemctl list-timers --all --no-pager")
    finally:
        await console(deb, "systemctl stop sshd-undo.timer; rm -f /run/undone")


@pytest.mark.requirement("prompts.way_back")
async def test_an_account_is_made_and_taken_back_as_the_prompt_says(root: Root) -> None:
    """With the tools it names, where it names them: the account's key and sudo line count, and then nothing is left."""
    alpine = root.host.name == "alpine"
    name, script = f"new{number()}", "/usr/local/bin/job-of-prompt"

    def filled(start: str) -> str:
        words = {"HOME": f"/home/{name}", "NAME": name, "SHELL": "/bin/sh"}
        return re.sub(r"\b(HOME|NAME|SHELL)\b", lambda word: words[word[0]], line(ADD_USER, start))

    public = root.host.key_path.with_suffix(".pub").read_text()
    try:
        await root.run(filled("adduser -D" if alpine else "useradd -m"))
        if alpine:
            await root.run(filled("echo"))
        await root.call(file.mkdir, path=f"/home/{name}/.ssh")
        await root.call(file.write, path=f"/home/{name}/.ssh/authorized_keys", content=public, permissions="600")
        await root.run(filled("chown"))
        await root.call(
            file.write, path="/root/sudoers.new", content=f"{name} ALL=(root) NOPASSWD: /bin/true\n", permissions="440"
        )
        await root.run(f"{filled('visudo -cf')} && {filled('install')} && visudo -c")
        assert await outside(root.host, "sudo -n /bin/true && id -un", user=name) == f"{name}\n"
        # The job of schedule-job, as an account that may write nowhere: it runs, and never twice at once.
        await root.call(file.write, path=script, content="#!/bin/sh\nset -eu\necho ran\n", permissions="755")
        job = line(SCHEDULE, "flock").replace("SCRIPT", script).partition(" 2>")[0]
        assert await outside(root.host, job, user=name) == "ran\n"
        assert await root.run(f"flock {script} su {name} -c '{job} || echo busy'") == "busy\n"
    finally:
        undo = f"{filled('rm /etc')}; while pgrep -u {name} >/dev/null; do {filled('pkill')}; sleep 0.1; done"
        undo += f"; {filled('deluser' if alpine else 'userdel')}; rm -f {script}"
        await console(root.host, undo)
    left = f"{{ id -un {name}; ls -d /home/{name} /etc/sudoers.d/{name}; }} 2>/dev/null"
    assert await console(root.host, left) == ""
