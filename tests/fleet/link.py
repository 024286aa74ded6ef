"""What can be done to the cable between the tests and one host. All of it happens at our end: the host notices nothing
but the weather, sees its interface up, and needs no tools for it.

The wishes are kept and put into effect by `apply`, because a rebooted host gets a new cable.
"""

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fleet.namespaces import FleetError
from tests.fleet.network import cable, command, create_silent_bridge, ip, setting
from tests.fleet.table import HostRow

LARGEST_FRAME = 1514
QUEUE_MS = 400  # how long a packet may wait for a slow line before it is dropped
BURST_MS = 20  # what passes a slow line at once, in time of that line


@dataclass(frozen=True)
class Weather:
    """What a link is like. The default is a perfect one."""

    cut: bool = False
    delay_ms: float = 0  # one way, so a round trip takes twice as much longer
    jitter_ms: float = 0
    loss_percent: int = 0  # in each direction
    rate_kbit: int = 0  # in each direction; 0: as fast as it goes


class Link:
    """The cable of one host."""

    def __init__(self, row: HostRow) -> None:
        self.row = row
        self.weather = Weather()
        self._slow_line: subprocess.Popen[str] | None = None

    def change(self, netns: str, **wishes: bool | float) -> None:
        """Change some properties of the link, keep the others."""
        self.weather = replace(self.weather, **wishes)  # pyright: ignore[reportArgumentType]
        self.apply(netns)

    def apply(self, netns: str) -> None:
        """Make the cable what the weather says, whatever it was."""
        self._delay()
        self._drop()
        self._rate(netns)

    def clear(self, netns: str) -> None:
        self.weather = Weather()
        self.apply(netns)

    def _drop(self) -> None:
        """A cut and a loss are one thing: a rule at our end that drops all frames, or some."""
        table = f"fleet-{self.row.name}"
        rules = f"table netdev {table} {{}}\ndelete table netdev {table}\n"
        percent = 100 if self.weather.cut else self.weather.loss_percent
        if percent:
            which = "" if percent >= 100 else f"numgen random mod 100 < {percent} "
            chains = "".join(
                f"chain {hook} {{ type filter hook {hook} device {cable(self.row)} priority 0; {which}drop; }}\n"
                for hook in ("ingress", "egress")
            )
            rules += f"table netdev {table} {{\n{chains}}}\n"
        command("nft", "-f", "-", text=rules)

    def _rate(self, netns: str) -> None:
        rate = self.weather.rate_kbit
        for where, device in (([], cable(self.row)), (["-n", netns], "eth0")):
            if rate:
                burst = max(2 * LARGEST_FRAME, rate * BURST_MS // 8)
                limit = ["rate", f"{rate}kbit", "burst", f"{burst}b", "latency", f"{QUEUE_MS}ms"]
                command("tc", *where, "qdisc", "replace", "dev", device, "root", "tbf", *limit)
            else:  # fails where there is nothing to remove, which is as well
                subprocess.run(["tc", *where, "qdisc", "del", "dev", device, "root"], capture_output=True, check=False)

    def _delay(self) -> None:
        """Put the slow line into the cable, or take it out.

        br0 ── da-deb ~~~ delay.py ~~~ db-deb ── br-deb ── v-deb ═══ eth0
        """
        ours, theirs, bridge = f"da-{self.row.name}", f"db-{self.row.name}", f"br-{self.row.name}"
        switch = self.row.network.bridge
        if not self.weather.delay_ms and not self.weather.jitter_ms:
            if self._slow_line:
                ip(f"link set {cable(self.row)} master {switch}", f"link del {bridge}")
                end(self._slow_line)
                self._slow_line = None
            return
        if not self._slow_line:
            self._slow_line = start_slow_line(ours, theirs)
            create_silent_bridge(bridge)  # a piece of cable
            for port in (ours, theirs):
                setting(f"ipv6/conf/{port}/disable_ipv6", "1")
            ip(
                f"link set {bridge} up",
                f"link set {ours} master {switch} up",
                f"link set {theirs} master {bridge} up",
            )
        ip(f"link set {cable(self.row)} master {bridge}")
        order(self._slow_line, f"{self.weather.delay_ms} {self.weather.jitter_ms}")


def start_slow_line(ours: str, theirs: str) -> subprocess.Popen[str]:
    script = Path(__file__).with_name("delay.py")
    process = subprocess.Popen(
        [sys.executable, "-IS", str(script), ours, theirs],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    answer(process, "ready")
    return process


def order(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin
    process.stdin.write(text + "\n")
    process.stdin.flush()
    answer(process, "changed")


def answer(process: subprocess.Popen[str], expected: str) -> None:
    assert process.stdout
    if process.stdout.readline().strip() != expected:
        raise FleetError(f"the slow line ended with exit {process.wait()}")


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
