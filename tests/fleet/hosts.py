"""The fleet as tests see it: `Fleet` starts and ends it, `Host` is one machine with its link, console and SSH."""

import contextlib
import json
import os
import select
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fleet.build import CHECKOUT, host_key
from tests.fleet.keeper import ADDRESS
from tests.fleet.namespaces import DIES_WITH_PARENT, UNSHARE, FleetError, my_name
from tests.fleet.table import HOST_KEY_TYPES, HOSTS, PASSWORD, PORT, SMALL_DISK, HostRow, User

START_LIMIT = 60.0  # seconds for all hosts to come up
ANSWER_LIMIT = 80.0  # seconds that the keeper may take for a request, beside the request's own
END_LIMIT = 20.0  # seconds for all hosts to go


@dataclass(repr=False)
class Host:
    """One machine. Its methods block: call them from async code through `anyio.to_thread.run_sync`."""

    row: HostRow
    cache: Path
    password: str = PASSWORD
    port: int = PORT
    small_disk: str = SMALL_DISK
    _changed: set[str] = field(default_factory=set)  # what `reset` has to put right

    def __repr__(self) -> str:
        return f"Host({self.name!r})"

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def ip(self) -> str:
        return self.row.ip

    @property
    def ip6(self) -> str:
        return self.row.ip6

    @property
    def ports(self) -> Mapping[str, int]:
        """The port of each of its SSH servers. "normal" is on 22, and `auth` has more."""
        return self.row.ports

    @property
    def users(self) -> Mapping[str, User]:
        return {user.name: user for user in self.row.users}

    @property
    def key_path(self) -> Path:
        """The private key that every user of every host accepts."""
        return self.cache / "keys/id_ed25519"

    @property
    def cert_key_path(self) -> Path:
        """A private key that counts only with its certificate beside it (`…-cert.pub`), for the users dev and root."""
        return self.cache / "keys/cert_id"

    @property
    def ca_key_path(self) -> Path:
        """The private key of the authority whose certificates for users the server "certificate" of `auth` accepts."""
        return self.cache / "keys/user_ca"

    @property
    def host_ca_public_key(self) -> str:
        """Of the authority that certifies host keys, as known_hosts has it after "@cert-authority NAMES"."""
        return (self.cache / "keys/host_ca.pub").read_text().strip()

    @property
    def known_hosts_path(self) -> Path:
        """A known_hosts file with the keys that all hosts were built with, under their names, addresses and ports."""
        return self.cache / "keys/known_hosts"

    @property
    def public_keys(self) -> list[str]:
        """The host keys it was built with, as known_hosts has them after the name: "ssh-ed25519 AAAA…"."""
        paths = [host_key(self.cache / "keys", self.row, kind).with_suffix(".pub") for kind in HOST_KEY_TYPES]
        return [path.read_text().strip() for path in paths]

    def shell_of(self, user: str) -> str:
        return self.row.shell_of(self.users[user])

    # ---- over SSH --------------------------------------------------------------------------------------------

    def ssh_argv(self, user: str = "root", port: int = PORT) -> list[str]:
        """The system's ssh client, up to the host name: with the fleet's key, strict about the host's.

        A host that the tests have no link to is reached through another; -J would not hand the options on to that.
        """
        options = {
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self.known_hosts_path),
            "GlobalKnownHostsFile": "/dev/null",
            "IdentityFile": str(self.key_path),
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "10",
        }
        if self.row.via:
            via = Host(HOSTS[self.row.via], self.cache).ssh_argv()
            options["ProxyCommand"] = shlex.join([*via[:-1], "-W", "[%h]:%p", via[-1]])
        flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", "-F", "/dev/null", *flags, "-p", str(port), f"{user}@{self.ip}"]

    def ssh(
        self, command: str, user: str = "root", stdin: str | None = None, timeout: float = 30, port: int = PORT
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command with the system's ssh client: a second opinion on what the software under test reports."""
        return subprocess.run(
            [*self.ssh_argv(user, port), command],
            input=stdin or "",
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=timeout,
            check=False,
        )

    # ---- past SSH --------------------------------------------------------------------------------------------

    def console(
        self,
        argv: list[str],
        input: str | None = None,  # noqa: A002 (as subprocess.run calls it)
        timeout: float = 30,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command as root on the console: works with the link cut, sshd dead or the firewall closed."""
        code, out, err = self._ask("console", argv=argv, text=input or "", timeout=timeout)
        return subprocess.CompletedProcess(argv, code, out, err)

    def reboot(self, timeout: float = 30) -> None:
        """Really reboot, and wait until SSH answers again. Disk and host keys stay; /tmp, /run, firewall rules go."""
        self._ask("reboot", timeout=timeout)

    def power_cycle(self, timeout: float = 30) -> None:
        """Pull the plug: nothing is shut down. Or boot a host that is off. Returns when SSH answers."""
        self._ask("power_cycle", timeout=timeout)

    def boot_count(self) -> int:
        """How often it has booted: for `wait_for_boot`, where something else is to reboot it."""
        return self._ask("boot_count")

    def wait_for_boot(self, before: int, timeout: float = 30) -> None:
        """Wait until it has booted more often than `before`, and SSH answers."""
        self._ask("wait_for_boot", before=before, timeout=timeout)

    def wait_until_off(self, timeout: float = 30) -> None:
        """Wait until it has switched itself off."""
        self._ask("wait_until_off", timeout=timeout)

    def rotate_host_key(self) -> str:
        """Give the host new keys, which sshd uses at once; the new ed25519 one, as known_hosts has it.

        On `auth` that is the server "rotating" alone; the others keep theirs.
        """
        self._changed.add("key")
        return self._ask("rotate_host_key")

    def restore_host_key(self) -> None:
        """Back to `public_keys`."""
        self._ask("restore_host_key")
        self._changed.discard("key")

    # ---- the link between tests and host ---------------------------------------------------------------------

    def cut(self) -> None:
        """Lose every packet, both ways, without notice to either side. Connections stay open, and hang."""
        self._weather(cut=True)

    def restore(self) -> None:
        """Mend a cut link. Delay, loss and rate stay as they were."""
        self._weather(cut=False)

    def delay(self, ms_one_way: float, jitter_ms: float = 0) -> None:
        """Keep every packet that long: a round trip takes twice as much longer."""
        self._weather(delay_ms=ms_one_way, jitter_ms=jitter_ms)

    def loss(self, percent: int) -> None:
        """Lose that share of the packets, in each direction."""
        self._weather(loss_percent=percent)

    def rate(self, kbit: int) -> None:
        """Let no more than that many kilobits a second through, in each direction."""
        self._weather(rate_kbit=kbit)

    def clear(self) -> None:
        """A perfect link again."""
        self._ask("clear")
        self._changed.discard("link")

    def reset(self) -> None:
        """Undo what a test did to the link or the host keys; costs nothing when it did nothing."""
        if "link" in self._changed:
            self.clear()
        if "key" in self._changed:
            self.restore_host_key()

    def heal(self) -> None:
        """Start a host that nobody has used yet, or that an earlier test has left off or behind its own firewall."""
        self._ask("heal")

    def _weather(self, **wishes: bool | float) -> None:
        self._changed.add("link")
        self._ask("weather", **wishes)

    def _ask(self, do: str, **arguments: Any) -> Any:
        """Have the keeper do something to this host."""
        request = json.dumps({"host": self.name, "do": do, "with": arguments}) + "\n"
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(arguments.get("timeout", 0) + ANSWER_LIMIT)
                connection.connect(ADDRESS)
                connection.sendall(request.encode())
                with connection.makefile() as lines:
                    answer = json.loads(lines.readline())
        except (OSError, ValueError) as error:
            raise FleetError(f"the keeper of the fleet does not answer: {error}") from error
        if "error" in answer:
            raise FleetError(answer["error"])
        return answer["done"]


@dataclass
class Fleet:
    """All hosts. Those that were not started with it are off until `Host.heal`."""

    hosts: dict[str, Host]
    boot_seconds: dict[str, float]  # of those that were
    keeper_pid: int  # kill it, and everything of this fleet is gone

    @property
    def deb(self) -> Host:
        return self.hosts["deb"]

    @property
    def alpine(self) -> Host:
        return self.hosts["alpine"]

    def inventory(self) -> list[dict[str, Any]]:
        """What a person or a script needs to log in."""
        return [
            {
                "name": host.name,
                "ip": host.ip,
                "ip6": host.ip6,
                "ports": host.ports,
                "users": list(host.users),
                "password": host.password,
                "key_path": str(host.key_path),
                "known_hosts_path": str(host.known_hosts_path),
                "public_keys": host.public_keys,
            }
            for host in map(self.hosts.__getitem__, self.boot_seconds)
        ]


@contextlib.contextmanager
def running_fleet(cache: Path, names: list[str] | None = None) -> Generator[Fleet]:
    """Start hosts in the calling thread's network namespace, end them at the end or with that thread."""
    names = names or list(HOSTS)
    names = list(dict.fromkeys(needed for name in names for needed in (HOSTS[name].via or name, name)))
    keeper = [sys.executable, "-m", "tests.fleet.keeper", str(cache), my_name(), *names]
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(
            [*DIES_WITH_PARENT, *UNSHARE, *keeper],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,  # a Ctrl-C at the terminal is for the tests; the fleet ends after them
            env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        ) as process,
    ):
        try:
            seconds = _wait_for_ready(process, complaints)
            yield Fleet({name: Host(row, cache) for name, row in HOSTS.items()}, seconds, process.pid)
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=END_LIMIT)  # closes its stdin, which ends it
            process.kill()


def _wait_for_ready(process: "subprocess.Popen[str]", complaints: Any) -> dict[str, float]:
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], START_LIMIT)
    line = process.stdout.readline() if ready else ""
    said: dict[str, Any] = json.loads(line) if line else {"error": "its keeper said nothing"}
    if "error" in said:
        process.kill()
        complaints.seek(0)
        raise FleetError(f"the fleet does not start: {said['error']}\n{complaints.read()[-3000:]}")
    return said["ready"]
