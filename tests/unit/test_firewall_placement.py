"""A rule that accepts stands before whatever may drop the same packets, and is not added twice."""

import pytest

from mcp_ssh.backends.iptables import FilterRule, parse
from mcp_ssh.backends.placement import Place, allowed_at

WANTED = FilterRule("ipv4", "INPUT", 0, "", target="ACCEPT", protocol="tcp", ports="80")


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        ("-P INPUT DROP", Place()),
        ("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j DROP", Place(2)),
        ("-A INPUT -p udp -m udp --dport 80 -j DROP", Place()),
        ("-A INPUT -p tcp -m multiport --dports 1,70:90 -j REJECT", Place(1)),
        ("-A INPUT -p tcp -m tcp --dport 81 -j DROP\n-A INPUT -s 10.0.0.0/8 -j DROP", Place(2)),
        ("-A INPUT -j another", Place(1)),
        ("-A FORWARD -j DROP", Place()),
        ("-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\n-A INPUT -j DROP", Place(standing=True)),
        ("-A INPUT -j DROP\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT", Place(1)),
        ("-A INPUT -i lo -p tcp -m tcp --dport 80 -j ACCEPT\n-A INPUT -j DROP", Place(2)),
        ("-A INPUT ! -p tcp -j DROP", Place(1)),
    ],
)
@pytest.mark.requirement("firewall.placement")
def test_what_is_allowed_stands_where_it_counts(rules: str, place: Place) -> None:
    assert allowed_at(WANTED, parse("ipv4", rules)) == place
