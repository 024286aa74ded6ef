"""The hosts' networks: bridges in the tests' own network namespace, a cable from one of them to every host.

    tests, 10.77.0.1 ── br0 ──┬── v-deb ═══ eth0 of deb, 10.77.0.11
                              ├── v-alpine ═══ eth0 of alpine, 10.77.0.15
                              ├── v-auth ═══ eth0 of auth, 10.77.0.17
                              └── v-bastion ═══ eth0 of bastion, 10.77.0.18
                        br1 ──┬── w-bastion ═══ eth1 of bastion, 10.78.0.1
                              └── v-inner ═══ eth0 of inner, 10.78.0.2

The tests have no address on br1: they reach `inner` only through a login on `bastion`. Nothing leads out of it: no
packet of a test can reach a real network, and all of it is gone with the namespace.
"""

import ctypes
import os
import socket
import subprocess
import threading
from pathlib import Path

from tests.fleet.namespaces import CLONE_NEWNET, FleetError
from tests.fleet.table import GATEWAY_NUMBER, HIDDEN, HOSTS, OPEN, HostRow, Network

PREFIXES = ("v-", "w-", "br-", "da-", "db-")  # of a cable, and of what is put into it (see link.py)
BRIDGES = (OPEN.bridge, HIDDEN.bridge)
NETNS_DIR = Path("/run/netns")  # where `ip netns` keeps its namespaces


def command(*argv: str, text: str | None = None) -> None:
    """Run one command that must succeed."""
    ended = subprocess.run(argv, input=text, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if ended.returncode:
        raise FleetError(f"{' '.join(argv)}: exit {ended.returncode}\n{text or ''}{ended.stdout}")


def ip(*lines: str, netns: str | None = None) -> None:
    """Run `ip` commands in one go, in a host's namespace or in ours."""
    command("ip", *(["-n", netns] if netns else []), "-batch", "-", text="\n".join(lines) + "\n")


def setting(path: str, value: str) -> None:
    Path("/proc/sys/net", path).write_text(value)


def remove_all() -> None:
    """Remove every interface of a fleet. The namespace may live on, and have another one later."""
    ours = [name for _, name in socket.if_nameindex() if name in BRIDGES or name.startswith(PREFIXES)]
    argv = ["ip", "-force", "-batch", "-"]  # -force: one that is gone already, with the host at its other end, is fine
    subprocess.run(
        argv, input="".join(f"link del {name}\n" for name in ours).encode(), capture_output=True, check=False
    )


def create_bridges() -> None:
    """The switches that all hosts hang on; the tests themselves have an address on one of them."""
    remove_all()  # a keeper that was killed could not
    for scope in ("all", "default"):
        setting(f"ipv6/conf/{scope}/disable_ipv6", "0")  # a machine without IPv6 hands that down to new namespaces
    ip(
        "link set lo up",
        f"link add {OPEN.bridge} address {OPEN.mac(GATEWAY_NUMBER)} type bridge mcast_snooping 0",
        f"addr add {OPEN.ip(GATEWAY_NUMBER)}/24 dev {OPEN.bridge}",
        f"addr add {OPEN.ip6(GATEWAY_NUMBER)}/64 dev {OPEN.bridge} nodad",
        f"link set {OPEN.bridge} up",
    )
    create_silent_bridge(HIDDEN.bridge)
    ip(f"link set {HIDDEN.bridge} up")


def create_silent_bridge(name: str) -> None:
    """A bridge that only connects others: our own network must not answer on it."""
    ip(f"link add {name} type bridge mcast_snooping 0")
    setting(f"ipv4/conf/{name}/arp_ignore", "8")
    setting(f"ipv6/conf/{name}/disable_ipv6", "1")


def cable(row: HostRow) -> str:
    """Our end of a host's cable."""
    return f"v-{row.name}"


def second_cable(row: HostRow) -> str:
    """The same, of the cable to the network that it is the gateway of."""
    return f"w-{row.name}"


def plug_in(row: HostRow, netns: str) -> None:
    """A new namespace with a cable to its bridge: what a host finds when it boots.

    A host and its gateway are told each other's hardware address. With nobody asking for it, a slow link is exactly as
    slow as it was made, and a cut one stays silent for good, as one far away does, instead of "no route to host" after
    seconds.
    """
    command("ip", "netns", "add", netns)
    ip("link set lo up", netns=netns)
    _connect(cable(row), netns, "eth0", row.network, row.number)
    if row.network == OPEN:
        ip(*neighbour(OPEN, row.number, OPEN.bridge))
        ip(f"route add default via {OPEN.ip(GATEWAY_NUMBER)}", netns=netns)
    if behind := row.gateway_of:
        _connect(second_cable(row), netns, "eth1", behind, GATEWAY_NUMBER)
        for host in HOSTS.values():
            if host.network == behind:
                ip(*neighbour(behind, host.number, "eth1"), netns=netns)


def _connect(ours: str, netns: str, theirs: str, network: Network, number: int) -> None:
    """Lay a cable from a network's bridge to a host that is to have a number there."""
    ip(
        f"link add {ours} type veth peer name {theirs} netns {netns} address {network.mac(number)}",
        f"link set {ours} master {network.bridge} up",
    )
    ip(
        f"addr add {network.ip(number)}/24 dev {theirs}",
        f"addr add {network.ip6(number)}/64 dev {theirs} nodad",
        f"link set {theirs} up",
        *(neighbour(network, GATEWAY_NUMBER, theirs) if number != GATEWAY_NUMBER else ()),
        netns=netns,
    )


def neighbour(network: Network, number: int, device: str) -> list[str]:
    """What tells one side the hardware address of the other."""
    mac = network.mac(number)
    return [
        f"neigh replace {address} lladdr {mac} dev {device} nud permanent"
        for address in (network.ip(number), network.ip6(number))
    ]


def unplug(row: HostRow, netns: str) -> None:
    """Undo `plug_in`. The host's firewall rules, routes and network settings go with its namespace."""
    for ours in (cable(row), *([second_cable(row)] if row.gateway_of else [])):
        command("ip", "link", "del", ours)
    command("ip", "netns", "del", netns)


def answers(address: tuple[str, int], timeout: float) -> bool:
    """Whether an SSH server answers there."""
    try:
        with socket.create_connection(address, timeout) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def answers_inside(netns: str, port: int, timeout: float = 1) -> bool:
    """Whether an SSH server answers inside a host, whatever the state of its cable."""
    said: list[bool] = []

    def ask() -> None:  # in a thread of its own, because entering a namespace is for good
        handle = os.open(NETNS_DIR / netns, os.O_RDONLY)
        entered = ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) == 0
        os.close(handle)
        said.append(entered and answers(("127.0.0.1", port), timeout))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return said == [True]
