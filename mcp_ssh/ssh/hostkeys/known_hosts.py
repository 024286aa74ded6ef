"""The known_hosts file format of sshd(8): reading entries, finding those of a machine, and rewriting one file.

asyncssh has a reader too. This one stands beside it because messages name file and line, a malformed line must not
make the whole file useless, names are compared without case as OpenSSH does, and rewriting keeps every other byte.
"""

import base64
import errno
import hashlib
import hmac
import io
import os
import re
import stat
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from mcp_ssh.atomic_file import replace, turn_at
from mcp_ssh.errors import Refused
from mcp_ssh.host_patterns import pattern_matches
from mcp_ssh.ssh.local_read import read_file

Marker = Literal["", "@cert-authority", "@revoked"]
KeyTrust = Literal["trusted", "unknown", "changed", "revoked"]

MAX_FILE_BYTES = 16 * 2**20
_MARKERS: dict[str, Marker] = {"@cert-authority": "@cert-authority", "@revoked": "@revoked"}
ACCEPTED_BY = "accepted-by="
"""What the comment of a line begins with that was written for a caller; behind it stands the caller's id."""
CALLER_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BLANKS = " \t"
_HASHED = "|1|"
_WITH_PORT = re.compile(r"\[(?P<host>[^\[\]]+)\]:(?P<port>[0-9]{1,5})")


def lookup_name(host: str, port: int) -> str:
    """The name a machine has in known_hosts: lower case, with the port where it is not 22."""
    return host.lower() if port == 22 else f"[{host.lower()}]:{port}"


def fingerprint(blob: bytes) -> str:
    """A public key's fingerprint as OpenSSH prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode("ascii").rstrip("=")


def key_blob(key_type: str, key_base64: str) -> bytes | None:
    """The key in wire form; `None` for text that is not base64, or that holds a key of another type."""
    try:
        blob = base64.b64decode(key_base64, validate=True)
        named = key_type.encode("ascii")
    except ValueError:
        return None
    return blob if blob.startswith(len(named).to_bytes(4, "big") + named) else None


@dataclass(frozen=True)
class KnownHostsEntry:
    """One well-formed line.

    Attributes:
        source: What people call the file; never a path of this server.
        managed: The line stands in the file that is ours to write.
        line: Its number, from 1.
        marker: Empty for a host key.
        names: The field of names as it stands: a list of patterns, or one hash.
        key_type: Type of the key.
        key_base64: The key as it stands.
        blob: The key in wire form.
        comment: The first word behind the key.
    """

    source: str
    managed: bool
    line: int
    marker: Marker
    names: str
    key_type: str
    key_base64: str
    blob: bytes
    comment: str = ""

    @property
    def place(self) -> str:
        """File and line, for messages."""
        return f"{self.source}, line {self.line}"

    @property
    def accepted_by(self) -> str | None:
        """The id of the caller that accepted the key; `None` where a person wrote the line."""
        named = self.comment.removeprefix(ACCEPTED_BY)
        return named if self.managed and named != self.comment and CALLER_ID.fullmatch(named) else None

    @property
    def hashed(self) -> bool:
        """Whether the name is a hash, which only a guess can be compared with."""
        return self.names.startswith("|")

    @property
    def literal(self) -> bool:
        """Whether it names machines one by one, so that one of them can be taken off the line."""
        return self.hashed or not any(sign in self.names for sign in "*?!")

    def tokens(self) -> list[str]:
        """The names and patterns of the line, one by one."""
        return [self.names] if self.hashed else self.names.split(",")


def _split_hash(token: str) -> tuple[bytes, bytes] | None:
    """Salt and hash of a hashed name; `None` for one of another kind."""
    salt, _, wanted = token.removeprefix(_HASHED).partition("|")
    try:
        return (base64.b64decode(salt), base64.b64decode(wanted)) if token.startswith(_HASHED) else None
    except ValueError:
        return None


def _hash_matches(salted: tuple[bytes, bytes], name: bytes) -> bool:
    return hmac.digest(salted[0], name, "sha1") == salted[1]


def _encode(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def list_matches(patterns: str, name: str) -> bool:
    """Match a list of patterns between commas; one that begins with `!` and matches, refuses."""
    found = False
    for pattern in patterns.split(","):
        negated = pattern.startswith("!")
        if pattern_matches(pattern[negated:], name):
            if negated:
                return False
            found = True
    return found


def _lines(data: bytes) -> list[bytes]:
    """Lines with their ends. Only a line feed ends one, as for OpenSSH: a stray carriage return is not a new entry."""
    return io.BytesIO(data).readlines()


def _fields(raw: bytes) -> tuple[Marker, str, str, str, bytes, str] | None:
    """Marker, names, key type, key, its wire form and a word of comment; `None` for a line that is not an entry."""
    text = raw.decode("utf-8", "surrogateescape").strip(_BLANKS + "\r\n")
    if not text or text.startswith("#") or "\0" in text:
        return None
    words = re.split(f"[{_BLANKS}]+", text, maxsplit=5)
    marker = _MARKERS.get(words[0], "")
    if words[0].startswith("@"):
        words = words[1:] if marker else []
    blob = key_blob(words[1], words[2]) if len(words) >= 3 else None
    return (marker, words[0], words[1], words[2], blob, words[3] if len(words) > 3 else "") if blob else None


def parse(data: bytes, source: str, *, managed: bool) -> list[KnownHostsEntry]:
    """The entries of a file, in order; lines that are not entries are passed over."""
    found: list[KnownHostsEntry] = []
    for number, raw in enumerate(_lines(data), 1):
        fields = _fields(raw)
        if fields:
            found.append(KnownHostsEntry(source, managed, number, *fields))
    return found


@dataclass(frozen=True)
class KnownHost:
    """One name of one host key line, as `hostkey_list` shows it. A hashed name is shown as its hash, with port 22."""

    host: str
    port: int
    known_hosts_host: str
    key_type: str
    key_base64: str
    fingerprint_sha256: str
    accepted_by: str | None = None


def rows(entries: Iterable[KnownHostsEntry]) -> Iterator[KnownHost]:
    """A row for every name that a host key stands under; negations and marked lines are no machine's key."""
    for entry in entries:
        for token in entry.tokens():
            if entry.marker or token.startswith("!"):
                continue
            shown = token.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            split = _WITH_PORT.fullmatch(shown)
            host, port = (split["host"], int(split["port"])) if split else (shown, 22)
            if not 0 < port < 2**16:
                host, port = shown, 22
            printed = fingerprint(entry.blob)
            yield KnownHost(host, port, shown, entry.key_type, entry.key_base64, printed, entry.accepted_by)


class Trust:
    """What is known of all machines at one moment; immutable."""

    def __init__(self, entries: Iterable[KnownHostsEntry]) -> None:
        self.entries = tuple(entries)
        self._exact: dict[str, list[int]] = {}
        self._patterns: list[tuple[int, str]] = []
        self._hashed: list[tuple[int, tuple[bytes, bytes]]] = []  # decoded once: a look-up has to try them all
        for index, entry in enumerate(self.entries):
            if entry.hashed:
                salted = _split_hash(entry.names)
                self._hashed += [(index, salted)] if salted else []
            elif not entry.literal:
                self._patterns.append((index, entry.names.lower()))
            else:
                for name in set(entry.names.lower().split(",")):
                    self._exact.setdefault(name, []).append(index)

    def find(self, name: str) -> list[KnownHostsEntry]:
        """The entries that speak of a machine, given its `lookup_name`, in the order of the files."""
        encoded = _encode(name)
        found = [index for index, salted in self._hashed if _hash_matches(salted, encoded)]
        found += [index for index, patterns in self._patterns if list_matches(patterns, name)]
        return [self.entries[index] for index in sorted([*self._exact.get(name, []), *found])]

    def about(self, host: str, port: int) -> "HostTrust":
        """What is known of one machine."""
        return HostTrust(self.find(lookup_name(host, port)), [] if port == 22 else self.find(lookup_name(host, 22)))


@dataclass(frozen=True)
class HostTrust:
    """What is known of one machine.

    Attributes:
        own: Entries under its name and port.
        portless: Entries under its bare name, where the port is not 22. They can trust a key, as with OpenSSH, but a
            different key there is no change: other ports may lead to other machines.
    """

    own: list[KnownHostsEntry]
    portless: list[KnownHostsEntry]

    def with_marker(self, marker: Marker) -> list[KnownHostsEntry]:
        """Entries with a marker, the closer ones first."""
        return [entry for entry in (*self.own, *self.portless) if entry.marker == marker]

    @cached_property
    def own_keys(self) -> list[KnownHostsEntry]:
        """Host keys under its own name and port."""
        return [entry for entry in self.own if not entry.marker]

    def judge(self, key_type: str, blob: bytes) -> tuple[KeyTrust, list[KnownHostsEntry]]:
        """What a key that the machine shows is to us, and the entries that say so.

        For `unknown` these are its known keys of other types, if there are any.
        """
        revoked = [entry for entry in self.with_marker("@revoked") if entry.blob == blob]
        if revoked:
            return "revoked", revoked
        same = [entry for entry in self.own_keys if entry.blob == blob]
        if same:
            return "trusted", same
        others = [entry for entry in self.own_keys if entry.key_type == key_type]
        if others:
            return "changed", others
        # Where keys are known for the very port, one that was accepted for another port does not add to them.
        portless = (
            [] if self.own_keys else [entry for entry in self.portless if not entry.marker and entry.blob == blob]
        )
        return ("trusted", portless) if portless else ("unknown", self.own_keys)

    def unmanaged_keys(self, key_type: str, blob: bytes) -> list[KnownHostsEntry]:
        """Keys that a new one of this type would have to replace, on lines that are not ours to change.

        Those are lines of the user's files, and our lines whose patterns speak of other machines too.
        """
        verdict, others = self.judge(key_type, blob)
        return [entry for entry in others if not (entry.managed and entry.literal)] if verdict == "changed" else []


def with_key(data: bytes, name: str, key_type: str, key_base64: str, comment: str = "") -> bytes:
    """The file with this as a machine's one key of the type, at the end; the rest as it was."""
    kept = without(data, {name}, key_type)
    ended = kept if not kept or kept.endswith(b"\n") else kept + b"\n"
    return ended + f"{name} {key_type} {key_base64} {comment}".rstrip().encode() + b"\n"


def matching_entries(
    entries: Iterable[KnownHostsEntry], names: Collection[str], key_type: str
) -> list[KnownHostsEntry]:
    """The entries that `without` would change."""
    return [
        each
        for each in entries
        if not each.marker
        and each.key_type == key_type
        and _without_names(_encode(each.names), each.names, names) != _encode(each.names)
    ]


def without(data: bytes, names: Collection[str], key_type: str) -> bytes:
    """The file without the host keys of this type that stand under one of these names.

    Other names of the same line stay. Names are compared as they are written, and with hashes; a pattern that merely
    covers a name is not touched, nor is a line with a marker.
    """
    kept: list[bytes] = []
    for raw in _lines(data):
        fields = _fields(raw)
        wanted = fields is not None and not fields[0] and fields[2] == key_type
        kept.append(_without_names(raw, fields[1], names) if fields and wanted else raw)
    return b"".join(kept)


def _without_names(raw: bytes, field: str, names: Collection[str]) -> bytes:
    if field.startswith("|"):
        salted = _split_hash(field)
        hit = field in names or (salted and any(_hash_matches(salted, _encode(name)) for name in names))
        return b"" if hit else raw
    tokens = field.split(",")
    left = [token for token in tokens if token.startswith("!") or token.lower() not in names]
    if left == tokens:
        return raw
    if all(token.startswith("!") for token in left):
        return b""
    return raw.replace(_encode(field), _encode(",".join(left)), 1)


FileVersion = tuple[int, int, int]


def signature(path: Path, source: str) -> FileVersion | None:
    """What tells two states of a file apart; `None` where there is no regular file (`/dev/null` is an empty one).

    Raises:
        Refused: It cannot be looked at.
    """
    with _readable(source):
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
    return (status.st_mtime_ns, status.st_size, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def read(path: Path, source: str) -> bytes:
    """The bytes of a file, none where it does not exist.

    Raises:
        Refused: It cannot be read, or is absurdly large.
    """
    if signature(path, source) is None:
        return b""
    with _readable(source):
        try:
            return read_file(path, MAX_FILE_BYTES)[0]
        except FileNotFoundError:
            return b""
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
    raise Refused(f"{source} is larger than {MAX_FILE_BYTES // 2**20} MiB, so it is not read", hint="shorten it")


@contextmanager
def _readable(source: str) -> Generator[None]:
    # Going on without a file would forget what it revokes.
    try:
        yield
    except OSError as error:
        raise Refused(
            f"{source} cannot be read, so no host key can be verified: {error.strerror}",
            hint="make the file readable for the account this server runs as",
        ) from error


def rewrite(path: Path, source: str, change: Callable[[bytes], bytes]) -> bool:
    """Change a file under a lock that other processes take too, as a whole or not at all; blocks.

    Args:
        path: The file; it and its folder are made where they are missing.
        source: What people call it.
        change: Makes the new bytes of the present ones; called once, inside the lock.

    Returns:
        Whether anything changed.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with turn_at(target, source):
        before = read(target, source)
        after = change(before)
        if after == before:
            return False
        replace(target, after)
        return True
