"""What a machine said at login of the account that logged in."""

from dataclasses import dataclass

from mcp_ssh.ssh.wire.command import Shell


@dataclass(frozen=True)
class Account:
    """What the machine said of the account at login."""

    shell: Shell
    features: tuple[str, ...]
