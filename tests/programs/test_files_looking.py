"""file_list, file_stat and file_read against real files, through dash, bash and BusyBox ash."""

import base64
import hashlib
import os
import pwd
import shutil
import socket
import stat
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_ssh.errors import InvalidInput, NotFound, PermissionDenied, RemoteFailed, TooLarge, Unsupported
from mcp_ssh.linux.files.stat import ask_read, parse_list
from tests.support.files_host import SHELLS, ShellHost, home_folder, host, programs, shell, user

__all__ = ["host", "shell", "user"]

HARD_NAMES = [
    " leading and trailing ",
    "-rf",
    "--help",
    "*",
    "?[a-z]",
    "$(touch pwned)",
    "`touch pwned`",
    "a'b\"c",
    "back\\slash\\",
    "new\nline",
    "ends with newline\n",
    "81a4 3 1700000000 0 0 .",
    "x\n81a4 3 1700000000 0 0 .",
    "ünï©ödé 漢字",
    "~",
    "~root",
    ".hidden",
    "..three",
    "%s%n",
    "a;b&c|d",
    "\t\r\x01\x7f",
    "No such file or directory",
]
names = st.binary(min_size=1, max_size=60).filter(
    lambda name: not set(name) & set(b"\0/") and name not in (b".", b"..")
)


async def test_a_folder_is_listed_with_every_name_exact(host: ShellHost) -> None:
    for name in HARD_NAMES:
        (host.home / name).write_text(name)
    listed = await host.list()
    assert [item.name for item in listed.items] == sorted(HARD_NAMES, key=str.encode)
    assert listed.path == "."
    assert listed.count == listed.total == len(HARD_NAMES)
    assert "truncated" not in listed.model_fields_set
    assert not (host.home / "pwned").exists()
    assert host.round_trips == 1


async def test_every_hard_name_can_be_listed_looked_at_and_read_as_a_path(host: ShellHost) -> None:
    for name in HARD_NAMES:
        if name == "~":
            continue
        folder = host.home / name
        folder.mkdir()
        (folder / "inside").write_text(name)
        assert [item.name for item in (await host.list(name)).items] == ["inside"]
        assert (await host.stat(name)).is_dir
        content = await host.read(f"{name}/inside")
        assert (content.content, content.path) == (name, f"{name}/inside")
    assert not (host.home / "pwned").exists()


@pytest.mark.parametrize("shell_name", SHELLS)
@given(found=st.lists(names, max_size=12, unique=True))
@settings(deadline=None, max_examples=15)
async def test_any_names_are_listed_exactly(shell_name: str, found: list[bytes]) -> None:
    with home_folder() as home:
        for name in found:
            os.mknod(os.fsencode(home) + b"/" + name)
        listed = await ShellHost(shell_name, home, programs(shell_name)).list()
        exact = [
            base64.b64decode(item.name_base64) if item.name_base64 else item.name.encode() for item in listed.items
        ]
        assert exact == sorted(found)


async def test_an_item_says_what_lstat_says(host: ShellHost) -> None:
    (host.home / "file").write_text("abc")
    (host.home / "file").chmod(0o4751)
    os.utime(host.home / "file", (1, 1_750_000_000.75))
    (host.home / "old").touch()
    os.utime(host.home / "old", (0, 0))
    (host.home / "dir").mkdir()
    (host.home / "link").symlink_to("dir")
    (host.home / "dangling").symlink_to("nowhere")
    os.mkfifo(host.home / "fifo")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(host.home / "socket"))
    listening.close()
    items = {item.name: item for item in (await host.list()).items}
    for name, item in items.items():
        real = (host.home / name).lstat()
        assert (item.size, item.mode, item.uid, item.gid) == (real.st_size, real.st_mode, real.st_uid, real.st_gid)
        assert item.mtime == int(real.st_mtime)
        assert item.is_dir == stat.S_ISDIR(real.st_mode)
    kinds = {name: item.type for name, item in items.items()}
    assert kinds.pop("dangling") == kinds["link"]
    assert kinds == {"file": "file", "old": "file", "dir": "dir", "link": "link", "fifo": "fifo", "socket": "socket"}


async def test_devices_are_named_as_such(host: ShellHost) -> None:
    null = next(item for item in (await host.list("/dev")).items if item.name == "null")
    assert (null.type, null.is_dir) == ("char", False)


async def test_a_name_that_is_not_utf8_is_returned_in_base64_too(host: ShellHost) -> None:
    os.mknod(os.fsencode(host.home) + b"/caf\xe9")
    [item] = (await host.list()).items
    assert (item.name, base64.b64decode(item.name_base64 or "")) == ("caf\ufffd", b"caf\xe9")


async def test_an_empty_folder_is_listed_as_empty(host: ShellHost) -> None:
    listed = await host.list()
    assert (listed.items, listed.count, listed.total) == ([], 0, 0)


async def test_a_long_folder_comes_in_parts_that_make_the_whole(host: ShellHost) -> None:
    for number in range(25):
        (host.home / f"{number:02}").touch()
    seen: list[str] = []
    offset: int | None = 0
    while offset is not None:
        part = await host.list(limit=10, offset=offset)
        assert part.total == 25
        assert part.truncated == (True if part.next_offset else None)
        seen += [item.name for item in part.items]
        offset = part.next_offset
    assert seen == [f"{number:02}" for number in range(25)]
    assert (await host.list(offset=99)).count == 0


@pytest.fixture(scope="module")
def many() -> Generator[Path]:
    """A folder of fifty thousand files."""
    with home_folder(below="/dev/shm") as folder:
        for number in range(50_000):
            os.mknod(folder / f"a rather long name as logs have them {number}")
        yield folder


async def test_fifty_thousand_entries_are_listed(host: ShellHost, many: Path) -> None:
    listed = await host.list(str(many), limit=10_000)
    assert (listed.count, listed.total, listed.truncated, listed.next_offset) == (10_000, 50_000, True, 10_000)


async def test_a_folder_too_big_for_an_answer_is_refused_in_words(
    host: ShellHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcp_ssh.tools.file.content.LARGEST_LISTING", 100)
    for number in range(10):
        (host.home / str(number)).touch()
    with pytest.raises(TooLarge, match="too many entries"):
        await host.list()


async def test_the_home_is_meant_by_a_tilde_and_shown_expanded(host: ShellHost) -> None:
    (host.home / "x").mkdir()
    (host.home / "x" / "f").write_text("hello")
    real, host.home = host.home, host.home / "x"
    elsewhere = ShellHost(host.shell, real, host.path)
    assert (await elsewhere.list("~")).path == str(real)
    assert (await elsewhere.list("~/x")).path == f"{real}/x"
    assert (await elsewhere.read("~/x/f")).content == "hello"
    assert (await elsewhere.stat("~/x/f")).path == f"{real}/x/f"
    assert (await elsewhere.write("~/x/f", "bye")).path == f"{real}/x/f"
    assert (real / "x" / "f").read_text() == "bye"


async def test_a_folder_behind_a_link_is_listed(host: ShellHost) -> None:
    (host.home / "real").mkdir()
    (host.home / "real" / "f").touch()
    (host.home / "link").symlink_to("real")
    assert [item.name for item in (await host.list("link")).items] == ["f"]


async def test_listing_a_file_is_invalid_and_a_missing_folder_not_found(host: ShellHost) -> None:
    (host.home / "f").touch()
    with pytest.raises(InvalidInput, match="not a folder"):
        await host.list("f")
    with pytest.raises(NotFound, match="'gone' does not exist"):
        await host.list("gone")
    with pytest.raises(NotFound):
        await host.list("f/below")


async def test_a_folder_one_may_not_read_is_denied(user: ShellHost) -> None:
    (user.home / "closed").mkdir(mode=0o000)
    (user.home / "half").mkdir()
    (user.home / "half").chmod(0o444)
    for name in ("closed", "half", "closed/below"):
        with pytest.raises(PermissionDenied, match=name):
            await user.list(name)


async def test_what_an_rc_file_prints_does_not_disturb(host: ShellHost) -> None:
    (host.home / "f").write_text("content")
    host.noise = b"Welcome!\n/ok 81a4 0 0\n"
    assert [item.name for item in (await host.list()).items] == ["f"]
    assert (await host.read("f")).content == "content"
    assert (await host.stat("f")).size == 7
    assert (await host.write("f", "x", mode="append")).size_bytes == 8


async def test_a_file_s_facts_are_those_of_stat(host: ShellHost) -> None:
    (host.home / "f").write_text("abc")
    (host.home / "f").chmod(0o640)
    os.utime(host.home / "f", (1_600_000_000.5, 1_700_000_000.9))
    said, real = await host.stat("f"), (host.home / "f").stat()
    assert (said.size, said.mode, said.uid, said.gid) == (3, real.st_mode, real.st_uid, real.st_gid)
    assert (said.atime, said.mtime) == (1_600_000_000, 1_700_000_000)
    assert (said.path, said.type, said.is_dir, said.permissions) == ("f", "file", False, "0640")
    assert said.user == pwd.getpwuid(real.st_uid).pw_name
    assert "link_target" not in said.model_fields_set
    assert host.round_trips == 1


async def test_an_owner_without_a_name_is_only_a_number(host: ShellHost) -> None:
    (host.home / "f").touch()
    if os.geteuid() != 0:
        pytest.skip("needs root")
    os.chown(host.home / "f", 54321, 54322)
    said = await host.stat("f")
    assert (said.uid, said.gid) == (54321, 54322)
    assert not {"user", "group"} & said.model_fields_set


async def test_a_link_s_facts_are_those_of_what_it_leads_to(host: ShellHost) -> None:
    (host.home / "f").write_text("four")
    (host.home / "one").symlink_to("f")
    (host.home / "two links").symlink_to("one")
    said = await host.stat("two links")
    assert (said.size, said.type, said.link_target) == (4, "file", "one")


async def test_a_dangling_link_is_not_found_and_its_target_named(host: ShellHost) -> None:
    (host.home / "link").symlink_to("no where")
    with pytest.raises(NotFound, match=r"link to 'no where', which does not exist") as caught:
        await host.stat("link")
    assert caught.value.details["target"] == "no where"


async def test_a_loop_of_links_is_invalid(host: ShellHost) -> None:
    (host.home / "a").symlink_to("b")
    (host.home / "b").symlink_to("a")
    for call in (host.stat("a"), host.read("a"), host.list("a"), host.write("a", "x")):
        with pytest.raises(InvalidInput, match="symbolic link"):
            await call


async def test_what_is_missing_or_forbidden_to_look_at_is_said(user: ShellHost) -> None:
    with pytest.raises(NotFound) as caught:
        await user.stat("gone")
    assert caught.value.details["path"] == "gone"
    with pytest.raises(InvalidInput, match="name too long"):
        await user.stat("x" * 300)
    (user.home / "closed").mkdir(mode=0o000)
    with pytest.raises(PermissionDenied):
        await user.stat("closed/f")


@pytest.mark.parametrize("content", ["", "hello\n", "no newline", "ünï©ödé 漢字 \U0001f600", "nul \0 and \x01", "\r\n"])
async def test_a_file_is_read_whole(host: ShellHost, content: str) -> None:
    (host.home / "f").write_bytes(content.encode())
    said = await host.read("f")
    assert (said.path, said.content, said.offset, said.encoding) == ("f", content, 0, "utf-8")
    assert said.size_bytes == len(content.encode())
    assert said.sha256 == hashlib.sha256(content.encode()).hexdigest()
    assert not {"next_offset", "invalid_utf8"} & said.model_fields_set
    assert host.round_trips == 1


@pytest.mark.parametrize("shell_name", SHELLS)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40), length=st.integers(1, 20))
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
async def test_the_pages_of_a_text_make_the_text(shell_name: str, text: str, length: int) -> None:
    with home_folder() as home:
        (home / "f").write_bytes(text.encode())
        reader = ShellHost(shell_name, home, programs(shell_name))
        pages: list[str] = []
        offset: int | None = 0
        while offset is not None:
            page = await reader.read("f", offset=offset, length=length)
            assert "invalid_utf8" not in page.model_fields_set
            assert len(page.content.encode()) <= max(length, 4)
            pages.append(page.content)
            assert page.next_offset is None or page.next_offset > offset
            offset = page.next_offset
        assert "".join(pages) == text


@pytest.mark.parametrize("shell_name", SHELLS)
@given(data=st.binary(max_size=300))
@settings(deadline=None, max_examples=15)
async def test_any_bytes_are_read_back_in_base64_and_flagged_as_text(shell_name: str, data: bytes) -> None:
    with home_folder() as home:
        (home / "f").write_bytes(data)
        reader = ShellHost(shell_name, home, programs(shell_name))
        said = await reader.read("f", encoding="base64")
        assert base64.b64decode(said.content) == data
        shown = await reader.read("f")
        assert shown.content == data.decode("utf-8", "replace")
        assert shown.invalid_utf8 == (True if shown.content.encode() != data else None)


async def test_bytes_that_are_no_text_are_paged_without_end_or_loss(host: ShellHost) -> None:
    data = b"\x80" * 23 + b"\xf0\x9f"
    (host.home / "f").write_bytes(data)
    offset: int | None = 0
    got = 0
    while offset is not None:
        page = await host.read("f", offset=offset, length=5)
        assert page.invalid_utf8
        got = (page.next_offset or len(data)) - 0
        offset = page.next_offset
    assert got == len(data)


async def test_a_page_from_the_middle_of_a_large_file_is_exact(host: ShellHost) -> None:
    data = os.urandom(3 * 1024 * 1024)
    (host.home / "f").write_bytes(data)
    said = await host.read("f", offset=1_234_567, length=1_000_000, encoding="base64")
    assert base64.b64decode(said.content) == data[1_234_567:2_234_567]
    assert (said.next_offset, said.size_bytes) == (2_234_567, len(data))
    assert "sha256" not in said.model_fields_set
    end = await host.read("f", offset=len(data) - 3, encoding="base64")
    assert base64.b64decode(end.content) == data[-3:]
    assert "next_offset" not in end.model_fields_set


@pytest.mark.parametrize("offset", [3, 100, 2**40, 2**53 - 1])
async def test_an_offset_past_the_end_returns_nothing(host: ShellHost, offset: int) -> None:
    (host.home / "f").write_text("abc")
    said = await host.read("f", offset=offset)
    assert (said.content, said.size_bytes) == ("", 3)
    assert "next_offset" not in said.model_fields_set


async def test_files_in_proc_are_read_although_their_size_is_zero(host: ShellHost) -> None:
    whole = await host.read("/proc/version")
    assert whole.content.startswith("Linux version")
    assert whole.size_bytes == len(whole.content)
    first = await host.read("/proc/version", length=5)
    assert (first.content, first.next_offset) == ("Linux", 5)
    rest = await host.read("/proc/version", offset=5)
    assert first.content + rest.content == whole.content


async def test_a_file_that_shows_the_call_itself_cannot_forge_its_answer(host: ShellHost) -> None:
    command = await host.read("/proc/self/cmdline", encoding="base64")
    environment = await host.read("/proc/self/environ")
    assert b"head" in base64.b64decode(command.content)
    assert "PATH=" in environment.content


async def test_a_file_full_of_answers_is_only_a_file(host: ShellHost) -> None:
    asked = ask_read("f", 0, 10_000)
    forged = b"".join(f"{half}".encode() for half in asked.command.argv[4:6])
    (host.home / "f").write_bytes(b"ok\nf\n end 0\n" + asked.command.argv[4].encode() + b" failed\n")
    assert forged == asked.mark
    assert asked.answer(host.run_now(asked.command).stdout).body.endswith(b" failed\n")


async def test_what_is_no_file_is_refused_at_once(host: ShellHost) -> None:
    (host.home / "dir").mkdir()
    os.mkfifo(host.home / "fifo")
    with pytest.raises(InvalidInput, match="is a folder") as caught:
        await host.read("dir")
    assert "file_list" in (caught.value.hint or "")
    for path in ("fifo", "/dev/zero"):
        with pytest.raises(InvalidInput, match="device, pipe or socket"):
            await host.read(path)


async def test_a_file_one_may_not_read_is_denied_and_a_missing_one_not_found(user: ShellHost) -> None:
    (user.home / "f").write_text("secret")
    (user.home / "f").chmod(0o000)
    with pytest.raises(PermissionDenied, match="'f'") as caught:
        await user.read("f")
    assert caught.value.details["path"] == "f"
    with pytest.raises(NotFound, match="'gone'"):
        await user.read("gone")


async def test_an_error_while_reading_is_said(host: ShellHost) -> None:
    with pytest.raises((RemoteFailed, PermissionDenied)):
        await host.read("/proc/self/mem")


async def test_an_empty_path_or_a_nul_is_refused_before_anything_runs(host: ShellHost) -> None:
    for path in ("", "a\0b", "\ud800"):
        with pytest.raises(ValueError, match="path"):
            await host.read(path)
    assert host.round_trips == 0


@pytest.mark.parametrize("shell", ["dash", "bash"])  # BusyBox brings its programs itself
async def test_a_program_the_machine_lacks_is_named(host: ShellHost, tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to(shutil.which("sh", path=host.path) or "")
    bare = ShellHost(host.shell, host.home, str(tmp_path))
    for call in (bare.list(), bare.stat("f"), bare.read("f"), bare.write("f", "x")):
        with pytest.raises(Unsupported, match="the machine has no `stat`"):
            await call


def test_a_shell_that_says_nothing_is_a_remote_failure() -> None:
    with pytest.raises(RemoteFailed, match="ended before it answered") as caught:
        ask_read("f", 0, 1).answer(b"This account is not available.\n", b"bye\n")
    assert caught.value.details == {"stderr": "bye"}


def test_the_listing_of_nothing_is_empty() -> None:
    assert parse_list(b"") == []
