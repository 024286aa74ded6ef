"""A machine whose sshd has no SFTP: files travel through its shell."""

from collections.abc import Generator
from pathlib import Path

import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.tools import file, session
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.machine import login, outside, trust

CONFIG = "/etc/ssh/sshd_config"
OFF = f"cp -p {CONFIG} {CONFIG}.kept && sed -i '/Subsystem/d' {CONFIG} && systemctl reload ssh"
BACK = f"mv {CONFIG}.kept {CONFIG} && systemctl reload ssh"


@pytest.fixture
def plain(deb: Host) -> Generator[Host]:
    """deb without its SFTP subsystem, for the time of a test."""
    assert deb.console(["sh", "-c", OFF]).returncode == 0
    yield deb
    assert deb.console(["sh", "-c", BACK]).returncode == 0


@pytest.mark.requirement("file.exec")
async def test_files_and_folders_travel_without_sftp(app: App, plain: Host, tmp_path: Path) -> None:
    who = DirectCall(caller())
    await trust(app, plain)
    opened = await dispatch(app, session.connect, login(plain, "dev"), who)
    assert "sftp" not in opened.features
    assert "exec" in opened.features
    folder = tmp_path / "tree"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a b").write_bytes(b"\0\xffdata")
    (folder / "empty").touch()
    await outside(plain, "rm -rf /home/dev/nosftp /home/dev/one")
    await dispatch(app, file.upload, {"remote_path": "nosftp", "local_path": str(folder)}, who)
    await dispatch(app, file.upload, {"remote_path": "one", "raw_content": "one\n"}, who)
    assert await outside(plain, "cd /home/dev/nosftp && find . -type f | sort && cat /home/dev/one") == (
        "./empty\n./inner/a b\none\n"
    )
    back = tmp_path / "back"
    await dispatch(app, file.download, {"remote_path": "nosftp", "local_path": str(back)}, who)
    assert (back / "inner" / "a b").read_bytes() == b"\0\xffdata"
    listed = await dispatch(app, file.list_folder, {"path": "nosftp"}, who)
    assert sorted(each.name for each in listed.items) == ["empty", "inner"]
    await dispatch(app, file.rmdir, {"path": "nosftp"}, who)
    assert await outside(plain, "test ! -e /home/dev/nosftp && echo gone") == "gone\n"
