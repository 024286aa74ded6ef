"""How the machine does: memory, processors, disks, network, uptime, accounts."""

from pydantic import Field

from mcp_ssh.linux.lines import ROW_LIMIT
from mcp_ssh.linux.system import facts as vitals
from mcp_ssh.params import OnSession, Result
from mcp_ssh.sessions.query import parts_of
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool

CPU_BYTES = 4 * 1024 * 1024
"""A processor has 1.5 KiB in /proc/cpuinfo, and large machines have a thousand."""

# ---- system_memory -----------------------------------------------------------------------------------------------


class MemoryFacts(Result):
    total: int = Field(description="Bytes of memory.")
    used: int = Field(description="Bytes in use: total less available.")
    free: int = Field(description="Bytes that hold nothing at all.")
    available: int = Field(description="Bytes that programs can have without swapping.")
    use_percent: float = Field(description="Used, in percent of total.")
    swap_total: int = Field(description="Bytes of swap.")
    swap_used: int = Field(description="Bytes of swap in use.")


class SystemMemoryResult(Result):
    memory: MemoryFacts = Field(description="Memory and swap.")


@tool(Risk.READ, room="system")
async def memory(host: Session, params: OnSession, call: Call) -> SystemMemoryResult:
    """Show how much memory and swap the machine has, and how much is in use and available."""
    found = await parts_of(host, vitals.ask_memory(), vitals.parse_memory)
    used = found.total - found.available
    facts = MemoryFacts(
        total=found.total,
        used=used,
        free=found.free,
        available=found.available,
        use_percent=round(used / found.total * 100, 1) if found.total else 0.0,
        swap_total=found.swap_total,
        swap_used=found.swap_total - found.swap_free,
    )
    return SystemMemoryResult(memory=facts)


# ---- system_cpu --------------------------------------------------------------------------------------------------


class CpuFacts(Result):
    model: str = Field(description="Processor model; the architecture where the machine does not say.")
    cores: int = Field(description="Physical cores.")
    threads: int = Field(description="Logical processors.")
    load_1m: float = Field(description="Load average over one minute.")
    load_5m: float = Field(description="Over five minutes.")
    load_15m: float = Field(description="Over fifteen minutes.")


class SystemCpuResult(Result):
    cpu: CpuFacts = Field(description="Processors and load.")


@tool(Risk.READ, room="system")
async def cpu(host: Session, params: OnSession, call: Call) -> SystemCpuResult:
    """Show the machine's processors, and its load average: high load means more work than processors."""
    found = await parts_of(host, vitals.ask_cpu(), vitals.parse_cpu, limit=CPU_BYTES)
    one, five, fifteen = found.load
    return SystemCpuResult(
        cpu=CpuFacts(
            model=found.model, cores=found.cores, threads=found.threads, load_1m=one, load_5m=five, load_15m=fifteen
        )
    )


# ---- system_disk -------------------------------------------------------------------------------------------------


class DiskFacts(Result):
    filesystem: str = Field(description="Device or source.")
    type: str = Field(description="File system type, such as ext4; empty where unknown.")
    size_bytes: int = Field(description="Size.")
    used_bytes: int = Field(description="In use.")
    available_bytes: int = Field(description="Left for ordinary users.")
    use_percent: float = Field(description="Used, in percent of used and available, rounded up as df does.")
    mount: str = Field(description="Where it is mounted.")


class SystemDiskResult(Result):
    disks: list[DiskFacts] = Field(description="Mounted file systems that answered.")
    unanswered: list[str] | None = Field(
        default=None, description="Mount points of file systems that did not answer within seconds."
    )
    errors: list[str] | None = Field(default=None, description="What df said of file systems that it could not read.")
    truncated: bool | None = Field(default=None, description="True where the machine has more than are listed.")


@tool(Risk.READ, room="system")
async def disk(host: Session, params: OnSession, call: Call) -> SystemDiskResult:
    """Show how full the machine's disks are: each mounted file system with its size, used and free space.

    A file system that does not answer, such as a network mount whose server is gone, is named and holds up no other.
    """
    found = await parts_of(host, vitals.ask_disks(), vitals.parse_disks, limit=3 * vitals.DISKS_BYTES)
    result = SystemDiskResult(
        disks=[
            DiskFacts(
                filesystem=each.filesystem,
                type=each.type,
                size_bytes=each.size,
                used_bytes=each.used,
                available_bytes=each.available,
                use_percent=_percent(each.used, each.used + each.available),
                mount=each.mount,
            )
            for each in found.disks
        ]
    )
    if found.silent:
        result.unanswered = found.silent
    if found.complaints:
        result.errors = found.complaints
    if found.truncated:
        result.truncated = True
    return result


def _percent(part: int, whole: int) -> float:
    return float(-(-part * 100 // whole)) if whole > 0 else 0.0


# ---- system_network ----------------------------------------------------------------------------------------------


class InterfaceFacts(Result):
    name: str = Field(description="Interface, such as eth0.")
    ip: str | None = Field(description="Its first address, IPv4 before IPv6; null where it has none.")
    addresses: list[str] = Field(description="All its addresses, with prefix length.")
    mac: str = Field(description="Hardware address.")
    mtu: int = Field(description="Largest packet in bytes.")
    rx_bytes: int = Field(description="Bytes received since it came up.")
    tx_bytes: int = Field(description="Bytes sent.")
    status: str = Field(description="up, down or unknown.")


class SystemNetworkResult(Result):
    interfaces: list[InterfaceFacts] = Field(description="Network interfaces.")
    note: str | None = Field(default=None, description="Set where addresses may be missing, with the reason.")
    truncated: bool | None = Field(default=None, description="True where the machine has more than are listed.")


@tool(Risk.READ, room="system")
async def network(host: Session, params: OnSession, call: Call) -> SystemNetworkResult:
    """Show the machine's network interfaces: addresses, state and traffic counters."""
    found = await parts_of(host, vitals.ask_network(), vitals.parse_network, limit=4 * vitals.NETWORK_BYTES)
    result = SystemNetworkResult(
        interfaces=[
            InterfaceFacts(
                name=each.name,
                ip=_first(each.addresses),
                addresses=each.addresses,
                mac=each.mac,
                mtu=each.mtu,
                rx_bytes=each.rx_bytes,
                tx_bytes=each.tx_bytes,
                status=each.status,
            )
            for each in found.interfaces
        ]
    )
    if found.note:
        result.note = found.note
    if found.truncated:
        result.truncated = True
    return result


def _first(addresses: list[str]) -> str | None:
    ordered = sorted(addresses, key=lambda each: ":" in each)
    return ordered[0].partition("/")[0] if ordered else None


# ---- system_uptime -----------------------------------------------------------------------------------------------


class SystemUptimeResult(Result):
    uptime: str = Field(description="For people, such as `up 3 days, 4 hours`.")
    seconds: float = Field(description="Seconds since the machine started.")


@tool(Risk.READ, room="system")
async def uptime(host: Session, params: OnSession, call: Call) -> SystemUptimeResult:
    """Tell how long the machine has been running since its last start."""
    seconds = await parts_of(host, vitals.ask_uptime(), vitals.parse_uptime)
    return SystemUptimeResult(uptime=f"up {_for_people(seconds)}", seconds=seconds)


def _for_people(seconds: float) -> str:
    minutes = int(seconds) // 60
    counts = ((minutes // 1440, "day"), (minutes // 60 % 24, "hour"), (minutes % 60, "minute"))
    said = [f"{count} {unit}{'' if count == 1 else 's'}" for count, unit in counts if count]
    return ", ".join(said[:2]) or "less than a minute"


# ---- system_users ------------------------------------------------------------------------------------------------


class AccountFacts(Result):
    username: str = Field(description="Name.")
    uid: int = Field(description="User number.")
    gid: int = Field(description="Number of its first group.")
    home: str = Field(description="Home folder.")
    shell: str = Field(description="Login shell.")


class SystemUsersResult(Result):
    users: list[AccountFacts] = Field(description="Accounts.")
    count: int = Field(description="How many are listed.")
    truncated: bool | None = Field(default=None, description="True where the machine has more than are listed.")


@tool(Risk.READ, room="system")
async def users(host: Session, params: OnSession, call: Call) -> SystemUsersResult:
    """List the machine's user accounts with their numbers, home folders and login shells."""
    accounts = await parts_of(host, vitals.ask_accounts(), vitals.parse_accounts, limit=2 * vitals.ACCOUNTS_BYTES)
    found = accounts[:ROW_LIMIT]
    facts = [
        AccountFacts(username=each.username, uid=each.uid, gid=each.gid, home=each.home, shell=each.shell)
        for each in found
    ]
    result = SystemUsersResult(users=facts, count=len(facts))
    if len(accounts) > len(facts):
        result.truncated = True
    return result
