"""One running host, as the keeper holds it: its disk, its processes, its power switch."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.fleet.link import Link
from tests.fleet.namespaces import FleetError
from tests.fleet.network import NETNS_DIR, answers, answers_inside, command, plug_in, unplug
from tests.fleet.table import HOST_KEY_TYPES, PORT, HostRow, host_key_file, pid_file

BOOT = Path(__file__).with_name("boot.sh")
BOOT_LIMIT = 30.0  # seconds from power on to an SSH server that answers
PATIENCE = 5.0  # seconds that a healthy host may take to answer
STOPPED_FOR = 0.5  # seconds that a console command may stay stopped
LOOK_AGAIN = 0.01  # seconds between two looks at something that gives no notice

# (major, minor) of the devices every Linux has
DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "net/tun": (10, 200),
}
# What even root of a host may not do, because it would reach the machine below.
NO_CAPABILITIES = "-mknod,-sys_time,-sys_module,-sys_rawio,-syslog,-wake_alarm,-audit_control,-audit_read"
CONSOLE_ENVIRONMENT = (
    "HOME=/root",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "TERM=dumb",
)


class Machine:
    """A host. `lock` is held by whoever changes its link, disk or power."""

    def __init__(self, row: HostRow, cache: Path, run: Path, cgroup: Path) -> None:
        self.row = row
        self.cache = cache
        self.directory = run / row.name
        self.root = self.directory / "root"
        self.boot_log = self.directory / "boot.log"  # what the steps before its init had to say
        self.console_log = self.root / "dev/console"  # what its init says; a plain file is enough of a console
        self.cgroup = cgroup / row.name
        self.link = Link(row)
        self.lock = threading.RLock()
        self.boots = 0
        self._power = threading.Condition()
        self._wrapper: subprocess.Popen[bytes] | None = None

    @property
    def netns(self) -> str:
        """A new one for every boot: a real machine forgets its firewall rules and routes, too."""
        return f"{self.row.name}.{self.boots}"

    # ---- power -----------------------------------------------------------------------------------------------

    def install(self) -> None:
        """Give the host its disk: the baked layers below, an empty one in memory above."""
        upper, work = self.directory / "upper", self.directory / "work"
        for directory in (upper, work, self.root):
            directory.mkdir(parents=True)
        layers = self.cache / "layers"
        stack = ":".join(str(layers / name) for name in (self.row.own_layer, *self.row.stack))
        command(
            *("mount", "-t", "overlay", "overlay", str(self.root)),
            *("-o", f"lowerdir={stack},upperdir={upper},workdir={work}"),
        )
        command("mount", "-t", "tmpfs", "-o", "mode=755,nosuid", "tmpfs", str(self.root / "dev"))
        (self.root / "dev/net").mkdir()
        for name, numbers in DEVICES.items():
            node = self.root / "dev" / name
            os.mknod(node, 0o020666, os.makedev(*numbers))
            node.chmod(0o666)
        self.console_log.touch()
        self.boot_log.touch()
        self.cgroup.mkdir(parents=True, exist_ok=True)

    def power_on(self) -> None:
        """Boot, and from then on boot again whenever the host reboots."""
        if not self.boots:
            self.install()
        wrapper = self._boot()
        threading.Thread(target=self._boot_again, args=[wrapper], daemon=True).start()

    def _boot_again(self, wrapper: "subprocess.Popen[bytes]") -> None:
        while wrapper.wait() == -signal.SIGHUP:  # what reboot(2) leaves; any other end is a power off
            with self.lock:
                if self._wrapper is not wrapper:  # someone else has taken care of it, or it is to stay off
                    return
                wrapper = self._boot()

    def _boot(self) -> "subprocess.Popen[bytes]":
        with self.lock, self._power:
            if self.boots:
                unplug(self.row, self.netns)
            self.boots += 1
            plug_in(self.row, self.netns)
            self.link.apply(self.netns)
            self._wrapper = self._start_first_process()
            self._power.notify_all()
            return self._wrapper

    def _start_first_process(self) -> "subprocess.Popen[bytes]":
        """Start the host's first process in new namespaces. Returned is its parent, which lives as long as the host."""
        uptime = int(float(Path("/proc/uptime").read_text().split()[0]))
        argv = [
            *("sh", "-c", 'echo $$ > "$0"; exec "$@"', str(self.cgroup / "cgroup.procs")),
            *("nsenter", f"--net={NETNS_DIR / self.netns}"),
            *("unshare", "--mount", "--uts", "--ipc", "--cgroup", "--pid", "--fork", "--kill-child"),
            *("--propagation", "private", "--time", "--boottime", str(-uptime)),  # its uptime starts at 0
            *("setpriv", "--bounding-set", NO_CAPABILITIES),
            *("sh", "-eu", str(BOOT), str(self.root), self.row.name, self.row.family.init),
        ]
        with self.boot_log.open("ab") as log:
            wrapper = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        until(lambda: len(self._members()) > 1 or wrapper.poll() is not None, 5, "the host's first process")
        # Only the host itself may stay in its cgroup: systemd cannot name a process outside of its namespace.
        (self.cgroup.parent / "cgroup.procs").write_text(str(wrapper.pid))
        return wrapper

    def _members(self) -> list[int]:
        return [int(pid) for pid in (self.cgroup / "cgroup.procs").read_text().split()]

    def wait_until_up(self, limit: float = BOOT_LIMIT) -> None:
        """Wait for the SSH servers, seen from inside, so that a cut link does not matter."""
        deadline = time.monotonic() + limit
        try:
            for port in self.row.ports.values():
                self._wait_for_server(port, max(deadline - time.monotonic(), 1))
        except FleetError as error:
            raise FleetError(f"{self.row.name}: {error}; its console says:\n{self.console_text()}") from None

    def _wait_for_server(self, port: int, limit: float) -> None:
        until(lambda: answers_inside(self.netns, port), limit, f"its SSH server on port {port}")

    def console_text(self) -> str:
        return "".join(log.read_text(errors="replace")[-2000:] for log in (self.boot_log, self.console_log))

    def reboot(self, limit: float = BOOT_LIMIT) -> None:
        """Reboot as an administrator would, and wait until SSH is back."""
        before = self.boots
        self.console(["reboot"], b"", limit)
        self.wait_for_boot(before, limit)

    def wait_for_boot(self, before: int, limit: float = BOOT_LIMIT) -> None:
        """Wait until the host has booted more often than `before`, and SSH is back."""
        deadline = time.monotonic() + limit
        with self._power:
            if not self._power.wait_for(lambda: self.boots > before, limit):
                raise FleetError(f"{self.row.name} did not boot again within {limit} s:\n{self.console_text()}")
        self.wait_until_up(max(deadline - time.monotonic(), 1))

    def wait_until_off(self, limit: float = BOOT_LIMIT) -> None:
        """Wait until the host has switched itself off."""
        wrapper = self._wrapper
        until(lambda: wrapper is None or wrapper.poll() is not None, limit, f"the power off of {self.row.name}")

    def power_cycle(self, limit: float = BOOT_LIMIT) -> None:
        """Pull the plug, if the host is on, and boot it."""
        with self.lock:
            self.kill()
            self.power_on()
        self.wait_until_up(limit)

    def kill(self) -> None:
        """Pull the plug. Returns when no process of the host is left."""
        with self.lock:
            wrapper, self._wrapper = self._wrapper, None
            if wrapper:
                with contextlib.suppress(FleetError, ProcessLookupError):  # in case it has ended, or is just ending
                    # The kernel ends all other processes of a host with its first one.
                    os.kill(self._first_process(wrapper), signal.SIGKILL)
                wrapper.wait()

    def heal(self) -> None:
        """Boot a host that is off, or that the tests cannot reach although nothing is wrong with the link."""
        if self.boots and self._answers():
            return
        try:
            self.power_cycle()
        except FleetError:  # seen once in some hundred boots under load; a person would pull the plug, too
            self.power_cycle()

    def _answers(self) -> bool:
        if self.row.via:  # the tests have no link to it
            return answers_inside(self.netns, PORT, PATIENCE)
        return answers((self.row.ip, PORT), PATIENCE)

    def _first_process(self, wrapper: "subprocess.Popen[bytes] | None") -> int:
        try:
            children = Path(f"/proc/{wrapper.pid}/task/{wrapper.pid}/children").read_text() if wrapper else ""
            return int(children)
        except (OSError, ValueError):
            raise FleetError(f"{self.row.name} is not running") from None

    # ---- out of band -----------------------------------------------------------------------------------------

    def console(self, argv: list[str], text: bytes | None, timeout: float) -> "subprocess.CompletedProcess[bytes]":
        """Run a command as root on the host's console, which needs neither its network nor its SSH server."""
        first = str(self._first_process(self._wrapper))
        enter = ["nsenter", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--time", "--target", first]
        with subprocess.Popen(
            [*("setpriv", "--bounding-set", NO_CAPABILITIES), *enter, *("env", "-i", *CONSOLE_ENVIRONMENT), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            deadline = time.monotonic() + timeout
            while True:
                left = deadline - time.monotonic()
                try:
                    out, err = process.communicate(text, max(min(left, STOPPED_FOR), 0))
                    return subprocess.CompletedProcess(argv, process.returncode, out, err)
                except subprocess.TimeoutExpired:
                    text = None  # has been taken
                    if left <= STOPPED_FOR:
                        os.killpg(process.pid, signal.SIGKILL)
                        raise FleetError(f"{self.row.name}: {argv} did not end within {timeout} s") from None
                    # A host that shuts down stops all processes before it kills them. nsenter then stops itself, too,
                    # and would never hear of the end.
                    process.send_signal(signal.SIGCONT)

    def rotate_host_key(self) -> str:
        """New host keys, in effect when this returns; the ed25519 one, as known_hosts has it."""
        new = self.directory / "new-key"
        for kind in HOST_KEY_TYPES:
            command("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", self.row.name, "-f", str(new))
            self._install_host_key(kind, new)
            for path in (new, new.with_suffix(".pub")):
                path.unlink()
        return self._reload_host_keys()

    def restore_host_key(self) -> str:
        """The keys that the host was built with."""
        for kind in HOST_KEY_TYPES:
            self._install_host_key(kind, self.cache / "keys/host" / f"{self.row.name}_{kind}")
        return self._reload_host_keys()

    def _install_host_key(self, kind: str, key: Path) -> None:
        target = self.root / host_key_file(self.row.rotating, kind)
        target.write_text(key.read_text())
        target.with_suffix(".pub").write_text(key.with_suffix(".pub").read_text())

    def _reload_host_keys(self) -> str:
        server, port = self.row.rotating, str(self.row.ports[self.row.rotating])
        key = (self.root / host_key_file(server, "ed25519")).with_suffix(".pub").read_text().strip()
        reload = self.console(["sh", "-c", 'kill -HUP "$(cat "$0")"', f"/{pid_file(server)}"], b"", 5)
        if reload.returncode:
            raise FleetError(f"{self.row.name}: sshd cannot be reloaded: {reload.stderr.decode()}")
        inside = ["ip", "netns", "exec", self.netns]
        scan = [*inside, "ssh-keyscan", "-T", "5", "-t", "ed25519", "-p", port, "127.0.0.1"]

        def shows_it() -> bool:
            return key.split()[1] in subprocess.run(scan, capture_output=True, text=True, check=False).stdout

        until(shows_it, 10, "the new host key")
        return key


def until(condition: Callable[[], bool], limit: float, what: str) -> None:
    """Wait for something that gives no notice of itself, with a bound."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise FleetError(f"{what} did not come within {limit:.0f} s")
        time.sleep(LOOK_AGAIN)
