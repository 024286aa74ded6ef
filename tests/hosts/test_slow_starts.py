"""A deadline that comes before the command has begun on its machine."""

from collections.abc import Iterator

import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.tools import command
from tests.doors import DirectCall
from tests.fleet.hosts import Host
from tests.hosts.machine import connected, number, outside, processes

SLOW = "~/slow-start"


@pytest.fixture
def slow(deb: Host) -> Iterator[Host]:
    """A machine on which sshd takes the seconds that a file names, once, before it starts an account's shell."""
    rc = f"[ ! -e {SLOW} ] || {{ mv {SLOW} {SLOW}.taken; sleep $(cat {SLOW}.taken); }}"
    assert deb.ssh(f"cat > ~/.ssh/rc; rm -f {SLOW} {SLOW}.taken", user="dev", stdin=rc).returncode == 0
    yield deb
    assert deb.ssh(f"rm -f ~/.ssh/rc {SLOW} {SLOW}.taken", user="dev").returncode == 0


async def timed_out(app: App, owner: DirectCall, host: Host, seconds: float) -> tuple[int, bool | str | None]:
    """The number of a command that its machine begins so late, and what its caller heard of its end."""
    mark = number()
    session_id = await connected(app, host, "dev", owner)
    await outside(host, f"echo {seconds} > {SLOW}", user="dev")
    arguments = {"session_id": session_id, "command": f"sleep {mark}", "timeout": 0.3, "exact": True}
    result = await dispatch(app, command.exec_, arguments, owner)
    assert result.status == "timed_out"
    return mark, result.stopped


@pytest.mark.requirement("fault.C2")
async def test_a_command_that_begins_after_its_deadline_is_ended(app: App, owner: DirectCall, slow: Host) -> None:
    mark, stopped = await timed_out(app, owner, slow, 1)
    assert stopped is True
    assert await processes(slow, mark) == []


@pytest.mark.requirement("fault.C2")
async def test_of_a_command_that_does_not_begin_for_long_the_end_is_unknown(
    app: App, owner: DirectCall, slow: Host
) -> None:
    _, stopped = await timed_out(app, owner, slow, 6)
    assert stopped == "unknown"
