"""Package managers, one a file: their commands, and what their answers mean."""

from collections.abc import Mapping

from mcp_ssh.errors import Unsupported
from mcp_ssh.linux.packages.apk import Apk
from mcp_ssh.linux.packages.apt import Apt
from mcp_ssh.linux.packages.base import PackageManager
from mcp_ssh.linux.packages.dnf import Dnf
from mcp_ssh.linux.packages.pacman import Pacman
from mcp_ssh.linux.packages.zypper import Zypper
from mcp_ssh.linux.system.platform import Platform

MANAGERS: Mapping[str, PackageManager] = {
    each.name: each for each in (Apt(), Dnf(), Dnf("yum"), Zypper(), Apk(), Pacman())
}


def choose(platform: Platform) -> PackageManager:
    """The machine's package manager.

    Raises:
        Unsupported: It has none that is known.
    """
    manager = MANAGERS.get(platform.package_manager or "")
    if manager is None:
        raise Unsupported(
            f"no package manager was found on the machine: none of {', '.join(MANAGERS)}",
            hint="see with system_platform what it is, and install by its own means with command_exec",
        )
    return manager
