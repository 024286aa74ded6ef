"""Addresses of a machine's interfaces, as `ip -o addr`, `ifconfig -a` or the files of /proc/net tell them."""

import ipaddress
from collections.abc import Iterator

from mcp_ssh.linux.lines import is_number, lines_of, number
from mcp_ssh.linux.parts import Parts

_IPV4_BYTES = 8
"""Hexadecimal digits of an IPv4 address in /proc/net/route."""


def addresses(text: str) -> list[tuple[str, str]]:
    """Interfaces and their addresses with prefix length, of `ip -o addr` or of `ifconfig -a`."""
    return list(_of_ip(text)) or list(_of_ifconfig(text))


def _of_ip(text: str) -> Iterator[tuple[str, str]]:
    """Lines such as `2: eth0@if3    inet 10.0.0.1 peer 10.0.0.2/24 scope global eth0`."""
    for line in lines_of(text):
        words = line.split()
        if len(words) > 3 and is_number(words[0].removesuffix(":")) and words[2] in {"inet", "inet6"}:
            address = words[3]
            if "/" not in address and len(words) > 5 and words[4] == "peer":
                address += "/" + words[5].partition("/")[2] if "/" in words[5] else ""
            yield words[1].partition("@")[0], address


def _of_ifconfig(text: str) -> Iterator[tuple[str, str]]:
    """Blocks that begin with the name of the interface, an alias as `eth0:1`; net-tools, old and new, and BusyBox."""
    name = ""
    for line in lines_of(text):
        words = line.replace("addr: ", "addr:").split()
        if line[:1].strip() and words:
            name = words[0].rstrip(":")
        for at, word in enumerate(words[:-1]):
            if word in {"inet", "inet6"}:
                address = words[at + 1].removeprefix("addr:")
                yield name, address if "/" in address else address + _prefix(words[at + 2 :])


def _prefix(words: list[str]) -> str:
    """The prefix length, as `/24`, that `netmask 255.255.255.0`, `Mask:255.255.255.0` or `prefixlen 64` tells."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "prefixlen" and is_number(following):
            return f"/{number(following)}"
        mask = following if word == "netmask" else word.removeprefix("Mask:") if word.startswith("Mask:") else ""
        try:
            value = int(mask, 16) if mask.startswith("0x") else int(ipaddress.IPv4Address(mask)) if mask else None
        except ValueError:
            continue
        if value is not None:
            return f"/{value.bit_count()}"
    return ""


# ---- /proc/net ---------------------------------------------------------------------------------------------------


def proc_addresses(parts: Parts) -> list[tuple[str, str]]:
    """What fib_trie, route and if_inet6 of /proc/net tell. An IPv4 address is at the interface that its route names."""
    routes = list(_routes(parts.get("routes", "")))
    found: list[tuple[str, str]] = []
    for address in _local_addresses(parts.get("addresses4", "")):
        if address.is_loopback:
            found.append(("lo", f"{address}/8"))
            continue
        # Of several networks the smallest is the address's own.
        fitting = [(network.prefixlen, name) for name, network in routes if address in network]
        if fitting:
            length, name = max(fitting)
            found.append((name, f"{address}/{length}"))
    return found + list(_of_inet6(parts.get("addresses6", "")))


ROUTES = 256
LOCAL_ADDRESSES = 1024


def _routes(text: str) -> Iterator[tuple[str, ipaddress.IPv4Network]]:
    """The networks that an interface leads to directly: lines of name, destination, gateway, …, mask, in host order."""
    for count, line in enumerate(lines_of(text)):
        words = line.split()
        if count > ROUTES:
            return
        if len(words) > 7 and words[2] == "0" * _IPV4_BYTES and all(len(words[at]) == _IPV4_BYTES for at in (1, 7)):
            try:
                destination, mask = (
                    ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(words[at]), "little")) for at in (1, 7)
                )
                network = ipaddress.IPv4Network(f"{destination}/{mask}")
            except ValueError:
                continue
            if network.prefixlen:
                yield words[0], network


def _local_addresses(text: str) -> list[ipaddress.IPv4Address]:
    """The leaves of fib_trie of which the next line says that they are the machine's own."""
    found: dict[ipaddress.IPv4Address, None] = {}
    leaf = ""
    for line in lines_of(text):
        words = line.split()
        if words[:1] == ["|--"] and len(words) > 1:
            leaf = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"] and leaf:
            try:
                found[ipaddress.IPv4Address(leaf)] = None
            except ValueError:
                continue
        if len(found) >= LOCAL_ADDRESSES:
            break
    return list(found)


def _of_inet6(text: str) -> Iterator[tuple[str, str]]:
    """Lines of an address as 32 digits, the interface's number, prefix length, scope, flags and name."""
    for line in lines_of(text):
        words = line.split()
        if len(words) == 6:
            try:
                address, length = ipaddress.IPv6Address(int(words[0][:32], 16)), int(words[2][:2], 16)
            except ValueError:
                continue
            yield words[5], f"{address}/{length}"
