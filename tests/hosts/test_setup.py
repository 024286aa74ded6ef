"""Packages on the real package managers of each family, read back by the machines' own console."""

from collections.abc import AsyncGenerator
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.tools import command, setup
from mcp_ssh.tools.setup import runner as running
from tests.fleet.hosts import Host
from tests.support.doors import Direct, DirectCall, Fault, Way, caller
from tests.support.hostile import HOSTILE
from tests.support.machine import opened
from tests.support.packages import APT_CLEAN, CLEAN, outside

APT_OLD = "apt-get -q update && apt-get -q -y install hello-fleet=1.0-1"
OLD = {
    "deb": APT_OLD,
    "sysv": APT_OLD,
    "rocky": "dnf -y install hello-fleet-1.0",
    "suse": "zypper -n refresh && zypper -n install hello-fleet=1.0",
    "arch": "pacman --noconfirm -Sy && pacman --noconfirm -U /srv/repo/arch/hello-fleet-1.0-1-any.pkg.tar.gz",
    "alpine": "apk update && apk add hello-fleet=1.0-r0 && sed -i s/hello-fleet=.*/hello-fleet/ /etc/apk/world",
}
"""How the machine's owner gets the older package."""
SERVER = {
    "deb": "apt-get", "sysv": "apt-get", "rocky": "dnf", "suse": "zypper", "arch": "pacman", "alpine": "apk",
}  # fmt: skip


async def version(host: Host, name: str) -> str | None:
    """The version of the program that a package brings; None where there is none."""
    done = await outside(host, name)
    return done.stdout.split()[-1] if done.returncode == 0 else None


@pytest.fixture
async def tidy(every: Host) -> AsyncGenerator[Host]:
    """A host that has the older hello-fleet and is cleaned afterwards."""
    await outside(every, CLEAN[every.name])
    assert (await outside(every, OLD[every.name])).returncode == 0
    yield every
    await outside(every, CLEAN[every.name])


@pytest.mark.requirement("setup.packages")
async def test_packages_come_are_renewed_and_go_on_every_family(app: App, tidy: Host) -> None:
    way, host = Direct(app), tidy
    on: dict[str, Any] = await opened(way, app, host, "root")
    assert (await version(host, "hello-fleet")) == "1.0"

    newer = await way.call(setup.upgradable, on)
    mine = [each for each in newer["packages"] if each["name"] == "hello-fleet"]
    assert [(each["action"], each["from_version"][:3], each["to_version"][:3]) for each in mine] == [
        ("upgrade", "1.0", "2.0")
    ]
    found = await way.call(setup.search, {**on, "query": "fleet"})
    versions = {each["name"]: each["installed_version"] for each in found["packages"]}
    assert set(versions) == {"app-fleet", "broken-fleet", "hello-fleet", "libfleet"}
    assert versions["app-fleet"] is None
    assert versions["hello-fleet"].startswith("1.0")
    assert {each["summary"] for each in found["packages"]} >= {"libfleet, a package for tests"}

    would = await way.call(setup.check, {**on, "packages": ["app-fleet"]})
    assert would["success"]
    assert {each["name"]: each["action"] for each in would["changes"]} == {
        "app-fleet": "install",
        "libfleet": "install",
    }
    shown = await way.call(setup.requirements, {**on, "packages": ["app-fleet"], "dry_run": True})
    assert shown["status"] == "planned"
    assert len(shown["commands"]) == 2
    assert shown["commands"][1].endswith("app-fleet")
    assert await version(host, "app-fleet") is None

    got = await way.call(setup.requirements, {**on, "packages": ["app-fleet", "hello-fleet"]})
    assert (got["status"], got["installed"], got["failed"]) == ("completed", ["app-fleet", "hello-fleet"], [])
    assert [each["name"] for each in got["changes"]] == ["app-fleet", "libfleet"]
    lines = got["output"].splitlines()
    assert lines[0].startswith("[PLATFORM] ")
    assert lines[1:] == [
        f"[PACKAGE_MANAGER] {SERVER[host.name]}", "[UPDATE] exit=0", "[OK] app-fleet", "[OK] hello-fleet"
    ]  # fmt: skip
    assert (await version(host, "app-fleet"), await version(host, "hello-fleet")) == ("1.0", "1.0")

    renewed = await way.call(setup.update, {**on, "packages": ["hello-fleet"], "update_first": False})
    assert [(each["name"], each["to_version"][:3]) for each in renewed["changes"]] == [("hello-fleet", "2.0")]
    assert (await version(host, "hello-fleet")) == "2.0"
    everything = await way.call(setup.update, on)
    assert (everything["status"], everything["changes"]) == ("completed", [])

    with pytest.raises(Fault) as kept:
        await way.call(setup.remove, {**on, "packages": ["libfleet"]})
    assert kept.value.code == "conflict"
    assert kept.value.payload["details"]["dependents"] == ["app-fleet"]
    checked = await way.call(setup.check, {**on, "action": "remove", "packages": ["libfleet"]})
    assert (checked["success"], checked["dependents"]) == (True, ["app-fleet"])
    assert await version(host, "libfleet") == "1.0"
    gone = await way.call(setup.remove, {**on, "packages": ["libfleet", "no-such"], "dependents": True})
    assert (gone["status"], {each["name"] for each in gone["changes"]}) == ("completed", {"app-fleet", "libfleet"})
    assert "[SKIP] no-such: not installed" in gone["output"]
    assert (await version(host, "app-fleet"), await version(host, "libfleet")) == (None, None)
    again = await way.call(setup.remove, {**on, "packages": ["libfleet"]})
    assert (again["status"], again["changes"]) == ("completed", [])


@pytest.mark.requirement("setup.each")
async def test_each_package_has_its_own_end_where_one_transaction_fails(app: App, tidy: Host) -> None:
    way, host = Direct(app), tidy
    on: dict[str, Any] = {**await opened(way, app, host, "root"), "update_first": False}
    names = ["no-such-package", "broken-fleet", "app-fleet"]
    got = await way.call(setup.requirements, {**on, "packages": names})
    # pacman says itself that a package whose script failed is installed.
    bad = names[:1] if host.name == "arch" else names[:2]
    assert (got["status"], got["failed"]) == ("partial", bad)
    assert got["installed"] == [name for name in names if name not in bad]
    assert "[FAIL] no-such-package: " in got["output"]
    assert host.name == "arch" or "[FAIL] broken-fleet: " in got["output"]
    assert await version(host, "app-fleet") == "1.0"
    none = await way.call(setup.requirements, {**on, "packages": ["no-such-package"]})
    assert (none["status"], none["installed"], none["failed"]) == ("failed", [], ["no-such-package"])
    absent = await way.call(setup.update, {**on, "packages": ["no-such-package"]})
    assert (absent["status"], absent["failed"]) == ("failed", ["no-such-package"])
    # What is broken already is no failure of what is asked next, though apk counts it as an error each time.
    del on["update_first"]
    assert {each["name"] for each in (await way.call(setup.upgradable, on))["packages"]} <= {"hello-fleet"}
    assert (await way.call(setup.check, {**on, "packages": ["hello-fleet"]}))["success"] is True


@pytest.mark.requirement("setup.packages")
async def test_every_door_leads_to_the_package_manager(way: Way, app: App, deb: Host) -> None:
    on: dict[str, Any] = await opened(way, app, deb, "root")
    try:
        got = await way.call(setup.requirements, {**on, "packages": ["libfleet"]})
        assert (got["status"], got["installed"], got["package_manager"]) == ("completed", ["libfleet"], "apt-get")
        assert set(got["platform"]) == {"os", "family", "pretty_name", "version_id"}
        assert got["resolved_packages"] == ["libfleet"]
        found = await way.call(setup.search, {**on, "query": "libfleet"})
        assert [each["name"] for each in found["packages"]] == ["libfleet"]
        would = await way.call(setup.check, {**on, "action": "remove", "packages": ["libfleet"]})
        assert [each["action"] for each in would["changes"]] == ["remove"]
        assert (await way.call(setup.upgradable, on))["package_manager"] == "apt-get"
        assert (await way.call(setup.update, {**on, "index_only": True}))["output"].endswith("[UPDATE] exit=0")
        gone = await way.call(setup.remove, {**on, "packages": ["libfleet"]})
        assert (gone["status"], len(gone["changes"])) == ("completed", 1)
    finally:
        await outside(deb, APT_CLEAN)


@pytest.mark.requirement("quoting.hosts")
async def test_what_is_no_name_of_a_package_reaches_no_package_manager(app: App, host: Host) -> None:
    way = Direct(app)
    on: dict[str, Any] = await opened(way, app, host, "root")
    for wrong in (*HOSTILE, "lib*", "x=1", "vim-", "@group", "/etc/passwd", ""):
        for tool in (setup.requirements, setup.remove, setup.update, setup.check):
            with pytest.raises(Fault) as refused:
                await way.call(tool, {**on, "packages": [wrong]})
            assert refused.value.code == "invalid_input"
        with pytest.raises(Fault) as refused:
            await way.call(setup.search, {**on, "query": wrong})
        assert refused.value.code == "invalid_input"
    assert (await outside(host, "test -e /tmp/pwned")).returncode == 1


@pytest.mark.requirement("setup.packages")
async def test_a_name_of_no_package_is_no_pattern(app: App, deb: Host) -> None:
    way = Direct(app)
    on: dict[str, Any] = await opened(way, app, deb, "root")
    got = await way.call(setup.requirements, {**on, "packages": ["libf.eet"]})
    assert (got["status"], got["changes"]) == ("failed", [])
    found = await way.call(setup.search, {**on, "query": "libf.eet"})
    assert found["packages"] == []
    # What apt-get and apt-cache themselves make of it.
    assert "Inst libfleet" in (await outside(deb, "apt-get -s install 'libf.eet'")).stdout
    assert "libfleet" in (await outside(deb, "apt-cache search libf.eet")).stdout


@pytest.mark.requirement("system.rights")
async def test_without_rights_no_package_changes_and_with_sudo_it_does(app: App, tidy: Host) -> None:
    way, host = Direct(app), tidy
    want = {"packages": ["libfleet"], "update_first": False}
    plain = await opened(way, app, host, "dev")
    for tool, arguments in ((setup.requirements, want), (setup.remove, {"packages": ["hello-fleet"]})):
        with pytest.raises(Fault) as refused:
            await way.call(tool, {**plain, **arguments})
        assert refused.value.code == "permission_denied"
        assert refused.value.payload["hint"]
    shown = await way.call(setup.requirements, {**plain, **want, "dry_run": True})
    assert shown["commands"]
    assert (await version(host, "libfleet"), await version(host, "hello-fleet")) == (None, "1.0")
    with_password = {**await opened(way, app, host, "ops"), **want}
    with pytest.raises(Fault) as refused:
        await way.call(setup.requirements, with_password)
    assert "become.password" in refused.value.payload["hint"]
    got = await way.call(setup.requirements, {**with_password, "become": {"password": host.password}})
    assert got["installed"] == ["libfleet"]
    assert await version(host, "libfleet") == "1.0"
    nopass = await opened(way, app, host, "nopass")
    assert (await way.call(setup.remove, {**nopass, "packages": ["libfleet"]}))["status"] == "completed"
    assert await version(host, "libfleet") is None


PLUGIN = "/usr/lib/python3/dist-packages/dnf-plugins/slow.py"
SLOW = f"""
mkdir -p {PLUGIN.rpartition("/")[0]}
cat >{PLUGIN} <<'END'
import dnf, os, time
class Slow(dnf.Plugin):
    name = "slow"
    def pre_transaction(self):
        open("/run/at-work", "w").close()
        while os.path.exists("/run/at-work"):
            time.sleep(0.1)
END
"""


@pytest.mark.requirement("setup.link")
@pytest.mark.parametrize("kept", [True, False], ids=["with the relay", "the negative control without"])
async def test_a_lost_link_does_not_tear_the_manager_out_of_its_work(
    app: App, rocky: Host, monkeypatch: pytest.MonkeyPatch, *, kept: bool
) -> None:
    way, host = Direct(app), rocky
    if not kept:
        monkeypatch.setattr(running, "_FOLLOWED", 'shift; exec "$@" 2>&1')
    on: dict[str, Any] = await opened(way, app, host, "root")
    server = (await way.call(command.run_command, {**on, "command": "echo $PPID"}))["stdout"].strip()
    await outside(host, SLOW)

    async def cut() -> None:
        while (await outside(host, "test -e /run/at-work")).returncode:
            await anyio.sleep(0.05)
        await outside(host, f"kill -9 {server}")

    try:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(cut)
                with pytest.raises(Fault) as lost:
                    await way.call(setup.requirements, {**on, "packages": ["app-fleet"]})
            assert lost.value.code == "connect_failed"
            assert await version(host, "app-fleet") is None
            await outside(host, "rm /run/at-work")
            while (await outside(host, "pgrep -x dnf")).returncode == 0:
                await anyio.sleep(0.05)
        assert (await version(host, "app-fleet") == "1.0") is kept
    finally:
        await outside(host, f"rm -f {PLUGIN} /run/at-work; {CLEAN['rocky']}")


HOLD = {
    "deb": 'python3 -c \'import fcntl,sys; f=open("/var/lib/dpkg/lock-frontend","w"); fcntl.lockf(f,fcntl.LOCK_EX);'
    " print(1, flush=True); sys.stdin.read()'",
    "rocky": "printf $$ >/var/lib/dnf/rpmdb_lock.pid; echo 1; read line; rm /var/lib/dnf/rpmdb_lock.pid",
    "suse": "echo $$ >/run/zypp.pid; echo 1; read line; rm /run/zypp.pid",
    "arch": "exec 9>/var/lib/pacman/db.lck; echo 1; read line; rm /var/lib/pacman/db.lck",
    "alpine": "exec 9>/lib/apk/db/lock; flock 9; echo 1; read line",
}


class Heard(DirectCall):
    """A caller that hears how far the work is."""

    def __init__(self) -> None:
        super().__init__(caller())
        self.messages: list[str] = []
        self.waiting = anyio.Event()

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        self.messages.append(message or "")
        if "waiting for process" in self.messages[-1]:
            self.waiting.set()


@pytest.mark.requirement("setup.lock")
@pytest.mark.parametrize("every", HOLD, indirect=True)
async def test_another_manager_at_work_is_waited_for_and_named(app: App, tidy: Host) -> None:
    host = tidy
    on: dict[str, Any] = await opened(Direct(app), app, host, "root")
    await Direct(app).call(setup.update, {**on, "index_only": True})
    want = {**on, "packages": ["libfleet"], "update_first": False}
    async with await anyio.open_process([*host.ssh_argv(), HOLD[host.name]]) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert (await holder.stdout.receive()).strip() == b"1"
        with pytest.raises(Fault) as refused:
            await Direct(app).call(setup.requirements, {**want, "lock_wait_s": 0})
        assert refused.value.code == "conflict"
        held_by = refused.value.payload["details"]["holder"]
        assert held_by["pid"] > 1
        assert f"process {held_by['pid']}" in refused.value.payload["message"]
        assert held_by["command"]
        assert await version(host, "libfleet") is None
        heard = Heard()

        async def free() -> None:
            await heard.waiting.wait()
            assert holder.stdin is not None
            await holder.stdin.send(b"\n")
            await holder.stdin.aclose()

        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(free)
                got = await dispatch(app, setup.requirements, want, heard)
        assert got.model_dump()["installed"] == ["libfleet"]
        assert any(message.startswith("install libfleet") for message in heard.messages)


DAMAGED = {
    "deb": "/var/lib/dpkg/status", "sysv": "/var/lib/dpkg/status", "rocky": "/var/lib/rpm", "suse": "/var/lib/rpm",
    "arch": "/var/lib/pacman/local", "alpine": "/lib/apk/db/installed",
}  # fmt: skip


@pytest.mark.requirement("setup.packages")
async def test_what_cannot_be_listed_is_not_told_as_missing(app: App, every: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, every, "root")
    database = DAMAGED[every.name]
    junk = ":" if every.name == "alpine" else "echo junk >"
    await outside(every, f"mv {database} {database}.kept && {junk} {database}")
    try:
        for tool, more in ((setup.remove, {"packages": ["hello-fleet"]}), (setup.search, {"query": "hello"})):
            with pytest.raises(Fault) as fault:
                await way.call(tool, {**on, **more})
            assert fault.value.code == "remote_failed"
            assert "cannot be listed" in str(fault.value)
    finally:
        await outside(every, f"rm -rf {database} && mv {database}.kept {database}")


@pytest.mark.requirement("setup.packages")
async def test_a_package_with_triggers_to_come_goes_by_its_name_with_architecture(app: App, deb: Host) -> None:
    way = Direct(app)
    on = {**await opened(way, app, deb, "root"), "packages": ["hello-fleet"]}
    assert (await outside(deb, OLD["deb"])).returncode == 0
    pending = "s/^Status: .*/Status: install ok triggers-pending\\nTriggers-Pending: ours/"
    await outside(deb, f"sed -i '/^Package: hello-fleet$/,/^$/ {pending}' /var/lib/dpkg/status")
    try:
        assert await version(deb, "hello-fleet") == "1.0"
        gone = await way.call(setup.remove, {**on, "packages": ["hello-fleet:amd64"]})
        assert [(each["name"], each["action"]) for each in gone["changes"]] == [("hello-fleet", "remove")]
        assert await version(deb, "hello-fleet") is None
    finally:
        await outside(deb, CLEAN["deb"])


@pytest.mark.requirement("setup.packages")
async def test_why_a_check_fails_is_told_on_every_family(app: App, every: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, every, "root")
    would = await way.call(setup.check, {**on, "packages": ["no-such-package"]})
    assert (would["success"], "no-such-package" in would["error"]) == (False, True)


@pytest.mark.requirement("setup.packages")
async def test_a_daemon_that_a_package_starts_lives_on_though_it_keeps_talking(
    app: App, deb: Host, wrapped: Any
) -> None:
    way, file = Direct(app), "/tmp/package-talks"
    talks = f"(while sleep 0.1; do echo tick; echo tick >>{file}; done) & echo $! >{file}.pid"
    await wrapped("apt-get", f'[ -e {file} ] || {{ : >{file}; {talks}; }}; exec /usr/bin/apt-get "$@"')
    try:
        on = await opened(way, app, deb, "root")
        with anyio.fail_after(60):
            await way.call(setup.update, {**on, "index_only": True})
        before = int((await outside(deb, f"wc -l <{file}")).stdout)
        with anyio.fail_after(10):
            while int((await outside(deb, f"wc -l <{file}")).stdout) < before + 3:
                await anyio.sleep(0.1)
    finally:
        await outside(deb, f"kill $(cat {file}.pid); rm -f {file}*")
