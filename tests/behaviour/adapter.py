"""What the suite has to know of a server: how it is started, told of a machine, and asked to run a command."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mcp import Client, StdioServerParameters, types

PEERS_FOLDER = Path(__file__).resolve().parents[2] / ".peers"
"""Where `make behaviour PEERS=1` installs the servers of others, each with what it needs."""


@dataclass(frozen=True)
class Machine:
    """The machine that a server is to log in to, by key."""

    host: str
    port: int
    user: str
    key_path: str
    public_keys: tuple[str, ...]


class Adapter(ABC):
    """One server, for one run of it."""

    name: ClassVar[str]
    version: ClassVar[str]

    def __init__(self, machine: Machine, home: Path, timeout_s: float = 30.0) -> None:
        """Where it is to log in, the HOME it has, and how long a command may take where only its config can say so."""
        self.machine = machine
        self.home = home
        self.timeout_s = timeout_s

    @abstractmethod
    def server(self) -> StdioServerParameters | str:
        """The command that starts it, or the URL where it is; writes what it has to be configured with."""

    async def trust(self) -> None:
        """Make the machine's keys known before it starts: in ~/.ssh/known_hosts, where every SSH client looks."""
        folder = self.home / ".ssh"
        folder.mkdir(mode=0o700, exist_ok=True)
        name = self.machine.host if self.machine.port == 22 else f"[{self.machine.host}]:{self.machine.port}"
        lines = [f"{name} {key}\n" for key in self.machine.public_keys]
        (folder / "known_hosts").write_text("".join(lines))

    async def connect(self, client: Client) -> types.CallToolResult | None:
        """Log in, where that is a call of its own."""
        return None

    @abstractmethod
    def exec(self, command: str, timeout_s: float) -> tuple[str, dict[str, Any]]:
        """The tool that runs a command and waits for it, and its arguments."""

    def environment(self) -> dict[str, str]:
        """What it is started with: a HOME of its own and no agent."""
        return {"HOME": str(self.home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}


def text_of(result: types.CallToolResult) -> str:
    """All that a result says, as text and as data."""
    parts = [part.text for part in result.content if isinstance(part, types.TextContent)]
    return "\n".join([*parts, repr(result.structured_content or "")])


def size_of(model: Any) -> int:
    """Bytes of a result on the wire."""
    return len(model.model_dump_json(by_alias=True, exclude_none=True).encode())
