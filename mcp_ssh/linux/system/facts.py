"""How a machine does: memory, processors, disks, network, uptime, accounts, alike on every Linux.

Formats: proc(5), df(1) with `-P` (POSIX.1-2024), passwd(5), `ip -o addr` of iproute2 and BusyBox.
"""

import re
from dataclasses import dataclass, field

from mcp_ssh.linux.lines import LINE_LIMIT, ROW_LIMIT, is_number, lines_of, number
from mcp_ssh.linux.parts import Parts, PartsAsked, ask_parts
from mcp_ssh.linux.system.addresses import addresses, proc_addresses

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
    kib: dict[str, int] = {}
    for line in lines_of(parts["meminfo"]):
        key, _, rest = line.partition(":")
        value, _, unit = rest.strip().partition(" ")
        if unit == "kB" and is_number(value):
            kib[key] = number(value)
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
    load = [read_decimal(word) for word in parts["loadavg"][:LINE_LIMIT].split()[:3]]
    one, five, fifteen = (*load, 0.0, 0.0, 0.0)[:3]
    return Cpu(next(told, parts["machine"].strip()), len(places) or threads, threads, (one, five, fifteen))


def _fields(block: str) -> list[tuple[str, str]]:
    pairs = (line.partition(":") for line in lines_of(block))
    return [(key.strip(), value.strip()) for key, colon, value in pairs if colon]


def _count(ranges: str) -> int:
    """How many numbers `0-3,6` names."""
    count = 0
    for part in ranges.strip()[:LINE_LIMIT].split(","):
        first, dash, last = part.partition("-")
        if is_number(first):
            count += max(number(last if dash else first) - number(first) + 1, 0)
    return count


def read_decimal(text: str) -> float:
    """The first word of a text as a number such as `0.25`; 0 where it is not one."""
    word = text[:LINE_LIMIT].partition("\n")[0].strip().partition(" ")[0]
    whole, dot, rest = word.partition(".")
    return float(word) if dot and is_number(whole) and is_number(rest) else 0.0


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


# Asks for all file systems at once first, as df(1) does by itself. Where that has not ended after four seconds, each
# mount point is asked by a df of its own, side by side, and those that do not answer within three seconds are named. A
# df that hangs in the kernel cannot be waited for, so its output goes through a pipe whose reader leaves when it has
# all answers, or at the line `late`. $1: bytes of each text.
_DISKS = r"""
most=$1
nap() { sleep "$1" 2>/dev/null || sleep 1; }
# Each job prints `pid N`, then what df says, then `= NAME`: whole lines, so that those of several do not mix. Not every
# df of BusyBox knows `--`, but a mount point begins with a slash.
job() {
    name=$1
    shift
    {
        sh -c 'echo "pid $$"; exec df -P -k "$@" 2>&1' sh "$@" |
            while IFS= read -r line; do printf "%s\n" "$line"; done
        printf "= %s\n" "$name"
    } </dev/null 2>/dev/null &
}
collect() {
    ended=0 pids=
    while IFS= read -r line; do
        case $line in
            tick) ;;
            late) printf "\nlate\n%s\n" "$pids"; return ;;
            "pid "*) pids="$pids ${line#pid }" ;;
            "= "*) printf "%s\n" "$line"; ended=$((ended + 1)); [ "$ended" -lt "$1" ] || return 0 ;;
            *) printf "%s\n" "$line" ;;
        esac
    done
}
# $1: how many jobs there are. $2: seconds. A tick is for nobody: it fails once the reader has left.
answers() {
    {
        start
        nap 0.02
        left=$(($2 * 10))
        while [ "$left" -gt 0 ] && echo tick; do nap 0.1; left=$((left - 1)); done
        echo late
    } 2>/dev/null | collect "$1"
}
mounts() {
    while read -r source mount type rest; do
        case $type in
            proc | sysfs | cgroup | cgroup2 | devpts | mqueue | debugfs | tracefs | securityfs | pstore | bpf) ;;
            configfs | autofs | binfmt_misc | rpc_pipefs | hugetlbfs | fusectl | nsfs | efivarfs | selinuxfs) ;;
            *) printf "%s\n" "$mount" ;;
        esac
    done </proc/mounts | sort -u | head -n 256
}
line=$(printf "\nx")
line=${line%x}
start() { job all; }
said=$(answers 1 4)
case $said in
    *"${line}late$line"*)
        hung=${said##*"${line}late$line"}
        asked=$(mounts)
        start() {
            printf "%s\n" "$asked" | while IFS= read -r mount; do job "$mount" "$(printf %b "$mount")"; done
        }
        said=$(answers "$(printf "%s\n" "$asked" | wc -l)" 3)
        part asked; printf "%s\n" "$asked"
        case $said in
            *"${line}late$line"*) hung="$hung ${said##*"${line}late$line"}" said=${said%"${line}late$line"*} ;;
        esac
        for pid in $hung; do kill -KILL "$pid" 2>/dev/null; done
        ;;
esac
part df; printf "%s\n" "$said" | head -c "$most"
part mounts; cut -d " " -f 1-3 /proc/mounts | head -c "$most"
"""

DISKS_BYTES = 64 * 1024
"""The most that df may say, and the table of mounts."""


def ask_disks() -> PartsAsked:
    """Ask how full each file system is; one that does not answer holds up no other."""
    return ask_parts(_DISKS, [str(DISKS_BYTES)])


@dataclass(frozen=True)
class Disks:
    """What df said.

    Attributes:
        disks: The file systems that answered.
        silent: Mount points that did not answer in time.
        complaints: What df said of those that it could not read.
        truncated: Whether df said more than was taken.
    """

    disks: list[Disk]
    silent: list[str]
    complaints: list[str]
    truncated: bool


_OCTAL = re.compile(r"\\([0-7]{3})")


def _unescape(mount: str) -> str:
    """A mount point of /proc/mounts as it is: blanks and backslashes stand there as octal digits."""
    return _OCTAL.sub(lambda code: chr(int(code[1], 8)), mount)


def parse_disks(parts: Parts) -> Disks:
    """What df says, with the types of /proc/mounts."""
    types: dict[str, str] = {}
    for line in lines_of(parts["mounts"]):
        words = line.split(" ")
        if len(words) > 2:
            types[_unescape(words[1])] = words[2]
    text = parts["df"]
    asked = [each for each in parts.get("asked", "").split("\n") if each]
    disks: dict[tuple[str, str], Disk] = {}
    answered: set[str] = set()
    complaints: list[str] = []
    for line in lines_of(text):
        if line.startswith("= "):
            answered.add(line[2:])
        elif line.startswith("df: "):
            complaints.append(line)
        elif (disk := _disk(line, types)) and (disk.size or not asked):
            disks.setdefault((disk.filesystem, disk.mount), disk)
    silent = [_unescape(mount) for mount in asked if mount not in answered]
    truncated = len(text.encode()) >= DISKS_BYTES
    return Disks(list(disks.values()), silent, complaints[:COMPLAINTS], truncated)


COMPLAINTS = 100


def _disk(line: str, types: dict[str, str]) -> Disk | None:
    """One line of `df -P -k`; blanks may stand in the name and in the mount point."""
    words = line.split()
    for at in range(1, len(words) - 4):
        *sizes, capacity, mount = words[at : at + 5]
        if mount.startswith("/") and all(map(is_number, sizes)) and (capacity == "-" or capacity.endswith("%")):
            size, used, available = (number(kib) * 1024 for kib in sizes)
            mount = line.split(None, at + 4)[at + 4]
            return Disk(" ".join(words[:at]), types.get(mount, ""), size, used, available, mount)
    return None


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
if command -v ip >/dev/null 2>&1; then
    ip -o addr show
elif command -v ifconfig >/dev/null 2>&1; then
    ifconfig -a
else
    part routes; cat /proc/net/route
    part addresses4; cat /proc/net/fib_trie
    part addresses6; cat /proc/net/if_inet6
fi 2>/dev/null | head -c "$1"
"""

NETWORK_BYTES = 256 * 1024
"""The most that may be said of addresses."""


def ask_network() -> PartsAsked:
    """The question about interfaces."""
    return ask_parts(_NETWORK, [str(NETWORK_BYTES)])


@dataclass(frozen=True)
class NetworkInfo:
    """The interfaces, whether more were left out, and what may be missing of them."""

    interfaces: list[Interface]
    truncated: bool
    note: str | None


def parse_network(parts: Parts) -> NetworkInfo:
    """What /sys/class/net says, and `ip -o addr`, `ifconfig -a` or /proc/net."""
    found: dict[str, Interface] = {}
    for line in lines_of(parts["interfaces"]):
        words = line.split(" ")
        if len(words) == 6:
            name, mac, state, mtu, received, sent = words
            # Loopbacks and tunnels do not say; they are up where they have an address, which is seen below. Every
            # other word, such as lowerlayerdown, says that nothing can pass.
            status = "unknown" if state in {"unknown", "-"} else "up" if state == "up" else "down"
            mac = mac if mac != "-" else ""
            found[name] = Interface(name, mac, status, number(mtu), number(received), number(sent))
    without_program = "addresses4" in parts
    pairs = proc_addresses(parts) if without_program else addresses(parts["addresses"])
    for name, address in pairs:
        if (interface := found.get(name) or found.get(name.partition(":")[0])) is not None:
            interface.addresses.append(address)
            interface.status = "up" if interface.status == "unknown" else interface.status
    text = "".join(parts.get(each, "") for each in ("addresses", "addresses4", "addresses6"))
    note = (
        "the machine has neither ip nor ifconfig: addresses are those of /proc/net, and an IPv4 address that no route"
        " leads to is left out"
    )
    return NetworkInfo(
        list(found.values())[:ROW_LIMIT],
        len(text.encode()) >= NETWORK_BYTES - LINE_LIMIT,
        note if without_program else None,
    )


# ---- uptime and accounts -----------------------------------------------------------------------------------------


def ask_uptime() -> PartsAsked:
    """The question how long the machine runs."""
    return ask_parts("part uptime; cat /proc/uptime\n")


def parse_uptime(parts: Parts) -> float:
    """Seconds since the machine started."""
    return read_decimal(parts["uptime"])


@dataclass(frozen=True)
class AccountLine:
    """One account, as passwd(5) has it."""

    username: str
    uid: int
    gid: int
    home: str
    shell: str


ACCOUNTS_BYTES = 1024 * 1024
ACCOUNTS = f"part accounts; {{ getent passwd 2>/dev/null || cat /etc/passwd; }} | head -c {ACCOUNTS_BYTES}\n"
"""Lines of a script that ask for the accounts, those of a directory service included."""


def ask_accounts() -> PartsAsked:
    """The question about accounts."""
    return ask_parts(ACCOUNTS)


def parse_accounts(parts: Parts) -> list[AccountLine]:
    """The accounts, in the order of their database."""
    rows = (line.split(":") for line in lines_of(parts["accounts"]))
    return [
        AccountLine(row[0], number(row[2]), number(row[3]), row[5], row[6])
        for row in rows
        if len(row) == 7 and is_number(row[2]) and is_number(row[3])
    ]
