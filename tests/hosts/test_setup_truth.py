"""What the package tools say of repositories that cannot be read, and of packages of another architecture."""

from collections.abc import AsyncGenerator

import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import setup
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault
from tests.support.machine import opened
from tests.support.packages import APT_CLEAN, outside

_DNF = "printf '[zz]\\nname=zz\\nbaseurl=file:///no/such\\ngpgcheck=0\\n%s' >/etc/yum.repos.d/zz.repo"
BAD = {
    "deb": "echo 'deb file:/no/such stable main' >/etc/apt/sources.list.d/zz.list",
    "rocky": _DNF,
    "suse": "printf '[zz]\\nname=zz\\nbaseurl=file:///no/such\\ngpgcheck=0\\n' >/etc/zypp/repos.d/zz.repo",
    "arch": "cp /etc/pacman.conf /tmp/zz; printf '\\n[zz]\\nServer = file:///no/such\\n' >>/etc/pacman.conf",
    "alpine": "cp /etc/apk/repositories /tmp/zz; echo http://127.0.0.1:1/zz >>/etc/apk/repositories",
}
"""A repository that is not there, and that makes the manager fail."""
PASSED_OVER = {
    **BAD,
    "deb": """echo 'deb http://127.0.0.1:1/ stable main' >/etc/apt/sources.list.d/zz.list
        echo 'Acquire::Retries "0";' >/etc/apt/apt.conf.d/zz""",
    "rocky": _DNF.replace("%s", "skip_if_unavailable=1\\n"),
    "alpine": "cp /etc/apk/repositories /tmp/zz; echo /no/such >>/etc/apk/repositories",
}
"""One that apt, dnf and apk pass over, with exit code 0."""
GOOD = {
    "deb": "rm -f /etc/apt/sources.list.d/zz.list /etc/apt/apt.conf.d/zz",
    "rocky": "rm -f /etc/yum.repos.d/zz.repo",
    "suse": "rm -f /etc/zypp/repos.d/zz.repo",
    "arch": "cp /tmp/zz /etc/pacman.conf",
    "alpine": "cp /tmp/zz /etc/apk/repositories",
}


@pytest.fixture(params=list(BAD))
async def family(request: pytest.FixtureRequest) -> AsyncGenerator[Host]:
    """A host of each package manager, whose repositories are put right afterwards."""
    host: Host = request.getfixturevalue(request.param)
    yield host
    await outside(host, GOOD[host.name])


@pytest.mark.requirement("fault.R9b")
async def test_an_index_that_could_not_be_read_is_not_completed(app: App, family: Host) -> None:
    way = Direct(app)
    on = {**await opened(way, app, family, "root"), "index_only": True}
    assert (await way.call(setup.update, on))["status"] == "completed"
    await outside(family, BAD[family.name])
    told = await way.call(setup.update, on)
    assert told["status"] == "failed", told
    assert told["unread"]
    await outside(family, GOOD[family.name])
    await outside(family, PASSED_OVER[family.name])
    told = await way.call(setup.update, on)
    assert told["status"] in {"partial", "failed"}, told
    assert told["unread"]
    await outside(family, GOOD[family.name])
    again = await way.call(setup.update, on)
    assert (again["status"], "unread" in again) == ("completed", False), again


@pytest.mark.requirement("fault.R9b")
async def test_an_install_goes_on_and_says_what_was_passed_over(app: App, deb: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, deb, "root")
    await outside(deb, f"{APT_CLEAN}; {PASSED_OVER['deb']}")
    try:
        told = await way.call(setup.requirements, {**on, "packages": ["hello-fleet"]})
        assert (told["status"], told["installed"]) == ("completed", ["hello-fleet"]), told
        assert any("127.0.0.1:1" in line for line in told["unread"])
        updated = await way.call(setup.update, {**on, "packages": ["hello-fleet"]})
        assert updated["status"] == "partial", updated
        # With a list that apt does not read, that nothing is named does not mean that there is nothing.
        await outside(deb, "echo 'deb nonsense' >/etc/apt/sources.list.d/zz.list")
        for tool, arguments in ((setup.upgradable, {}), (setup.search, {"query": "hello"})):
            with pytest.raises(Fault) as failed:
                await way.call(tool, {**on, **arguments})
            assert "could not be read" in failed.value.payload["details"]["said"]
    finally:
        await outside(deb, f"{GOOD['deb']}; {APT_CLEAN}; apt-get update")


# $1: the architecture. A package of one file, and a repository that holds it.
BUILD = """
set -e
for arch in amd64 i386; do
    root=/srv/twin/$arch; mkdir -p $root/DEBIAN $root/usr/share/twin
    echo $arch >$root/usr/share/twin/$arch
    printf 'Package: twin\\nVersion: 1.0\\nArchitecture: %s\\nMulti-Arch: same\\nMaintainer: a <a@b.c>\\n' \
        $arch >$root/DEBIAN/control
    echo 'Description: twin' >>$root/DEBIAN/control
    dpkg-deb -b $root /srv/twin/twin_$arch.deb
    dpkg-deb -f /srv/twin/twin_$arch.deb >>/srv/twin/Packages
    printf 'Filename: ./twin_%s.deb\\nSize: %s\\nSHA256: %s\\n\\n' $arch $(stat -c %s /srv/twin/twin_$arch.deb) \
        $(sha256sum /srv/twin/twin_$arch.deb | cut -d' ' -f1) >>/srv/twin/Packages
done
dpkg --add-architecture i386
echo 'deb [trusted=yes] file:/srv/twin ./' >/etc/apt/sources.list.d/twin.list
apt-get -q update
"""
UNBUILD = """
dpkg --purge twin:amd64 twin:i386; dpkg --remove-architecture i386
rm -rf /srv/twin /etc/apt/sources.list.d/twin.list; apt-get -q update
"""


@pytest.mark.requirement("fault.R18.architecture")
async def test_a_package_of_another_architecture_is_checked_installed_and_removed_alike(app: App, deb: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, deb, "root")

    async def files() -> list[str]:
        return (await outside(deb, "ls /usr/share/twin 2>/dev/null")).stdout.split()

    try:
        built = await outside(deb, BUILD)
        assert built.returncode == 0, built.stderr
        own = {**on, "packages": ["twin:amd64"], "update_first": False}
        assert (await way.call(setup.requirements, own))["installed"] == ["twin"]
        other = {**on, "packages": ["twin:i386"]}
        planned = (await way.call(setup.check, other))["changes"]
        assert [(each["name"], each["action"]) for each in planned] == [("twin:i386", "install")]
        installed = await way.call(setup.requirements, {**other, "update_first": False})
        assert (installed["status"], installed["installed"]) == ("completed", ["twin:i386"])
        assert [(each["name"], each["action"]) for each in installed["changes"]] == [("twin:i386", "install")]
        assert await files() == ["amd64", "i386"]
        again = await way.call(setup.requirements, {**other, "update_first": False})
        assert (again["installed"], again["changes"]) == (["twin:i386"], [])
        gone = await way.call(setup.check, {**other, "action": "remove"})
        assert [(each["name"], each["action"]) for each in gone["changes"]] == [("twin:i386", "remove")]
        removed = await way.call(setup.remove, other)
        assert (removed["status"], removed["failed"]) == ("completed", [])
        assert await files() == ["amd64"]
        assert (await way.call(setup.remove, {**on, "packages": ["twin:amd64"]}))["status"] == "completed"
        assert await files() == []
    finally:
        await outside(deb, UNBUILD)
