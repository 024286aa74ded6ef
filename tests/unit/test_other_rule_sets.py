"""Rule sets of other programs: which of them can drop what a rule accepts."""

from dataclasses import replace

import pytest

from mcp_ssh.linux.firewall.model import Family, FilterRule
from mcp_ssh.linux.firewall.nft_rules import LIMIT, parse_rule
from mcp_ssh.linux.firewall.other_rule_sets import explain_overruling, find_other_rule_sets

OPEN = FilterRule("ipv4", "INPUT", 0, "", target="ACCEPT", protocol="tcp", ports="9999")
NFT = """table inet filter {
	set banned {
		type ipv4_addr
		elements = { 192.0.2.1 }
	}

	chain input {
		type filter hook input priority filter; policy %s;
		ct state established,related accept
		iif "lo" accept
		tcp dport { 22, 443 } accept
		%s
	}

	chain extra {
		udp dport 5000-6000 drop
	}
}
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
		tcp dport 9999 drop
	}
}
"""
LEGACY = "*filter\n:INPUT %s [0:0]\n:banned - [0:0]\n-A INPUT %s\n-A banned -s 192.0.2.1/32 -j DROP\nCOMMIT\n"


def explained(rule: FilterRule = OPEN, own: str = "iptables", family: Family = "ipv4", **parts: str) -> list[str]:
    found = find_other_rule_sets({"variant": "iptables v1.8.9 (nf_tables)", **parts}, family, own)
    return explain_overruling(found, rule)


@pytest.mark.requirement("fault.R6")
@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ("accept", "tcp dport 9999 counter packets 0 bytes 0 reject with icmp port-unreachable"),
        ("accept", "tcp dport 9000-10000 drop"),
        ("accept", 'log prefix "never accept this " drop'),
        ("accept", "ip saddr @banned drop"),
        ("accept", "goto banned"),
        ("drop", 'tcp dport 9998 accept comment "9999"'),
    ],
)
def test_a_table_of_nft_that_can_drop_the_packets_is_named(policy: str, line: str) -> None:
    text = NFT % (policy, line) + "table inet filter {\n\tchain banned {\n\t\tdrop\n\t}\n}\n"
    (said,) = explained(nft=text)
    assert said.startswith("nft, table inet filter, chain input: ")


@pytest.mark.requirement("fault.R6")
@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ("accept", "tcp dport 9998 drop"),
        ("accept", "tcp dport { 80, 100-9998 } reject"),
        ("accept", "jump harmless"),
        ("drop", "tcp dport 9999 accept"),
        ("accept", 'iifname "eth0" accept'),
    ],
)
def test_a_table_of_nft_that_lets_the_packets_pass_is_not_named(policy: str, line: str) -> None:
    assert explained(nft=NFT % (policy, line)) == []


@pytest.mark.requirement("fault.R6")
def test_the_rules_that_iptables_and_firewalld_keep_in_nft_are_their_own() -> None:
    text = (
        "table inet firewalld {\n\tchain filter_INPUT {\n\t\ttype filter hook input priority 10; policy drop;\n\t}\n}\n"
    )
    assert explained(nft=text, own="firewalld") == []
    assert explained(nft=text) != []
    own = NFT % ("accept", "accept")
    assert explained(nft=own) == []
    assert explained(nft=own, variant="iptables v1.8.9 (legacy)") == [
        "nft, table ip filter, chain INPUT: tcp dport 9999 drop"
    ]


@pytest.mark.requirement("fault.R6")
@pytest.mark.parametrize(
    ("policy", "rule", "named"),
    [
        ("ACCEPT", "-p tcp -m tcp --dport 9999 -j DROP", True),
        ("ACCEPT", "-p tcp -m tcp --dport 22 -j DROP", False),
        ("ACCEPT", "-j banned", True),
        ("DROP", "-p tcp -m tcp --dport 22 -j ACCEPT", True),
        ("DROP", "-p tcp -m tcp --dport 9999 -j ACCEPT", False),
        ("ACCEPT", "-j LOG", False),
    ],
)
def test_the_other_variant_of_iptables_is_named_where_it_can_drop(policy: str, rule: str, named: bool) -> None:
    assert bool(explained(iptables_legacy=LEGACY % (policy, rule))) is named
    assert not explained(replace(OPEN, target="DROP"), iptables_legacy=LEGACY % (policy, rule))
    assert not explained(replace(OPEN, family="ipv6"), family="ipv6", iptables_legacy=LEGACY % (policy, rule))


def test_empty_tables_are_not_named() -> None:
    assert explained(iptables_legacy="*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n", nft="") == []
    assert find_other_rule_sets({}, "ipv4", "iptables") == []


def test_a_rule_of_nft_is_read_into_fields() -> None:
    rule = parse_rule('iifname "eth0" ip saddr 10.0.0.0/8 tcp dport { 80, 8000-8010 } drop', "ipv4", "input", 3)
    assert (rule.in_interface, rule.source, rule.protocol, rule.ports, rule.target, rule.more) == (
        "eth0", "10.0.0.0/8", "tcp", "80,8000:8010", "DROP", False,
    )  # fmt: skip
    assert parse_rule("ip saddr 10.0.0.0/8 drop", "ipv6", "input", 1).more
    assert parse_rule("tcp dport @ports drop", "ipv4", "input", 1).more


def test_rules_that_are_too_many_to_be_read_may_drop_anything() -> None:
    text = NFT % ("accept", "tcp dport 22 drop\n\t\t" * 20_000)
    assert explained(nft=text[:LIMIT]) == ["nft, table any, chain INPUT: there are more rules than are read"]
