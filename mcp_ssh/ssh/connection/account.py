"""What a machine said at login of the account that logged in."""

from dataclasses import dataclass

from mcp_ssh.ssh.wire.command import ShellKind


@dataclass(frozen=True)
class RemoteAccount:
    """What the machine said of the account at login."""

    shell: ShellKind
    features: tuple[str, ...]
