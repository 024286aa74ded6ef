"""The rules of real iptables on nf_tables, set by the console and read through the doors."""

import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import firewall
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault, Way
from tests.support.machine import opened

SET = """
iptables -A INPUT -p tcp -s 10.9.0.0/16 --dport 8000:9000 -m comment --comment "it's a 'test'" -j REJECT
iptables -A INPUT ! -s 10.8.0.1 -i lo -j ACCEPT
ip6tables -A INPUT -p tcp -s fd00::1 --dport 25 -j DROP
"""
CLEAR = "iptables -F; ip6tables -F"


@pytest.mark.requirement("firewall.rules")
async def test_rules_are_told_in_fields_and_as_text(way: Way, app: App, host: Host) -> None:
    on = await opened(way, app, host, "root")
    try:
        host.console(["sh", "-ec", SET])
        kind = (await way.call(firewall.backend, on))["firewall"]
        assert kind["backend"] == "iptables"
        told = await way.call(firewall.rules, {**on, "chain": "INPUT"})
        assert told["success"]
        first, second, third = told["rules"]
        assert (first["family"], first["number"], first["target"]) == ("ipv4", 1, "REJECT")
        assert (first["source"], first["ports"], first["comment"]) == ("10.9.0.0/16", "8000:9000", "it's a 'test'")
        assert (second["number"], second["source"], second["in_interface"]) == (2, "!10.8.0.1/32", "lo")
        assert (third["family"], third["source"], third["target"]) == ("ipv6", "fd00::1/128", "DROP")
        assert told["policies"]["ipv4"]["INPUT"] == "ACCEPT"
        assert "8000:9000" in told["ipv4"]["output"]
        only = await way.call(firewall.rules, {**on, "ip_version": "ipv6"})
        assert (only["ipv4"], len(only["rules"])) == (None, 1)
        saved = await way.call(firewall.raw, on)
        assert first["text"] in saved["ipv4"]
        assert third["text"] in saved["ipv6"]
    finally:
        host.console(["sh", "-c", CLEAR])


@pytest.mark.requirement("firewall.rights")
async def test_reading_needs_rights_and_says_so(app: App, host: Host) -> None:
    way = Direct(app)
    with pytest.raises(Fault) as refused:
        await way.call(firewall.rules, await opened(way, app, host, "dev"))
    assert refused.value.code == "permission_denied"
    assert refused.value.payload["hint"]
    assert (await way.call(firewall.rules, await opened(way, app, host, "nopass")))["success"]
