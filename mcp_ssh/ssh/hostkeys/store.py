"""Host keys: what we trust, what a machine shows, and what follows from the difference.

`dial/dialer.py` verifies a machine like this:

    check = host_keys.client(await host_keys.load(), host, port)
    while True:
        try:
            connection = await asyncssh.connect(host, port, config=None, **check.options(), ...)
            break
        except asyncssh.HostKeyNotVerifiable as refusal:
            check = await host_keys.settle(check, refusal)

`settle` raises what the caller has to hear, or returns the check for one more handshake: after `accept-new` stored the
key, and after a certificate that was not believed, since the plain key may be (as with OpenSSH). It returns at most
twice in a row. Nothing secret is sent before a handshake passed. An `SSHClient` of its own (`dial/client.py`) has to
pass `validate_host_public_key` and `validate_host_ca_key` on to the check, in place of `client_factory`.

With a `HostKeyAlias`, the alias is `host` here and the port is 22; asyncssh gets it as `host_key_alias`.
"""

import errno
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import anyio
import anyio.to_thread

from mcp_ssh.errors import Conflict, ConnectFailed, Internal, InvalidInput, Refused, TimedOut
from mcp_ssh.ssh.dial.algorithms import HOST_KEYS
from mcp_ssh.ssh.dial.write_coalescing import Connector
from mcp_ssh.ssh.errors import MALFORMED, protocol_violation
from mcp_ssh.ssh.hostkeys import known_hosts
from mcp_ssh.ssh.hostkeys import rights as hostkey_rights
from mcp_ssh.ssh.hostkeys import verify as hostkey_check
from mcp_ssh.ssh.hostkeys.known_hosts import KnownHost, KnownHostsEntry, Trust, fingerprint, lookup_name
from mcp_ssh.ssh.hostkeys.verify import ALGORITHMS, HostKeyCheck, OfferedKey
from mcp_ssh.tool import Caller

if TYPE_CHECKING:
    import asyncssh

MANAGED = "the managed known_hosts"
MAX_PUBLIC_KEY_CHARS = 8192
MAX_HOST_CHARS = 255
MAX_OTHERS = 32

# A name we write is a name to every reader: no pattern, hash, list, marker or comment, and nothing that ends a line.
_NOT_IN_HOST = frozenset(" ,*?!|#@[]\"'`\\/<>")


class _Files(NamedTuple):
    """What the files said when they were last read; replaced as one, since threads may meet here."""

    parsed: dict[Path, tuple[known_hosts.FileVersion | None, list[KnownHostsEntry]]]
    trust: Trust


class HostKeys:
    """The keys of all machines: files of the user and the system, which are only read, and one that is ours.

    Args:
        managed: Our own file.
        read_only: The others.
        policy: What happens to an unknown key: `confirm` asks, `accept-new` stores it at first sight.
        reject_unknown: Unknown and changed keys are refused, and none can be accepted.
    """

    def __init__(
        self,
        managed: Path,
        read_only: Sequence[Path],
        policy: Literal["confirm", "accept-new"],
        reject_unknown: bool,  # noqa: FBT001
    ) -> None:
        self._managed = managed
        self._sources = {managed: MANAGED} | {path: _display_name(path) for path in read_only if path != managed}
        self._policy: Literal["confirm", "accept-new"] = policy
        self._reject_unknown = reject_unknown
        self._files = _Files({}, Trust([]))
        self._others: dict[tuple[Path, ...], HostKeys] = {}

    def set_policy(self, policy: Literal["confirm", "accept-new"], *, reject_unknown: bool) -> None:
        """Judge unknown and changed keys by another policy from now on."""
        self._policy, self._reject_unknown = policy, reject_unknown
        self._others.clear()

    def reading(self, files: Sequence[Path] | None, *, strict: bool) -> "HostKeys":
        """The same with other files beside our own, as UserKnownHostsFile says, or with unknown keys refused outright.

        Args:
            files: Instead of the usual ones; they are only read. `None`: the usual ones.
            strict: StrictHostKeyChecking is `yes`.
        """
        chosen = tuple(path for path in self._sources if path != self._managed) if files is None else tuple(files)
        if files is not None and chosen not in self._others:
            if len(self._others) >= MAX_OTHERS:
                self._others.clear()
            self._others[chosen] = HostKeys(self._managed, chosen, self._policy, self._reject_unknown)
        same = self if files is None else self._others[chosen]
        if not strict or self._reject_unknown:
            return same
        stern = HostKeys(self._managed, chosen, self._policy, reject_unknown=True)
        stern._files = same._files  # noqa: SLF001 of the same class: what was parsed need not be parsed again
        return stern

    async def load(self) -> Trust:
        """What is known now; files that changed since are read again.

        Raises:
            Refused: A file cannot be read.
        """
        return (await anyio.to_thread.run_sync(self._load)).trust

    def _load(self) -> _Files:
        before = self._files
        parsed = {path: self._parse_file(path, before.parsed.get(path)) for path in self._sources}
        if any(parsed[path] is not before.parsed.get(path) for path in parsed):
            self._files = _Files(parsed, Trust(entry for _, entries in parsed.values() for entry in entries))
        return self._files

    def _parse_file(
        self, path: Path, before: tuple[known_hosts.FileVersion | None, list[KnownHostsEntry]] | None
    ) -> tuple[known_hosts.FileVersion | None, list[KnownHostsEntry]]:
        source = self._sources[path]
        # Taken before reading: a file that changes in between is seen as changed again by the next load.
        signature = known_hosts.signature(path, source)
        if before and before[0] == signature:
            return before
        return signature, known_hosts.parse(known_hosts.read(path, source), source, managed=path == self._managed)

    def client(
        self,
        trust: Trust,
        host: str,
        port: int,
        caller: Caller | None = None,
        algorithms: Sequence[str] = HOST_KEYS,
    ) -> HostKeyCheck:
        """The question to put to one machine; the head of this module shows its use.

        Args:
            trust: What is known now.
            host: The machine, by the name under which its keys are known.
            port: Its port.
            caller: For whom a key is stored at first sight; `None` for the owner's own program.
            algorithms: What the machine may sign with, best first.
        """
        about = trust.about(host, port)
        certificates = bool(about.with_marker("@cert-authority"))
        return HostKeyCheck(host, port, about, certificates, tuple(algorithms), caller=caller)

    async def settle(self, check: HostKeyCheck, refusal: Exception) -> HostKeyCheck:
        """What follows when asyncssh refused a machine: an error for the caller, or one more handshake.

        Args:
            check: The question that was put.
            refusal: The `HostKeyNotVerifiable` that asyncssh raised.

        Returns:
            The question for the next handshake.

        Raises:
            HostKeyUnconfirmed: Unknown or changed; `details` are the documented payload.
            Refused: Revoked, not verifiable at all, or not acceptable by configuration.
        """
        offered = check.offered
        if offered is None:
            return _without_certificates(check, str(refusal))
        # Where an authority speaks of the machine it is not new: it failed to show what was asked of it.
        new = offered.known == "unknown" and not check.stored and not check.trust.with_marker("@cert-authority")
        if not new or self._policy != "accept-new" or self._reject_unknown:
            raise hostkey_check.not_trusted(check, offered, acceptable=not self._reject_unknown)
        await anyio.to_thread.run_sync(partial(self._store, offered, check.caller, new_only=True))
        again = self.client(await self.load(), check.host, check.port, check.caller, check.algorithms)
        return replace(again, stored=True)

    async def accept(
        self,
        host: str,
        port: int,
        key_type: str,
        public_key: str,
        fingerprint_sha256: str,
        *,
        caller: Caller | None = None,
        replaces: str | None = None,
        must_replace: bool = False,
    ) -> bool:
        """Trust a key from now on; it takes the place of an old one of the same machine and type.

        Args:
            host: The machine, by the name under which its keys are known.
            port: Its port.
            key_type: Type of the key.
            public_key: The key in one line.
            fingerprint_sha256: Its fingerprint.
            caller: Who accepts it; `None` for the owner's own program.
            replaces: The fingerprint of the key that the machine had.
            must_replace: Whether `replaces` is required where the machine has another key.

        Returns:
            Whether anything changed.

        Raises:
            InvalidInput: The text is not a key, type and fingerprint are not the key's, or `replaces` is missing.
            Conflict: The key is revoked, an old one stands in a file that is not ours, or `replaces` is not known.
            Refused: The configuration lets nobody accept keys, or another caller accepted a key of the machine.
            TooMany: The caller has as many keys as it may have.
        """
        if self._reject_unknown:
            raise Refused(
                "this server accepts no new host keys (security.reject_unknown_hosts)",
                hint="its owner can put the key into ~/.ssh/known_hosts",
            )
        _check_host(host)
        _check_port(port)
        offered = OfferedKey(host, port, key_type, _checked_key(key_type, public_key, fingerprint_sha256), "unknown")
        store = partial(self._store, offered, caller, replaces=replaces, must_replace=must_replace)
        return await anyio.to_thread.run_sync(store)

    def _store(
        self,
        offered: OfferedKey,
        caller: Caller | None,
        *,
        new_only: bool = False,
        replaces: str | None = None,
        must_replace: bool = False,
    ) -> bool:
        """Write a key down, judged again under the lock.

        With `new_only` nothing is written where the machine got to be known in the meantime; the next handshake says
        what it is.
        """
        _check_host(offered.host)  # by way of a proxy command or an alias, a machine's name can be any text
        name = offered.known_hosts_host
        others = [entry for path, (_, found) in self._load().parsed.items() if path != self._managed for entry in found]

        def change(data: bytes) -> bytes:
            trust = Trust([*known_hosts.parse(data, MANAGED, managed=True), *others]).about(offered.host, offered.port)
            verdict, evidence = trust.judge(offered.key_type, offered.blob)
            if new_only:
                return data if evidence else added(data)
            if verdict == "revoked":
                raise Conflict(
                    f"this key is revoked by {hostkey_check.places(evidence)}, so it cannot be accepted",
                    hint="the machine's owner has to give it a new key",
                )
            if fixed := trust.unmanaged_keys(offered.key_type, offered.blob):
                raise hostkey_check.cannot_replace(name, fixed)
            same_type = [entry for entry in trust.own_keys if entry.managed and entry.key_type == offered.key_type]
            if same_type and all(entry.blob == offered.blob for entry in same_type):
                return data
            hostkey_rights.expect_replacement(trust, name, offered.blob, replaces, required=must_replace)
            replaced = [entry for entry in trust.own_keys if entry.blob != offered.blob]
            what = f"trusting another key of {name}"
            hostkey_rights.expect_rights(caller, (*replaced, *trust.with_marker("@cert-authority")), what)
            return added(data)

        def added(data: bytes) -> bytes:
            comment = hostkey_rights.comment_of(caller)
            fresh = known_hosts.with_key(data, name, offered.key_type, offered.key_base64, comment)
            hostkey_rights.expect_room(caller, known_hosts.parse(fresh, MANAGED, managed=True), fresh)
            return fresh

        return self._rewrite(change)

    def _rewrite(self, change: Callable[[bytes], bytes]) -> bool:
        try:
            return known_hosts.rewrite(self._managed, MANAGED, change)
        except OSError as error:
            raise Internal(
                f"{MANAGED} cannot be written: {error.strerror}",
                hint="look at the rights and the free space of the folder that MCP_SSH_HOME names",
            ) from error

    async def remove(self, host: str, port: int, key_type: str, *, caller: Caller | None = None) -> bool:
        """Forget a machine's host key of one type in our own file, and say whether there was one.

        `host` may also be a name as `list` shows it: a hash or a pattern. Lines that revoke keys or name authorities
        stay, as do the files that are not ours.

        Raises:
            InvalidInput: A value that no line can hold.
            Refused: Another caller accepted the key.
        """
        if not host or not host.isprintable() or " " in host or "," in host or host.startswith("!"):
            raise _invalid("host", "a host name, an address, or a known_hosts_host of hostkey_list")
        _check_port(port)
        if not key_type or not key_type.isprintable() or " " in key_type:
            raise _invalid("key_type", "a type such as ssh-ed25519, without white space")
        names = {lookup_name(host, port), f"[{host.lower()}]:{port}"}
        names |= {host} if host.startswith("|") else set()

        def change(data: bytes) -> bytes:
            gone = known_hosts.matching_entries(known_hosts.parse(data, MANAGED, managed=True), names, key_type)
            hostkey_rights.expect_rights(caller, gone, f"removing the key of {host[:255]}")
            return known_hosts.without(data, names, key_type)

        return await anyio.to_thread.run_sync(self._rewrite, change)

    async def scan(
        self, host: str, port: int, timeout_s: float, addresses: Sequence[str] | None = None
    ) -> list[OfferedKey]:
        """Ask a machine for its key of every type, and say what each is to us; nothing is stored.

        One handshake a type, one after the other: sshd drops or punishes who opens many at once.

        Args:
            host: The machine, by the name under which its keys are known.
            port: Its port.
            timeout_s: The longest that it may take.
            addresses: Where to connect to; by default `host`, which is an address then.

        Raises:
            InvalidInput: No such host name is possible.
            ConnectFailed: It cannot be reached, or speaks no SSH that we do.
            TimedOut: It had not shown all keys at the deadline.
        """
        _check_host(host)
        _check_port(port)
        trust = (await self.load()).about(host, port)
        found: list[OfferedKey] = []
        with anyio.move_on_after(timeout_s) as scope:
            refusals: list[str] = []
            for algorithms in ALGORITHMS.values():
                key = await _fetch_key(host, port, addresses or (host,), algorithms, refusals)
                if key:
                    found.append(OfferedKey.of(host, port, key, trust)[0])
            if not found:
                raise ConnectFailed(
                    f"{lookup_name(host, port)} showed no host key: {refusals[0]}",
                    hint="check the address and the port",
                )
        if scope.cancelled_caught:
            raise TimedOut(
                f"{lookup_name(host, port)} had shown {len(found)} host keys after {timeout_s:g} s, perhaps not all",
                hint="check the address and the port, or give more time",
            )
        return found

    # Last, since below it `list` is this method and no longer the type.
    async def list(self) -> "list[KnownHost]":
        """The host keys of our own file, one row for each name of a line."""
        files = await anyio.to_thread.run_sync(self._load)
        return [*known_hosts.rows(files.parsed[self._managed][1])]


async def _fetch_key(
    host: str, port: int, addresses: Sequence[str], algorithms: Sequence[str], refusals: list[str]
) -> "asyncssh.SSHKey | None":
    """A machine's key for some algorithms; `None` and one refusal more where it has none.

    Raises:
        ConnectFailed: It cannot be reached.
    """
    import asyncssh

    # Without these asyncssh reads the user's config, keys and agent for a handshake that needs none.
    options = await anyio.to_thread.run_sync(
        partial(asyncssh.SSHClientConnectionOptions, config=None, client_keys=None, agent_path=None, known_hosts=None)
    )
    way: Any = Connector(addresses=addresses)
    try:
        return await asyncssh.get_server_host_key(
            host,
            port,
            tunnel=way,
            config=None,
            options=options,
            server_host_key_algs=[*algorithms],
        )
    except (asyncssh.KeyExchangeFailed, ConnectionResetError, asyncssh.ConnectionLost) as error:
        # A machine without such a key says so and hangs up; where our own words are still on the way, it resets.
        refusals.append(str(error))
        return None
    except MALFORMED as error:
        raise protocol_violation(lookup_name(host, port)) from error
    except (OSError, asyncssh.Error) as error:
        silent = isinstance(error, OSError) and error.errno == errno.ETIMEDOUT
        raise (TimedOut if silent else ConnectFailed)(
            f"{lookup_name(host, port)} cannot be reached: {error}", hint="check the address and the port"
        ) from error


def _without_certificates(check: HostKeyCheck, reason: str) -> HostKeyCheck:
    """The question after a machine was refused before it showed a plain key."""
    if reason.startswith(("Host key is revoked", "Host CA key is revoked")):
        what = f"the host key of {check.name}, or the authority that signed it,"
        raise hostkey_check.key_revoked(what, check.trust.with_marker("@revoked"))
    if not check.certificates:
        raise Refused(
            f"the host key of {check.name} cannot be verified: {reason}",
            hint="the machine has to show a plain key, or a certificate of an authority in ~/.ssh/known_hosts",
        )
    return replace(check, certificates=False, certificate_refusal=reason)


def _display_name(path: Path) -> str:
    """What people call a file that is not ours; messages never carry paths of this server."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path) if path.parent == Path("/etc/ssh") else path.name


def _invalid(field: str, rule: str) -> InvalidInput:
    return InvalidInput(f"{field} must be {rule}", details={"errors": [{"field": field, "rule": rule}]})


def _check_host(host: str) -> None:
    if not 0 < len(host) <= MAX_HOST_CHARS or not host.isprintable() or _NOT_IN_HOST & set(host):
        raise _invalid("host", "one host name or address, without white space, commas, brackets or wildcards")


def _check_port(port: int) -> None:
    if not 0 < port < 2**16:
        raise _invalid("port", "from 1 to 65535")


def _checked_key(key_type: str, public_key: str, fingerprint_sha256: str) -> bytes:
    """The key in wire form, when type and fingerprint are its own.

    Raises:
        InvalidInput: They are not, or the text is not a public key.
    """
    import asyncssh

    words = public_key.split(maxsplit=2)
    if len(public_key) > MAX_PUBLIC_KEY_CHARS or len(words) < 2 or re.search(r"[\x00-\x1f\x7f]", public_key):
        raise _invalid("public_key", "one line: type, key in base64 and, if you like, a comment")
    if words[0] != key_type:
        raise _invalid("key_type", f"the type that public_key begins with, {words[0][:64]}")
    try:
        blob = asyncssh.import_public_key(f"{words[0]} {words[1]}").public_data
    except (asyncssh.KeyImportError, ValueError) as error:
        raise _invalid("public_key", "a public key of a type that machines show, as in details.host_key") from error
    if fingerprint(blob) != fingerprint_sha256:
        raise _invalid("fingerprint_sha256", "the fingerprint of public_key: SHA256: and 43 characters")
    return blob
