"""A folder of the account's on a machine, filled by the machine's own shell."""

from tests.fleet.hosts import Host
from tests.support.machine import outside

FOLDER = "/tmp/searching"


async def made(host: Host, *commands: str) -> None:
    """A fresh folder of the account's, filled by the system's own shell."""
    script = f"rm -rf {FOLDER}; mkdir {FOLDER}; cd {FOLDER}; umask 022; " + "\n".join(commands)
    await outside(host, f"{script}\nchown -R dev {FOLDER}")
