"""How a machine does: memory, processors, disks, network, uptime, accounts, alike on every Linux.

Formats: proc(5), df(1) with `-P` (POSIX.1-2024), passwd(5), `ip -o addr` of iproute2 and BusyBox.
"""

import re
from dataclasses import dataclass, field

from mcp_ssh.probes.parts import Parts, PartsAsked, ask_parts

# ---- memory ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Memory:
    """Bytes of memory and swap."""

    total: int
    free: int
    available: int
    swap_total: int
    swap_free: int


def ask_memory() -> PartsAsked:
    """The question about memory."""
    return ask_parts("part meminfo; cat /proc/meminfo\n")


def parse_memory(parts: Parts) -> Memory:
    """What /proc/meminfo says. Kernels before 3.14 do not say what is available; then it is estimated."""
    kib = {key: int(value) for key, value in re.findall(r"^(\w+):\s+(\d+) kB$", parts["meminfo"], re.MULTILINE)}
    available = kib.get("MemAvailable", kib.get("MemFree", 0) + kib.get("Buffers", 0) + kib.get("Cached", 0))
    names = ("MemTotal", "MemFree", "SwapTotal", "SwapFree")
    total, free, swap_total, swap_free = (kib.get(name, 0) * 1024 for name in names)
    return Memory(total, free, available * 1024, swap_total, swap_free)


# ---- processors --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cpu:
    """Processors and how busy they are."""

    model: str
    cores: int
    threads: int
    load: tuple[float, float, float]


def ask_cpu() -> PartsAsked:
    """The question about processors."""
    return ask_parts(
        "part cpuinfo; cat /proc/cpuinfo\npart loadavg; cat /proc/loadavg\npart machine; uname -m\n"
        "part online; cat /sys/devices/system/cpu/online 2>/dev/null\n"
    )


def parse_cpu(parts: Parts) -> Cpu:
    """What /proc/cpuinfo says; its fields differ from one kind of processor to the next."""
    blocks = [dict(_fields(block)) for block in parts["cpuinfo"].split("\n\n") if block.strip()]
    numbered = [block for block in blocks if "processor" in block]
    threads = len(numbered) or _count(parts.get("online", "")) or 1
    places = {(block.get("physical id"), block.get("core id")) for block in numbered if "core id" in block}
    names = ("model name", "Model", "cpu model", "cpu", "Processor", "Hardware")
    told = (block[name] for name in names for block in blocks if block.get(name))
    load = [float(word) for word in re.findall(r"[0-9]+\.[0-9]+", parts["loadavg"])[:3]]
    one, five, fifteen = (*load, 0.0, 0.0, 0.0)[:3]
    return Cpu(next(told, parts["machine"].strip()), len(places) or threads, threads, (one, five, fifteen))


def _fields(block: str) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in block.splitlines())
    return [(key.strip(), value.strip()) for key, colon, value in pairs if colon]


def _count(ranges: str) -> int:
    """How many numbers `0-3,6` names."""
    found = re.findall(r"(\d+)(?:-(\d+))?", ranges)
    return sum(int(last or first) - int(first) + 1 for first, last in found)


# ---- disks -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Disk:
    """One mounted file system, sizes in bytes."""

    filesystem: str
    type: str
    size: int
    used: int
    available: int
    mount: str


def ask_disks() -> PartsAsked:
    """The question about disks. A file system that does not answer (a dead network mount) is left out by df itself."""
    return ask_parts("part mounts; cat /proc/mounts\npart df; df -P -k 2>/dev/null\n")


_DF = re.compile(r"^(.+?)\s+(\d+)\s+(\d+)\s+(-?\d+)\s+(?:\d+%|-)\s+(/.*)$")


def parse_disks(parts: Parts) -> list[Disk]:
    """What df says, with the types of /proc/mounts."""
    types: dict[str, str] = {}
    for line in parts["mounts"].splitlines():
        words = line.split(" ")
        if len(words) > 2:
            types[re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), words[1])] = words[2]
    disks: list[Disk] = []
    for line in parts["df"].splitlines():
        if found := _DF.match(line):
            name, size, used, available, mount = found.groups()
            sizes = [int(kib) * 1024 for kib in (size, used, available)]
            disks.append(Disk(name, types.get(mount, ""), sizes[0], sizes[1], sizes[2], mount))
    return disks


# ---- network -----------------------------------------------------------------------------------------------------


@dataclass
class Interface:
    """One network interface; addresses with their prefix length."""

    name: str
    mac: str
    status: str
    mtu: int
    rx_bytes: int
    tx_bytes: int
    addresses: list[str] = field(default_factory=list[str])


_NETWORK = r"""
part interfaces
for folder in /sys/class/net/*; do
    [ -r "$folder/address" ] || continue
    line=${folder##*/}
    for file in address operstate mtu statistics/rx_bytes statistics/tx_bytes; do
        value=
        { read -r value <"$folder/$file"; } 2>/dev/null
        line="$line ${value:--}"
    done
    printf "%s\n" "$line"
done
part addresses
if command -v ip >/dev/null 2>&1; then ip -o addr show; else ifconfig -a; fi
"""


def ask_network() -> PartsAsked:
    """The question about interfaces."""
    return ask_parts(_NETWORK)


def parse_network(parts: Parts) -> list[Interface]:
    """What /sys/class/net and `ip -o addr`, or `ifconfig -a`, say."""
    found: dict[str, Interface] = {}
    for line in parts["interfaces"].splitlines():
        words = line.split(" ")
        if len(words) == 6:
            name, mac, state, mtu, received, sent = words
            # Loopbacks and tunnels do not say; they are up where they have an address, which is seen below. Every
            # other word, such as lowerlayerdown, says that nothing can pass.
            status = "unknown" if state in {"unknown", "-"} else "up" if state == "up" else "down"
            mac = mac if mac != "-" else ""
            found[name] = Interface(name, mac, status, _number(mtu), _number(received), _number(sent))
    for name, address in _addresses(parts["addresses"]):
        if (interface := found.get(name)) is not None:
            interface.addresses.append(address)
            interface.status = "up" if interface.status == "unknown" else interface.status
    return list(found.values())


def _number(text: str) -> int:
    return int(text) if text.isdigit() else 0


def _addresses(text: str) -> list[tuple[str, str]]:
    if found := re.findall(r"^\d+: (\S+?)(?:@\S+)?\s+inet6? (\S+)", text, re.MULTILINE):
        return found
    pairs: list[tuple[str, str]] = []
    name = ""
    for line in text.splitlines():
        if line[:1].strip():
            name = line.split()[0].rstrip(":")
        pairs += [(name, address) for address in re.findall(r"inet6? (?:addr: ?)?([0-9a-fA-F.:]+(?:/\d+)?)", line)]
    return pairs


# ---- uptime and accounts -----------------------------------------------------------------------------------------


def ask_uptime() -> PartsAsked:
    """The question how long the machine runs."""
    return ask_parts("part uptime; cat /proc/uptime\n")


def parse_uptime(parts: Parts) -> float:
    """Seconds since the machine started."""
    return float(parts["uptime"].split()[0])


@dataclass(frozen=True)
class AccountLine:
    """One account, as passwd(5) has it."""

    username: str
    uid: int
    gid: int
    home: str
    shell: str


ACCOUNTS = "part accounts; getent passwd 2>/dev/null || cat /etc/passwd\n"
"""Lines of a script that ask for the accounts, those of a directory service included."""


def ask_accounts() -> PartsAsked:
    """The question about accounts."""
    return ask_parts(ACCOUNTS)


def parse_accounts(parts: Parts) -> list[AccountLine]:
    """The accounts, in the order of their database."""
    rows = (line.split(":") for line in parts["accounts"].splitlines())
    return [
        AccountLine(row[0], int(row[2]), int(row[3]), row[5], row[6])
        for row in rows
        if len(row) == 7 and row[2].isdigit() and row[3].isdigit()
    ]
