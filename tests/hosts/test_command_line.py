"""The command line against real hosts, looked at past our own tools."""

import json
import signal
from pathlib import Path

import pytest

from tests.fleet.hosts import Fleet, Host
from tests.support.cli_kit import run, running
from tests.support.machine import number, outside, processes, started


async def known(host: Host, home: Path, user: str = "ops") -> None:
    """Have the host saved as web1, its key trusted."""
    ssh = home / "person/.ssh"
    ssh.mkdir(parents=True)
    (ssh / "known_hosts").write_text(host.known_hosts_path.read_text())
    given = {"name": "web1", "host": host.ip, "username": user, "password": host.password}
    added = await run("call", "connection_add", "-", home=home, stdin=json.dumps(given))
    assert added.code == 0, added.err


@pytest.mark.requirement("cli.exec")
async def test_exec_is_what_ssh_is(host: Host, tmp_path: Path) -> None:
    await known(host, tmp_path)
    line = "id -un; hostname; echo err >&2; exit 5"
    done = await run("exec", "web1", "--", line, home=tmp_path)
    assert (done.code, done.err) == (5, "err\n")
    assert done.out == await outside(host, "id -un; hostname", "ops")
    by_key = await run(
        "exec", "-k", str(host.key_path), f"nopass@{host.ip}", "--sudo", "--", "id", "-un", home=tmp_path
    )
    assert (by_key.code, by_key.out, by_key.err) == (0, "root\n", "")
    (tmp_path / "person/.ssh/config").write_text(
        f"Host there\n  HostName {host.ip}\n  User dev\n  IdentityFile {host.key_path}\n"
    )
    by_alias = await run("exec", "there", "--", "id", "-un", home=tmp_path)
    assert (by_alias.code, by_alias.out) == (0, "dev\n")


@pytest.mark.requirement("cli.exec")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_leaves_no_process_on_the_host(host: Host, tmp_path: Path, ending: signal.Signals) -> None:
    await known(host, tmp_path)
    mark = number()
    line = f"trap '' HUP INT TERM; sleep {mark} & sleep {mark}; sleep {mark}"
    async with running("exec", "web1", "--", line, home=tmp_path) as command:
        await started(host, mark)
        assert await command.end(ending) == 128 + ending
        assert await processes(host, mark) == []


@pytest.mark.requirement("cli.transfer")
async def test_files_go_both_ways(host: Host, tmp_path: Path) -> None:
    await known(host, tmp_path)
    local = tmp_path / "it's a file"
    local.write_bytes(bytes(range(256)) * 4096)
    name = f"/tmp/up-{number()}"
    assert (await run("upload", "web1", str(local), name, home=tmp_path)).code == 0
    assert (await outside(host, f"wc -c < {name}")).strip() == str(local.stat().st_size)
    assert (await run("download", "web1", name, str(tmp_path / "back"), home=tmp_path)).code == 0
    assert (tmp_path / "back").read_bytes() == local.read_bytes()
    await outside(host, f"rm {name}")


@pytest.mark.requirement("cli.check")
async def test_check_logs_in_and_says_what_is_in_the_way(host: Host, tmp_path: Path) -> None:
    await known(host, tmp_path)
    fine = await run("check", "web1", home=tmp_path)
    assert fine.code == 0, fine.out
    wrong = await run("check", "-l", "nobody", "web1", "--json", home=tmp_path)
    assert wrong.code == 1
    assert {each["check"]: each["status"] for each in json.loads(wrong.out)}["web1: login"] == "fail"
    # Nothing that was given or kept stands in what is shown.
    assert host.password not in fine.out + wrong.out


@pytest.mark.requirement("cli.check")
async def test_a_machine_behind_another_is_checked_through_it(fleet: Fleet, tmp_path: Path) -> None:
    await known(fleet.deb, tmp_path)
    (tmp_path / "person/.ssh/config").write_text(
        f"Host front\n  HostName {fleet.deb.ip}\nHost back\n  HostName {fleet.alpine.ip}\n  ProxyJump front\n"
        f"Host *\n  User dev\n  IdentityFile {fleet.deb.key_path}\n"
    )
    done = await run("check", "back", "--json", home=tmp_path)
    assert done.code == 0, done.out
    found = {each["check"]: each["message"] for each in json.loads(done.out)}
    assert found["back"] == "reached through front, as ~/.ssh/config says"
    assert found["back: login"].startswith("as dev in ")
