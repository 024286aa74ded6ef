"""A rule that accepts stands before whatever may drop the same packets, and is not added twice."""

from dataclasses import replace

import pytest

from mcp_ssh.linux.firewall.iptables import parse
from mcp_ssh.linux.firewall.model import FilterRule
from mcp_ssh.linux.firewall.placement import RulePosition, place_of

WANTED = FilterRule("ipv4", "INPUT", 0, "", target="ACCEPT", protocol="tcp", ports="80")


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        ("-P INPUT DROP", RulePosition()),
        ("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j DROP", RulePosition(2)),
        ("-A INPUT -p udp -m udp --dport 80 -j DROP", RulePosition()),
        ("-A INPUT -p tcp -m multiport --dports 1,70:90 -j REJECT", RulePosition(1)),
        ("-A INPUT -p tcp -m tcp --dport 81 -j DROP\n-A INPUT -s 10.0.0.0/8 -j DROP", RulePosition(2)),
        ("-A INPUT -j another", RulePosition(1)),
        ("-A FORWARD -j DROP", RulePosition()),
        ("-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\n-A INPUT -j DROP", RulePosition(standing=True)),
        ("-A INPUT -j DROP\n-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT", RulePosition(1)),
        ("-A INPUT -i lo -p tcp -m tcp --dport 80 -j ACCEPT\n-A INPUT -j DROP", RulePosition(2)),
        ("-A INPUT ! -p tcp -j DROP", RulePosition(1)),
        ("-A INPUT -p tcp -m tcp --dport 80 --tcp-flags SYN SYN -j ACCEPT\n-A INPUT -j DROP", RulePosition(2)),
        ("-A INPUT -p tcp -m tcp --dport 80 -m limit --limit 1/sec -j ACCEPT\n-A INPUT -j DROP", RulePosition(2)),
        ("-A INPUT -p tcp -m tcp --dport 80 -m socket -j ACCEPT\n-A INPUT -j DROP", RulePosition(2)),
        ('-A INPUT -s 10.0.0.1/32 -m comment --comment "-j ACCEPT -p tcp" -j DROP', RulePosition(1)),
    ],
)
@pytest.mark.requirement("firewall.placement")
def test_what_is_allowed_stands_where_it_counts(rules: str, place: RulePosition) -> None:
    assert place_of(WANTED, parse("ipv4", rules)) == place


@pytest.mark.parametrize(
    ("rules", "place"),
    [
        ("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j ACCEPT", RulePosition(2)),
        ("-A INPUT -i lo -j ACCEPT\n-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", RulePosition(2)),
        ("-A INPUT -p tcp -m tcp --dport 80 -j DROP\n-A INPUT -j ACCEPT", RulePosition(standing=True)),
        ("-A INPUT -p tcp -m tcp --dport 80 -j REJECT --reject-with tcp-reset\n-A INPUT -j DROP", RulePosition()),
        ("-A INPUT -j f2b-sshd", RulePosition(1)),
    ],
)
@pytest.mark.requirement("firewall.placement")
def test_what_is_blocked_is_blocked_before_anything_lets_it_in(rules: str, place: RulePosition) -> None:
    assert place_of(replace(WANTED, target="DROP"), parse("ipv4", rules)) == place
