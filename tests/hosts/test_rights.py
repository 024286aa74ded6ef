"""Who may change a machine: accounts with sudo by password, with sudo without one, and with no right at all."""

import functools
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.tool import Risk
from mcp_ssh.tools import REGISTRY
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault
from tests.support.machine import opened
from tests.support.matrix import ROOMS


@dataclass(frozen=True)
class Change:
    """A call for which an ordinary account has no right, and a look, as root, at what it changes."""

    tool: str
    given: dict[str, Any]
    look: str
    before: str = "true"


FILE = "cd /srv; rm -rf rights; mkdir -p rights/gone && chmod 700 rights && echo x >rights/file"
PACKED = f"{FILE}; tar -cf rights/x.tar rights/file"
LISTED = "ls /srv/rights"
HAS = {"deb": "dpkg -l hello-fleet 2>/dev/null | grep ^ii", "alpine": "apk info -e hello-fleet"}
INSTALL = {"deb": "apt-get -q update; apt-get -q -y install hello-fleet", "alpine": "apk add hello-fleet"}
REMOVE = {"deb": "dpkg --purge hello-fleet", "alpine": "apk del hello-fleet"}
INDEX = {
    "deb": "ls -i --full-time /var/lib/apt/lists 2>/dev/null",
    "alpine": "ls -i --full-time /etc/apk/cache/ /var/cache/apk/ /lib/apk/db/ 2>/dev/null",
}
PINGER = {"deb": "systemctl {} pinger", "alpine": "rc-service pinger {}"}
PACKAGE = {"packages": ["hello-fleet"]}
RULE = "iptables -F; iptables -A INPUT -s 192.0.2.9 -j DROP"
KEPT = "ls /etc/iptables/rules.v4 /var/lib/iptables/rules-save 2>/dev/null"
SAVED = {
    "deb": f"{RULE}; mkdir -p /etc/iptables; iptables-save >/etc/iptables/rules.v4",
    "alpine": f"{RULE}; mkdir -p /var/lib/iptables /etc/iptables; "
    "iptables-save | tee /etc/iptables/rules.v4 >/var/lib/iptables/rules-save",
}
CRONTAB = "crontab -l -u root 2>/dev/null | grep -v '^#'"


def changes(host: str) -> list[Change]:
    return [
        Change("system_chmod", {"path": "/srv/rights/file", "mode": "604"}, "stat -c %a /srv/rights/file", FILE),
        Change("system_chown", {"path": "/srv/rights/file", "owner": "dev"}, "stat -c %U /srv/rights/file", FILE),
        Change("system_rmrf", {"path": "/srv/rights/gone"}, "ls /srv/rights", FILE),
        Change("system_archive", {"source": "/srv/rights/file", "destination": "/srv/rights/a.tar"}, LISTED, FILE),
        Change("system_extract", {"archive": "/srv/rights/x.tar", "destination": "/srv/rights/out"}, LISTED, PACKED),
        Change("system_cron_add", {"schedule": "@yearly", "command": "true", "user": "root"}, CRONTAB, "crontab -r"),
        Change(
            "system_cron_remove", {"entry": "@yearly true", "user": "root"}, CRONTAB, "echo '@yearly true' | crontab -"
        ),
        Change(
            "system_service",
            {"service": "pinger", "action": "start"},
            PINGER[host].format("status") + " >/dev/null; echo $?",
            PINGER[host].format("stop"),
        ),
        Change(
            "system_kill",
            {"pid": None},
            "kill -0 $(cat /run/rights.pid); echo $?",
            "sleep 600 >/dev/null 2>&1 & echo $! >/run/rights.pid",
        ),
        Change("setup_requirements", PACKAGE, HAS[host], REMOVE[host]),
        Change("setup_remove", PACKAGE, HAS[host], INSTALL[host]),
        Change("firewall_allow_ip", {"ip": "192.0.2.9"}, "iptables -S", "iptables -F"),
        Change("firewall_allow_port", {"port": 7001}, "iptables -S", "iptables -F"),
        Change("firewall_block_ip", {"ip": "192.0.2.9"}, "iptables -S", "iptables -F"),
        Change("firewall_block_port", {"port": 7001}, "iptables -S", "iptables -F"),
        Change("firewall_rule_add", {"port": 7001}, "iptables -S", "iptables -F"),
        Change("firewall_rule_add_range", {"port_start": 7001, "port_end": 7002}, "iptables -S", "iptables -F"),
        Change("firewall_rule_delete", {"chain": "INPUT", "rule_num": 1, "ip_version": "ipv4"}, "iptables -S", RULE),
        Change("firewall_flush", {"chain": "INPUT"}, "iptables -S", RULE),
        Change("firewall_policy", {"chain": "FORWARD", "target": "DROP"}, "iptables -S", "iptables -P FORWARD ACCEPT"),
        Change("firewall_save", {}, KEPT, f"rm -f $({KEPT})"),
        Change("firewall_restore", {}, "iptables -S", f"{SAVED[host]}; iptables -F"),
    ]


OWN_RIGHTS_DO = {
    "system_env_set": "it sets a variable of the account itself",
    "tunnel_local": "it listens where this server runs",
    "tunnel_remote": "sshd listens for any account",
    "tunnel_close": "it ends what the session has",
    "tunnel_close_all": "it ends what the session has",
    "setup_update": "with what setup_requirements shows: it goes the same way",
}


def test_every_tool_that_changes_a_machine_is_in_the_table() -> None:
    rooms = {*ROOMS} - {"shell"}  # where the account does as itself what it may
    changing = {each.name for each in REGISTRY.values() if each.room in rooms and each.risk is not Risk.READ}
    assert changing == {change.tool for change in changes("deb")} | OWN_RIGHTS_DO.keys()


async def root(host: Host, script: str) -> str:
    return (await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-c", script]))).stdout


@pytest.mark.requirement("families.rights")
async def test_what_needs_roots_rights_is_done_with_them_and_refused_without(app: App, host: Host) -> None:
    way = Direct(app)
    sessions = {user: await opened(way, app, host, user) for user in ("dev", "nopass", "ops")}
    become = {"become": {"password": host.password}}
    for change in changes(host.name):
        await root(host, change.before)
        tool = REGISTRY[change.tool]
        given = {**change.given}
        if "pid" in given:
            given["pid"] = (await root(host, "cat /run/rights.pid")).strip()
        before = await root(host, change.look)
        with pytest.raises(Fault) as refused:
            await way.call(tool, {**sessions["dev"], **given})
        assert refused.value.code == "permission_denied", (change.tool, refused.value)
        assert "become" in refused.value.payload["hint"], (change.tool, refused.value.payload)
        assert await root(host, change.look) == before, change.tool
        for user, more in (("nopass", {"become": {}}), ("ops", become)):
            await root(host, change.before)
            if "pid" in given:
                given["pid"] = (await root(host, "cat /run/rights.pid")).strip()
            before = await root(host, change.look)
            await way.call(tool, {**sessions[user], **given, **more})
            with anyio.fail_after(10):  # a signal is sent, not waited for
                while await root(host, change.look) == before:
                    await anyio.sleep(0.05)
    await root(host, f"rm -rf /srv/rights; crontab -r; {REMOVE[host.name]}; {PINGER[host.name].format('stop')}")
    await root(host, f"iptables -F; iptables -P FORWARD ACCEPT; rm -f $({KEPT})")
