"""A slow line: moves frames between two network interfaces, each of them some milliseconds late.

    delay.py TAP TAP        then one line "DELAY_MS JITTER_MS" on stdin for every change; ends with its stdin

The kernel can do this by itself (netem), but not every kernel has it. Frames keep their order, as on a real line.
"""

import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
MOST_FRAMES = 20_000  # on the line at once; further ones are lost, as on a real line


def open_tap(name: str) -> int:
    """Create an interface whose cable is the returned file."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


class Line:
    """The frames under way between two taps."""

    def __init__(self, one: int, other: int) -> None:
        self.other_end = {one: other, other: one}
        self.delay = self.jitter = 0.0
        self._last_due = {one: 0.0, other: 0.0}
        self._under_way: list[tuple[float, int, int, bytes]] = []  # when due, a counter against ties, where to, frame
        self._count = 0

    def accept(self, tap: int) -> None:
        """Take in all frames that wait at one end."""
        while True:
            try:
                frame = os.read(tap, 65536)
            except OSError:  # no more frames, or that end is down
                return
            late = self.delay + random.uniform(-self.jitter, self.jitter)
            due = max(self._last_due[tap], time.monotonic() + max(late, 0.0))
            self._last_due[tap] = due
            self._count += 1
            if len(self._under_way) < MOST_FRAMES:
                heapq.heappush(self._under_way, (due, self._count, self.other_end[tap], frame))

    def deliver(self) -> float | None:
        """Hand over all frames that are due; the seconds until the next one is."""
        while self._under_way:
            wait = self._under_way[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, _, tap, frame = heapq.heappop(self._under_way)
            try:
                os.write(tap, frame)
            except OSError:
                continue  # that end is down: the frame is lost
        return None


def main() -> None:
    line = Line(open_tap(sys.argv[1]), open_tap(sys.argv[2]))
    orders = sys.stdin.fileno()
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([*line.other_end, orders], [], [], line.deliver())
        for source in ready:
            if source != orders:
                line.accept(source)
            elif order := os.read(orders, 100):  # one line: the next is written when this one is answered
                line.delay, line.jitter = (float(word) / 1000 for word in order.split())
                print("changed", flush=True)
            else:
                return


if __name__ == "__main__":
    main()
