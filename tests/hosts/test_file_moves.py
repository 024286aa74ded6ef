"""Moves to another file system, and what a full disk leaves: the goal is the old one or the new one, whole."""

from typing import Any

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import file
from tests.fleet.hosts import Host
from tests.support.doors import Direct
from tests.support.transfers import FOLDER, On, opened, refused

TREE = "mkdir -p tree/sub && echo x > tree/sub/f && ln -s ../gone tree/link && chmod 750 tree && chmod 4711 tree/sub/f"
# BusyBox gives copied folders a new time.
LOOK = "find . -exec stat -c '%n %f %u' {} + | sort; stat -c '%s %Y' sub/f"


@pytest.mark.requirement("fault.C4")
async def test_a_move_to_a_full_file_system_leaves_goal_and_source_as_they_were(direct: On) -> None:
    small = direct.host.small_disk
    await direct.outside(f"head -c 3000000 /dev/zero > huge; echo old > {small}/goal; mkdir tree; cp huge tree/f")
    for src, dst, more in (("huge", "goal", {"overwrite": True}), ("huge", "new", {}), ("tree", "folder", {})):
        move = direct.call(file.move, src=f"{FOLDER}/{src}", dst=f"{small}/{dst}", **more)
        error = await refused("remote_failed", 500, move)
        assert "disk full" in error.payload["message"]
        assert error.payload["details"]["path"] == f"{small}/{dst}"
    assert (
        await direct.outside(f"cat {small}/goal; ls -A {small}; stat -c %s huge tree/f")
        == "old\ngoal\n3000000\n3000000\n"
    )


@pytest.mark.requirement("fault.C9.disk_full")
async def test_a_copy_to_a_full_file_system_names_its_goal(direct: On) -> None:
    small = direct.host.small_disk
    await direct.outside(f"mkdir huge {small}/there; head -c 3000000 /dev/zero > huge/f")
    for src, dst in (("huge", "new"), ("huge", "there"), ("huge/f", "g")):
        error = await refused("remote_failed", 500, direct.call(file.copy, src=f"{FOLDER}/{src}", dst=f"{small}/{dst}"))
        assert error.payload["details"]["path"] == f"{small}/{dst}"
        assert "disk full" in error.payload["message"]
        await direct.outside(f"rm -f {small}/there/f")
    # The neighbour: what cannot be read is still told by its own name.
    await direct.outside(f"rm -rf {small}/there; echo x > closed; chmod 0 closed")
    error = await refused("permission_denied", 403, direct.call(file.copy, src=f"{FOLDER}/closed", dst=f"{small}/g"))
    assert error.payload["details"]["path"] == f"{FOLDER}/closed"


@pytest.mark.requirement("fault.C4")
async def test_files_and_folders_move_to_another_file_system_with_all_they_have(direct: On) -> None:
    small = direct.host.small_disk
    await direct.outside(f"{TREE}; echo new > f; ln -s nowhere link; echo old > {small}/goal")
    before = await direct.outside(f"cd tree && {LOOK}")
    await refused("conflict", 409, direct.call(file.move, src=f"{FOLDER}/f", dst=f"{small}/goal"))
    for src, dst, more in (("f", "goal", {"overwrite": True}), ("tree", "tree", {}), ("link", "link", {})):
        await direct.call(file.move, src=f"{FOLDER}/{src}", dst=f"{small}/{dst}", **more)
    assert await direct.outside("ls -A") == ""
    assert (
        await direct.outside(f"cat {small}/goal; readlink {small}/link; ls -A {small}")
        == "new\nnowhere\ngoal\nlink\ntree\n"
    )
    assert await direct.outside(f"cd {small}/tree && {LOOK}") == before
    # And back, into a folder whose own folder does not let the source go.
    await direct.outside(f"chmod a-w {small}/tree/sub")
    await refused("permission_denied", 403, direct.call(file.move, src=f"{small}/tree/sub/f", dst=f"{FOLDER}/f"))
    assert await direct.outside(f"ls -A; chmod u+w {small}/tree/sub") == ""


@pytest.mark.requirement("fault.C4")
async def test_a_move_that_is_cancelled_half_way_leaves_the_goal(app: App, deb: Host, wrapped: Any) -> None:
    direct = await opened(Direct(app), app, deb)
    small = deb.small_disk
    await direct.outside(f"echo new > f; echo old > {small}/goal")
    await wrapped("cp", '/bin/cp "$@"; : > /tmp/copied; exec sleep 600')
    async with anyio.create_task_group() as group:

        async def move() -> None:
            await direct.call(file.move, src=f"{FOLDER}/f", dst=f"{small}/goal", overwrite=True)

        group.start_soon(move)
        with anyio.fail_after(30):
            await direct.outside("until [ -e /tmp/copied ]; do sleep 0.1; done; rm -f /tmp/copied")
        group.cancel_scope.cancel()
    assert await direct.outside(f"cat f {small}/goal; ls -A {small}") == "new\nold\ngoal\n"


@pytest.mark.requirement("fault.C4")
async def test_a_file_that_is_written_to_while_it_is_copied_is_not_removed(app: App, deb: Host, wrapped: Any) -> None:
    direct = await opened(Direct(app), app, deb)
    await direct.outside("echo one > f")
    await wrapped("cp", f'/bin/cp "$@"; echo two >> "{FOLDER}/f"')
    await refused("conflict", 409, direct.call(file.move, src=f"{FOLDER}/f", dst=f"{deb.small_disk}/f"))
    assert await direct.outside(f"cat f; ls -A {deb.small_disk}") == "one\ntwo\n"
