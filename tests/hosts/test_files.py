"""Files on real hosts, through every door, read back by the system's own ssh."""

import base64
import functools
import hashlib
import json
import shlex
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import file, session
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault, Way
from tests.support.machine import login, outside, trust

FOLDER = "/tmp/files of tests"
HARD = [
    "-rf",
    "a b",
    "new\nline",
    "$(id)",
    "`id`",
    "qu'o\"te",
    "back\\slash",
    "*",
    "漢字",
    ".hidden",
    "81a4 1 2 3 4 .",
]


class On:
    """A session through a door, with a folder of its own on the host that is empty at first."""

    def __init__(self, way: Way, host: Host, user: str, session_id: str) -> None:
        self.way, self.host, self.user, self.session_id = way, host, user, session_id

    async def call(self, tool: AnyTool, path: str, **more: Any) -> dict[str, Any]:
        return await self.way.call(tool, {"path": path, "session_id": self.session_id, **more})

    async def write(self, path: str, content: str, **more: Any) -> dict[str, Any]:
        return await self.call(file.write, path, content=content, **more)

    async def outside(self, command: str, user: str = "root") -> str:
        return await outside(self.host, f"cd {shlex.quote(FOLDER)} && {command}", user)


async def opened(way: Way, app: App, host: Host, user: str = "dev") -> On:
    await trust(app, host)
    quoted = shlex.quote(FOLDER)
    await outside(host, f"rm -rf {quoted} /srv/small/* && mkdir -m 755 {quoted} && chown {user} {quoted}")
    answer = await way.call(session.connect, login(host, user))
    return On(way, host, user, answer["session_id"])


@pytest.fixture
async def on(app: App, way: Way, host: Host) -> On:
    return await opened(way, app, host)


@pytest.fixture
async def direct(app: App, host: Host) -> On:
    """Without a door, where the doors make no difference."""
    return await opened(Direct(app), app, host)


async def fault(code: str, status: int, call: Any) -> Fault:
    """The error that the call must end with."""
    with pytest.raises(Fault) as caught:
        await call
    assert caught.value.code == code
    assert caught.value.status in {None, status}
    return caught.value


@pytest.mark.requirement("file.list")
async def test_a_folder_is_listed_as_the_machine_has_it(on: On) -> None:
    names = " ".join(shlex.quote(f"./{name}") for name in HARD)
    await on.outside(f'for name in {names}; do printf abc > "$name"; chmod 640 "$name"; done', on.user)
    await on.outside("mkdir dir; ln -s dir link; mkfifo fifo; TZ=UTC touch -t 202401020304.05 old", on.user)
    listed = await on.call(file.list_folder, FOLDER)
    items = {item.pop("name"): item for item in listed["items"]}
    assert list(items) == sorted([*HARD, "dir", "link", "fifo", "old"], key=str.encode)
    assert (listed["path"], listed["count"], listed["total"]) == (FOLDER, len(items), len(items))
    assert {name: items[name]["type"] for name in ("dir", "link", "fifo", "old")} == {
        "dir": "dir", "link": "link", "fifo": "fifo", "old": "file",
    }  # fmt: skip
    assert items["old"]["mtime"] == 1_704_164_645
    uid = int(await on.outside("id -u", on.user))
    for name in HARD:
        item = items[name]
        assert (item["size"], item["mode"], item["is_dir"], item["uid"]) == (3, 0o100640, False, uid)


@pytest.mark.requirement("file.stat")
async def test_a_path_s_facts_are_the_machine_s(on: On) -> None:
    await on.outside("printf 12345 > f; chmod 4711 f; ln -s f link", on.user)
    said = await on.call(file.stat, f"{FOLDER}/link")
    size, mode, uid, gid, atime, mtime = (await on.outside("stat -c '%s %f %u %g %X %Y' f")).split()
    documented = {"size": int(size), "mode": int(mode, 16), "uid": int(uid), "gid": int(gid), "atime": int(atime)}
    assert said.items() >= {**documented, "mtime": int(mtime)}.items()
    assert (said["user"], said["type"], said["permissions"], said["link_target"]) == (on.user, "file", "4711", "f")


@pytest.mark.requirement("file.read")
async def test_a_file_is_read_as_text_in_parts_and_exactly(on: On) -> None:
    text = "".join(f"řádek {number}\n" for number in range(2000))
    await anyio.to_thread.run_sync(
        functools.partial(on.host.ssh, f"cat > {shlex.quote(FOLDER)}/f", user=on.user, stdin=text)
    )
    whole = await on.call(file.read, f"{FOLDER}/f")
    assert (whole["path"], whole["content"], whole["size_bytes"]) == (f"{FOLDER}/f", text, len(text.encode()))
    assert whole["sha256"] == (await on.outside("sha256sum f")).split()[0]
    read, offset = "", 0
    while offset is not None:
        part = await on.call(file.read, f"{FOLDER}/f", offset=offset, length=10_000)
        read, offset = read + part["content"], part.get("next_offset")
    assert read == text
    exact = await on.call(file.read, f"{FOLDER}/f", encoding="base64", offset=1, length=5)
    assert base64.b64decode(exact["content"]) == text.encode()[1:6]
    assert (await on.call(file.read, "/proc/version"))["content"].startswith("Linux version")


@pytest.mark.requirement("file.write")
async def test_a_file_is_overwritten_appended_to_and_prepended_to(on: On) -> None:
    made = await on.write(f"{FOLDER}/f", "new text\n")
    documented = {"status": "written", "path": f"{FOLDER}/f", "size": 9, "mode": "overwrite"}
    assert made.items() >= documented.items()
    assert await on.outside("cat f; stat -c ' %a %U' f") == f"new text\n 644 {on.user}\n"
    assert (await on.write(f"{FOLDER}/f", "end\n", mode="append"))["size_bytes"] == 13
    last = await on.write(f"{FOLDER}/f", "start\n", mode="prepend", permissions=600)
    assert (last["permissions"], last["atomic"]) == ("0600", True)
    assert await on.outside("cat f; stat -c '%a' f") == "start\nnew text\nend\n600\n"
    assert last["sha256"] == (await on.outside("sha256sum f")).split()[0]
    await on.write(f"{FOLDER}/f", "")
    assert await on.outside("wc -c < f; ls -A") == "0\nf\n"


async def test_hard_names_are_written_and_read_unharmed(direct: On) -> None:
    for name in HARD:
        content = f"{name}\0{name}"
        await direct.write(f"{FOLDER}/{name}", content)
        assert (await direct.call(file.read, f"{FOLDER}/{name}"))["content"] == content
    counted = await direct.outside("find . -type f -print0 | tr -dc '\\0' | wc -c")
    assert int(counted) == len(HARD)


async def test_the_home_is_where_relative_paths_and_tildes_start(direct: On) -> None:
    await direct.write("~/of tests", "x")
    assert await direct.outside(f"cat ~{direct.user}/of\\ tests") == "x"
    home = (await direct.outside(f"echo ~{direct.user}")).strip()
    assert (await direct.call(file.stat, "~/of tests"))["path"] == f"{home}/of tests"
    assert (await direct.call(file.read, "of tests"))["content"] == "x"


@pytest.mark.requirement("file.errors")
async def test_what_is_missing_forbidden_or_no_file_has_an_error_of_its_own(on: On) -> None:
    await on.outside("mkdir dir; mkfifo fifo; touch f", on.user)
    for tool, path in ((file.read, "gone"), (file.stat, "gone"), (file.list_folder, "gone"), (file.read, "f/below")):
        await fault("not_found", 404, on.call(tool, f"{FOLDER}/{path}"))
    for tool, path in ((file.read, "/etc/shadow"), (file.list_folder, "/root"), (file.stat, "/root/x")):
        assert path in json.dumps((await fault("permission_denied", 403, on.call(tool, path))).payload)
    for tool, path in ((file.read, "dir"), (file.read, "fifo"), (file.list_folder, "f")):
        await fault("invalid_input", 400, on.call(tool, f"{FOLDER}/{path}"))
    for path, code, status in (
        (f"{FOLDER}/no/f", "not_found", 404),
        ("/etc/hostname", "permission_denied", 403),
        ("/etc/new", "permission_denied", 403),
        (f"{FOLDER}/dir", "invalid_input", 400),
        (f"{FOLDER}/fifo", "invalid_input", 400),
        ("", "invalid_input", 400),
    ):
        await fault(code, status, on.write(path, "x"))
    assert await on.outside("ls -A") == "dir\nf\nfifo\n"


@pytest.mark.requirement("file.write.atomic")
async def test_a_full_disk_leaves_the_old_file(on: On) -> None:
    small = on.host.small_disk
    await on.outside(f"head -c 600000 /dev/urandom > {small}/f", on.user)
    before = await on.outside(f"sha256sum {small}/f; ls -A {small}")
    for mode, size in (("overwrite", 900_000), ("append", 100_000), ("prepend", 500_000)):
        error = await fault("remote_failed", 500, on.write(f"{small}/f", "x" * size, mode=mode))
        assert "disk full" in json.dumps(error.payload)
        assert await on.outside(f"sha256sum {small}/f; ls -A {small}") == before
    await fault("remote_failed", 500, on.write(f"{small}/new", "x" * 900_000))
    assert await on.outside(f"sha256sum {small}/f; ls -A {small}") == before


async def test_a_full_disk_leaves_a_file_that_has_to_be_written_in_place(direct: On) -> None:
    small = direct.host.small_disk
    await direct.outside(f"head -c 200000 /dev/urandom > {small}/f; ln {small}/f {small}/g", direct.user)
    before = await direct.outside(f"sha256sum {small}/f; ls -A {small}")
    # Room for the content and the backup, but not for the file to grow.
    for mode, size in (("overwrite", 500_000), ("append", 500_000), ("prepend", 300_000)):
        await fault("remote_failed", 500, direct.write(f"{small}/f", "x" * size, mode=mode))
        assert await direct.outside(f"sha256sum {small}/f; ls -A {small}") == before
    assert (await direct.write(f"{small}/f", "fits"))["atomic"] is False
    assert await direct.outside(f"cat {small}/g; ls -A {small}") == "fitsf\ng\n"


@pytest.mark.requirement("file.write.expected")
async def test_what_somebody_else_wrote_is_not_overwritten(on: On) -> None:
    path = f"{FOLDER}/f"
    await on.write(path, "first", expected_sha256="")
    seen = (await on.call(file.read, path))["sha256"]
    await on.outside("echo theirs > f", on.user)
    error = await fault("conflict", 409, on.write(path, "mine", expected_sha256=seen))
    actual = hashlib.sha256(b"theirs\n").hexdigest()
    assert actual in json.dumps(error.payload)
    await fault("conflict", 409, on.write(path, "mine", expected_sha256=""))
    assert await on.outside("cat f") == "theirs\n"
    await on.write(path, "mine", expected_sha256=actual)
    assert await on.outside("cat f; ls -A") == "minef\n"


async def test_root_leaves_files_to_their_owners_and_follows_links(app: App, host: Host) -> None:
    on = await opened(Direct(app), app, host, "root")
    await on.outside("echo old > f; chown dev:ops f 2>/dev/null || chown dev f; chmod 640 f; ln -s f link; ln f other")
    facts = "stat -c '%U %G %a' f"
    before = await on.outside(facts)
    assert (await on.write(f"{FOLDER}/link", "new\n", mode="append"))["atomic"] is False
    assert await on.outside(f"{facts}; cat other") == f"{before}old\nnew\n"
    await on.outside("rm other")
    assert (await on.write(f"{FOLDER}/link", "newest\n"))["atomic"] is True
    assert await on.outside(f"{facts}; cat f; readlink link") == f"{before}newest\nf\n"


async def test_of_many_appends_at_once_none_is_lost(direct: On) -> None:
    lines = [f"{number} {'x' * 20_000}\n" for number in range(10)]
    async with anyio.create_task_group() as group:
        for line in lines:
            group.start_soon(functools.partial(direct.write, f"{FOLDER}/f", line, mode="append"))
    assert sorted((await direct.outside("cat f")).splitlines(keepends=True)) == sorted(lines)
    assert await direct.outside("ls -A") == "f\n"


async def test_a_large_content_arrives_and_one_that_nobody_wants_harms_nothing(direct: On) -> None:
    content = "0123456789abcdef" * 500_000
    await fault("not_found", 404, direct.write(f"{FOLDER}/no/f", content))
    written = await direct.write(f"{FOLDER}/f", content)
    assert written["sha256"] == (await direct.outside("sha256sum f")).split()[0]


async def until(on: On, command: str, expected: str) -> None:
    """Wait until the command says so, on the machine's console, which a slow link does not slow down."""
    argv = ["sh", "-c", f"cd {shlex.quote(FOLDER)} && {command}"]
    with anyio.fail_after(20):
        while (await anyio.to_thread.run_sync(on.host.console, argv)).stdout != expected:
            await anyio.lowlevel.checkpoint()


SOME_ARRIVED = "find . -name '.mcp-ssh-*' -size +0 | wc -l", "1\n"
ONLY_THE_OLD_FILE = "ls -A; head -c 100 f; stat -c %s f", "f\nold\n4\n"


@pytest.mark.requirement("file.write.atomic")
async def test_a_cancelled_write_leaves_the_old_file_alone(direct: On) -> None:
    await direct.outside("echo old > f", direct.user)
    await anyio.to_thread.run_sync(direct.host.rate, 4000)
    async with anyio.create_task_group() as group:
        group.start_soon(direct.write, f"{FOLDER}/f", "x" * 3_000_000)
        await until(direct, *SOME_ARRIVED)
        group.cancel_scope.cancel()
    await until(direct, *ONLY_THE_OLD_FILE)


@pytest.mark.requirement("file.write.atomic")
async def test_a_link_lost_in_the_middle_of_a_write_leaves_the_old_file_alone(direct: On) -> None:
    await direct.outside("echo old > f", direct.user)
    await anyio.to_thread.run_sync(direct.host.rate, 4000)

    async def write() -> None:
        await fault("connect_failed", 502, direct.write(f"{FOLDER}/f", "x" * 3_000_000))

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await until(direct, *SOME_ARRIVED)
        # The machine's side of every connection of this account ends, as when it finds the link dead.
        kill = "for p in /proc/[0-9]*; do grep -qa '^sshd: dev' $p/cmdline && kill -KILL ${p#/proc/}; done; true"
        await anyio.to_thread.run_sync(direct.host.console, ["sh", "-c", kill])
    await until(direct, *ONLY_THE_OLD_FILE)


async def test_fifty_thousand_entries_are_listed_in_parts(direct: On) -> None:
    await direct.outside("mkdir many; cd many; seq 50000 | sed 's/^/an entry of a folder of logs /' | tr '\\n' '\\0' "
                         "| xargs -0 touch", direct.user)  # fmt: skip
    listed = await direct.call(file.list_folder, f"{FOLDER}/many", offset=45_000, limit=10_000)
    assert (listed["total"], listed["count"]) == (50_000, 5_000)
    assert "truncated" not in listed
    assert (await direct.call(file.list_folder, f"{FOLDER}/many"))["next_offset"] == 1000


async def test_what_an_rc_file_prints_stays_out_of_the_file(app: App, deb: Host) -> None:
    on = await opened(Direct(app), app, deb, "noisy")
    await on.write(f"{FOLDER}/f", "quiet")
    assert (await on.call(file.read, f"{FOLDER}/f"))["content"] == "quiet"
    assert [item["name"] for item in (await on.call(file.list_folder, FOLDER))["items"]] == ["f"]
    assert await on.outside("cat f") == "quiet"
