"""What files need, for an account that has SFTP and no shell, and for a machine that has no tar."""

import base64
import functools
import hashlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.tools import file, session
from tests.fleet.hosts import Host
from tests.support.doors import Direct, DirectCall, caller
from tests.support.machine import login, trust
from tests.support.sshd import more_sshd
from tests.support.transfers import FACTS, FOLDER, SUMS, On, facts, noise, opened, planted, refused, sha256

pytestmark = pytest.mark.requirement("file.sftp")

MIB = 1024 * 1024
JAIL = "/srv/jail/home/sftponly"


class Jailed(On):
    """A session of sftponly's; what it has done is looked at from outside of its jail."""

    async def outside(self, command: str, user: str = "root") -> str:
        looked = await anyio.to_thread.run_sync(
            functools.partial(self.host.ssh, f"cd {JAIL} && {command}", user="root")
        )
        assert looked.returncode == 0, looked.stderr
        return looked.stdout


@pytest.fixture
async def on(app: App, auth: Host) -> Jailed:
    await trust(app, auth)
    way = Direct(app)
    jailed = Jailed(way, auth, (await way.call(session.connect, login(auth, "sftponly")))["session_id"])
    await jailed.outside("find . -mindepth 1 -delete")
    return jailed


async def test_files_are_written_looked_at_and_read(on: Jailed) -> None:
    made = await on.call(file.write, path="~/f", content="two\n")
    assert made.items() >= {"status": "written", "path": "/home/sftponly/f", "size_bytes": 4, "atomic": True}.items()
    await on.call(file.write, path="f", content="one\n", mode="prepend", permissions=640)
    last = await on.call(file.write, path="/home/sftponly/f", content="three\n", mode="append")
    assert await on.outside("cat f; stat -c '%a %U' f; ls -A") == "one\ntwo\nthree\n640 sftponly\nf\n"
    assert (last["sha256"], last["permissions"]) == (await on.sha256("f"), "0640")
    await refused("conflict", 409, on.call(file.write, path="f", content="x", expected_sha256="0" * 64))
    there = await refused("conflict", 409, on.call(file.write, path="f", content="x", expected_sha256=""))
    assert there.payload["details"]["actual_sha256"] == last["sha256"]
    await on.call(file.write, path="f", content="4", expected_sha256=last["sha256"])
    assert (await on.call(file.read, path="f"))["content"] == "4"
    await on.outside("ln -s f link; mkdir d; printf x > \"$(printf 'd/\\377')\"")
    stat = await on.call(file.stat, path="link")
    assert (stat["type"], stat["size"], stat["link_target"], stat["permissions"]) == ("file", 1, "f", "0640")
    listed = await on.call(file.list_folder, path=".")
    assert [(each["name"], each["type"]) for each in listed["items"]] == [("d", "dir"), ("f", "file"), ("link", "link")]
    assert (await on.call(file.list_folder, path="d"))["items"][0]["name_base64"] == base64.b64encode(b"\xff").decode()
    for tool, path, code in ((file.read, "gone", "not_found"), (file.read, "d", "invalid_input"),
                             (file.stat, "gone", "not_found"), (file.list_folder, "f", "invalid_input")):  # fmt: skip
        await refused(code, 400 if code == "invalid_input" else 404, on.call(tool, path=path))
    await refused("permission_denied", 403, on.call(file.write, path="/new", content="x"))


async def test_calls_wait_for_their_turn_where_the_machine_gives_few_channels(app: App, auth: Host) -> None:
    owner, heard = DirectCall(caller()), list[str]()
    async with more_sshd(auth, app, 2) as arguments:
        await dispatch(app, session.connect, {**login(auth, "sftponly"), "port": arguments["port"]}, owner)

        async def look() -> None:
            heard.append((await dispatch(app, file.stat, {"path": "."}, owner)).type)

        async with anyio.create_task_group() as group:
            for _ in range(12):
                group.start_soon(look)
    assert heard == ["dir"] * 12


async def test_folders_and_files_are_made_moved_and_removed(on: Jailed) -> None:
    await on.call(file.mkdir, path="a/b/c", parents=True)
    await refused("conflict", 409, on.call(file.mkdir, path="a"))
    await refused("not_found", 404, on.call(file.mkdir, path="x/y"))
    await on.outside("touch a/f a/b/g; ln -s /etc a/b/link; mkdir other; touch other/kept; chown -R sftponly .")
    await on.call(file.move, src="a/f", dst="a/h")
    await refused("conflict", 409, on.call(file.move, src="a/h", dst="a/b/g"))
    await on.call(file.move, src="a/h", dst="a/b/g", overwrite=True)
    await refused("unsupported", 400, on.call(file.copy, src="a", dst="b"))
    for path in ("/", "/home", "/home/sftponly", "~", ".", "..", "a/..", "a/.", "a/b/link", "/home/sftponly/"):
        await refused("invalid_input", 400, on.call(file.rmdir, path=path))
    assert await on.outside("find . | sort") == (".\n./a\n./a/b\n./a/b/c\n./a/b/g\n./a/b/link\n./other\n./other/kept\n")
    await refused("invalid_input", 400, on.call(file.remove, path="a"))
    await on.call(file.remove, path="other/kept")
    assert (await on.call(file.rmdir, path="a"))["count"] == 2
    assert await on.outside("find . | sort") == ".\n./other\n"


async def test_files_travel_both_ways_and_go_on_where_they_were_cut(on: Jailed, tmp_path: Path) -> None:
    there, back = noise(tmp_path / "there", 5 * MIB + 3), tmp_path / "back"
    sent = await on.call(file.upload, remote_path="f", local_path=str(there))
    assert sent["sha256"] == sha256(there) == await on.sha256("f")
    got = await on.call(file.download, remote_path="f", local_path=str(back))
    assert got["sha256"] == sha256(back) == sha256(there)
    for path in (there, back):
        path.write_bytes(os.urandom(9 * MIB)) if path is there else path.unlink()
    on.host.rate(20_000)
    await refused("timed_out", 504, on.call(file.upload, remote_path="f", local_path=str(there), timeout=2))
    on.host.clear()
    kept = int(await on.outside("stat -c %s .mcp-ssh-*.part"))
    assert 0 < kept < 9 * MIB
    assert await on.sha256("f") == got["sha256"]
    again = await on.call(file.upload, remote_path="f", local_path=str(there))
    assert again["resumed_bytes"] >= kept
    assert again["sha256"] == sha256(there) == await on.sha256("f")
    assert await on.outside("ls -A") == "f\n"
    content = base64.b64encode(b"x\0y").decode()
    await on.call(file.upload, remote_path="g", content=content, permissions=600)
    assert (await on.call(file.download, remote_path="g", return_content=True))["content"] == content
    assert await on.outside("stat -c %a g") == "600\n"
    assert hashlib.sha256(b"x\0y").hexdigest() == await on.sha256("g")


@pytest.mark.requirement("file.transfer.resume")
async def test_a_download_goes_on_only_with_what_the_machine_still_has(on: Jailed, tmp_path: Path) -> None:
    """The same size and time are not enough: samples of what an earlier call brought are compared."""
    arguments = {"remote_path": "f", "local_path": str(tmp_path / "back")}
    new = f"head -c {6 * MIB} /dev/urandom > f; touch -d @1000000000 f"
    await on.outside(f"{new}; cp -p f g")
    on.host.rate(20_000)
    await refused("timed_out", 504, on.call(file.download, **arguments, timeout=1))
    on.host.clear()
    [part] = tmp_path.glob(".mcp-ssh-*.part")
    kept = part.read_bytes()
    assert 0 < len(kept) < 6 * MIB
    for change, resumed in ((":", True), (new, False), ("touch f", False), ("printf x >> f", False)):
        part.write_bytes(kept)
        await on.outside(f"cp -p g f; {change}")
        got = await on.call(file.download, **arguments)
        assert got.get("resumed_bytes") == (len(kept) if resumed else None), change
        assert got["sha256"] == sha256(tmp_path / "back") == await on.sha256("f"), change


@pytest.mark.requirement("file.transfer.swept")
async def test_partial_files_of_long_ago_are_removed(on: Jailed) -> None:
    names = [f".mcp-ssh-{letter * 24}.part" for letter in "ab"]
    await on.outside(f"touch {names[0]} {names[1]} other.part; touch -t 202001010000 {names[0]} other.part")
    await on.outside("chown sftponly * .mcp*")
    await on.call(file.upload, remote_path="f", raw_content="x")
    assert (await on.outside("ls -A")).split() == [names[1], "f", "other.part"]


async def test_folders_travel_file_by_file(on: Jailed, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    count = planted(there)
    sent = await on.call(file.upload, remote_path="tree", local_path=str(there))
    assert sent["count"] == count
    for look in (FACTS, SUMS):
        assert await on.outside(f"cd tree && {look}") == facts(there, look)
    got = await on.call(file.download, remote_path="tree", local_path=str(back))
    assert (got["count"], got["skipped_count"]) == (count - 2, 2)
    assert facts(back, SUMS) == facts(there, SUMS)


HIDE = "t=$(command -v tar); mv $t $t.hidden"
SHOW = "for t in /bin/tar /usr/bin/tar; do [ ! -e $t.hidden ] || mv $t.hidden $t; done"


@pytest.fixture
async def tarless(host: Host) -> AsyncGenerator[Host]:
    """A machine without tar."""
    host.console(["sh", "-c", HIDE])
    try:
        yield host
    finally:
        host.console(["sh", "-c", SHOW])


async def test_folders_travel_where_there_is_no_tar(app: App, tarless: Host, tmp_path: Path) -> None:
    on: Any = await opened(Direct(app), app, tarless)
    there, back = tmp_path / "there", tmp_path / "back"
    count = planted(there)
    assert (await on.call(file.upload, remote_path=f"{FOLDER}/tree", local_path=str(there)))["count"] == count
    assert await on.outside(f"cd tree && {SUMS}") == facts(there, SUMS)
    await on.call(file.download, remote_path=f"{FOLDER}/tree", local_path=str(back))
    assert facts(back, SUMS) == facts(there, SUMS)
