"""What is said of a background task whose keeper was killed."""

import pytest

from mcp_ssh.app import App
from tests.fleet.hosts import Host
from tests.support.machine import number, outside, processes, started
from tests.support.task_kit import FOLDER, On, console, directly


async def run_line(here: On, task_id: str) -> list[str]:
    """Process id of the command, its start, process id of the keeper, and so on."""
    return (await outside(here.host, f"cat {FOLDER}/{task_id}/run", user="dev")).split()


@pytest.mark.requirement("fault.C9.lost_task")
async def test_a_task_that_is_cancelled_after_its_keeper_was_killed_is_cancelled(app: App, host: Host) -> None:
    here, n = await directly(app, host), number()
    task_id = await here.start(f"sleep {n}")
    await started(host, n)
    await console(host, f"kill -KILL {(await run_line(here, task_id))[2]}")
    answer = await here.cancel(task_id)
    assert (answer["status"], answer["stopped"]) == ("cancelled", True)
    assert await processes(host, n) == []
    assert (await here.look(task_id))["status"] == "cancelled"


@pytest.mark.requirement("fault.C9.lost_task")
async def test_of_a_task_that_was_lost_nobody_claims_a_stop_that_was_not_seen(app: App, host: Host) -> None:
    here, n = await directly(app, host), number()
    # A child that has left: another session, no mark, and soon no parent.
    task_id = await here.start(f"(setsid env -i sleep {n} &); sleep 600")
    await started(host, n)
    run = await run_line(here, task_id)
    await console(host, f"kill -KILL {run[2]} {run[0]}; pkill -KILL -x -f 'sleep 600' || true")
    answer = await here.cancel(task_id)
    assert (answer["status"], answer["stopped"]) == ("lost", "unknown")
    assert await processes(host, n) != []
    await console(host, f"pkill -KILL -f '[s]leep {n}'")
