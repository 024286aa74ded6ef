"""One handshake's question, is this the machine we know, and what a caller hears where it is not."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mcp_ssh.errors import Conflict, HostKeyUnconfirmed, Refused, ToolError
from mcp_ssh.shell_command import quote
from mcp_ssh.ssh.dial.algorithms import HOST_KEYS
from mcp_ssh.ssh.hostkeys.known_hosts import HostTrust, KeyTrust, KnownHostsEntry, fingerprint, lookup_name
from mcp_ssh.tool import Caller

if TYPE_CHECKING:
    import asyncssh


ALGORITHMS: dict[str, tuple[str, ...]] = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"),
}
"""What a scan asks machines for, by type of key, best first; a login asks for less (`dial/algorithms.py`)."""


@dataclass(frozen=True)
class OfferedKey:
    """A key that a machine showed, and what it is to us."""

    host: str
    port: int
    key_type: str
    blob: bytes = field(repr=False)
    known: KeyTrust

    @classmethod
    def of(
        cls, host: str, port: int, key: "asyncssh.SSHKey", trust: HostTrust
    ) -> tuple["OfferedKey", list[KnownHostsEntry]]:
        """The key judged, and the entries that say so."""
        key_type, blob = key.get_algorithm(), key.public_data
        verdict, evidence = trust.judge(key_type, blob)
        return cls(host, port, key_type, blob, verdict), evidence

    @property
    def known_hosts_host(self) -> str:
        """The machine as known_hosts names it."""
        return lookup_name(self.host, self.port)

    @property
    def key_base64(self) -> str:
        """The key as known_hosts holds it."""
        return base64.b64encode(self.blob).decode("ascii")

    @property
    def public_key(self) -> str:
        """Type and key in one line."""
        return f"{self.key_type} {self.key_base64}"

    @property
    def fingerprint_sha256(self) -> str:
        """What people compare."""
        return fingerprint(self.blob)


@dataclass
class HostKeyCheck:
    """One handshake's question.

    Attributes:
        host: The machine, by the name under which its keys are known.
        port: Its port.
        trust: What is known of it.
        certificates: Whether certificates are asked for: they are where a `@cert-authority` speaks of the machine.
        algorithms: What the machine may sign with, best first.
        stored: A key was stored on the way here, so that a second one is not.
        certificate_refusal: Why the certificate that it showed before was not believed.
        caller: For whom a key is stored at first sight.
        offered: The plain key that the machine showed, once it did.
        evidence: The entries that say what it is.
    """

    host: str
    port: int
    trust: HostTrust
    certificates: bool
    algorithms: tuple[str, ...] = HOST_KEYS
    stored: bool = False
    certificate_refusal: str = ""
    caller: Caller | None = None
    offered: OfferedKey | None = field(default=None, init=False)
    evidence: list[KnownHostsEntry] = field(default_factory=list[KnownHostsEntry], init=False)

    @property
    def name(self) -> str:
        """The machine as known_hosts names it."""
        return lookup_name(self.host, self.port)

    @property
    def known_hosts(self) -> tuple[list["asyncssh.SSHKey"], list["asyncssh.SSHKey"], list["asyncssh.SSHKey"]]:
        """Trusted host keys, authorities and revoked keys for asyncssh.

        It asks `validate_host_public_key` about every key it does not trust, so all plain keys are left to that: then
        key and line are on record whatever the verdict. Revoked keys are given where certificates are, because asyncssh
        tells its client nothing of the key inside a certificate.
        """
        if not self.certificates:
            return [], [], []
        return [], _keys(self.trust.with_marker("@cert-authority")), _keys(self.trust.with_marker("@revoked"))

    @property
    def server_host_key_algs(self) -> list[str]:
        """Algorithms in the order we want them: types we know first, so that a machine which has such a key shows it.

        All others follow, so that a changed key is seen as changed and an unknown machine can show itself.
        """
        known = [entry.key_type for entry in self.trust.with_marker("") if entry.key_type in ALGORITHMS]
        ours = [each for key_type in known for each in self.algorithms if each in ALGORITHMS[key_type]]
        plain = [*dict.fromkeys((*ours, *self.algorithms))]
        return [f"{each}-cert-v01@openssh.com" for each in plain] + plain if self.certificates else plain

    def options(self) -> dict[str, Any]:
        """Arguments for `asyncssh.connect`: all that decides whom it trusts, so that no default of its own does."""
        return {
            "known_hosts": self.known_hosts,
            "server_host_key_algs": self.server_host_key_algs,
            "client_factory": self.client_factory,
            # X.509 chains are believed even where none was asked for, by default with authorities from ~/.ssh.
            "x509_trusted_certs": [],
            "x509_trusted_cert_paths": [],
            "gss_kex": False,  # a GSS key exchange may show no host key at all
        }

    def client_factory(self) -> "asyncssh.SSHClient":
        """An `SSHClient` that asks this check."""
        import asyncssh

        check = self

        class Client(asyncssh.SSHClient):
            def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
                return check.validate_host_public_key(host, addr, port, key)

            def validate_host_ca_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
                return check.validate_host_ca_key(host, addr, port, key)

        return Client()

    def validate_host_public_key(self, host: str, addr: str, port: int, key: "asyncssh.SSHKey") -> bool:
        """Judge a key and put it on record; named and called as `SSHClient`'s."""
        del host, addr, port  # of the connection; behind a proxy or an alias they are not the machine's
        offered, self.evidence = OfferedKey.of(self.host, self.port, key, self.trust)
        if offered.known == "unknown" and any(entry.key_type in ALGORITHMS for entry in self.evidence):
            # It was asked for the types we know first, so it has lost the key we know.
            offered = OfferedKey(self.host, self.port, offered.key_type, offered.blob, "changed")
        self.offered = offered
        return offered.known == "trusted"

    def validate_host_ca_key(self, host: str, addr: str, port: int, key: "asyncssh.SSHKey") -> bool:
        """Refuse an authority that no line names; named and called as `SSHClient`'s."""
        del host, addr, port, key
        self.offered = None
        return False


def _keys(entries: Sequence[KnownHostsEntry]) -> list["asyncssh.SSHKey"]:
    import asyncssh

    keys: list[asyncssh.SSHKey] = []
    for entry in entries:
        try:
            keys.append(asyncssh.import_public_key(f"{entry.key_type} {entry.key_base64}"))
        except asyncssh.KeyImportError:
            continue  # of a type that asyncssh lacks: no machine can show it to us
    return keys


def places(entries: Sequence[KnownHostsEntry]) -> str:
    """Files and lines, for a sentence."""
    shown = " and ".join(entry.place for entry in entries[:3])
    return f"{shown} and more" if len(entries) > 3 else shown


def payload(offered: OfferedKey, evidence: Sequence[KnownHostsEntry]) -> dict[str, Any]:
    """The documented body of the 409; `expected_*` where a key is known."""
    shown: dict[str, Any] = {
        "host": offered.host,
        "port": offered.port,
        "known_hosts_host": offered.known_hosts_host,
        "key_type": offered.key_type,
        "fingerprint_sha256": offered.fingerprint_sha256,
        "public_key": offered.public_key,
        "reason": offered.known,
    }
    if offered.known == "changed":
        expected = evidence[0]
        shown["expected_fingerprint_sha256"] = fingerprint(expected.blob)
        shown["expected_public_key"] = f"{expected.key_type} {expected.key_base64}"
    return {
        "code": "HOST_KEY_CONFIRMATION_REQUIRED",
        "message": "Host key verification failed",
        "host_key": shown,
    }


def not_trusted(check: HostKeyCheck, offered: OfferedKey, *, acceptable: bool) -> ToolError:
    """The error for a key that was shown and is not trusted.

    Args:
        check: The question.
        offered: The answer.
        acceptable: Whether the configuration lets callers accept keys.
    """
    if offered.known == "revoked":
        return key_revoked(f"the host key of {check.name}, {offered.fingerprint_sha256},", check.evidence)
    shown = f"{offered.key_type} {offered.fingerprint_sha256}"
    if offered.known == "changed":
        expected = check.evidence[0]
        message = (
            f"the host key of {check.name} has CHANGED: it shows {shown}, but {places(check.evidence)} has"
            f" {expected.key_type} {fingerprint(expected.blob)}; another machine may be answering in its place"
        )
    else:
        message = f"the host key of {check.name} is unknown: {shown}"
    if check.certificate_refusal:
        message += f" (its certificate was not believed: {check.certificate_refusal})"
    if not acceptable:
        return Refused(
            message,
            hint="no new host keys are accepted here (security.reject_unknown_hosts, or StrictHostKeyChecking in"
            " ~/.ssh/config); the server's owner can put the key into ~/.ssh/known_hosts",
        )
    return HostKeyUnconfirmed(message, hint=_way_out(check, offered), details=payload(offered, check.evidence))


def _way_out(check: HostKeyCheck, offered: OfferedKey) -> str:
    accept = "hostkey_accept with the fields of details.host_key, and try again"
    if offered.known == "unknown":
        return f"compare the fingerprint with the machine's own by another way; if they agree, call {accept}"
    fixed = check.trust.unmanaged_keys(offered.key_type, offered.blob)
    first = f"{_removal(check.name, fixed)}; then call" if fixed else "call"
    return f"ask the machine's owner whether its key was replaced; only if it was, {first} {accept}"


def _removal(name: str, fixed: Sequence[KnownHostsEntry]) -> str:
    ours = [entry for entry in fixed if entry.managed]
    theirs = sorted({entry.source for entry in fixed if not entry.managed})
    ways = [f"remove the old key from {source} (`ssh-keygen -R {quote(name)} -f {source}`)" for source in theirs]
    if ours:
        ways.append(f"take the pattern out of {places(ours)}")
    return " and ".join(ways)


def key_revoked(what: str, evidence: Sequence[KnownHostsEntry]) -> Refused:
    """The error for a revoked key; nothing can accept it."""
    return Refused(
        f"{what} is revoked by {places(evidence)}",
        hint="do not connect: the holder of this key may not be the machine; its owner has to give it a new one",
    )


def cannot_replace(name: str, fixed: Sequence[KnownHostsEntry]) -> Conflict:
    """The error for accepting a key while an old one stands where we do not write."""
    return Conflict(
        f"another key of {name} stands in {places(fixed)}, which this server does not change",
        hint=f"if the machine's key was really replaced, {_removal(name, fixed)}, and accept the new one again",
    )
