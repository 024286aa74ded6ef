"""An address that is let in really gets in, on real iptables, and the console says where its rule stands."""

import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import firewall
from tests.doors import Direct, Fault, Way
from tests.fleet.hosts import Host
from tests.hosts.test_system_reading import opened


@pytest.mark.requirement("firewall.placement")
async def test_an_address_is_let_in_before_what_drops_it_and_once(way: Way, app: App, host: Host) -> None:
    on = {**await opened(way, app, host, "root"), "ip": "10.9.8.7"}
    try:
        host.console(["iptables", "-A", "INPUT", "-s", "10.9.0.0/16", "-j", "DROP"])
        first = await way.call(firewall.allow_ip, on)
        assert (first["success"], first["changed"], first["ipv6"]) == (True, True, None)
        assert not (await way.call(firewall.allow_ip, on))["changed"]
        lines = host.console(["iptables", "-S", "INPUT"]).stdout.splitlines()
        assert lines[1:] == ["-A INPUT -s 10.9.8.7/32 -j ACCEPT", "-A INPUT -s 10.9.0.0/16 -j DROP"]
        for wrong in ("10.9.8.7; id", "-h", "10.9.8", "$(id)"):
            with pytest.raises(Fault):
                await way.call(firewall.allow_ip, {**on, "ip": wrong})
    finally:
        host.console(["iptables", "-F"])


@pytest.mark.requirement("firewall.rights")
async def test_a_dry_run_and_an_account_without_rights_change_nothing(app: App, host: Host) -> None:
    way = Direct(app)
    planned = await way.call(
        firewall.allow_ip, {**await opened(way, app, host, "root"), "ip": "fd00::1", "dry_run": True}
    )
    assert planned["commands"] == ["ip6tables -w 5 -A INPUT -s fd00::1/128 -j ACCEPT"]
    with pytest.raises(Fault) as refused:
        await way.call(firewall.allow_ip, {**await opened(way, app, host, "dev"), "ip": "fd00::1"})
    assert refused.value.code == "permission_denied"
    assert host.console(["ip6tables", "-S", "INPUT"]).stdout.strip() == "-P INPUT ACCEPT"
