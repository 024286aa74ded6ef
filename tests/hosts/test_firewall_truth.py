"""What the firewall tools say of a change: where other rules overrule it, where there is no IPv6, what is kept."""

from typing import Any

import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import firewall
from tests.fleet.hosts import Host
from tests.support.doors import Direct
from tests.support.firewall import OPEN, console, reaches
from tests.support.machine import opened, outside

NO_SUCH_FAMILY = 'echo "ip6tables: Address family not supported by protocol" >&2; exit 1'
NFT = """cat <<'END'
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		tcp dport { 22, 443 } accept
	}
}
END"""


@pytest.mark.requirement("fault.R6")
async def test_what_the_other_variant_of_iptables_drops_is_said(app: App, host: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, host, "root")
    drop = "INPUT -p tcp --dport 9999 -j DROP"
    await outside(host, f"iptables-legacy -A {drop}")
    try:
        opening = await way.call(firewall.allow_port, {**on, "port": 9999})
        assert opening["success"]
        assert "iptables-legacy" in opening["warning"]
        assert not await reaches(host, 9999, expected=False)
        assert "warning" not in await way.call(firewall.allow_port, {**on, "port": 9998})
        calls: list[tuple[Any, dict[str, object]]] = [
            (firewall.allow_ip, {"ip": "203.0.113.7"}),
            (firewall.rule_add, {"port": 9999}),
            (firewall.rule_add_range, {"port_start": 9990, "port_end": 10010}),
            (firewall.policy, {"chain": "INPUT", "target": "ACCEPT"}),
            (firewall.flush, {"chain": "INPUT"}),
        ]
        for tool, arguments in calls:
            told = await way.call(tool, {**on, **arguments})
            assert "iptables-legacy" in told["warning"], (tool.name, told)
        (other,) = (await way.call(firewall.rules, on))["other_rules"]
        assert (other["program"], other["chain"], other["policy"]) == ("iptables-legacy", "INPUT", "ACCEPT")
        assert other["rules"] == [f"-A {drop}".replace("tcp --dport", "tcp -m tcp --dport")]
    finally:
        await outside(host, f"iptables-legacy -D {drop}")
        await console(host, OPEN)
    # The tables are still there, and empty: iptables warns of them, and they drop nothing.
    told = await way.call(firewall.allow_port, {**on, "port": 9999})
    assert "warning" not in told
    assert "other_rules" not in await way.call(firewall.rules, on)
    assert await reaches(host, 9999)
    await console(host, OPEN)


@pytest.mark.requirement("fault.R6")
async def test_what_a_table_of_nft_drops_is_said(app: App, deb: Host, wrapped: Any) -> None:
    way = Direct(app)
    on = await opened(way, app, deb, "root")
    await wrapped("nft", NFT)
    told = await way.call(firewall.allow_port, {**on, "port": 9999, "dry_run": True})
    assert "table inet filter, chain input: policy DROP" in told["warning"]
    others = (await way.call(firewall.rules, {**on, "chain": "INPUT"}))["other_rules"]
    assert [(each["family"], each["policy"]) for each in others] == [("ipv4", "DROP"), ("ipv6", "DROP")]
    assert "other_rules" not in await way.call(firewall.rules, {**on, "chain": "OUTPUT"})


@pytest.mark.requirement("fault.R12")
async def test_a_machine_without_ipv6_gets_its_ipv4_rule_with_a_note(app: App, deb: Host, wrapped: Any) -> None:
    way = Direct(app)
    on = await opened(way, app, deb, "root")
    for program in ("ip6tables", "ip6tables-save"):
        await wrapped(program, NO_SUCH_FAMILY)
    try:
        told = await way.call(firewall.allow_port, {**on, "port": 7777})
        assert (told["success"], told["changed"], told["error"], told["ipv6"]) == (True, True, None, None)
        assert "no IPv6" in told["note"]
        assert "--dport 7777" in await outside(deb, "iptables -S INPUT")
        listed = await way.call(firewall.rules, on)
        assert (listed["success"], listed["ipv6"], "no IPv6" in listed["note"]) == (True, None, True)
        alone = await way.call(firewall.allow_port, {**on, "port": 7777, "ip_version": "ipv6"})
        assert (alone["success"], alone["changed"]) == (False, False)
        saved = await way.call(firewall.save, on)
        assert (saved["success"], saved["files"]) == (True, ["/etc/iptables/rules.v4"])
        await wrapped("ip6tables", "echo broken >&2; exit 1")
        assert not (await way.call(firewall.allow_port, {**on, "port": 7778}))["success"]
    finally:
        await console(deb, OPEN)
        await console(
            deb, "systemctl disable mcp-ssh-firewall; rm -rf /etc/iptables /etc/systemd/system/mcp-ssh-firewall.*"
        )


@pytest.mark.requirement("fault.N12")
async def test_rules_are_saved_only_where_something_puts_them_back_at_boot(app: App, sysv: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, sysv, "root")
    links = "ls /etc/rc2.d/S??mcp-ssh-firewall"
    try:
        saved = await way.call(firewall.save, on)
        assert (saved["success"], saved["error"]) == (True, None)
        assert "Failed" not in saved["output"]
        assert saved["files"] == ["/etc/iptables/rules.v4", "/etc/iptables/rules.v6"]
        assert await outside(sysv, links)
        await outside(sysv, "update-rc.d mcp-ssh-firewall remove; mv /usr/sbin/update-rc.d /usr/sbin/update-rc.real")
        await outside(sysv, "printf '#!/bin/sh\\nexit 0\\n' >/usr/sbin/update-rc.d; chmod 755 /usr/sbin/update-rc.d")
        unkept = await way.call(firewall.save, on)
        assert (unkept["success"], "does not start with the machine" in unkept["error"]) == (False, True)
    finally:
        await console(sysv, "mv /usr/sbin/update-rc.real /usr/sbin/update-rc.d")
        await console(sysv, "rm -rf /etc/iptables /etc/init.d/mcp-ssh-firewall /etc/rc?.d/*mcp-ssh-firewall")


@pytest.mark.requirement("fault.C2")
async def test_old_rules_count_as_back_only_where_the_machine_could_put_them_back(
    app: App, deb: Host, wrapped: Any
) -> None:
    way = Direct(app)
    on = {**await opened(way, app, deb, "root"), "port": 22, "ip_version": "ipv4", "rollback_s": 3}
    try:
        back = await way.call(firewall.block_port, on)
        assert (back["success"], back["rolled_back"], back["changed"]) == (False, True, False)
        await wrapped("iptables-restore", '/usr/sbin/iptables-restore "$@"; exit 1')
        unclear = await way.call(firewall.block_port, on)
        assert (unclear["success"], unclear["rolled_back"], unclear["changed"]) == (False, False, True)
        assert "could not put all of its old rules back" in unclear["error"]
    finally:
        await console(deb, OPEN)
