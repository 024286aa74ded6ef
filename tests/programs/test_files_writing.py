"""file_write against real files, through dash, bash and BusyBox ash: what it writes, what it keeps, what it refuses."""

import base64
import os
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_ssh.errors import Conflict, InvalidInput, NotFound, PermissionDenied, TooLarge
from mcp_ssh.policy import LocalFolders
from mcp_ssh.sessions.session import Limits
from tests.support.files_host import (
    AS_ROOT,
    MODES,
    SHELLS,
    ShellHost,
    home_folder,
    host,
    joined,
    ordinary,
    programs,
    sha256,
    shadow,
    shell,
    small_disk,
    user,
)

__all__ = ["host", "shell", "small_disk", "user"]


# ---- what is written ---------------------------------------------------------------------------------------------


async def test_a_new_file_is_written_in_one_round_trip(host: ShellHost) -> None:
    written = await host.write("f", "new text\n")
    assert (host.home / "f").read_text() == "new text\n"
    assert written.model_dump(exclude_unset=True) == {
        "status": "written",
        "path": "f",
        "size": 9,
        "mode": "overwrite",
        "size_bytes": 9,
        "permissions": "0644",
        "atomic": True,
        "sha256": sha256(b"new text\n"),
    }
    assert host.round_trips == 1
    assert host.left_over() == []


@pytest.mark.parametrize("mode", MODES)
async def test_each_mode_puts_the_content_in_its_place(host: ShellHost, mode: str) -> None:
    file = host.home / "f"
    file.write_bytes(b"old\n")
    written = await host.write("f", "new\n", mode=mode)
    assert file.read_bytes() == joined(mode, b"old\n", b"new\n")
    assert (written.size, written.size_bytes, written.mode) == (4, file.stat().st_size, mode)
    assert (written.atomic, written.sha256) == (True, sha256(file.read_bytes()))


@pytest.mark.parametrize("mode", MODES)
async def test_each_mode_makes_a_missing_file(host: ShellHost, mode: str) -> None:
    written = await host.write("f", "first", mode=mode)
    assert (host.home / "f").read_text() == "first"
    assert written.sha256 == sha256(b"first")


@pytest.mark.parametrize("mode", MODES)
async def test_no_content_at_all_can_be_written(host: ShellHost, mode: str) -> None:
    (host.home / "f").write_bytes(b"old")
    written = await host.write("f", "", mode=mode)
    assert (host.home / "f").read_bytes() == joined(mode, b"old", b"")
    assert written.size == 0
    assert (await host.write("empty", "", mode=mode)).size_bytes == 0
    assert (host.home / "empty").read_bytes() == b""


@pytest.mark.parametrize("shell_name", SHELLS)
@given(old=st.none() | st.binary(max_size=200), new=st.binary(max_size=200), mode=st.sampled_from(MODES))
@settings(deadline=None, max_examples=15)
async def test_any_bytes_are_written_exactly(shell_name: str, old: bytes | None, new: bytes, mode: str) -> None:
    with home_folder() as home:
        host = ShellHost(shell_name, home, programs(shell_name))
        if old is not None:
            (home / "f").write_bytes(old)
        await host.write("f", base64.b64encode(new).decode(), encoding="base64", mode=mode)
        assert (home / "f").read_bytes() == joined(mode, old or b"", new)
        assert host.names() == ["f"]


path_names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=40
).filter(lambda name: name not in {".", "..", "~"})


@pytest.mark.parametrize("shell_name", SHELLS)
@given(name=path_names)
@settings(deadline=None, max_examples=20)
async def test_any_name_is_written_to_and_read_back(shell_name: str, name: str) -> None:
    with home_folder() as home:
        host = ShellHost(shell_name, home, programs(shell_name))
        await host.write(name, name, mode="append")
        assert host.names() == [name]
        assert (await host.read(name)).content == name


async def test_a_large_content_arrives_whole(host: ShellHost) -> None:
    data = os.urandom(5 * 1024 * 1024)
    (host.home / "f").write_bytes(b"old")
    written = await host.write("f", base64.b64encode(data).decode(), encoding="base64", mode="append")
    assert (host.home / "f").read_bytes() == b"old" + data
    assert written.sha256 == sha256(b"old" + data)


async def test_content_that_is_not_what_its_encoding_says_is_refused_before_anything_runs(host: ShellHost) -> None:
    with pytest.raises(InvalidInput, match="not base64"):
        await host.write("f", "no base64!", encoding="base64")
    with pytest.raises(InvalidInput, match="Unicode"):
        await host.write("f", "\ud800")
    assert host.round_trips == 0


# ---- whose it is, and who may read it ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("permissions", [0o600, 0o755, 0o4711, 0o444, 0o666])
async def test_a_file_keeps_its_permissions(host: ShellHost, mode: str, permissions: int) -> None:
    if os.geteuid() != 0 and not permissions & 0o200:
        pytest.skip("only root may write to a read-only file")
    file = host.home / "f"
    file.write_text("old")
    file.chmod(permissions)
    written = await host.write("f", "new", mode=mode)
    assert file.stat().st_mode & 0o7777 == permissions
    assert (written.permissions, written.atomic) == (f"{permissions:04o}", True)


@pytest.mark.parametrize("given_mask", [0o022, 0o077, 0o007])
async def test_a_new_file_gets_what_the_account_s_umask_leaves(host: ShellHost, given_mask: int) -> None:
    before = os.umask(given_mask)
    try:
        await host.write("f", "x")
    finally:
        os.umask(before)
    assert (host.home / "f").stat().st_mode & 0o777 == 0o666 & ~given_mask


@pytest.mark.parametrize(
    ("asked", "shown"), [(644, "0644"), ("600", "0600"), ("0750", "0750"), (1777, "1777"), ("000", "0000")]
)
async def test_permissions_are_octal_digits(host: ShellHost, asked: Any, shown: str) -> None:
    for name in ("old", "new"):
        if name == "old":
            (host.home / name).write_text("x")
        written = await host.write(name, "y", permissions=asked)
        assert written.permissions == shown
        assert (host.home / name).stat().st_mode & 0o7777 == int(shown, 8)


@pytest.mark.parametrize("asked", ["rw-r--r--", "888", 99, "u+x", "", True, 64.4, "06440", "0o644", -644])
async def test_permissions_that_are_no_octal_digits_are_refused(host: ShellHost, asked: Any) -> None:
    with pytest.raises(ValueError, match="permissions"):
        await host.write("f", "x", permissions=asked)
    assert not (host.home / "f").exists()


@AS_ROOT
@pytest.mark.parametrize("mode", MODES)
async def test_root_leaves_a_file_to_its_owner(host: ShellHost, mode: str) -> None:
    file = host.home / "f"
    file.write_text("old")
    os.chown(file, 1234, 5678)
    file.chmod(0o6750)
    assert (await host.write("f", "new", mode=mode)).atomic
    after = file.stat()
    assert (after.st_uid, after.st_gid, after.st_mode & 0o7777) == (1234, 5678, 0o6750)


@AS_ROOT
@pytest.mark.parametrize("mode", MODES)
async def test_a_file_of_another_owner_is_written_in_place(user: ShellHost, mode: str) -> None:
    file = user.home / "f"
    file.write_text("old")
    os.chown(file, 0, ordinary() or 0)
    file.chmod(0o664)
    inode = file.stat().st_ino
    written = await user.write("f", "longer than it was", mode=mode)
    assert file.read_bytes() == joined(mode, b"old", b"longer than it was")
    assert (written.atomic, file.stat().st_uid, file.stat().st_ino) == (False, 0, inode)
    assert (await user.write("f", "-")).size_bytes == 1
    assert file.read_text() == "-"
    assert user.left_over() == []


@pytest.mark.parametrize("mode", MODES)
async def test_a_file_in_a_folder_one_may_not_write_to_is_written_in_place(user: ShellHost, mode: str) -> None:
    folder = user.home / "closed"
    folder.mkdir()
    file = folder / "f"
    file.write_bytes(b"old")
    if (account := ordinary()) is not None:
        os.chown(file, account, account)
    folder.chmod(0o555)
    written = await user.write("closed/f", "new", mode=mode)
    assert file.read_bytes() == joined(mode, b"old", b"new")
    assert not written.atomic
    assert (await user.write("closed/f", "x", permissions=600)).permissions == "0600"
    assert file.stat().st_mode & 0o777 == 0o600
    assert user.left_over() == []
    folder.chmod(0o755)


@AS_ROOT
async def test_permissions_that_cannot_be_set_leave_the_file_as_it_was(user: ShellHost) -> None:
    file = user.home / "f"
    file.write_text("old")
    file.chmod(0o666)
    with pytest.raises(PermissionDenied):
        await user.write("f", "new", permissions=644)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("old", 0o666)


@pytest.mark.parametrize("mode", MODES)
async def test_every_name_of_a_file_shows_the_new_content(host: ShellHost, mode: str) -> None:
    file, other = host.home / "f", host.home / "other"
    file.write_bytes(b"old content")
    other.hardlink_to(file)
    written = await host.write("f", "new", mode=mode)
    assert other.read_bytes() == file.read_bytes() == joined(mode, b"old content", b"new")
    assert other.samefile(file)
    assert (written.atomic, written.sha256) == (False, sha256(file.read_bytes()))
    assert host.left_over() == []


ACL = bytes.fromhex("02000000 01000600ffffffff 0200070039300000 04000400ffffffff 10000700ffffffff 20000400ffffffff")
"""user::rw-, user:12345:rwx, group::r--, mask::rwx, other::r-- (acl(5) in its stored form, version 2)."""


@pytest.mark.parametrize("shell", ["dash", "bash"])
async def test_an_acl_and_extended_attributes_are_kept(host: ShellHost) -> None:
    file = host.home / "f"
    file.write_text("old")
    try:
        os.setxattr(file, "system.posix_acl_access", ACL)
        os.setxattr(file, "user.note", b"kept")
    except OSError:
        pytest.skip("the file system has no ACL")
    written = await host.write("f", "new")
    assert os.getxattr(file, "system.posix_acl_access") == ACL
    assert os.getxattr(file, "user.note") == b"kept"
    assert written.atomic


@pytest.mark.parametrize("shell", ["dash", "bash"])
async def test_where_only_getfacl_sees_an_acl_the_file_is_written_in_place(host: ShellHost, tmp_path: Path) -> None:
    shadow(host, tmp_path, "cp", "exit 1")
    shadow(host, tmp_path, "getfacl", "echo user:ops:rw-")
    (host.home / "f").write_text("old")
    written = await host.write("f", "new")
    assert (written.atomic, (host.home / "f").read_text()) == (False, "new")


@AS_ROOT
def test_a_file_that_is_a_mount_of_its_own_is_written_in_place(host: ShellHost) -> None:
    file, source = host.home / "f", host.home / "source"
    file.touch()
    source.write_text("old")
    if subprocess.run(["mount", "--bind", source, file], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        written = anyio.run(host.write, "f", "new")
        assert (written.atomic, source.read_text()) == (False, "new")
        assert host.left_over() == []
    finally:
        subprocess.run(["umount", file], check=True)


# ---- links -------------------------------------------------------------------------------------------------------


async def test_a_chain_of_links_is_followed_and_stays(host: ShellHost) -> None:
    (host.home / "real").mkdir()
    (host.home / "real" / "f").write_text("old")
    (host.home / "one").symlink_to("real/f")
    (host.home / "two").symlink_to(host.home / "one")
    await host.write("two", "new")
    assert (host.home / "real" / "f").read_text() == "new"
    assert (host.home / "two").is_symlink()
    assert (host.home / "one").is_symlink()
    assert host.names("real") == ["f"]


async def test_a_dangling_link_s_target_is_made(host: ShellHost) -> None:
    (host.home / "link").symlink_to("target\nwith newline\n")
    await host.write("link", "new")
    assert (host.home / "target\nwith newline\n").read_text() == "new"
    assert (host.home / "link").is_symlink()


async def test_a_link_into_a_missing_folder_is_not_found(host: ShellHost) -> None:
    (host.home / "link").symlink_to("gone/f")
    with pytest.raises(NotFound):
        await host.write("link", "new")


# ---- what is refused ---------------------------------------------------------------------------------------------


async def test_a_missing_folder_is_named_as_such(host: ShellHost) -> None:
    with pytest.raises(NotFound, match="the folder of 'gone/f' does not exist"):
        await host.write("gone/f", "x")
    (host.home / "f").write_text("old")
    with pytest.raises(NotFound):
        await host.write("f/below", "x")


async def test_what_is_no_regular_file_is_refused(host: ShellHost) -> None:
    (host.home / "dir").mkdir()
    os.mkfifo(host.home / "fifo")
    for path in ("dir", "dir/", ".", "..", "new/", "~", "/", "dir/."):
        with pytest.raises(InvalidInput, match="is a folder"):
            await host.write(path, "x")
    for path in ("fifo", "/dev/null"):
        with pytest.raises(InvalidInput, match="device, pipe or socket"):
            await host.write(path, "x")
    assert host.names() == ["dir", "fifo"]


async def test_what_the_account_may_not_write_is_denied_and_unchanged(user: ShellHost) -> None:
    (user.home / "f").write_text("old")
    (user.home / "f").chmod(0o444)
    (user.home / "closed").mkdir(mode=0o555)
    (user.home / "dark").mkdir(mode=0o000)
    if (account := ordinary()) is not None:
        os.chown(user.home / "closed", account, account)
    for path in ("f", "closed/new", "dark/f"):
        with pytest.raises(PermissionDenied, match=path):
            await user.write(path, "x")
    assert (user.home / "f").read_text() == "old"
    assert user.left_over() == []


async def test_a_file_that_would_grow_too_large_is_refused(host: ShellHost) -> None:
    host.limits = Limits(1, 10, LocalFolders(Path("/nowhere")))
    (host.home / "f").write_text("12345678")
    for content, mode in (("123", "append"), ("123", "prepend"), ("12345678901", "overwrite")):
        with pytest.raises(TooLarge):
            await host.write("f", content, mode=mode)
    assert (host.home / "f").read_text() == "12345678"
    assert (await host.write("f", "12", mode="append")).size_bytes == 10
    assert host.left_over() == []


# ---- the file is the one expected --------------------------------------------------------------------------------


async def test_a_change_to_the_file_that_was_read_goes_through(host: ShellHost) -> None:
    (host.home / "f").write_text("old")
    seen = await host.read("f")
    written = await host.write("f", "new", expected_sha256=(seen.sha256 or "").upper())
    assert (host.home / "f").read_text() == "new"
    await host.write("f", "er", mode="append", expected_sha256=written.sha256)
    assert (host.home / "f").read_text() == "newer"


@pytest.mark.parametrize("mode", MODES)
async def test_a_change_to_another_file_than_was_read_conflicts(host: ShellHost, mode: str) -> None:
    (host.home / "f").write_text("theirs")
    with pytest.raises(Conflict, match="another content than expected") as caught:
        await host.write("f", "mine", mode=mode, expected_sha256=sha256(b"mine"))
    assert caught.value.details["actual_sha256"] == sha256(b"theirs")
    assert (host.home / "f").read_text() == "theirs"
    assert host.left_over() == []


async def test_a_file_expected_to_be_missing_is_made_once(host: ShellHost) -> None:
    await host.write("f", "first", expected_sha256="")
    with pytest.raises(Conflict, match="exists already") as caught:
        await host.write("f", "second", expected_sha256="")
    assert caught.value.details["actual_sha256"] == sha256(b"first")
    assert (host.home / "f").read_text() == "first"


async def test_a_file_expected_to_be_there_is_not_made(host: ShellHost) -> None:
    with pytest.raises(Conflict, match="does not exist; nothing was changed"):
        await host.write("f", "x", expected_sha256=sha256(b""))
    assert host.names() == []


@pytest.mark.parametrize("wrong", ["abc", "g" * 64, "a" * 63, "a" * 65])
async def test_what_is_no_sha256_is_refused(host: ShellHost, wrong: str) -> None:
    with pytest.raises(ValueError, match="expected_sha256"):
        await host.write("f", "x", expected_sha256=wrong)
