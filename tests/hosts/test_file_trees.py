"""Folders made, removed, copied and moved on real hosts, looked at by the system's own ssh."""

import shlex

import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import file, session
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, Fault, Way, caller
from tests.support.machine import connected, login, outside
from tests.support.transfers import FOLDER, On, opened, refused

HARD = ("a b", "new\nline", "qu'o\"te", "$(id)", "-rf", "*", "back\\slash")
TREE = f"""mkdir -p tree/sub/empty && cd tree && for name in {" ".join(shlex.quote("./" + name) for name in HARD)}; do
printf abc > "$name"; done; printf x > "$(printf 'sub/\\377')"; : > sub/none; ln -s ../gone sub/link; ln -s sub dir-link
chmod 4750 './a b'; chmod 700 sub; touch -t 202401020304.05 sub/none; cd .."""
PROTECTED = (
    "/", "//", "///", "//etc", "//home//dev/", "/.", "/..", "/etc", "/usr", "/home", "/home/", "/home/dev", "/home/ops",
    "/root", "~", ".", "..", "/home/dev/.", "/home/dev/..", "/usr/bin", "/var/lib", "/proc", "/tmp", "/etc/../etc",
    "/var/../usr/", "/proc/self/root", "/proc/self/root/etc", f"{FOLDER}/.", f"{FOLDER}/..",
    f"{FOLDER}/victim/../../..", f"{FOLDER}/mnt/a b", f"{FOLDER}/mnt", f"{FOLDER}/plain", f"{FOLDER}/links/root/etc",
    f"{FOLDER}/links/root/home/ops",
    *(f"{FOLDER}/links/{name}{end}" for name in ("root", "etc", "home", "plain", "up") for end in ("", "/", "/.")),
)  # fmt: skip
LOOK = "find . -exec stat -c '%n %f %s %u' {} + | sort | sha256sum"


@pytest.mark.requirement("file.mkdir")
async def test_folders_are_made(on: On) -> None:
    made = await on.call(file.mkdir, path=f"{FOLDER}/new dir")
    assert made.items() >= {"status": "created", "path": f"{FOLDER}/new dir"}.items()
    await refused("conflict", 409, on.call(file.mkdir, path=f"{FOLDER}/new dir"))
    await refused("not_found", 404, on.call(file.mkdir, path=f"{FOLDER}/a/b"))
    for _ in range(2):
        await on.call(file.mkdir, path=f"{FOLDER}/a/b", parents=True)
    await refused("permission_denied", 403, on.call(file.mkdir, path="/etc/new"))
    assert (
        await on.outside("find . -mindepth 1 | sort; stat -c '%a %U' 'new dir'") == "./a\n./a/b\n./new dir\n755 dev\n"
    )


@pytest.mark.requirement("file.remove")
async def test_files_and_links_are_removed_and_folders_are_not(on: On) -> None:
    await on.outside("touch f other; mkdir dir; ln -s other link; ln -s dir to-dir; ln -s gone broken")
    for name in ("f", "link", "to-dir", "broken"):
        gone = await on.call(file.remove, path=f"{FOLDER}/{name}")
        assert gone == {"status": "removed", "path": f"{FOLDER}/{name}"}
    for path in ("dir", "dir/", "."):
        await refused("invalid_input", 400, on.call(file.remove, path=f"{FOLDER}/{path}"))
    await refused("not_found", 404, on.call(file.remove, path=f"{FOLDER}/f"))
    await refused("permission_denied", 403, on.call(file.remove, path="/etc/passwd"))
    assert await on.outside("ls -A") == "dir\nother\n"


@pytest.mark.requirement("file.copy")
async def test_a_tree_is_copied_with_its_modes_and_links(on: On) -> None:
    await on.outside(TREE)
    copied = await on.call(file.copy, src=f"{FOLDER}/tree", dst=f"{FOLDER}/copy")
    assert copied == {
        "status": "copied", "source": f"{FOLDER}/tree", "destination": f"{FOLDER}/copy", "count": len(HARD) + 4,
    }  # fmt: skip
    assert await on.outside(f"cd copy && {LOOK}") == await on.outside(f"cd tree && {LOOK}")
    assert await on.outside("stat -c %Y copy/sub/none") == await on.outside("stat -c %Y tree/sub/none")
    assert await on.outside("ls -A") == "copy\ntree\n"


@pytest.mark.requirement("file.copy")
async def test_what_cannot_be_copied_changes_nothing(direct: On) -> None:
    await direct.outside("mkdir -p tree/sub merged; echo 1 > tree/f; echo 2 > merged/g; echo 3 > file; echo 4 > new")
    await direct.call(file.copy, src=f"{FOLDER}/tree", dst=f"{FOLDER}/merged")
    assert await direct.outside("cat merged/f merged/g") == "1\n2\n"
    await direct.call(file.copy, src=f"{FOLDER}/new", dst=f"{FOLDER}/file")
    before = await direct.outside(LOOK)
    for src, dst, code in (
        ("tree", "tree/sub/x", "invalid_input"),
        ("tree", "tree", "invalid_input"),
        ("tree", "file", "conflict"),
        ("file", "tree", "conflict"),
        ("gone", "x", "not_found"),
        ("file", "no/x", "not_found"),
    ):
        await refused(code, 400, direct.call(file.copy, src=f"{FOLDER}/{src}", dst=f"{FOLDER}/{dst}"))
    small = direct.host.small_disk
    await direct.outside("mkdir huge; head -c 3000000 /dev/zero > huge/f")
    await refused("remote_failed", 500, direct.call(file.copy, src=f"{FOLDER}/huge", dst=f"{small}/huge"))
    assert await direct.outside(f"ls -A {small}; rm -r huge") == ""
    assert (await direct.outside(LOOK)).split()[0] == before.split()[0]


@pytest.mark.requirement("file.copy")
async def test_owners_are_kept_for_root(app: App, host: Host, direct: On) -> None:
    await direct.outside("mkdir own; touch own/f; chown -R ops own", user="root")
    session_id = await connected(app, host, "root", DirectCall(caller()))
    await direct.way.call(file.copy, {"session_id": session_id, "src": f"{FOLDER}/own", "dst": f"{FOLDER}/kept"})
    assert await direct.outside("stat -c %U kept kept/f") == "ops\nops\n"


@pytest.mark.requirement("file.rmdir")
async def test_a_tree_is_removed_whatever_its_names(on: On) -> None:
    await on.outside(f"{TREE}; touch beside")
    gone = await on.call(file.rmdir, path=f"{FOLDER}/tree")
    assert gone == {"status": "removed", "path": f"{FOLDER}/tree", "count": len(HARD) + 4}
    assert await on.outside("ls -A") == "beside\n"
    await refused("not_found", 404, on.call(file.rmdir, path=f"{FOLDER}/tree"))
    await refused("invalid_input", 400, on.call(file.rmdir, path=f"{FOLDER}/beside"))


@pytest.mark.requirement("file.rmdir.guard")
@pytest.mark.parametrize("way", ["rest"], indirect=True)
async def test_protected_folders_are_refused_and_nothing_is_removed(app: App, way: Way, host: Host) -> None:
    """As root, for whom nothing but the guard stands in the way; `rm` itself would not refuse most of these."""
    on = await opened(way, app, host)
    session_id = (await way.call(session.connect, login(host, "root")))["session_id"]
    await on.outside(
        "mkdir -p mnt/'a b' plain/mnt victim links; ln -s / links/root; ln -s /etc links/etc; "
        "ln -s /home/dev links/home; ln -s ../victim links/plain; ln -s .. links/up; touch victim/f plain/f"
    )
    await on.outside("mount -t tmpfs none mnt/'a b' && mount -t tmpfs none plain/mnt && touch mnt/'a b'/f", user="root")
    try:
        before = await outside(host, f"ls -A / /home /etc /root; find {shlex.quote(FOLDER)} | sort")
        for path in PROTECTED:
            error = await refused("invalid_input", 400, way.call(file.rmdir, {"session_id": session_id, "path": path}))
            assert error.status == 400, path
        assert await outside(host, f"ls -A / /home /etc /root; find {shlex.quote(FOLDER)} | sort") == before
    finally:
        await on.outside("umount -l mnt/'a b'; umount -l plain/mnt", user="root")
    # The negative control: the same account, the same folders, without what made them protected.
    for name, count in (("mnt", 0), ("plain", 1), ("links", 5), ("victim", 1)):
        gone = await way.call(file.rmdir, {"session_id": session_id, "path": f"{FOLDER}/{name}"})
        assert gone["count"] == count
    assert await on.outside("ls -A") == ""


@pytest.mark.requirement("file.move")
async def test_files_and_folders_are_moved_and_nothing_is_replaced_unasked(on: On) -> None:
    await on.outside(f"{TREE}; echo 1 > a; echo 2 > b; mkdir full; touch full/f")
    before = await on.outside(f"cd tree && {LOOK}")
    moved = await on.call(file.move, src=f"{FOLDER}/tree", dst=f"{FOLDER}/moved\ntree")
    assert moved == {"status": "moved", "source": f"{FOLDER}/tree", "destination": f"{FOLDER}/moved\ntree"}
    assert await on.outside(f"cd 'moved\ntree' && {LOOK}") == before
    for src, dst, code, more in (
        ("a", "b", "conflict", {}),
        ("full", "moved\ntree", "conflict", {"overwrite": True}),
        ("a", "full", "conflict", {"overwrite": True}),
        ("full", "full/x", "invalid_input", {}),
        ("gone", "x", "not_found", {}),
    ):
        status = {"conflict": 409, "invalid_input": 400, "not_found": 404}[code]
        await refused(code, status, on.call(file.move, src=f"{FOLDER}/{src}", dst=f"{FOLDER}/{dst}", **more))
    await on.call(file.move, src=f"{FOLDER}/a", dst=f"{FOLDER}/b", overwrite=True)
    assert await on.outside("cat b; find . -mindepth 1 -maxdepth 1 | sort") == "1\n./b\n./full\n./moved\ntree\n"
    await refused("invalid_input", 400, on.call(file.move, src="/home/dev", dst=f"{FOLDER}/home"))


@pytest.mark.requirement("fault.N12")
async def test_a_destination_whose_folder_is_missing_is_the_one_that_is_named(direct: On) -> None:
    await direct.outside("touch f")
    for tool in (file.copy, file.move):
        for dst, folder in (("alpine:/srv", "alpine:"), (f"{FOLDER}/no/such/f", f"{FOLDER}/no/such")):
            with pytest.raises(Fault) as missing:
                await direct.call(tool, src=f"{FOLDER}/f", dst=dst)
            assert (missing.value.code, missing.value.payload["details"]["path"]) == ("not_found", folder)
            assert repr(folder) in missing.value.payload["message"]
    assert await direct.outside("ls -A") == "f\n"
