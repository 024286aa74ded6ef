"""HTTP callers and their transfer folders: each has its own, bounded one, and reaches nobody else's."""

import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.policy import LocalFolders, local_place
from mcp_ssh.policy.local_places import transfer_folder
from mcp_ssh.tool import Caller, Role
from mcp_ssh.tools import file
from mcp_ssh.transfers import local_quota
from tests.fleet.hosts import Host
from tests.support.doors import Rest as RestWay
from tests.support.doors import open_rest, open_way
from tests.support.transfers import FOLDER, On, opened, refused

MIB = 1024 * 1024


@contextlib.asynccontextmanager
async def two(app: App, host: Host) -> AsyncGenerator[tuple[On, On]]:
    """Two HTTP callers with a session each on the same machine."""
    async with open_rest(app, Role.ADMIN) as one, open_rest(app, Role.OPERATOR) as other:
        app.live.config = app.config.model_copy(
            update={"security": app.config.security.model_copy(update={"allow_server_identities": ["*"]})}
        )
        alice = await opened(RestWay(one), app, host)
        bob = await opened(RestWay(other), app, host)
        yield alice, bob


@pytest.mark.requirement("fault.S5")
async def test_a_caller_reaches_its_own_transfer_folder_and_no_other(mcp_home: Path, deb: Host, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    # Even a shared folder that holds the state folder opens nothing in it.
    config = Config.model_validate({"sftp": {"local_folders": [str(tmp_path / "shared"), str(tmp_path)]}})
    async with open_app(mcp_home, config) as app, two(app, deb) as (alice, bob):
        await alice.outside("echo alice > a; echo bob > b")
        got = await alice.call(file.download, remote_path=f"{FOLDER}/a", local_path="secret")
        kept = Path(got["local_path"])
        assert kept.read_text() == "alice\n"
        assert kept.parent.stat().st_mode & 0o777 == 0o700
        ids = {each.name: each.id for each in await app.store.tokens.list()}
        assert kept == mcp_home / "transfers" / ids["test-admin"] / "secret"
        for path in (str(kept), f"../{kept.parent.name}/secret", "../../state.db", str(mcp_home / "config.json"),
                     str(mcp_home / "secrets.key"), str(mcp_home)):  # fmt: skip
            error = await refused(
                "refused", 403, bob.call(file.upload, remote_path=f"{FOLDER}/stolen", local_path=path)
            )
            assert "transfers/" in str(error.payload)
            assert str(tmp_path) not in str(error.payload)
            await refused("refused", 403, bob.call(file.download, remote_path=f"{FOLDER}/b", local_path=path))
        # Bob's `.` is his own folder, which is empty.
        sent = await bob.call(file.upload, remote_path=f"{FOLDER}/all", local_path=".")
        assert sent["count"] == 0
        await bob.call(file.download, remote_path=f"{FOLDER}/b", local_path="secret")
        assert kept.read_text() == "alice\n"
        # The harmless neighbour: what the owner shares, both reach.
        await bob.call(file.download, remote_path=f"{FOLDER}/b", local_path=str(tmp_path / "shared/f"))
        await alice.call(file.upload, remote_path=f"{FOLDER}/c", local_path=str(tmp_path / "shared/f"))
        assert await alice.outside("cat c") == "bob\n"


@pytest.mark.requirement("fault.S5")
async def test_a_transfer_folder_holds_no_more_than_its_quota(mcp_home: Path, deb: Host) -> None:
    config = Config.model_validate({"sftp": {"transfer_quota_mb": 1}})
    async with open_app(mcp_home, config) as app, open_way("rest", app) as way:
        on = await opened(way, app, deb)
        await on.outside("head -c 700000 /dev/zero > f; mkdir t; for i in $(seq 300); do : > t/$i; done; mkdir s;"
                         " truncate -s 100M s/sparse; echo x > s/x")  # fmt: skip
        await on.call(file.download, remote_path=f"{FOLDER}/f", local_path="f")
        for arguments in (
            {"remote_path": f"{FOLDER}/f", "local_path": "g"},
            {"remote_path": f"{FOLDER}/f", "local_path": "g", "return_content": True},
            {"remote_path": f"{FOLDER}/t", "local_path": "t"},
            {"remote_path": f"{FOLDER}/s", "local_path": "s"},
        ):
            error = await refused("too_large", 413, on.call(file.download, **arguments))
            assert "sftp.transfer_quota_mb" in str(error.payload)
        # The same file may be replaced, and what was refused takes no room.
        [folder] = (mcp_home / "transfers").iterdir()
        assert local_quota.measure(folder) <= MIB
        assert not list(folder.rglob(".mcp-ssh-*"))
        for name in ("f", "t", "s"):
            if (folder / name).is_dir():
                for each in (folder / name).iterdir():
                    each.unlink()
                (folder / name).rmdir()
        await on.outside("echo small > f")
        await on.call(file.download, remote_path=f"{FOLDER}/f", local_path="f")
        assert (folder / "f").read_text() == "small\n"
        assert not local_quota._usages


@pytest.mark.requirement("fault.S5")
async def test_transfers_at_the_same_time_share_the_quota(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(bytes(1000))
    with local_quota.folder_quota(tmp_path, 100_000) as one, local_quota.folder_quota(tmp_path, 100_000) as other:
        one.add(60_000)
        with pytest.raises(Exception, match="do not fit"):
            other.add(60_000)
        one.remove(60_000)
        other.add(60_000)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "x" * 300, "Ü", "a\0b"])
@pytest.mark.requirement("fault.S5")
def test_a_callers_id_never_leads_out_of_the_transfers_folder(tmp_path: Path, name: str) -> None:
    folders = LocalFolders(tmp_path)
    place = local_place(Caller(name, Role.OPERATOR), "f", folders)
    assert place.path.parent.parent == tmp_path / "transfers"
    assert transfer_folder(Caller(name, Role.VIEWER)) != transfer_folder(Caller(f"{name}2", Role.VIEWER))


@pytest.mark.requirement("fault.N11")
async def test_both_paths_are_told_and_a_final_slash_is_a_folder(app: App, deb: Host, tmp_path: Path) -> None:
    async with open_way("mcp", app) as way:
        on = await opened(way, app, deb)
        await on.outside("mkdir in; echo one > f; mkdir t; echo two > t/x")

        async def got(remote: str, local: str, **more: Any) -> Path:
            answer = await on.call(file.download, remote_path=f"{FOLDER}/{remote}", local_path=local, **more)
            return Path(answer["local_path"])

        with contextlib.chdir(tmp_path):
            assert await got("f", "here") == tmp_path / "here"
        assert await got("f", f"{tmp_path}/new/er/") == tmp_path / "new/er/f"
        assert await got("f", f"{tmp_path}/con/tent/", return_content=True) == tmp_path / "con/tent/f"
        assert await got("t", f"{tmp_path}/tree/") == tmp_path / "tree"
        assert (tmp_path / "new/er/f").read_text() == (tmp_path / "con/tent/f").read_text() == "one\n"
        assert (tmp_path / "tree/x").read_text() == "two\n"
        sent = await on.call(file.upload, remote_path=f"{FOLDER}/in/", local_path=f"{tmp_path}/here")
        assert (sent["path"], sent["local_path"]) == (f"{FOLDER}/in/here", f"{tmp_path}/here")
        assert await on.outside("cat in/here") == "one\n"
        missing = await refused(
            "not_found", 404, on.call(file.upload, remote_path=f"{FOLDER}/in/", local_path=f"{tmp_path}/nothing")
        )
        assert "make its folder" not in str(missing.payload)
        assert "check the path" in missing.payload["hint"]


async def test_the_owner_is_bound_by_no_quota(mcp_home: Path, deb: Host, tmp_path: Path) -> None:
    """The negative control: the quota is what refuses."""
    config = Config.model_validate({"sftp": {"transfer_quota_mb": 1}})
    async with open_app(mcp_home, config) as app, open_way("mcp", app) as way:
        on = await opened(way, app, deb)
        await on.outside("head -c 2000000 /dev/zero > f")
        await on.call(file.download, remote_path=f"{FOLDER}/f", local_path=str(tmp_path / "f"))
        assert (tmp_path / "f").stat().st_size == 2_000_000


@pytest.mark.requirement("fault.C9.sys_files")
async def test_files_that_do_not_tell_their_size_are_downloaded(on: On, tmp_path: Path) -> None:
    look = "for f in /sys/kernel/*; do [ -f $f ] && cat $f >/dev/null 2>&1 && echo $f; done; true"
    sys_file = (await on.outside(look)).split()[0]
    assert int(await on.outside(f"stat -c %s {sys_file}")) != len(await on.outside(f"cat {sys_file}"))
    for remote in (sys_file, "/proc/version"):
        local = "f" if on.way.name == "rest" else str(tmp_path / "f")
        got = await on.call(file.download, remote_path=remote, local_path=local)
        assert Path(got["local_path"]).read_text() == await on.outside(f"cat {remote}")
        both = await on.call(file.download, remote_path=remote, return_content=True)
        assert both["size"] == got["size"]
