"""The hosts' network: one bridge in the tests' own network namespace, one cable from it to every host.

    tests, 10.77.0.1 ── br0 ──┬── v-deb ═══ eth0 of deb, 10.77.0.11
                              └── v-alpine ═══ eth0 of alpine, 10.77.0.15

Nothing leads out of it: no packet of a test can reach a real network, and all of it is gone with the namespace.
"""

import ctypes
import os
import socket
import subprocess
import threading
from pathlib import Path

from tests.fleet.namespaces import CLONE_NEWNET, FleetError
from tests.fleet.table import GATEWAY, GATEWAY6, HostRow

BRIDGE, BRIDGE_MAC = "br0", "02:fd:77:00:00:01"
PREFIXES = ("v-", "br-", "da-", "db-")  # of a cable, and of what is put into it (see link.py)
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
    ours = [name for _, name in socket.if_nameindex() if name == BRIDGE or name.startswith(PREFIXES)]
    argv = ["ip", "-force", "-batch", "-"]  # -force: one that is gone already, with the host at its other end, is fine
    subprocess.run(
        argv, input="".join(f"link del {name}\n" for name in ours).encode(), capture_output=True, check=False
    )


def create_bridge() -> None:
    """The switch that all hosts hang on; the tests themselves have an address on it."""
    remove_all()  # a keeper that was killed could not
    for scope in ("all", "default"):
        setting(f"ipv6/conf/{scope}/disable_ipv6", "0")  # a machine without IPv6 hands that down to new namespaces
    ip(
        "link set lo up",
        f"link add {BRIDGE} address {BRIDGE_MAC} type bridge mcast_snooping 0",
        f"addr add {GATEWAY}/24 dev {BRIDGE}",
        f"addr add {GATEWAY6}/64 dev {BRIDGE} nodad",
        f"link set {BRIDGE} up",
    )


def cable(row: HostRow) -> str:
    """Our end of a host's cable."""
    return f"v-{row.name}"


def plug_in(row: HostRow, netns: str) -> None:
    """A new namespace with a cable to the bridge: what a host finds when it boots.

    Both sides are told each other's hardware address. With nobody asking for it, a slow link is exactly as slow as it
    was made, and a cut one stays silent for good, as one far away does, instead of "no route to host" after seconds.
    """
    command("ip", "netns", "add", netns)
    ip(
        f"link add {cable(row)} type veth peer name eth0 netns {netns} address {row.mac}",
        f"link set {cable(row)} master {BRIDGE} up",
        *(f"neigh replace {address} lladdr {row.mac} dev {BRIDGE} nud permanent" for address in (row.ip, row.ip6)),
    )
    ip(
        f"addr add {row.ip}/24 dev eth0",
        f"addr add {row.ip6}/64 dev eth0 nodad",
        "link set lo up",
        "link set eth0 up",
        *(f"neigh add {address} lladdr {BRIDGE_MAC} dev eth0 nud permanent" for address in (GATEWAY, GATEWAY6)),
        f"route add default via {GATEWAY}",
        netns=netns,
    )


def unplug(row: HostRow, netns: str) -> None:
    """Undo `plug_in`. The host's firewall rules, routes and network settings go with its namespace."""
    command("ip", "link", "del", cable(row))
    command("ip", "netns", "del", netns)


def answers(address: tuple[str, int], timeout: float) -> bool:
    """Whether an SSH server answers there."""
    try:
        with socket.create_connection(address, timeout) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def answers_inside(netns: str, port: int) -> bool:
    """Whether an SSH server answers inside a host, whatever the state of its cable."""
    said: list[bool] = []

    def ask() -> None:  # in a thread of its own, because entering a namespace is for good
        handle = os.open(NETNS_DIR / netns, os.O_RDONLY)
        entered = ctypes.CDLL(None, use_errno=True).setns(handle, CLONE_NEWNET) == 0
        os.close(handle)
        said.append(entered and answers(("127.0.0.1", port), timeout=1))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    return said == [True]
