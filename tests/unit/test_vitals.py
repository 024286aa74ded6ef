"""What machines say of themselves, read without a machine: other processors, other tools, and anything at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_ssh.errors import RemoteFailed
from mcp_ssh.linux.parts import ask_parts
from mcp_ssh.linux.system.facts import parse_accounts, parse_cpu, parse_disks, parse_memory, parse_network
from rest_bridge.families.ssh_api.system import human

RASPBERRY = """processor\t: 0
BogoMIPS\t: 108.00
CPU part\t: 0xd08

processor\t: 1
BogoMIPS\t: 108.00

Hardware\t: BCM2835
Model\t\t: Raspberry Pi 4 Model B Rev 1.4
"""
TWO_THREADS_A_CORE = "\n\n".join(
    f"processor\t: {number}\nmodel name\t: EPYC\nphysical id\t: 0\ncore id\t: {number // 2}" for number in range(4)
)
IFCONFIG = """eth0      Link encap:Ethernet  HWaddr 02:FD:77:00:00:0F
          inet addr:10.77.0.15  Bcast:10.77.0.255  Mask:255.255.255.0
          inet6 addr: fd77::f/64 Scope:Global

lo        Link encap:Local Loopback
          inet addr:127.0.0.1  Mask:255.0.0.0
"""


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        (RASPBERRY, ("Raspberry Pi 4 Model B Rev 1.4", 2, 2)),
        (TWO_THREADS_A_CORE, ("EPYC", 2, 4)),
        ("", ("s390x", 6, 6)),
    ],
)
def test_processors_of_every_kind_are_counted(cpuinfo: str, expected: tuple[str, int, int]) -> None:
    said = {"cpuinfo": cpuinfo, "loadavg": "0.10 0.20 0.30 1/99 7\n", "machine": "s390x\n", "online": "0-3,6-7\n"}
    cpu = parse_cpu(said)
    assert (cpu.model, cpu.cores, cpu.threads) == expected
    assert cpu.load == (0.1, 0.2, 0.3)


def test_an_old_kernel_does_not_say_what_is_available() -> None:
    text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 20 kB\nCached: 30 kB\n"
    assert parse_memory({"meminfo": text}).available == 150 * 1024


def test_a_disk_may_have_spaces_in_its_name_and_place() -> None:
    df = "Filesystem 1024-blocks Used Available Capacity Mounted on\n//nas/our share 100 60 40 60% /mnt/our share\n"
    [disk] = parse_disks({"df": df, "mounts": "//nas/our\\040share /mnt/our\\040share cifs rw 0 0\n"}).disks
    assert (disk.filesystem, disk.mount, disk.type) == ("//nas/our share", "/mnt/our share", "cifs")
    assert (disk.size, disk.used, disk.available) == (102400, 61440, 40960)


def test_addresses_come_from_ifconfig_where_there_is_no_ip() -> None:
    said = {
        "interfaces": "eth0 02:fd up 1500 1 2\nlo 00:00 unknown 65536 3 3\nwg0 - down - - -\n",
        "addresses": IFCONFIG,
    }
    eth0, lo, wg0 = parse_network(said).interfaces
    assert eth0.addresses == ["10.77.0.15/24", "fd77::f/64"]
    assert (lo.status, lo.addresses, wg0.mac, wg0.status, wg0.mtu) == ("up", ["127.0.0.1/8"], "", "down", 0)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1.0K"), (1025, "1.1K"), (10 * 1024, "10K"), (40 << 30, "40G"), (-5, "0")],
)
def test_sizes_for_people_are_those_of_df(count: int, text: str) -> None:
    assert human(count) == text


@given(st.text(max_size=300), st.text(max_size=300))
def test_no_answer_breaks_a_parser(one: str, two: str) -> None:
    parse_memory({"meminfo": one})
    parse_cpu({"cpuinfo": one, "loadavg": two, "machine": one})
    parse_disks({"df": one, "mounts": two})
    parse_network({"interfaces": one, "addresses": two})
    parse_accounts({"accounts": one})


def test_an_answer_in_parts_is_whole_or_an_error() -> None:
    asked = ask_parts("part a; echo 1\n")
    said = f"from an rc file\n\n{asked.mark} a\n1\n\n{asked.mark} end\nok\n".encode()
    assert asked.parts(said) == {"a": "1\n"}
    with pytest.raises(RemoteFailed):
        asked.parts(said[:-12])
