"""Addresses with their prefix, from whatever the machine has to tell them."""

import pytest

from mcp_ssh.linux.system.addresses import addresses
from mcp_ssh.linux.system.facts import parse_network

IP = """1: lo    inet 127.0.0.1/8 scope host lo
2: v0@if3    inet 10.9.0.1 peer 10.9.0.2/24 scope global v0
2: v0@if3    inet6 fe80::1/64 scope link
"""
IFCONFIG = """eth0: flags=4163<UP>  mtu 1500
        inet 10.77.0.15  netmask 255.255.255.0  broadcast 10.77.0.255
        inet6 fd77::f  prefixlen 64  scopeid 0x0<global>
eth0:1: flags=4163<UP>  mtu 1500
        inet 10.5.5.5  netmask 255.0.0.0  broadcast 10.255.255.255
"""
TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
Local:
     +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
"""
ROUTES = """Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
"""
INET6 = """fe8000000000000000fc00fffe000001 04 40 20 80     eth0
00000000000000000000000000000001 01 80 10 80       lo
"""
INTERFACES = "eth0 02:fd up 1500 1 2\nlo 00:00 unknown 65536 3 3\n"


@pytest.mark.requirement("fault.R14")
def test_an_address_with_a_peer_has_its_prefix() -> None:
    assert addresses(IP) == [("lo", "127.0.0.1/8"), ("v0", "10.9.0.1/24"), ("v0", "fe80::1/64")]


@pytest.mark.requirement("fault.R14")
def test_an_alias_of_ifconfig_is_among_the_addresses_of_its_interface() -> None:
    network = parse_network({"interfaces": INTERFACES, "addresses": IFCONFIG})
    assert network.interfaces[0].addresses == ["10.77.0.15/24", "fd77::f/64", "10.5.5.5/8"]
    assert network.note is None


@pytest.mark.requirement("fault.R14")
def test_without_ip_and_ifconfig_the_kernels_own_tables_tell_the_addresses_and_a_note_says_so() -> None:
    network = parse_network(
        {"interfaces": INTERFACES, "addresses": "", "routes": ROUTES, "addresses4": TRIE, "addresses6": INET6}
    )
    found = {each.name: each.addresses for each in network.interfaces}
    assert found == {"eth0": ["192.0.2.2/24", "fe80::fc:ff:fe00:1/64"], "lo": ["127.0.0.1/8", "::1/128"]}
    assert network.note
    assert "neither ip nor ifconfig" in network.note
