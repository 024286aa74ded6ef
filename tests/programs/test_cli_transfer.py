"""`ssh-steward upload` and `download` move files, name them as people expect, and show how far they are."""

import hashlib
import json
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import pytest

from mcp_ssh.ssh.demo.host import DemoHost, demo_host
from tests.support.cli_kit import on_terminal, run
from tests.support.demo import login, trust

pytestmark = pytest.mark.requirement("cli.transfer")

SIZE = 3_000_000


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[DemoHost]:
    """A host whose key is known and that is saved as web1."""
    async with demo_host() as made:
        await trust(made, tmp_path)
        given = json.dumps({"name": "web1", **json.loads(login(made))})
        assert (await run("call", "connection_add", "-", home=tmp_path, stdin=given)).code == 0
        yield made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a file.bin"
    path.write_bytes(random.Random(3).randbytes(SIZE))
    path.chmod(0o640)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


async def test_a_file_goes_there_and_back_under_its_name_or_another(host: DemoHost, file: Path, tmp_path: Path) -> None:
    up = await run("upload", "web1", str(file), home=tmp_path)
    assert (up.code, up.out) == (0, "")
    assert "2.9 MiB" in up.err
    assert digest(file) in up.err
    assert "\x1b" not in up.err
    assert digest(host.home / file.name) == digest(file)
    (host.home / "in").mkdir()
    done = await run("upload", "web1", str(file), "in/", "--permissions", "600", "--json", home=tmp_path)
    assert json.loads(done.out)["permissions"] == "0600"
    assert (host.home / "in" / file.name).stat().st_mode & 0o777 == 0o600

    (tmp_path / "here").mkdir()
    down = await run("download", "web1", f"in/{file.name}", str(tmp_path / "here"), home=tmp_path)
    assert (down.code, down.out) == (0, "")
    assert digest(tmp_path / "here" / file.name) == digest(file)
    as_other = await run("download", "web1", file.name, str(tmp_path / "other"), "--json", home=tmp_path)
    assert json.loads(as_other.out)["sha256"] == digest(file) == digest(tmp_path / "other")


async def test_a_name_that_begins_with_a_dash_stands_behind_two(host: DemoHost, file: Path, tmp_path: Path) -> None:
    up = await run("upload", "web1", "--json", "--", str(file), "-dash", home=tmp_path)
    assert (up.code, json.loads(up.out)["status"]) == (0, "uploaded"), up.err
    assert digest(host.home / "-dash") == digest(file)
    down = await run("download", "web1", "--", "-dash", str(tmp_path / "back"), home=tmp_path)
    assert (down.code, digest(tmp_path / "back")) == (0, digest(file)), down.err


async def test_a_folder_goes_there_and_back(host: DemoHost, tmp_path: Path) -> None:
    (tmp_path / "tree/in").mkdir(parents=True)
    (tmp_path / "tree/in/a").write_text("a")
    (tmp_path / "tree/b").write_text("b")
    up = await run("upload", "web1", str(tmp_path / "tree"), home=tmp_path)
    assert (up.code, up.out) == (0, ""), up.err
    assert "2 files" in up.err
    assert (host.home / "tree/in/a").read_text() == "a"
    down = await run("download", "web1", "tree", str(tmp_path / "back"), home=tmp_path)
    assert down.code == 0, down.err
    assert (tmp_path / "back/b").read_text() == "b"


async def test_a_terminal_shows_a_bar(host: DemoHost, file: Path, tmp_path: Path) -> None:
    code, shown = await anyio.to_thread.run_sync(lambda: on_terminal(["upload", "web1", str(file)], home=tmp_path))
    assert code == 0, shown
    assert "━━━" in shown
    assert "2.9/2.9 MiB" in shown


async def test_a_name_that_is_no_utf_8_goes_with_its_folder(host: DemoHost, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    name = os.fsdecode(b"caf\xe9")
    (folder / name).write_text("x")
    alone = await run("upload", "web1", str(folder / name), home=tmp_path)
    assert alone.code == 1
    assert "not UTF-8" in alone.failure
    assert "its folder" in alone.failure
    whole = await run("upload", "web1", str(folder), home=tmp_path)
    assert (whole.code, [each.name for each in (host.home / "odd").iterdir()]) == (0, [name]), whole.err


async def test_what_is_not_there_is_one_line(host: DemoHost, tmp_path: Path) -> None:
    nothing = await run("upload", "web1", str(tmp_path / "nothing"), home=tmp_path)
    assert nothing.code == 1
    assert "no such file" in nothing.failure
    there = await run("download", "web1", "nothing", str(tmp_path / "x"), home=tmp_path)
    assert there.code == 1
    assert "nothing" in there.failure
    nameless = await run("download", "web1", "/", home=tmp_path)
    assert nameless.code == 2
    assert "LOCAL" in nameless.failure


@pytest.mark.requirement("fault.N13")
async def test_a_dash_is_standard_input_and_output(host: DemoHost, file: Path, tmp_path: Path) -> None:
    up = await run("upload", "web1", "-", "from-pipe", home=tmp_path, stdin="piped\n")
    assert (up.code, (host.home / "from-pipe").read_text()) == (0, "piped\n")
    down = await run("download", "web1", "from-pipe", "-", home=tmp_path)
    assert (down.code, down.out) == (0, "piped\n")
    assert not Path("-").exists()
    nameless = await run("upload", "web1", "-", home=tmp_path, stdin="piped\n")
    assert nameless.code == 2
    assert "has no name" in nameless.failure
    (host.home / "folder").mkdir()
    folder = await run("download", "web1", "folder", "-", home=tmp_path)
    assert (folder.code, folder.out) == (2, "")
    calls = await run("history", "--json", home=tmp_path)
    fetched = [row["arguments"] for row in json.loads(calls.out) if row["tool"] == "file_download"]
    assert "from-pipe" in str(fetched)
    assert "folder" not in str(fetched)
