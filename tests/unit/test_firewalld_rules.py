"""What firewalld lists, told apart in the order in which it takes effect, and where a rule is put among it."""

from dataclasses import replace

import pytest

from mcp_ssh.errors import Unsupported
from mcp_ssh.linux.firewall.firewalld import Firewalld
from mcp_ssh.linux.firewall.firewalld_rules import parse
from mcp_ssh.linux.firewall.model import FilterRule

HEAD = """public
home
  target: default
  services: samba
  rich rules:\x20
\trule priority="-9" drop
public (active)
  target: %%REJECT%%
  services: ssh
  ports: 81/tcp 8000-9000/udp
  protocols: gre
  forward: yes
  source-ports: 53/udp
  rich rules:\x20
"""
RICH = """\trule priority="-4" family="ipv4" source NOT address="10.9.0.1" port port="2-3" protocol="tcp" log
\trule family="ipv4" protocol value="icmp" accept
\trule port port="25" protocol="tcp" reject type="tcp-reset"
\trule family="ipv6" source address="fd00::/8" drop
\trule priority="5" family="ipv4" service name="dns" accept limit value="1/m"
\trule priority="32767" family="ipv4" drop
trusted
  target: ACCEPT
"""
TRUSTED = """work (active)
  target: ACCEPT
  interfaces: eth1 eth2
  sources: 10.1.0.0/16
  ports: 81/tcp
"""
DIRECT = """=
ipv4 filter OUTPUT 3 -p tcp --dport 9 -m comment --comment 'a *' -j DROP
ipv4 filter OUTPUT -2 -d 10.0.0.1 -p tcp --dport http -j ACCEPT
ipv6 filter FORWARD 32767 -j DROP
ipv4 nat OUTPUT 0 -j ACCEPT
"""


@pytest.mark.requirement("firewall.rules")
def test_rules_are_told_in_the_order_in_which_they_decide() -> None:
    table = parse("ipv4", HEAD + RICH + DIRECT)
    assert table.policies == {"INPUT": "DROP", "OUTPUT": "ACCEPT", "FORWARD": "REJECT"}
    told = [(each.number, each.target, each.protocol, each.source, each.ports, each.more) for each in table.rules]
    assert told == [
        (1, "ACCEPT", "tcp", None, None, True),
        (2, "DROP", "tcp", None, "9", False),
        (1, "LOG", "tcp", "!10.9.0.1/32", "2:3", False),
        (2, "REJECT", "tcp", None, "25", False),
        (3, "ACCEPT", "all", None, None, True),
        (4, "ACCEPT", "tcp", None, "81", False),
        (5, "ACCEPT", "udp", None, "8000:9000", False),
        (6, "ACCEPT", "gre", None, None, False),
        (7, "ACCEPT", "udp", None, None, False),
        (8, "ACCEPT", "icmp", None, None, False),
        (9, "ACCEPT", "all", None, None, True),
    ]
    assert (table.rules[0].destination, table.rules[1].comment) == ("10.0.0.1/32", "a *")
    other = parse("ipv6", HEAD + RICH + DIRECT)
    assert other.policies == {"INPUT": "REJECT", "OUTPUT": "ACCEPT", "FORWARD": "DROP"}
    assert [each.source for each in other.rules if each.target == "DROP"] == ["fd00::/8"]
    assert parse("ipv4", "FirewallD is not running").rules == ()


WANTED = FilterRule("ipv4", "INPUT", 0, "", target="DROP", protocol="tcp", ports="81")


@pytest.mark.requirement("firewall.placement")
@pytest.mark.parametrize(
    ("rich", "wanted", "words"),
    [
        ("", WANTED, ['rule priority="-1" family="ipv4" port port="81" protocol="tcp" drop']),
        ('\trule priority="-7" family="ipv4" source address="10.0.0.0/8" accept\n', WANTED, ['priority="-8"']),
        ('\trule priority="7" drop\n', replace(WANTED, target="ACCEPT", ports="82"), ['priority="-1"', "accept"]),
        ("", replace(WANTED, source="10.0.0.0/8", protocol="all", ports=None), ['source address="10.0.0.0/8" drop']),
        ("", replace(WANTED, chain="OUTPUT"), ["--direct", "ipv4 filter OUTPUT -1 -p tcp --dport 81 -j DROP"]),
    ],
)
def test_a_rule_goes_before_what_would_decide_otherwise(rich: str, wanted: FilterRule, words: list[str]) -> None:
    (added,) = Firewalld().add(wanted, parse("ipv4", HEAD + rich + "=\n"))
    line = " ".join(added.argv)
    assert [each for each in words if each not in line] == []


@pytest.mark.requirement("firewall.placement")
def test_a_rule_goes_into_each_zone_in_use_before_what_would_decide_otherwise_there() -> None:
    rich = '\trule priority="-7" family="ipv4" source address="10.0.0.0/8" accept\n'
    table = parse("ipv4", HEAD + rich + TRUSTED + "=\n")
    assert [(zone.name, zone.default, zone.policy) for zone in table.zones] == [
        ("public", True, "REJECT"),
        ("work", False, "ACCEPT"),
    ]
    assert (table.zones[1].interfaces, table.zones[1].sources) == (("eth1", "eth2"), ("10.1.0.0/16",))
    assert [(each.number, each.zone) for each in table.rules if each.ports == "81"] == [(3, "public"), (7, "work")]
    places = [(each.argv[1], each.argv[2].split()[1]) for each in Firewalld().add(WANTED, table)]
    assert places == [("--zone=public", 'priority="-8"'), ("--zone=work", 'priority="-1"')]
    there = TRUSTED + '  rich rules:\n\trule priority="-1" family="ipv4" port port="81" protocol="tcp" drop\n'
    (missing,) = Firewalld().add(WANTED, parse("ipv4", HEAD + rich + there + "=\n"))
    assert missing.argv[1] == "--zone=public"
    # A direct rule is for all zones, so what goes before it is added once.
    before = parse("ipv4", HEAD + TRUSTED + "=\nipv4 filter INPUT 0 -j ACCEPT\n")
    (direct,) = Firewalld().add(WANTED, before)
    assert direct.argv[1] == "--direct"


@pytest.mark.requirement("firewall.zones")
def test_a_policy_is_set_in_those_zones_in_use_that_have_another() -> None:
    table = parse("ipv4", HEAD + TRUSTED + "=\n")
    for target, zones in (("DROP", ["public", "work"]), ("ACCEPT", ["public"])):
        assert [each.argv[-1] for each in Firewalld().policy("ipv4", "INPUT", target, table)] == zones


@pytest.mark.requirement("firewall.placement")
def test_what_would_have_no_effect_is_refused() -> None:
    accepted = replace(WANTED, target="ACCEPT")
    table = parse("ipv4", HEAD + "=\nipv4 filter INPUT 0 -p tcp -j DROP\n")
    for wanted in (accepted, replace(accepted, chain="FORWARD"), replace(WANTED, comment="a")):
        with pytest.raises(Unsupported):
            Firewalld().add(wanted, table if wanted.target == "ACCEPT" else parse("ipv4", HEAD + "=\n"))


POLICIES = """allow-host-ipv6 (active)
  priority: -15000
  target: CONTINUE
  ingress-zones: ANY
  egress-zones: HOST
  rich rules:\x20
\trule family="ipv6" icmp-type name="redirect" accept
behind (active)
  priority: 1
  target: DROP
  ingress-zones: ANY
  egress-zones: HOST
guard (active)
  priority: -1
  target: DROP
  ingress-zones: ANY
  egress-zones: HOST
  services: ssh
  rich rules:\x20
\trule priority="32767" family="ipv4" accept
early (default, active)
  priority: -2
  target: CONTINUE
  ingress-zones: public
  egress-zones: HOST
  ports: 81/tcp
forwards (active)
  priority: -1
  target: DROP
  ingress-zones: ANY
  egress-zones: ANY
idle
  priority: -1
  target: DROP
  ingress-zones: home
  egress-zones: HOST
"""


@pytest.mark.requirement("firewall.policy_objects")
def test_policy_objects_that_decide_before_all_zones_are_told_in_order() -> None:
    table = parse("ipv4", HEAD + DIRECT, POLICIES)
    assert [(each.text, each.target, each.ports) for each in table.above] == [
        ("policy early (priority -2): port 81/tcp", "ACCEPT", "81"),
        ("policy guard (priority -1): service ssh", "ACCEPT", None),
        ('policy guard (priority -1): rule priority="32767" family="ipv4" accept', "ACCEPT", None),
        ("policy guard (priority -1): target DROP", "DROP", None),
    ]
    assert table.rules == parse("ipv4", HEAD + DIRECT).rules
    assert [each.target for each in parse("ipv6", HEAD + DIRECT, POLICIES).above] == ["ACCEPT", "ACCEPT", "DROP"]
