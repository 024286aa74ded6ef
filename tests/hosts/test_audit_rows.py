"""What the history says of calls on a real machine, whichever transport they came through."""

from typing import Any

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import file, system
from tests.fleet.hosts import Host
from tests.support.doors import Fault, Way
from tests.support.machine import opened, outside

FOLDER = "/tmp/audit-rows"


async def rows(app: App, count: int) -> list[tuple[str, str, str | None]]:
    """Tool, outcome and words of the newest calls, oldest first; rows are written a moment after the answer."""
    with anyio.fail_after(10):
        while len(found := await app.store.history.page(count)) < count:
            await anyio.sleep(0.02)
    return [(row.tool, row.outcome, row.detail) for _, row in reversed(found)]


@pytest.mark.requirement("history.command")
async def test_the_history_says_what_was_done_and_what_was_not(app: App, way: Way, alpine: Host) -> None:
    await outside(alpine, f"rm -rf {FOLDER}")
    on: dict[str, Any] = await opened(way, app, alpine, "root")
    before = len(await app.store.history.page(100))
    await way.call(file.mkdir, {**on, "path": FOLDER})
    await way.call(system.chmod, {**on, "path": FOLDER, "mode": "0700", "dry_run": True})
    with pytest.raises(Fault):
        await way.call(file.remove, {**on, "path": f"{FOLDER}/none"})
    await way.call(system.kill, {**on, "pid": 4_194_303})
    assert (await rows(app, before + 4))[-4:] == [
        ("file_mkdir", "ok", f"made sure of the folder {FOLDER}"),
        ("system_chmod", "ok", f"dry run, nothing was changed: gave {FOLDER} the mode 0700"),
        ("file_remove", "not_found", None),
        ("system_kill", "ok", "failed: sent TERM to the process 4194303"),
    ]
    assert await outside(alpine, f"stat -c %a {FOLDER}; rmdir {FOLDER}") == "755\n"
