"""Where on this server's machine callers over HTTP may read and write: in their folders, whatever links say."""

import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.errors import InvalidInput, Refused, ToolError
from mcp_ssh.policy import LocalFolders, local_place
from mcp_ssh.tools import file
from mcp_ssh.transfers import local_files
from tests.fleet.hosts import Host
from tests.support.doors import caller, open_way
from tests.support.transfers import FOLDER, On, opened, refused, sha256

pytestmark = pytest.mark.requirement("file.transfer.local")


class OnOwn(On):
    """A session with the transfer folder of its caller."""

    own: Path


@pytest.fixture
async def on(mcp_home: Path, tmp_path: Path, deb: Host) -> AsyncGenerator[OnOwn]:
    """Through REST, with one more folder configured."""
    (tmp_path / "more").mkdir()
    config = Config.model_validate({"sftp": {"local_folders": [str(tmp_path / "more")]}})
    async with open_app(mcp_home, config) as app, open_way("rest", app) as way:
        there = await opened(way, app, deb)
        found = OnOwn(way, deb, there.session_id)
        [token] = await app.store.tokens.list()
        found.own = mcp_home / "transfers" / token.id
        yield found


async def test_relative_paths_are_in_the_transfers_folder(on: OnOwn, mcp_home: Path, tmp_path: Path) -> None:
    await on.outside("mkdir t; echo 1 > t/f; ln -s /etc/passwd t/out; ln -s f t/in; ln -s ../../x t/up")
    await on.call(file.download, remote_path=f"{FOLDER}/t/f", local_path="deep/er/f")
    kept = on.own / "deep/er/f"
    assert kept.read_text() == "1\n"
    for folder in (mcp_home / "transfers", on.own):
        assert folder.stat().st_mode & 0o777 == 0o700
    for tool, path in ((file.upload, "deep/er/f/x"), (file.download, "deep/er/f"), (file.download, "deep/er/f/x")):
        error = await refused("invalid_input", 400, on.call(tool, remote_path=f"{FOLDER}/t", local_path=path))
        assert "a file is in the way" in str(error.payload)
    await on.call(file.upload, remote_path=f"{FOLDER}/back", local_path="deep/er/f")
    assert await on.sha256("back") == sha256(kept)
    got = await on.call(file.download, remote_path=f"{FOLDER}/t", local_path="tree")
    assert (got["count"], got["skipped_count"], sorted(got["skipped"])) == (2, 2, ["./out", "./up"])
    assert sorted(os.listdir(on.own / "tree")) == ["f", "in"]  # noqa: PTH208
    await on.call(file.download, remote_path=f"{FOLDER}/t/f", local_path=str(tmp_path / "more/f"))
    assert (tmp_path / "more/f").read_text() == "1\n"


async def test_nothing_outside_is_read_or_written(on: OnOwn, mcp_home: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    transfers = on.own
    transfers.mkdir(parents=True)
    (transfers / "file-link").symlink_to(secret)
    (transfers / "folder-link").symlink_to(tmp_path)
    (transfers / "loop").symlink_to("loop")
    await on.outside("echo 1 > f")
    for path in (
        str(secret), "/etc/passwd", "../secret", "../../secret", "file-link", "folder-link/secret", "../config.json",
        "a/../../../secret", "~/x", f"{tmp_path}/more/../secret", f"{tmp_path}/moreover", "/proc/self/environ", "/",
    ):  # fmt: skip
        upload = on.call(file.upload, remote_path=f"{FOLDER}/stolen", local_path=path)
        if path == "~/x":
            await refused("not_found", 404, upload)
            continue
        error = await refused("refused", 403, upload)
        assert str(tmp_path) not in str(error.payload)
        await refused("refused", 403, on.call(file.download, remote_path=f"{FOLDER}/f", local_path=path))
    for path in ("loop", "loop/x"):
        await refused("invalid_input", 400, on.call(file.upload, remote_path=f"{FOLDER}/stolen", local_path=path))
    assert secret.read_text() == "secret"
    assert await on.outside("ls -A") == "f\n"


async def test_the_owner_may_use_any_path(app: App, deb: Host, tmp_path: Path) -> None:
    async with open_way("mcp", app) as way:
        on = await opened(way, app, deb)
        (tmp_path / "f").write_text("x")
        (tmp_path / "link").symlink_to("f")
        await on.call(file.upload, remote_path=f"{FOLDER}/f", local_path=str(tmp_path / "link"))
        assert await on.outside("cat f") == "x"


def test_a_folder_that_becomes_a_link_after_the_look_is_not_followed(tmp_path: Path) -> None:
    """The race, won by the attacker: allowed when it was looked at, a link when it is opened."""
    folder, outside = tmp_path / "allowed", tmp_path / "outside"
    (folder / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "f").write_text("secret")
    (folder / "sub/f").write_text("mine")
    folders = LocalFolders(tmp_path / "state", (folder,))
    (tmp_path / "state").mkdir()
    place = local_place(caller("http", owner=False), str(folder / "sub/f"), folders).path
    made = local_files.source(place)
    assert made is not None
    assert made.next() == b"mine"
    made.close()
    (folder / "sub").rename(folder / "old")
    (folder / "sub").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        local_files.source(place)
    with pytest.raises(NotADirectoryError):
        local_files.keep(place, b"x", "0" * 64)
    (folder / "sub").unlink()
    (folder / "sub").mkdir()
    (folder / "sub/f").symlink_to(outside / "f")
    with pytest.raises(OSError, match="symbolic links"):
        local_files.source(place)
    with pytest.raises(InvalidInput):
        local_files.keep(place, b"x", "0" * 64)
    assert (outside / "f").read_text() == "secret"
    with pytest.raises(Refused):
        local_place(caller("http", owner=False), f"{folder}/sub/../../outside/f", folders)
    # The negative control: by its path the file behind the link is read.
    (folder / "sub/f").unlink()
    (folder / "sub/f").symlink_to(outside / "f")
    assert place.read_text() == "secret"


def test_devices_and_pipes_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ToolError, match="device, pipe"):
        local_files.source(tmp_path / "pipe")
    assert local_files.source(tmp_path) is None
