"""Whole folders between this machine and real hosts, names of every kind included."""

import base64
import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import file
from tests.fleet.hosts import Host
from tests.support.doors import Direct
from tests.support.transfers import FACTS, FOLDER, SUMS, On, facts, opened, planted, refused


@pytest.fixture
async def on(app: App, host: Host) -> On:
    return await opened(Direct(app), app, host)


@pytest.mark.requirement("file.transfer.tree")
async def test_a_folder_travels_both_ways_whatever_its_names(on: On, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    count = planted(there)
    sent = await on.call(file.upload, remote_path=f"{FOLDER}/tree", local_path=str(there))
    assert (sent["status"], sent["path"], sent["count"]) == ("uploaded", f"{FOLDER}/tree", count)
    for look in (FACTS, SUMS):
        assert await on.outside(f"cd tree && {look}") == facts(there, look)
    assert await on.outside("readlink tree/link; readlink tree/absolute; ls -A") == "../gone\n/etc/passwd\ntree\n"
    assert await on.outside("ls -A tree/empty; stat -c %U tree tree/empty") == "dev\ndev\n"
    got = await on.call(file.download, remote_path=f"{FOLDER}/tree", local_path=str(back))
    assert (got["status"], got["count"], got["size"]) == ("downloaded", count, sent["size"])
    for look in (FACTS, SUMS, "find . | sort", "readlink link; readlink absolute"):
        assert facts(back, look) == facts(there, look)


@pytest.mark.requirement("file.transfer.tree")
async def test_two_thousand_files_travel_both_ways(on: On, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    for number in range(2000):
        path = there / f"d{number % 20}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(4096))
    began = anyio.current_time()
    sent = await on.call(file.upload, remote_path=f"{FOLDER}/many", local_path=str(there))
    up = anyio.current_time() - began
    assert (sent["count"], sent["size"]) == (2000, 2000 * 4096)
    assert await on.outside(f"cd many && {SUMS}") == facts(there, SUMS)
    began = anyio.current_time()
    got = await on.call(file.download, remote_path=f"{FOLDER}/many", local_path=str(back))
    print(f"2,000 files: up in {up:.2f} s, down in {anyio.current_time() - began:.2f} s")
    assert got["count"] == 2000
    assert facts(back, SUMS) == facts(there, SUMS)


@pytest.mark.requirement("file.transfer.tree")
async def test_a_folder_is_put_into_one_that_is_there(on: On, tmp_path: Path) -> None:
    there = tmp_path / "there"
    (there / "both/new").mkdir(parents=True)
    for name in ("f", "both/f", "both/new/f"):
        (there / name).write_text("new\n")
    await on.outside("mkdir -p t/both/other t/only; echo old > t/f; echo old > t/both/f; echo old > t/both/other/f")
    await on.call(file.upload, remote_path="of transfers/t/", local_path=str(there))
    assert await on.outside("cat t/f t/both/f t/both/new/f t/both/other/f; find . | sort") == (
        "new\nnew\nnew\nold\n.\n./t\n./t/both\n./t/both/f\n./t/both/new\n./t/both/new/f\n./t/both/other\n"
        "./t/both/other/f\n./t/f\n./t/only\n"
    )
    back = tmp_path / "back"
    (back / "both/mine").mkdir(parents=True)
    (back / "f").write_text("old")
    await on.call(file.download, remote_path=f"{FOLDER}/t", local_path=str(back))
    assert facts(back, "cat f both/f both/other/f; ls -A . both") == (
        "new\nnew\nold\n.:\nboth\nf\nonly\n\nboth:\nf\nmine\nnew\nother\n"
    )


@pytest.mark.requirement("file.transfer.atomic")
async def test_a_tree_that_does_not_fit_or_is_cut_leaves_the_machine_as_it_was(on: On, tmp_path: Path) -> None:
    small = on.host.small_disk
    await on.outside(f"mkdir {small}/t; echo old > {small}/t/f")
    before = await on.outside(f"find {small} | sort; cat {small}/t/f")
    there = tmp_path / "there"
    there.mkdir()
    for name in ("e", "f", "g"):
        (there / name).write_bytes(os.urandom(1_500_000))
    error = await refused("remote_failed", 500, on.call(file.upload, remote_path=f"{small}/t", local_path=str(there)))
    assert "disk full" in str(error.payload)
    assert await on.outside(f"find {small} | sort; cat {small}/t/f") == before
    on.host.rate(8_000)
    late = on.call(file.upload, remote_path=f"{FOLDER}/t", local_path=str(there), timeout=1.5)
    await refused("timed_out", 504, late)
    on.host.clear()
    assert await on.outside("ls -A") == ""
    for path, code in ((f"{FOLDER}/no/t", "not_found"), ("/etc/t", "permission_denied"), ("/etc", "permission_denied")):
        await refused(code, 400, on.call(file.upload, remote_path=path, local_path=str(there)))


@pytest.mark.requirement("file.transfer.tree")
async def test_what_a_machine_may_not_read_is_told_and_the_rest_comes(on: On, tmp_path: Path) -> None:
    await on.outside("mkdir t; echo 1 > t/a; echo 2 > t/b; chmod 0 t/b; chown root t/b", user="root")
    await on.outside("mkfifo t/pipe 2>/dev/null || :", user="root")
    error = await refused(
        "permission_denied",
        403,
        on.call(file.download, remote_path=f"{FOLDER}/t", local_path=str(tmp_path / "back")),
    )
    assert (tmp_path / "back/a").read_text() == "1\n"
    assert "b" in str(error.payload["details"]["said"])


def entries(*wanted: tuple[str, bytes, str, bytes]) -> bytes:
    """A tar file as no tar would write it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, kind, target, content in wanted:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size, info.mode = kind, target, len(content), 0o4777
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


@pytest.fixture
async def liar(wrapped: Any) -> Any:
    """Has deb's tar send what it is given instead of what is there."""

    async def install(data: bytes) -> None:
        await wrapped("tar", f"base64 -d <<E\n{base64.b64encode(data).decode()}\nE")

    return install


@pytest.mark.requirement("file.transfer.escape")
async def test_no_entry_gets_out_of_the_folder(app: App, deb: Host, liar: Any, tmp_path: Path) -> None:
    on = await opened(Direct(app), app, deb)
    await on.outside("mkdir t")
    outside, back = tmp_path / "outside", tmp_path / "back"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    back.mkdir()
    (back / "mine").symlink_to(outside)
    evil, regular, link, hard = b"evil", tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    data = entries(
        ("../evil", regular, "", evil), ("/tmp/evil-of-tests", regular, "", evil), ("a/../../evil", regular, "", evil),
        ("out", link, str(outside), b""), ("out/evil", regular, "", evil), ("out/kept", regular, "", evil),
        ("mine/evil", regular, "", evil), ("up", link, "..", b""), ("up/evil", regular, "", evil),
        ("hard", hard, "../outside/kept", b""), ("hard2", hard, "out/kept", b""), ("hard3", hard, "/etc/passwd", b""),
        ("device", tarfile.CHRTYPE, "", b""), ("fine", regular, "", b"fine"), ("name", hard, "fine", b""),
    )  # fmt: skip
    await liar(data)
    got = await on.call(file.download, remote_path=f"{FOLDER}/t", local_path=str(back))
    assert got["skipped_count"] == 11
    assert sorted(each.name for each in outside.iterdir()) == ["kept"]
    assert (outside / "kept").read_text() == "kept"
    assert not list(tmp_path.glob("evil")) + list(Path("/tmp").glob("evil-of-tests"))
    assert sorted(each.name for each in back.iterdir()) == ["fine", "mine", "name", "out", "up"]
    assert (back / "name").read_text() == "fine"
    assert (back / "fine").stat().st_mode & 0o7777 == 0o777
    # The negative control: plain extraction of the same stream does the harm.
    twin = tmp_path / "twin/inner"
    twin.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        evils = [each for each in tar if each.name in {"../evil", "out/evil", "out"}]
        tar.extractall(twin, filter="fully_trusted", members=evils)  # noqa: S202 the harm is the point
    assert (tmp_path / "twin/evil").exists()
    assert (outside / "evil").exists()


@pytest.mark.requirement("file.transfer.tree.sha256")
async def test_a_tree_that_arrives_spoiled_is_refused_and_the_folder_stays(
    app: App, deb: Host, wrapped: Any, tmp_path: Path
) -> None:
    on = await opened(Direct(app), app, deb)
    there = tmp_path / "there"
    (there / "a").mkdir(parents=True)
    for name in ("a/f", "a.f", "a\nf", "b"):
        (there / name).write_text(name)
    (there / "none may read").write_text("x")
    (there / "none may read").chmod(0)
    sent = {"remote_path": f"{FOLDER}/t", "local_path": str(there)}
    whole = await on.call(file.upload, **sent)
    assert whole["sha256"] == hashlib.sha256(b"a\nfa.fa/fb").hexdigest()
    await wrapped("tar", '/bin/tar "$@"; code=$?; for f in "$7"/t/b; do printf B > "$f"; done; exit $code')
    (there / "b").write_text("2")
    await refused("conflict", 409, on.call(file.upload, **sent))
    assert await on.outside("cat t/b; ls -A") == "bt\n"
    # The negative control: where the machine cannot put names in order, nothing is compared, and what is spoiled stays.
    await wrapped("sort", "exit 1")
    assert "sha256" not in await on.call(file.upload, **sent)
    assert await on.outside("cat t/b") == "B"


@pytest.mark.requirement("file.transfer.tree")
async def test_a_stream_that_is_no_tar_or_names_what_no_file_can_be_named_is_an_error(
    app: App, deb: Host, liar: Any, tmp_path: Path
) -> None:
    on = await opened(Direct(app), app, deb)
    await on.outside("mkdir t")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "a\0b"}) as tar:
        tar.addfile(tarfile.TarInfo("f"))
    for data in (b"no tar at all" * 100, made.getvalue(), entries(("f", tarfile.REGTYPE, "", b"1"))[:512]):
        await liar(data)
        call = on.call(file.download, remote_path=f"{FOLDER}/t", local_path=str(tmp_path / "back"))
        assert "tar stream" in str((await refused("remote_failed", 500, call)).payload)
    assert not list((tmp_path / "back").iterdir())


@pytest.mark.requirement("fault.C9.holes")
async def test_a_downloaded_folder_keeps_the_holes_of_its_files(
    app: App, deb: Host, alpine: Host, tmp_path: Path
) -> None:
    for host in (deb, alpine):
        on, back = await opened(Direct(app), app, host), tmp_path / host.name
        await on.outside("mkdir t; truncate -s 64M t/holes; echo end >> t/holes; : > t/empty; truncate -s 1M t/nothing")
        got = await on.call(file.download, remote_path=f"{FOLDER}/t", local_path=str(back))
        assert (got["count"], got["size"]) == (3, 65 * 1024 * 1024 + 4)
        assert facts(back, SUMS) == await on.outside(f"cd t && {SUMS}")
        # BusyBox has no option for it, and its files come whole.
        if host is deb:
            assert sum(each.stat().st_blocks * 512 for each in back.iterdir()) < 1024 * 1024
