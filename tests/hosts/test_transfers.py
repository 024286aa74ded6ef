"""Single files between this machine and real hosts, read back by the system's own ssh."""

import base64
import contextlib
import fcntl
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
from mcp_ssh.linux.files import transfer as file_transfer
from mcp_ssh.linux.files.transfer import ask_receive
from mcp_ssh.tools import file
from mcp_ssh.transfers import local_files
from tests.fleet.hosts import Host
from tests.support.doors import Direct, DirectCall, Fault, caller
from tests.support.machine import connected, login, outside, processes
from tests.support.servers import stdio
from tests.support.transfers import BIG, CONTENT, FOLDER, SUMS, On, big, emptied, facts, noise, opened, refused, sha256

MIB = 1024 * 1024


@pytest.mark.requirement("file.upload")
async def test_text_and_bytes_of_the_call_become_a_file(on: On) -> None:
    text = await on.call(file.upload, remote_path=f"{FOLDER}/text", raw_content="žluťoučký\n", permissions=640)
    documented = {"status": "uploaded", "path": f"{FOLDER}/text", "size": 14, "content": None}
    assert text.items() >= {**documented, "permissions": "0640"}.items()
    assert await on.outside("cat text; stat -c %a text") == "žluťoučký\n640\n"
    data = os.urandom(300_000)
    sent = await on.call(
        file.upload, remote_path=f"{FOLDER}/data", content=base64.b64encode(data).decode(), permissions="0600"
    )
    assert sent["sha256"] == hashlib.sha256(data).hexdigest() == await on.sha256("data")
    for empty in ({"raw_content": ""}, {"content": ""}):
        assert (await on.call(file.upload, remote_path=f"{FOLDER}/empty", **empty))["size"] == 0
        assert await on.outside("wc -c < empty; ls -A") == "0\ndata\nempty\ntext\n"


@pytest.mark.requirement("file.download")
async def test_content_comes_back_as_base64(on: On) -> None:
    await on.outside("head -c 300000 /dev/urandom > data; : > empty")
    got = await on.call(file.download, remote_path=f"{FOLDER}/data", return_content=True)
    assert got.items() >= {"status": "downloaded", "path": f"{FOLDER}/data", "size": 300_000}.items()
    data = base64.b64decode(got["content"])
    assert hashlib.sha256(data).hexdigest() == got["sha256"] == await on.sha256("data")
    assert (await on.call(file.download, remote_path=f"{FOLDER}/empty", return_content=True))["content"] == ""
    version = await on.call(file.download, remote_path="/proc/version", return_content=True)
    assert base64.b64decode(version["content"]).startswith(b"Linux version")


@pytest.mark.requirement("file.upload", "file.download")
async def test_files_of_any_size_travel_both_ways(direct: On, tmp_path: Path) -> None:
    for size in (0, 1, 256 * 1024, 256 * 1024 + 1, 3 * MIB + 7):
        there, back = noise(tmp_path / "there", size), tmp_path / "back"
        there.chmod(0o755)
        sent = await direct.call(file.upload, remote_path=f"{FOLDER}/f", local_path=str(there))
        assert (sent["size"], sent["sha256"]) == (size, sha256(there))
        assert "resumed_bytes" not in sent
        assert await direct.sha256("f") == sha256(there)
        assert await direct.outside("stat -c %a f; ls -A") == "755\nf\n"
        await direct.outside("chmod 750 f")
        got = await direct.call(file.download, remote_path=f"{FOLDER}/f", local_path=str(back))
        assert (got["size"], got["sha256"], "content" in got) == (size, sha256(there), False)
        assert sha256(back) == sha256(there)
        assert back.stat().st_mode & 0o777 == 0o750
        assert not list(tmp_path.glob(".mcp*"))
        back.unlink()
        await direct.outside("rm f")


@pytest.mark.requirement("file.upload", "file.download", "file.transfer.tree")
async def test_local_files_and_folders_travel_through_each_door(
    app: App, on: On, mcp_home: Path, tmp_path: Path
) -> None:
    """Over REST relative to the caller's transfer folder, else wherever the owner says."""
    tokens = [each.id for each in await app.store.tokens.list()]
    inside = mcp_home / "transfers" / tokens[0] if on.way.name == "rest" else tmp_path / "local"
    (inside / "tree/sub").mkdir(parents=True)
    for name in ("f", "tree/a b", "tree/sub/c"):
        noise(inside / name, 300_000)

    def local_files(name: str) -> str:
        return name if on.way.name == "rest" else str(inside / name)

    sent = await on.call(file.upload, remote_path=f"{FOLDER}/f", local_path=local_files("f"))
    assert sent["sha256"] == sha256(inside / "f") == await on.sha256("f")
    got = await on.call(file.download, remote_path=f"{FOLDER}/f", local_path=local_files("back"))
    assert got["sha256"] == sha256(inside / "back") == sha256(inside / "f")
    grown = await on.call(file.upload, remote_path=f"{FOLDER}/tree", local_path=local_files("tree"))
    assert grown["sha256"] == (await on.outside(f"cd tree && {CONTENT}")).split()[0]
    assert await on.outside(f"cd tree && {SUMS}") == facts(inside / "tree", SUMS)
    came = await on.call(file.download, remote_path=f"{FOLDER}/tree", local_path=local_files("came"))
    assert (grown["count"], came["count"], came["size"]) == (2, 2, 600_000)
    assert facts(inside / "came", SUMS) == facts(inside / "tree", SUMS)


@pytest.mark.requirement("file.upload")
async def test_a_call_with_no_source_or_with_two_is_refused(on: On) -> None:
    both = {"raw_content": "x", "content": "eA=="}
    for given in ({}, both, {"content": "no base64!"}, {"raw_content": "x", "permissions": 888}):
        await refused("invalid_input", 400, on.call(file.upload, remote_path=f"{FOLDER}/f", **given))
    await refused("invalid_input", 400, on.call(file.download, remote_path=f"{FOLDER}/f"))
    await refused("not_found", 404, on.call(file.download, remote_path=f"{FOLDER}/f", return_content=True))
    await refused("not_found", 404, on.call(file.upload, remote_path=f"{FOLDER}/no/f", raw_content="x"))
    await refused("invalid_input", 400, on.call(file.upload, remote_path=FOLDER, raw_content="x"))
    await refused("permission_denied", 403, on.call(file.upload, remote_path="/etc/passwd", raw_content="x"))
    assert await on.outside("ls -A") == ""


async def cut_at(direct: On, host: Host, portion: int, call: Any, size: Any) -> None:
    """Start a transfer and kill sshd's end of it once a portion has arrived, as `size` sees it."""

    async def run() -> None:
        with contextlib.suppress(Fault):
            await call
        ended.set()

    ended = anyio.Event()
    async with anyio.create_task_group() as group:
        group.start_soon(run)
        with anyio.fail_after(120):
            while await size() < portion:
                assert not ended.is_set(), "the transfer ended before it could be cut"
                await anyio.sleep(0.005)
        await anyio.to_thread.run_sync(functools.partial(host.console, ["pkill", "-KILL", "-u", "dev"]))
        with anyio.fail_after(30):
            await ended.wait()


@pytest.mark.requirement("file.transfer.resume")
async def test_an_upload_that_was_cut_goes_on_where_it_ended(app: App, direct: On, host: Host, tmp_path: Path) -> None:
    there = await big(tmp_path / "there")
    await direct.outside("echo old > f; chmod 640 f")
    arguments = {"remote_path": f"{FOLDER}/f", "local_path": str(there)}

    async def partial() -> int:
        listed = await anyio.to_thread.run_sync(
            functools.partial(host.console, ["sh", "-c", f"cd '{FOLDER}' && stat -c %s .mcp-ssh-*.part || echo 0"])
        )
        return int(listed.stdout.split()[-1])

    await cut_at(direct, host, BIG // 4, direct.call(file.upload, **arguments), partial)
    kept = await partial()
    assert BIG // 4 <= kept < BIG
    assert await direct.outside("cat f") == "old\n"
    again = On(direct.way, host, await connected(app, host, "dev", DirectCall(caller())))
    sent = await again.call(file.upload, **arguments)
    assert kept - 256 * 1024 < sent["resumed_bytes"] <= kept
    assert sent["sha256"] == sha256(there) == await again.sha256("f")
    assert await again.outside("stat -c %a f; ls -A") == "640\nf\n"


@pytest.mark.requirement("file.transfer.resume")
async def test_a_download_that_was_cut_goes_on_where_it_ended(app: App, direct: On, host: Host, tmp_path: Path) -> None:
    await direct.outside(f"head -c {BIG} /dev/urandom > f")
    back = tmp_path / "back"
    back.write_text("old")
    arguments = {"remote_path": f"{FOLDER}/f", "local_path": str(back)}

    async def partial() -> int:
        return sum(each.stat().st_size for each in tmp_path.glob(".mcp-ssh-*.part"))

    await cut_at(direct, host, BIG // 4, direct.call(file.download, **arguments), partial)
    kept = await partial()
    assert BIG // 4 <= kept < BIG
    assert back.read_text() == "old"
    again = On(direct.way, host, await connected(app, host, "dev", DirectCall(caller())))
    got = await again.call(file.download, **arguments)
    assert got["resumed_bytes"] == kept
    assert got["sha256"] == sha256(back) == await again.sha256("f")
    assert await partial() == 0


@pytest.mark.requirement("file.transfer.resume")
async def test_a_transfer_that_ran_out_of_time_goes_on_and_leaves_nothing_running(
    direct: On, host: Host, tmp_path: Path
) -> None:
    there = noise(tmp_path / "there", 8 * MIB)
    host.rate(16_000)
    late = direct.call(file.upload, remote_path=f"{FOLDER}/f", local_path=str(there), timeout=2)
    await refused("timed_out", 504, late)
    host.clear()
    assert int(await direct.outside("stat -c %s .mcp-ssh-*.part")) > 0
    assert not [line for line in await processes(host, 262144) if " dd " in f" {line}"]
    sent = await direct.call(file.upload, remote_path=f"{FOLDER}/f", local_path=str(there))
    assert sent["resumed_bytes"] > 0
    assert await direct.sha256("f") == sha256(there)


@pytest.mark.requirement("file.transfer.resume")
async def test_a_partial_file_that_was_spoiled_is_sent_anew(direct: On, tmp_path: Path) -> None:
    there = noise(tmp_path / "there", 3 * MIB)
    source = local_files.source(there)
    assert source is not None
    asked = ask_receive(f"{FOLDER}/f", 3 * MIB, source.identity, permissions=None, usual=0o644)
    source.close()
    name = f".mcp-ssh-{asked.command.argv[12]}.part"
    await direct.outside(f"head -c 1500000 /dev/zero > {name}")
    sent = await direct.call(file.upload, remote_path=f"{FOLDER}/f", local_path=str(there))
    assert sent["sha256"] == sha256(there) == await direct.sha256("f")
    assert await direct.outside("ls -A") == "f\n"
    await direct.outside(f"ln -s f {name}")
    await refused("conflict", 409, direct.call(file.upload, remote_path=f"{FOLDER}/f", local_path=str(there)))


@contextlib.asynccontextmanager
async def rewritten(on: On, host: Host, there: Path) -> AsyncGenerator[None]:
    """Changes a file once some of it is on the machine."""
    host.rate(16_000)

    async def rewrite() -> None:
        with anyio.fail_after(30):
            while "0" in (await on.outside("stat -c %s .mcp-ssh-*.part 2>/dev/null || echo 0")).split():
                await anyio.sleep(0.02)
        with there.open("r+b") as file_:
            file_.write(b"other")

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(rewrite)
            yield
    finally:
        host.clear()


@pytest.mark.requirement("file.upload", "file.transfer.atomic")
async def test_a_source_that_is_rewritten_while_it_is_sent_replaces_nothing(
    direct: On, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = noise(tmp_path / "there", 3 * MIB)
    sent = {"remote_path": f"{FOLDER}/f", "local_path": str(there)}
    await direct.outside("echo old > f")
    async with rewritten(direct, host, there):
        await refused("conflict", 409, direct.call(file.upload, **sent))
    assert await direct.outside("cat f; ls -A") == "old\nf\n"
    # The negative control: nobody looks whether it was written to.
    monkeypatch.setattr(local_files, "_write_stamp", lambda _: (0, 0))
    async with rewritten(direct, host, noise(there, 3 * MIB)):
        await direct.call(file.upload, **sent)
    assert await direct.sha256("f") != sha256(there)


@pytest.mark.requirement("file.upload")
async def test_a_small_source_that_is_rewritten_while_it_is_read_is_sent_as_it_is_now(
    direct: On, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, original, texts = tmp_path / "there", local_files.Source.sha256, [b"newest", b"newer!"]
    there.write_bytes(b"oldest")
    os.utime(there, (0, 0))

    def rewritten_first(source: local_files.Source) -> str:
        if texts:
            there.write_bytes(texts.pop())
        return original(source)

    monkeypatch.setattr(local_files.Source, "sha256", rewritten_first)
    sent = {"remote_path": f"{FOLDER}/f", "local_path": str(there)}
    # Written to before each of the two times that its end was reached.
    await refused("conflict", 409, direct.call(file.upload, **sent))
    assert (await direct.call(file.upload, **sent))["sha256"] == sha256(there)
    assert await direct.outside("cat f; ls -A") == "newestf\n"


@pytest.mark.requirement("file.upload", "file.download", "file.transfer.tree")
async def test_where_openssl_is_missing_the_machine_sums_up_with_sha256sum(
    app: App, deb: Host, wrapped: Any, tmp_path: Path
) -> None:
    on = await opened(Direct(app), app, deb)
    mark = "/tmp/summed-up"
    await wrapped("openssl", "exit 127")
    await wrapped("sha256sum", f'echo . >> {mark}; exec /usr/bin/sha256sum "$@"')
    try:
        (tmp_path / "tree").mkdir()
        there = noise(tmp_path / "tree/f", 3 * MIB)
        sent = await on.call(file.upload, remote_path=f"{FOLDER}/f", local_path=str(there))
        got = await on.call(file.download, remote_path=f"{FOLDER}/f", local_path=str(tmp_path / "back"))
        await on.call(file.upload, remote_path=f"{FOLDER}/tree", local_path=str(tmp_path / "tree"))
        assert len((await on.outside(f"cat {mark}")).split()) >= 3
        assert sent["sha256"] == got["sha256"] == sha256(there) == sha256(tmp_path / "back")
        assert await on.sha256("f") == await on.sha256("tree/f") == sha256(there)
    finally:
        await on.outside(f"rm -f {mark}", user="root")


@pytest.mark.requirement("file.download")
async def test_a_log_that_grows_while_it_is_summed_up_comes_as_far_as_it_was(
    app: App, deb: Host, wrapped: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = await opened(Direct(app), app, deb)
    await on.outside("head -c 2000000 /dev/urandom > f")
    whole = await on.sha256("f")
    await wrapped("openssl", f"echo more >> '{FOLDER}/f'; exec /usr/bin/openssl \"$@\"")
    back = {"remote_path": f"{FOLDER}/f", "local_path": str(tmp_path / "back")}
    got = await on.call(file.download, **back)
    assert (got["size"], got["sha256"], sha256(tmp_path / "back")) == (2_000_000, whole, whole)
    assert int(await on.outside("stat -c %s f")) > 2_000_000
    # The negative control: nobody looks whether it grew.
    blind = file_transfer._SEND.replace('= "$size" ] || hex=', '= "$size" ] || other=')
    assert blind != file_transfer._SEND
    monkeypatch.setattr(file_transfer, "_SEND", blind)
    await refused("conflict", 409, on.call(file.download, **back))


@pytest.mark.requirement("file.transfer.swept")
async def test_partial_files_that_nobody_came_back_for_are_removed(direct: On, tmp_path: Path) -> None:
    old, name = "touch -t 202001010000", f".mcp-ssh-{'a' * 24}.part"
    kept = [f".mcp-ssh-{'b' * 24}.part", f".mcp-ssh-{'c' * 24}.back", "mine.part", "link.part"]
    await direct.outside(f"touch {kept[0]}; touch {name} {kept[1]} {kept[2]}; ln -s {kept[2]} {kept[3]}")
    await direct.outside(f"mkdir .mcp-ssh-{'d' * 16}.tree; {old} {name} {' '.join(kept[1:])} .mcp-ssh-*.tree")
    await direct.outside(f"touch .mcp-ssh-{'e' * 24}.part; {old} .mcp-ssh-e*; chown ops .mcp-ssh-e*", user="root")
    await direct.call(file.upload, remote_path=f"{FOLDER}/f", raw_content="x")
    others = [f".mcp-ssh-{'e' * 24}.part", "f"]
    assert (await direct.outside("ls -A")).split() == sorted([*kept, *others])
    here = [tmp_path / each for each in (name, *kept)]
    for each in here:
        each.write_text("")
        os.utime(each, times=(0, 0) if each != here[1] else None)
    locked = tmp_path / f".mcp-ssh-{'f' * 24}.part"
    with locked.open("w") as under_way:
        fcntl.flock(under_way, fcntl.LOCK_EX)
        os.utime(locked, times=(0, 0))
        await direct.call(file.download, remote_path=f"{FOLDER}/f", local_path=str(tmp_path / "f"))
    left = {each.name for each in tmp_path.iterdir() if each.is_file()}
    assert left == {*kept, locked.name, "f"}


@pytest.mark.requirement("file.transfer.swept")
async def test_a_folder_that_others_may_write_to_keeps_what_looks_like_a_tree_of_ours(direct: On) -> None:
    """Anybody could have given a folder of dev's that name; the control is the same folder where nobody else can."""
    await direct.outside(f"chmod 777 .; mkdir .mcp-ssh-{'d' * 16}.tree; touch -t 202001010000 .mcp-ssh-*.tree")
    for mode, left in ((777, ".mcp-ssh-dddddddddddddddd.tree\nf\n"), (755, "f\n")):
        await direct.outside(f"chmod {mode} .")
        await direct.call(file.upload, remote_path=f"{FOLDER}/f", raw_content="x")
        assert await direct.outside("ls -A") == left


@pytest.mark.requirement("file.transfer.atomic")
async def test_a_full_disk_leaves_the_old_file_and_nothing_else(direct: On, tmp_path: Path) -> None:
    small = direct.host.small_disk
    await direct.outside(f"head -c 300000 /dev/urandom > {small}/f")
    before = await direct.outside(f"sha256sum {small}/f; ls -A {small}")
    there = noise(tmp_path / "there", 3 * MIB)
    error = await refused(
        "remote_failed", 500, direct.call(file.upload, remote_path=f"{small}/f", local_path=str(there))
    )
    assert "disk full" in str(error.payload)
    assert await direct.outside(f"sha256sum {small}/f; ls -A {small}") == before


@pytest.mark.requirement("file.transfer.memory")
async def test_a_big_file_travels_both_ways_in_constant_memory(mcp_home: Path, host: Host, tmp_path: Path) -> None:
    """By the server as it is started by clients, its peak read from /proc."""
    await emptied(host)
    there, back = await big(tmp_path / "there"), tmp_path / "back"
    mcp_home.mkdir(mode=0o700)
    (mcp_home / "config.json").write_text('{"security": {"host_keys": "accept-new"}}')
    async with stdio(mcp_home, "--toolsets", "all") as server:
        await server.call("session_connect", login(host, "dev"))
        small = noise(tmp_path / "small", 300_000)
        await server.call("file_upload", {"remote_path": f"{FOLDER}/s", "local_path": str(small)})
        await server.call("file_download", {"remote_path": f"{FOLDER}/s", "local_path": str(tmp_path / "s")})
        before = await server.resident_kib()
        sent = await server.call("file_upload", {"remote_path": f"{FOLDER}/f", "local_path": str(there)})
        middle = await server.resident_kib()
        got = await server.call("file_download", {"remote_path": f"{FOLDER}/f", "local_path": str(back)})
        after = await server.resident_kib()
    print(f"{BIG // MIB} MiB: {before} KiB, {middle} KiB after the upload, {after} KiB after the download")
    outside_sum = (await outside(host, f"sha256sum '{FOLDER}/f'")).split()[0]
    assert sha256(there) == sent["sha256"] == outside_sum == got["sha256"] == sha256(back)
    assert after - before <= 32 * 1024
