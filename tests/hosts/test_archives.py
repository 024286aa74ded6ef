"""Archives made and unpacked on real hosts, and hostile ones that stay out, read back by the system's own ssh."""

import base64
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.linux.files import archives
from mcp_ssh.tools import system
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Way, refused
from tests.support.folder import FOLDER, made
from tests.support.machine import SOAK, opened, outside

# A name that is no UTF-8, and one of two lines, among others.
HARD = r"""mkdir -p 'in -put/-sub' && cd 'in -put'
echo 1 >-x; echo 2 >"new
line"; echo 3 >"$(printf 'byte\377')"; echo 4 >'qu"o'"'"'te $(touch hit)'; echo 5 >'[a]*?'; echo 6 >-sub/čé
ln -s ../-x ./-sub/link; ln -s /nowhere away; : >empty; chmod 750 ./-sub; chmod 600 empty"""
_LISTED = "cd {0} && find . ! -type d -print0 | sort -z | xargs -0 -n 1 stat -c '%n %a %s' -- | od -c; cat ./*/-x"


async def listed(host: Host, folder: str) -> str:
    return await outside(host, _LISTED.format(folder))


async def left(host: Host, *more: str) -> list[str]:
    """What lies about that only we could have made, and names that escapes would have."""
    return (await outside(host, f"find {FOLDER} -name '.mcp-ssh*'; ls -d {' '.join(more)} 2>/dev/null || true")).split()


@pytest.mark.requirement("system.archive", "system.extract", "system.dry_run")
async def test_what_is_packed_comes_out_the_same_through_every_door(way: Way, app: App, host: Host) -> None:
    await made(host, HARD)
    on = await opened(way, app, host)
    kinds = ["tar", "tar.gz", "tar.bz2"] + (["tar.xz", "tar.zst", "zip"] if host.name == "deb" else [])
    want = await listed(host, FOLDER)
    for kind in kinds if way.name == "direct" else ["tar.gz"]:
        packed = f"{FOLDER}/out.{kind}"
        given = {**on, "source": f"{FOLDER}/in -put", "destination": packed, "format": kind}
        shown = await way.call(system.archive, {**given, "dry_run": True})
        assert len(shown["commands"]) == 1
        assert packed in shown["commands"][0]
        assert await left(host, packed) == []
        done = await way.call(system.archive, given)
        assert (done["success"], done["archive"], done["error"]) == (True, packed, None)
        assert done["size_bytes"] == int(await outside(host, f"stat -c %s {packed}"))
        where = {**on, "archive": packed, "destination": f"{FOLDER}/a/b/{kind}"}
        looked = await way.call(system.extract, {**where, "dry_run": True})
        assert "in -put/-x" in looked["entries"]
        assert await left(host, f"{FOLDER}/a/b/{kind}", f"{FOLDER}/a/b/.mcp*") == []
        out = await way.call(system.extract, where)
        assert (out["success"], out["error"], out["count"]) == (True, None, 9)
        assert await listed(host, f"{FOLDER}/a/b/{kind}") == want
        await outside(host, f"mv {packed} /tmp/archives.{kind}; rm -rf {FOLDER}/a")
        # Once more, into a folder that is there with some of it.
        await outside(
            host, f"mkdir -p '{FOLDER}/a/in -put'; echo old >'{FOLDER}/a/in -put/-x'; chown -R dev {FOLDER}/a"
        )
        await way.call(system.extract, {**on, "archive": f"/tmp/archives.{kind}", "destination": f"{FOLDER}/a"})
        assert await listed(host, f"{FOLDER}/a") == want
        await outside(host, f"rm -rf {FOLDER}/a /tmp/archives.{kind}")
    assert await left(host, f"{FOLDER}/hit", "hit") == []


Member = tuple[str, bytes, str]


def tarred(*members: Member) -> bytes:
    """A tar archive of entries: name, type, and content or where a link leads."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, kind, text in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = kind, 0o755
            if kind == tarfile.REGTYPE:
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
            else:
                entry.linkname = text
                archive.addfile(entry)
    return held.getvalue()


def zipped(*members: Member) -> bytes:
    """A zip archive of such entries."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        for name, kind, text in members:
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = ((stat.S_IFLNK if kind == tarfile.SYMTYPE else stat.S_IFREG) | 0o755) << 16
            archive.writestr(entry, text)
    return held.getvalue()


FILE, LINK, HARDLINK, DEVICE = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
OUT = f"{FOLDER}/outside"
HOSTILE: dict[str, tuple[Callable[..., bytes], list[Member]]] = {
    "absolute": (tarred, [("fine", FILE, "x"), (f"{OUT}/escaped", FILE, "x")]),
    "dots": (tarred, [("fine", FILE, "x"), ("a/../../outside/escaped", FILE, "x")]),
    "line": (tarred, [("fine", FILE, "x"), ("a\n/../../outside/escaped", FILE, "x")]),
    "through": (tarred, [("fine", FILE, "x"), ("x", LINK, OUT), ("./x//escaped", FILE, "x")]),
    "chain": (tarred, [("x", LINK, "../outside"), ("y", LINK, "x"), ("y/escaped", FILE, "x")]),
    "hard link": (tarred, [("fine", FILE, "x"), ("x", HARDLINK, f"{OUT}/kept")]),
    "hard changed": (tarred, [("x", HARDLINK, f"{OUT}/kept"), ("x", FILE, "changed")]),
    "hard dots": (tarred, [("fine", FILE, "x"), ("x", HARDLINK, "../../outside/kept")]),
    "device": (tarred, [("fine", FILE, "x"), ("x", DEVICE, "")]),
    "zip absolute": (zipped, [("fine", FILE, "x"), (f"{OUT}/escaped", FILE, "x")]),
    "zip dots": (zipped, [("fine", FILE, "x"), ("a/../../outside/escaped", FILE, "x")]),
    "zip backslash": (zipped, [("fine", FILE, "x"), ("..\\..\\outside\\escaped", FILE, "x")]),
    "zip through": (zipped, [("fine", FILE, "x"), ("x", LINK, OUT), ("x/escaped", FILE, "x")]),
}


async def put(host: Host, name: str, content: bytes) -> str:
    """A file of the account's, by the console."""
    path = f"{FOLDER}/{name}"
    text = f"printf %s {base64.b64encode(content).decode()} | base64 -d >{path}; chown dev {path}"
    ended = await anyio.to_thread.run_sync(lambda: host.console(["sh", "-c", text]))
    assert ended.returncode == 0, ended.stderr
    return path


@pytest.mark.requirement("system.extract.escape")
@pytest.mark.parametrize("user", ["dev", "root"] if SOAK else ["root"])
async def test_no_entry_gets_out_of_its_folder(app: App, host: Host, user: str) -> None:
    await made(host, "mkdir outside out; echo kept >outside/kept; echo mine >out/fine")
    way = Direct(app)
    on = await opened(way, app, host, user)
    for name, (make, members) in HOSTILE.items():
        hostile = await put(host, "hostile", make(*members))
        given = {**on, "archive": hostile, "destination": f"{FOLDER}/out"}
        if host.name == "alpine" and name in {"hard changed", "hard dots"}:
            # BusyBox tells only while it unpacks, and fails by itself.
            assert (await way.call(system.extract, given))["success"] is False
        else:
            fault = await refused(way, system.extract, given)
            assert (fault.code, "nothing was changed" in str(fault)) == ("refused", True), (name, str(fault))
        assert (await outside(host, f"cd {FOLDER}; ls -A out outside; cat out/fine outside/kept")).split() == [
            "out:", "fine", "outside:", "kept", "mine", "kept",
        ], name  # fmt: skip
    assert await left(host, "/tmp/escaped") == []


@pytest.mark.requirement("system.extract.escape")
async def test_a_link_that_was_there_leads_nobody_out(app: App, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    way = Direct(app)
    await made(host, "mkdir outside out; ln -s ../outside out/x; ln -s . out/inner; ln -s ../outside/kept out/file")
    on = await opened(way, app, host)
    second = await put(host, "second", tarred(("x/escaped", FILE, "x"), ("fine", FILE, "x")))
    given = {**on, "archive": second, "destination": f"{FOLDER}/out"}
    assert (await refused(way, system.extract, given)).code == "refused"
    assert (await outside(host, f"ls -A {FOLDER}/outside {FOLDER}/out/fine 2>&1 || true")).count("escaped") == 0
    # A link that stays inside is followed; one in the place of a file is replaced.
    inner = await put(host, "inner.tar", tarred(("inner/new", FILE, "new"), ("file", FILE, "file")))
    assert (await way.call(system.extract, {**given, "archive": inner}))["count"] == 2
    assert (await outside(host, f"cat {FOLDER}/out/new {FOLDER}/out/file; ls -A {FOLDER}/outside")) == "newfile"
    # The negative control: without the look at what is there the entry does get out.
    monkeypatch.setattr(archives, "_EXTRACT", archives._EXTRACT.replace('echo "outside $to"', ":"))
    assert (await way.call(system.extract, given))["success"] is True
    assert (await outside(host, f"ls -A {FOLDER}/outside")).split() == ["escaped"]


@pytest.mark.requirement("system.extract.escape")
async def test_without_the_checks_hostile_archives_do_get_out(
    app: App, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """BusyBox makes a hard link to any file; GNU's tar writes where a name says if it is let."""
    await made(host, "mkdir outside out; echo kept >outside/kept")
    way = Direct(app)
    on = await opened(way, app, host)
    name, option = ("absolute", "-P ") if host.name == "deb" else ("hard link", "")
    make, members = HOSTILE[name]
    hostile = await put(host, "hostile", make(*members))
    script = archives._EXTRACT.replace("stop leaves", ": leaves").replace('tell("leaves")', "")
    monkeypatch.setattr(archives, "_EXTRACT", script.replace("inflate tar ", f"inflate tar {option}"))
    result = await way.call(system.extract, {**on, "archive": hostile, "destination": f"{FOLDER}/out"})
    assert result["success"] is True
    if host.name == "deb":
        assert await outside(host, f"ls -A {OUT}") == "escaped\nkept\n"
    else:
        assert (await outside(host, f"stat -c %h {OUT}/kept")).strip() == "2"


@pytest.mark.requirement("system.extract", "system.archive", "system.rights")
async def test_what_fails_leaves_everything_as_it_was(app: App, host: Host) -> None:
    await made(host, "mkdir -p in/sub out/d; echo 1 >in/a; echo old >out/a; echo old >keep.tgz; echo 2 >in/secret")
    way = Direct(app)
    on = await opened(way, app, host)
    good = f"{FOLDER}/good.tgz"
    await way.call(system.archive, {**on, "source": f"{FOLDER}/in", "destination": good})
    state = f"cd {FOLDER}; find . -print | sort; cat out/a keep.tgz"
    await outside(host, f"chown root {FOLDER}/in/secret; chmod 600 {FOLDER}/in/secret; mkdir {FOLDER}/theirs")
    await outside(host, f"cd {FOLDER}; head -c 100 good.tgz >torn.tgz; echo text >text; : >empty; mkfifo pipe")
    before = await outside(host, state)
    to = {"destination": f"{FOLDER}/keep.tgz"}
    fault = await refused(way, system.archive, {**on, "source": f"{FOLDER}/in", **to})
    assert (fault.code, "become" in fault.payload["hint"]) == ("permission_denied", True)
    fault = await refused(way, system.extract, {**on, "archive": good, "destination": f"{FOLDER}/theirs"})
    assert (fault.code, "become" in fault.payload["hint"]) == ("permission_denied", True)
    for name in ("torn.tgz", "text", "empty"):
        for look in (False, True):
            given = {**on, "archive": f"{FOLDER}/{name}", "destination": f"{FOLDER}/out", "dry_run": look}
            failed = await way.call(system.extract, given)
            assert (failed["success"], bool(failed["error"])) == (False, True), name
    await outside(host, f"head -c 2000000 /dev/zero >{FOLDER}/big")
    small = await way.call(
        system.archive, {**on, "source": f"{FOLDER}/big", "destination": f"{host.small_disk}/full.tar", "format": "tar"}
    )
    assert (small["success"], bool(small["error"])) == (False, True)
    await outside(host, f"rm {FOLDER}/big")
    assert (await outside(host, f"ls -A {host.small_disk}")) == ""
    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (system.archive, {"source": f"{FOLDER}/none", **to}, "not_found"),
        (system.archive, {"source": f"{FOLDER}/pipe", **to}, "invalid_input"),
        (system.archive, {"source": f"{FOLDER}/in", "destination": f"{FOLDER}/in/x.tgz"}, "invalid_input"),
        (system.archive, {"source": f"{FOLDER}/in", "destination": f"{FOLDER}/no/x.tgz"}, "not_found"),
        (system.archive, {"source": f"{FOLDER}/in", "destination": "/etc/shadow"}, "refused"),
        (system.extract, {"archive": f"{FOLDER}/none"}, "not_found"),
        (system.extract, {"archive": FOLDER}, "invalid_input"),
        (system.extract, {"archive": good, "destination": f"{FOLDER}/text"}, "invalid_input"),
        (system.extract, {"archive": good, "destination": f"{FOLDER}/no/../x"}, "invalid_input"),
        (system.extract, {"archive": good, "destination": "/etc/sudoers.d/x"}, "permission_denied"),
    ]
    for tool, arguments, code in wrong:
        assert (await refused(way, tool, {**on, **arguments})).code == code, arguments
    if host.name == "alpine":
        for kind, package in (("zip", "zip"), ("tar.zst", "zstd"), ("tar.xz", "xz-utils")):
            given = {**on, "source": f"{FOLDER}/in/sub", "destination": f"{FOLDER}/x", "format": kind}
            fault = await refused(way, system.archive, given)
            assert (fault.code, package in fault.payload["hint"]) == ("unsupported", True)
    assert await outside(host, state) == before
    clash = await put(host, "clash", tarred(("a", tarfile.DIRTYPE, ""), ("a/b", FILE, "x"), ("new", FILE, "x")))
    for members in (clash, await put(host, "other", tarred(("d", FILE, "x"), ("new", FILE, "x")))):
        fault = await refused(way, system.extract, {**on, "archive": members, "destination": f"{FOLDER}/out"})
        assert fault.code == "conflict"
    assert (await outside(host, f"ls -A {FOLDER}/out; cat {FOLDER}/out/a")).split() == ["a", "d", "old"]
    root = {"become": {}}
    nopass = await opened(way, app, host, "nopass")
    done = await way.call(system.archive, {**nopass, **root, "source": f"{FOLDER}/in", **to})
    assert done["success"] is True
    ops = {**await opened(way, app, host, "ops"), "become": {"password": host.password}}
    out = await way.call(system.extract, {**ops, "archive": f"{FOLDER}/keep.tgz", "destination": f"{FOLDER}/theirs"})
    assert out["count"] == 2
    owners = f"cd {FOLDER}; stat -c %U keep.tgz theirs/in/a theirs/in/secret"
    assert (await outside(host, owners)).split() == ["dev", "dev", "root"]
    assert (
        await refused(way, system.extract, {**nopass, **root, "archive": good, "destination": "/etc/sudoers.d"})
    ).code


@pytest.mark.requirement("system.extract")
async def test_closed_folders_come_out_closed_and_an_ended_call_leaves_nothing(
    app: App, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await made(host, "mkdir -p in/closed; echo 1 >in/closed/a; chmod 555 in/closed; mkdir out")
    way = Direct(app)
    on = await opened(way, app, host)
    packed = f"{FOLDER}/x.tar"
    if host.name == "alpine":  # BusyBox's tar cannot put a file into such a folder
        await outside(host, f"chmod 755 {FOLDER}/in/closed")
    mode = (await outside(host, f"stat -c %a {FOLDER}/in/closed")).strip()
    await way.call(system.archive, {**on, "source": f"{FOLDER}/in", "destination": packed, "format": "tar"})
    for destination in (f"{FOLDER}/out", f"{FOLDER}/new"):
        await way.call(system.extract, {**on, "archive": packed, "destination": destination})
        assert (await outside(host, f"stat -c %a {destination}/in/closed; cat {destination}/in/closed/a")).split() == [
            mode, "1",
        ]  # fmt: skip
    # Everything is unpacked, and the call has to be ended before it takes its place.
    script = archives._EXTRACT
    assert script.count("fault=''") == 1
    monkeypatch.setattr(archives, "_EXTRACT", script.replace("fault=''", "fault=''; sleep 60"))
    given = {**on, "archive": packed, "destination": f"{FOLDER}/ended", "timeout": 2}
    assert (await refused(way, system.extract, given)).code == "timed_out"
    assert await left(host, f"{FOLDER}/ended") == []


@pytest.mark.requirement("system.extract")
async def test_a_disk_that_is_mounted_read_only_is_no_matter_of_rights(app: App, host: Host) -> None:
    await made(host, ": >a; tar -cf a.tar a; mkdir only")
    await outside(host, f"mount -t tmpfs none {FOLDER}/only && mount -o remount,ro {FOLDER}/only")
    try:
        on = {**await opened(Direct(app), app, host, "root"), "archive": f"{FOLDER}/a.tar"}
        for into in (f"{FOLDER}/only", f"{FOLDER}/only/new"):
            fault = await refused(Direct(app), system.extract, {**on, "destination": into})
            assert "mounted read-only" in str(fault)
    finally:
        await outside(host, f"umount {FOLDER}/only")
