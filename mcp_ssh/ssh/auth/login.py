"""A login: the machine, the account, the way there, and what proves the account."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import SecretStr

from mcp_ssh.host_patterns import Machine
from mcp_ssh.ssh.auth.private_keys import KeyCandidate
from mcp_ssh.ssh.dial.algorithms import Algorithms
from mcp_ssh.ssh.hostkeys.store import HostKeys
from mcp_ssh.tool import Caller

if TYPE_CHECKING:
    import asyncssh


@dataclass(frozen=True)
class Agent:
    """An ssh-agent to ask for keys.

    Attributes:
        path: Its socket.
        only: The keys that may be offered; `None` for all.
        certificates: What to offer beside its keys.
        needed: The caller asked for it, so that it has to answer.
    """

    path: str
    only: frozenset[bytes] | None = field(default=None, repr=False)
    certificates: tuple["asyncssh.SSHCertificate", ...] = field(default=(), repr=False)
    needed: bool = False


@dataclass(frozen=True)
class Login:
    """One machine to log in to.

    Attributes:
        caller: Whose login it is.
        machine: What it is known by; a connection from here goes to these addresses alone.
        through: The address that the machine before it connects to, where the name alone was not enough to judge by.
        keys: Keys to offer.
        answers: For what the machine asks at login.
        agent: Where more keys may be.
        refused_methods: Ways of logging in that the owner's config switches off.
        host_keys: Whom to trust.
        host_key_alias: The name its host key is known by.
        algorithms: What the machine is offered.
        hops: Machines to log in to on the way, the first one first.
        proxy_command: The program that is the way to the first machine.
        connect_timeout_s: How long the machine may take to say who it is.
        keepalive_s: Seconds between keepalives; 0 for none.
    """

    host: str
    port: int
    username: str
    host_keys: HostKeys = field(repr=False)
    caller: Caller | None = field(default=None, repr=False, compare=False)
    machine: Machine = field(default_factory=Machine)
    through: str | None = None
    password: SecretStr | None = None
    answers: tuple[SecretStr, ...] = ()
    keys: tuple[KeyCandidate, ...] = field(default=(), repr=False)
    agent: Agent | None = None
    refused_methods: frozenset[str] = frozenset()
    host_key_alias: str | None = None
    algorithms: Algorithms = field(default_factory=Algorithms, repr=False)
    hops: tuple["Login", ...] = ()
    proxy_command: str | None = field(default=None, repr=False)
    connect_timeout_s: float | None = None
    keepalive_s: float = 0.0
    bind_address: str | None = None

    @property
    def account(self) -> str:
        """The account, for messages."""
        return f"{self.username} on {self.where}"

    @property
    def where(self) -> str:
        """The machine, for messages."""
        return f"{self.host} port {self.port}"

    @property
    def known_as(self) -> tuple[str, int]:
        """Name and port under which its host key is known."""
        return (self.host_key_alias, 22) if self.host_key_alias else (self.host, self.port)

    @property
    def asks_nobody(self) -> bool:
        """Whether it can be repeated unasked: no code that counts once, no agent that may want a finger on a key."""
        return not self.answers and self.agent is None and all(each.asks_nobody for each in self.hops)
