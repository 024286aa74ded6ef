"""Accepting, listing and removing keys in the managed file."""

import asyncio
import fcntl
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest

from mcp_ssh import atomic_file
from mcp_ssh.errors import Conflict, Internal, InvalidInput, TimedOut
from mcp_ssh.ssh.hostkeys.store import HostKeys
from tests.support.hostkeys import KEYS, TYPE, accept, made_key, needs_ssh_keygen, print_of


@pytest.fixture
def managed(tmp_path: Path) -> Path:
    return tmp_path / "state" / "known_hosts"


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".ssh" / "known_hosts"
    path.parent.mkdir()
    return path


@pytest.fixture
def host_keys(managed: Path, users: Path) -> HostKeys:
    return HostKeys(managed, [users], "confirm", reject_unknown=False)


async def test_an_accepted_key_is_listed_and_accepting_it_again_changes_nothing(
    host_keys: HostKeys, managed: Path
) -> None:
    assert await accept(host_keys, "Web1", 22, KEYS[0] + " root@web1")
    assert await accept(host_keys, "gpu", 2222, KEYS[1])
    written = managed.read_bytes()
    assert not await accept(host_keys, "web1", 22, KEYS[0])
    assert managed.read_bytes() == written == f"web1 {KEYS[0]}\n[gpu]:2222 {KEYS[1]}\n".encode()
    assert managed.stat().st_mode & 0o777 == 0o600
    rows = await host_keys.list()
    assert [(row.host, row.port, row.known_hosts_host) for row in rows] == [
        ("web1", 22, "web1"),
        ("gpu", 2222, "[gpu]:2222"),
    ]
    assert f"{rows[1].key_type} {rows[1].key_base64}" == KEYS[1]
    assert rows[1].fingerprint_sha256 == print_of(KEYS[1])


async def test_a_new_key_takes_the_place_of_the_old_one_of_the_same_machine_and_type(
    host_keys: HostKeys, managed: Path
) -> None:
    managed.parent.mkdir()
    managed.write_text(f"# mine\nweb1,web2 {KEYS[0]}\n[web1]:2222 {KEYS[0]}\n")
    assert await accept(host_keys, "web1", 22, KEYS[1])
    assert managed.read_text() == f"# mine\nweb2 {KEYS[0]}\n[web1]:2222 {KEYS[0]}\nweb1 {KEYS[1]}\n"


async def test_accepting_a_key_that_stands_beside_an_old_one_removes_the_old_one(
    host_keys: HostKeys, managed: Path
) -> None:
    managed.parent.mkdir()
    managed.write_text(f"web1 {KEYS[0]}\nweb1 {KEYS[1]}\n")
    assert await accept(host_keys, "web1", 22, KEYS[1])
    assert managed.read_text() == f"web1 {KEYS[1]}\n"


@needs_ssh_keygen
async def test_a_hashed_old_key_is_replaced_and_a_hashed_name_can_be_removed_by_name_or_hash(
    host_keys: HostKeys, managed: Path
) -> None:
    managed.parent.mkdir()
    managed.write_text(f"web1 {KEYS[0]}\n[web1]:2222 {KEYS[0]}\nweb3 {KEYS[0]}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", managed], capture_output=True, check=True)
    await accept(host_keys, "WEB1", 22, KEYS[1])
    assert len(await host_keys.list()) == 3
    assert await host_keys.remove("web1", 2222, TYPE)
    hashed = next(row for row in await host_keys.list() if row.host.startswith("|1|"))
    assert await host_keys.remove(hashed.host, hashed.port, TYPE)
    assert managed.read_text() == f"web1 {KEYS[1]}\n"


@pytest.mark.parametrize("names", ["web1", "web1,web2", "web*"])
async def test_an_old_key_in_the_users_file_is_a_conflict_that_says_how_to_remove_it(
    host_keys: HostKeys, managed: Path, users: Path, names: str
) -> None:
    users.write_text(f"\n{names} {KEYS[0]}\n")
    with pytest.raises(Conflict, match=r"~/\.ssh/known_hosts, line 2") as caught:
        await accept(host_keys, "web1", 22, KEYS[1])
    assert "ssh-keygen -R web1 -f ~/.ssh/known_hosts" in (caught.value.hint or "")
    assert not managed.exists()


async def test_an_old_key_under_a_pattern_of_the_managed_file_is_a_conflict(host_keys: HostKeys, managed: Path) -> None:
    managed.parent.mkdir()
    managed.write_text(f"web* {KEYS[0]}\n")
    with pytest.raises(Conflict, match="the managed known_hosts, line 1"):
        await accept(host_keys, "web1", 22, KEYS[1])
    assert managed.read_text() == f"web* {KEYS[0]}\n"


async def test_a_revoked_key_cannot_be_accepted(host_keys: HostKeys, managed: Path, users: Path) -> None:
    users.write_text(f"@revoked * {KEYS[0]}\n")
    with pytest.raises(Conflict, match=r"revoked by ~/\.ssh/known_hosts, line 1"):
        await accept(host_keys, "web1", 2222, KEYS[0])
    assert not managed.exists()


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "web?",
        "!web1",
        "@revoked",
        "#web1",
        "a,b",
        "a b",
        "a\nb",
        "a\tb",
        "|1|a|b",
        "[web1]:22",
        "a\0b",
        "a\ud800",
        "a\u200bb",
        "é" * 256,
    ],
)
async def test_a_host_that_would_mean_more_than_one_name_is_refused(
    host_keys: HostKeys, managed: Path, host: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await accept(host_keys, host, 22, KEYS[0])
    assert caught.value.details["errors"][0]["field"] == "host"
    assert not managed.exists()


@pytest.mark.parametrize(
    ("field", "key_type", "public_key", "fingerprint"),
    [
        ("fingerprint_sha256", TYPE, KEYS[0], print_of(KEYS[1])),
        ("fingerprint_sha256", TYPE, KEYS[0], print_of(KEYS[0]) + "="),
        ("fingerprint_sha256", TYPE, KEYS[0], ""),
        ("key_type", "ssh-rsa", KEYS[0], print_of(KEYS[0])),
        ("public_key", "ssh-rsa", "ssh-rsa " + KEYS[0].split()[1], print_of(KEYS[0])),
        ("public_key", TYPE, KEYS[0] + "\nevil " + KEYS[1], print_of(KEYS[0])),
        ("public_key", TYPE, KEYS[0][:-8], print_of(KEYS[0])),
        ("public_key", TYPE, "ssh-ed25519", print_of(KEYS[0])),
        ("public_key", "ssh-nothing", "ssh-nothing " + KEYS[0].split()[1], print_of(KEYS[0])),
        ("public_key", TYPE, KEYS[0] + " " + "x" * 8192, print_of(KEYS[0])),
        ("public_key", "-----BEGIN", "-----BEGIN PUBLIC KEY-----", print_of(KEYS[0])),
    ],
)
async def test_what_does_not_fit_together_is_refused_by_field(  # noqa: PLR0917
    host_keys: HostKeys, managed: Path, field: str, key_type: str, public_key: str, fingerprint: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await host_keys.accept("web1", 22, key_type, public_key, fingerprint)
    assert caught.value.details["errors"][0]["field"] == field
    assert not managed.exists()


@pytest.mark.parametrize("port", [0, -1, 65536])
async def test_a_port_out_of_range_is_refused(host_keys: HostKeys, port: int) -> None:
    with pytest.raises(InvalidInput):
        await accept(host_keys, "web1", port, KEYS[0])
    with pytest.raises(InvalidInput):
        await host_keys.remove("web1", port, TYPE)


async def test_removing_says_whether_there_was_something_to_remove(host_keys: HostKeys, managed: Path) -> None:
    assert not await host_keys.remove("web1", 22, TYPE)
    await accept(host_keys, "web1", 22, KEYS[0])
    assert not await host_keys.remove("web1", 2222, TYPE)
    assert not await host_keys.remove("web1", 22, "ssh-rsa")
    assert await host_keys.remove("WEB1", 22, TYPE)
    assert managed.read_bytes() == b""
    for nonsense in ("", "a b", "a,b", "!a", "a\nb", "a\ud800"):
        with pytest.raises(InvalidInput):
            await host_keys.remove(nonsense, 22, TYPE)
        with pytest.raises(InvalidInput):
            await host_keys.remove("web1", 22, nonsense.replace(",", " ").replace("!", " "))


async def test_every_row_of_the_list_can_be_removed_by_what_it_shows(host_keys: HostKeys, managed: Path) -> None:
    managed.parent.mkdir()
    managed.write_text(f"Web1,[web1]:2222,[web1]:22,*.Example.org,::1 {KEYS[0]}\n[web1]:99999 {KEYS[1]}\n")
    for row in await host_keys.list():
        await host_keys.remove(row.host, row.port, row.key_type)
    assert await host_keys.list() == []


async def test_a_folder_that_cannot_be_written_is_reported_without_its_path(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("")
    host_keys = HostKeys(blocker / "known_hosts", [], "confirm", reject_unknown=False)
    with pytest.raises(Internal, match="the managed known_hosts cannot be written") as caught:
        await accept(host_keys, "web1", 22, KEYS[0])
    assert str(tmp_path) not in str(caught.value.payload())


async def test_a_lock_that_another_process_keeps_ends_the_wait_and_leaves_the_loop_free(
    host_keys: HostKeys, managed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_file, "LOCK_LIMIT_S", 0.3)
    await accept(host_keys, "web1", 22, KEYS[0])
    with managed.with_name("known_hosts.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.sleep(0.01)

        async with anyio.create_task_group() as group:
            group.start_soon(count)
            with pytest.raises(TimedOut):
                await accept(host_keys, "web1", 22, KEYS[1])
            group.cancel_scope.cancel()
        assert turns > 5
    assert await accept(host_keys, "web1", 22, KEYS[1])


WRITER = """
    import asyncio, sys
    from pathlib import Path
    from mcp_ssh.ssh.hostkeys.store import HostKeys
    from tests.support.hostkeys import accept, made_key

    async def main(managed, first):
        host_keys = HostKeys(Path(managed), [], "confirm", reject_unknown=False)
        for seed in range(first, first + 50):
            assert await accept(host_keys, f"host{seed}", 22, made_key(seed))

    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_two_processes_and_many_tasks_lose_no_key(host_keys: HostKeys, managed: Path) -> None:
    root = Path(__file__).parents[2]
    with anyio.fail_after(60):
        writers = [
            await asyncio.create_subprocess_exec(
                sys.executable, "-c", textwrap.dedent(WRITER), managed, str(first), cwd=root
            )
            for first in (1000, 2000)
        ]
        async with anyio.create_task_group() as group:
            for seed in range(3000, 3020):
                group.start_soon(accept, host_keys, f"host{seed}", 22, made_key(seed))
        assert [await writer.wait() for writer in writers] == [0, 0]
    seeds = [*range(1000, 1050), *range(2000, 2050), *range(3000, 3020)]
    found = {row.host: f"{row.key_type} {row.key_base64}" for row in await host_keys.list()}
    assert found == {f"host{seed}": made_key(seed) for seed in seeds}
    assert len(await host_keys.list()) == len(seeds)
