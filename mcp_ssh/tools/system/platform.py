"""What kind of Linux the machine is."""

from pydantic import Field

from mcp_ssh.params import OnSession, Result
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool


class SystemPlatformParams(OnSession):
    refresh: bool = Field(default=False, description="Ask the machine again instead of using what it said before.")


class PlatformFacts(Result):
    os: str = Field(description="Distribution: ID of os-release, such as `debian`.")
    family: str = Field(description="debian, rhel, suse, alpine, arch, or linux.")
    name: str = Field(description="Its name.")
    version_id: str = Field(description="Its version; empty where it has none.")
    pretty_name: str = Field(description="Name and version for people.")
    kernel: str = Field(description="Kernel name, release and architecture.")
    package_manager: str | None = Field(description="apt-get, dnf, yum, zypper, apk, pacman, or null.")
    service_manager: str | None = Field(description="systemd, openrc, sysvinit, or null.")
    firewall_backend: str | None = Field(description="firewalld where it runs, iptables, nftables, or null.")
    network_tool: str | None = Field(description="ip, ifconfig, or null.")
    init_system: str = Field(description="Name of process 1.")


class SystemPlatformResult(Result):
    platform: PlatformFacts = Field(description="What the machine is.")


@tool(Risk.READ, room="system")
async def platform(host: Session, params: SystemPlatformParams, call: Call) -> SystemPlatformResult:
    """Tell which Linux distribution the machine runs, and its package manager, service manager and firewall.

    Asked once a session, then known.
    """
    found = await host.platform(refresh=params.refresh)
    facts = {name: getattr(found, name) for name in PlatformFacts.model_fields}
    return SystemPlatformResult(platform=PlatformFacts(**facts))
