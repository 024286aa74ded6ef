"""The fleet's own packages: how each family is rid of them, and what the console says of them."""

import functools
import subprocess

import anyio
import anyio.to_thread

from tests.fleet.hosts import Host

APT_CLEAN = "dpkg --purge app-fleet libfleet hello-fleet broken-fleet"
EACH = "for each in app-fleet libfleet hello-fleet broken-fleet; do %s $each; done"
CLEAN = {
    "deb": APT_CLEAN,
    "sysv": APT_CLEAN,
    "rocky": EACH % "dnf -y remove",
    "suse": EACH % "zypper -n remove",
    "arch": EACH % "pacman --noconfirm -R",
    "alpine": "apk del app-fleet hello-fleet; " + EACH % "apk del",
}


async def outside(host: Host, script: str) -> subprocess.CompletedProcess[str]:
    """What root's shell says on the console, and how it ends."""
    return await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-c", script]))
