"""What ~/.ssh/config of the server's owner says of one machine, as `ssh -G` would answer.

`settings` reads the files; `Settings` says where to, as whom, with which keys and whom to trust. It is read for callers
who may use the owner's identities, since nothing in it was written for anybody else.
"""

import getpass
import hashlib
import ipaddress
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mcp_ssh.errors import InvalidInput, Refused
from mcp_ssh.ssh.openssh_config.parser import ALGORITHM_OPTIONS, MatchTarget, ParsedOptions, Reader, expand, port_number

DEFAULT_IDENTITIES = tuple(
    f"~/.ssh/id_{kind}" for kind in ("rsa", "ecdsa", "ecdsa_sk", "ed25519", "ed25519_sk", "xmss", "dsa")
)
DEFAULT_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
DEFAULT_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")

EXEC_LIMIT_S = 10.0
"""The longest a command of `Match exec` is waited for."""

_ENVIRONMENT = re.compile(r"\$\{([^}]*)\}")
_TIME = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", re.I)
_TIME_UNITS_S = (604800, 86400, 3600, 60, 1)
_JUMP = re.compile(
    r"(?:ssh://)?(?:(?P<user>[^/]+)@)?(?:\[(?P<address>[^\]]+)\]|(?P<host>[^@:\[\]/]+))(?::(?P<port>[^:/]+))?/?"
)
# Values that become part of a line for sh may hold no sign that sh reads; ssh refuses most of these as well.
_PLAIN = re.compile(r"[A-Za-z0-9_.:@+,/][A-Za-z0-9_.:@%+,/=-]*")


@dataclass(frozen=True)
class Jump:
    """One machine on the way, as ProxyJump names it."""

    host: str
    username: str | None
    port: int | None

    @classmethod
    def parse(cls, text: str) -> "Jump":
        """One item of a ProxyJump list.

        Raises:
            InvalidInput: It is none.
        """
        taken = _JUMP.fullmatch(text.strip())
        if not taken:
            raise InvalidInput(f"~/.ssh/config: ProxyJump cannot be {text!r}", hint="write [user@]host[:port]")
        port = taken["port"]
        return cls(taken["address"] or taken["host"], taken["user"], port_number(port) if port else None)

    def __str__(self) -> str:
        number = ":" in self.host or not self.host.strip("0123456789.")
        host = f"[{self.host}]" if number else self.host
        return f"{f'{self.username}@' if self.username else ''}{host}{f':{self.port}' if self.port else ''}"


@dataclass(frozen=True)
class Settings:
    """The options for one machine. Text that OpenSSH expands late (files, commands) is expanded by the properties.

    Attributes:
        host: The name that was asked for.
        hostname: The machine's name or address.
        named: A line that is not for everybody names this host: it is an alias.
        found: What the files say.
    """

    host: str
    hostname: str
    named: bool = False
    found: ParsedOptions = field(default_factory=ParsedOptions, repr=False)

    def _one(self, option: str) -> str | None:
        value = self.found.first.get(option)
        return None if value is None or value.lower() == "none" else value

    def _says(self, option: str, *values: str) -> bool:
        return self.found.first.get(option, "").lower() in values

    @property
    def username(self) -> str | None:
        """User; `None` where nothing is said."""
        return self.found.first.get("user")

    @cached_property
    def port(self) -> int | None:
        """Port; `None` where nothing is said."""
        text = self.found.first.get("port")
        return port_number(text) if text else None

    @property
    def identity_files(self) -> tuple[str, ...]:
        """IdentityFile as it stands; empty where nothing is said."""
        return tuple(self.found.each.get("identityfile", ()))

    @property
    def certificate_files(self) -> tuple[str, ...]:
        """CertificateFile as it stands."""
        return tuple(self.found.each.get("certificatefile", ()))

    @property
    def identities_only(self) -> bool:
        """Whether the agent may offer only keys that IdentityFile names."""
        return self._says("identitiesonly", "yes", "true")

    @property
    def strict(self) -> bool:
        """Whether unknown host keys are refused outright. `no` and `accept-new` change nothing: they would weaken."""
        return self._says("stricthostkeychecking", "yes", "true")

    @property
    def refused_methods(self) -> frozenset[str]:
        """Methods of logging in that are switched off."""
        options = {
            "publickey": "pubkeyauthentication",
            "password": "passwordauthentication",
            "keyboard-interactive": "kbdinteractiveauthentication",
        }
        return frozenset(method for method, option in options.items() if self._says(option, "no", "false"))

    @property
    def algorithms(self) -> dict[str, str]:
        """The lists of algorithms that are said, by option."""
        return {option: value for option in ALGORITHM_OPTIONS if (value := self.found.first.get(option)) is not None}

    @property
    def host_key_alias(self) -> str | None:
        """HostKeyAlias."""
        return self._one("hostkeyalias")

    @property
    def bind_address(self) -> str | None:
        """BindAddress."""
        return self._one("bindaddress")

    @property
    def family(self) -> socket.AddressFamily:
        """AddressFamily."""
        families = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
        return families.get(self.found.first.get("addressfamily", "").lower(), socket.AF_UNSPEC)

    @cached_property
    def connect_timeout_s(self) -> float | None:
        """ConnectTimeout."""
        text = self._one("connecttimeout")
        return seconds(text) or None if text else None

    @cached_property
    def alive_interval_s(self) -> float | None:
        """ServerAliveInterval; `None` where nothing is said or it is 0."""
        text = self._one("serveraliveinterval")
        return seconds(text) or None if text else None

    @property
    def jumps(self) -> tuple[Jump, ...]:
        """ProxyJump, the first machine to visit first."""
        text = self._one("proxyjump")
        return tuple(map(Jump.parse, text.split(","))) if text else ()

    @property
    def raw_proxy_command(self) -> str | None:
        """ProxyCommand as it stands."""
        return self._one("proxycommand")

    def tokens(self, username: str, port: int) -> dict[str, str]:
        """What stands for the %-signs (ssh_config(5), TOKENS)."""
        whole = socket.gethostname()
        together = f"{whole}{self.hostname}{port}{username}"
        return {
            "%": "%",
            "C": hashlib.sha1(together.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest(),
            "L": whole.partition(".")[0],
            "d": str(Path.home()),
            "h": self.hostname,
            "i": str(os.getuid()),
            "k": self.host_key_alias or self.host,
            "l": whole,
            "n": self.host,
            "p": str(port),
            "r": username,
            "u": local_user(),
        }

    def paths(self, texts: Sequence[str], username: str, port: int) -> list[Path]:
        """File names with `~`, tokens and environment variables expanded; `none` is not a file.

        Raises:
            InvalidInput: A token or a variable that has no value.
            Refused: What the caller gave would lead out of the folder.
        """
        tokens = self.tokens(username, port)
        if any("/" in tokens[name] for name in "nr" if any(f"%{name}" in text for text in texts)):
            raise Refused(
                "~/.ssh/config: a name with a slash would choose another file",
                hint="give host and username without slashes",
            )
        return [Path(_environment(expand(_home(text), tokens))) for text in texts if text.lower() != "none"]

    def known_hosts(self, username: str, port: int) -> list[Path] | None:
        """The files to trust in place of the usual ones; `None` where nothing is said."""
        words = self.found.words
        if not words:
            return None
        users = words.get("userknownhostsfile", list(DEFAULT_USER_KNOWN_HOSTS))
        return self.paths([*users, *words.get("globalknownhostsfile", DEFAULT_GLOBAL_KNOWN_HOSTS)], username, port)

    def agent_path(self, username: str, port: int) -> str | None:
        """The socket of the agent to ask: IdentityAgent, else SSH_AUTH_SOCK; `None` for no agent."""
        text = self.found.first.get("identityagent", "SSH_AUTH_SOCK")
        if text.lower() == "none":
            return None
        if text == "SSH_AUTH_SOCK" or (text.startswith("$") and not text.startswith("${")):
            return os.environ.get(text.removeprefix("$")) or None
        return str(self.paths([text], username, port)[0])

    def proxy_command(self, username: str, port: int) -> str | None:
        """ProxyCommand with its tokens expanded.

        Raises:
            Refused: A value would be read as part of the command.
            InvalidInput: A token that has no meaning there.
        """
        command = self._one("proxycommand")
        if command is None:
            return None
        tokens = {name: value for name, value in self.tokens(username, port).items() if name in "%hknpr"}
        check_plain(command, tokens)
        return expand(command, tokens)


def settings(
    host: str,
    *,
    username: str | None = None,
    port: int | None = None,
    may_exec: bool = False,
    without_proxy: bool = False,
    files: Iterable[tuple[Path, bool]] | None = None,
) -> Settings:
    """Read the files for one machine. Blocks: call it in a thread.

    Args:
        host: The name that was asked for.
        username: The account that was asked for; it counts before any line.
        port: The port that was asked for.
        may_exec: Whether commands of `Match exec` are run for this caller.
        without_proxy: The way to the machine is given already.
        files: Instead of ~/.ssh/config and /etc/ssh/ssh_config; with each, whether it is the user's own.

    Raises:
        InvalidInput: A file or a line cannot be used.
        Unsupported: An option on which target or trust depend and that this server does not know.
        Refused: A command of `Match exec` stands in the way.
    """
    sources = files or [(Path.home() / ".ssh/config", True), (Path("/etc/ssh/ssh_config"), False)]
    given = {"user": username, "port": str(port) if port else None, "proxycommand": "none" if without_proxy else None}
    found = ParsedOptions({option: value for option, value in given.items() if value is not None})
    runner = _Runner(host, may_exec=may_exec)
    user = local_user()

    def read(target: str, *, final: bool) -> None:
        question = MatchTarget(host, target, user, final, runner.succeeds)
        for path, own in sources:
            Reader(question, found).read(path, user=own, checked=own and files is None)

    read(host, final=False)
    hostname = _hostname(found, host)
    if found.wants_final:
        read(hostname, final=True)
    return Settings(host, hostname, found.named, found)


def local_user() -> str:
    """The account this server runs as."""
    return getpass.getuser()


def seconds(text: str) -> float:
    """A time as OpenSSH writes it: `90`, `1m30s`.

    Raises:
        InvalidInput: It is none.
    """
    taken = _TIME.fullmatch(text)
    if not text or not taken:
        raise InvalidInput(f"~/.ssh/config: {text!r} is not a time", hint="give seconds, or a time such as 1m30s")
    return float(sum(int(count or 0) * unit for count, unit in zip(taken.groups(), _TIME_UNITS_S, strict=True)))


def check_plain(command: str, tokens: dict[str, str]) -> None:
    """See that no value in a command for sh is more than a word to it.

    Raises:
        Refused: One is.
    """
    for name, value in tokens.items():
        if name != "%" and f"%{name}" in command and not _PLAIN.fullmatch(value):
            raise Refused(
                f"~/.ssh/config: %{name} in a command is {value!r} here, which is not one plain word to a shell",
                hint="use a host name and account of letters, digits, dots and dashes",
            )


def _hostname(found: ParsedOptions, host: str) -> str:
    named = found.first.get("hostname")
    hostname = host if named is None else expand(named, {"h": host, "%": "%"})
    return hostname if _is_address(hostname) else hostname.lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _home(text: str) -> str:
    if not text.startswith("~"):
        return text
    try:
        # pathlib would also tidy the rest, which must stay as it is for the tokens in it.
        name, slash, rest = text.partition("/")
        return f"{Path(name).expanduser()}{slash}{rest}"
    except RuntimeError as error:
        raise InvalidInput(f"~/.ssh/config: there is no home folder for {text!r}", hint="write a full path") from error


def _environment(text: str) -> str:
    def value(taken: re.Match[str]) -> str:
        if (found := os.environ.get(taken[1])) is None:
            raise InvalidInput(
                f"~/.ssh/config: the environment of this server has no {taken[1]!r}", hint="set it, or write the value"
            )
        return found

    return _ENVIRONMENT.sub(value, text)


class _Runner:
    """Runs the commands of `Match exec`, each once, with nothing to read and nowhere to write."""

    def __init__(self, host: str, *, may_exec: bool) -> None:
        self._host = host
        self._may_exec = may_exec
        self._known: dict[str, bool] = {}

    def succeeds(self, command: str, found: ParsedOptions, hostname: str) -> bool:
        """Whether a command exits with 0; one that takes too long is ended and did not.

        Raises:
            Refused: This caller may not have it run, or a value in it is not a plain word.
        """
        if not self._may_exec:
            raise Refused(
                "~/.ssh/config has a Match exec on the way to this host, which is run for the server's owner only",
                hint="connect with `use_config: false`, or over stdio",
            )
        so_far = Settings(self._host, hostname, found=found)
        tokens = so_far.tokens(so_far.username or local_user(), so_far.port or 22)
        check_plain(command, tokens)
        line = expand(command, tokens)
        if line not in self._known:
            self._known[line] = _exits_well(line)
        return self._known[line]


def _exits_well(line: str) -> bool:
    null = subprocess.DEVNULL
    argv = ["/bin/sh", "-c", line]
    with subprocess.Popen(argv, stdin=null, stdout=null, stderr=null, start_new_session=True) as process:
        try:
            return process.wait(EXEC_LIMIT_S) == 0
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return False
