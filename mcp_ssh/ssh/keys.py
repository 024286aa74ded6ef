"""What proves who we are: private keys, read from a file or from base64 text, once, and their certificates."""

import base64
import binascii
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Union

import anyio.to_thread
from pydantic import SecretStr

from mcp_ssh.errors import InvalidInput

if TYPE_CHECKING:
    import asyncssh

LARGEST = 64 * 1024
KEPT = 64

Offered = Union["asyncssh.SSHKey", tuple["asyncssh.SSHKey", "asyncssh.SSHCertificate"]]
"""What asyncssh takes as a key: alone, or with a certificate, when it offers both."""

_read: "OrderedDict[tuple[str, int, int, int], asyncssh.SSHKey]" = OrderedDict()


async def from_path(path: str, passphrase: SecretStr | None) -> "asyncssh.SSHKey":
    """The private key in a file; parsed once for as long as the file is the same.

    Parsing an RSA key takes 150 ms of arithmetic, so it runs in a thread.

    Raises:
        InvalidInput: No such file, not readable, not a private key, or the passphrase is wrong or missing.
    """
    return await anyio.to_thread.run_sync(_from_path, path, passphrase)


def _from_path(path: str, passphrase: SecretStr | None) -> "asyncssh.SSHKey":
    file = Path(path).expanduser()
    try:
        state = file.stat()
        secret = passphrase.get_secret_value() if passphrase else ""
        mark = (str(file), state.st_mtime_ns, state.st_size, hash(secret))
        if (key := _read.get(mark)) is not None:
            return key
        if state.st_size > LARGEST:
            raise InvalidInput("key_path: the file is too large for a private key")
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a path"
        raise InvalidInput(
            f"key_path: the key file cannot be read: {reason}",
            hint="give the path of a private key that this server may read, or send the key itself as `key_content`",
        ) from error
    key = parse(data, passphrase, field="key_path")
    _read[mark] = key
    while len(_read) > KEPT:
        _read.popitem(last=False)
    return key


async def from_content(content: SecretStr, passphrase: SecretStr | None) -> "asyncssh.SSHKey":
    """The private key in base64 text of an OpenSSH, PEM or PKCS#8 file; the file's own text is taken as well.

    Raises:
        InvalidInput: Not base64, not a private key, or the passphrase is wrong or missing.
    """
    text = content.get_secret_value().strip()
    if text.startswith("-----BEGIN"):
        data = text.encode() + b"\n"
    else:
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(
                "key_content: not base64", hint="send the private key file encoded with `base64`"
            ) from error
    return await anyio.to_thread.run_sync(lambda: parse(data, passphrase, field="key_content"))


def parse(data: bytes, passphrase: SecretStr | None, *, field: str) -> "asyncssh.SSHKey":
    """A private key from the bytes of its file.

    Raises:
        InvalidInput: Naming `field`, and whether the passphrase or the key is at fault.
    """
    import asyncssh

    secret = passphrase.get_secret_value() if passphrase else None
    try:
        return asyncssh.import_private_key(data, secret)
    except asyncssh.KeyEncryptionError as error:
        raise InvalidInput(
            "key_passphrase: the passphrase does not open this key",
            hint="give the passphrase the key was made with",
        ) from error
    except asyncssh.KeyImportError as error:
        if "assphrase" in str(error):
            raise InvalidInput(
                "key_passphrase: this key is encrypted and no passphrase was given",
                hint="give `key_passphrase`",
                details={"wants": "key_passphrase"},
            ) from error
        raise InvalidInput(
            f"{field}: not a private key in OpenSSH, PEM or PKCS#8 form",
            hint="give the private key, not its .pub file",
        ) from error


@dataclass(frozen=True)
class Identities:
    """What some IdentityFile and CertificateFile options come to.

    Attributes:
        keys: Keys that could be read, with their certificates.
        public: The public halves of all of them, also of those that could not: an agent may have these.
        certificates: Certificates by their public key, for keys of an agent.
        problem: Why the first key that could not be read could not.
    """

    keys: tuple[Offered, ...] = field(default=(), repr=False)
    public: frozenset[bytes] = field(default=frozenset(), repr=False)
    certificates: tuple["asyncssh.SSHCertificate", ...] = field(default=(), repr=False)
    problem: InvalidInput | None = None


async def with_certificate(path: str, key: "asyncssh.SSHKey") -> Offered:
    """A key with the certificate beside its file, where there is a fitting one."""
    fitting = await anyio.to_thread.run_sync(lambda: _certificates([Path(f"{Path(path).expanduser()}-cert.pub")]))
    return next(((key, each) for each in fitting if each.key.public_data == key.public_data), key)


async def identities(files: Sequence[Path], certificates: Sequence[Path], passphrase: SecretStr | None) -> Identities:
    """Read the keys of a config as OpenSSH does: what is missing or cannot be opened is passed over."""
    return await anyio.to_thread.run_sync(_identities, files, certificates, passphrase)


def _identities(files: Sequence[Path], certificates: Sequence[Path], passphrase: SecretStr | None) -> Identities:
    named = _certificates(certificates)
    beside = _certificates([Path(f"{file}-cert.pub") for file in files])
    known = [*named, *beside]
    keys: list[Offered] = []
    public: set[bytes] = set()
    problem: InvalidInput | None = None
    for file in files:
        try:
            key = _from_path(str(file), passphrase)
        except InvalidInput as error:
            problem = problem or (error if file.exists() else None)
            public |= _public(file)
            continue
        fitting = [each for each in known if each.key.public_data == key.public_data]
        keys += [(key, each) for each in fitting] or [key]
        public.add(key.public_data)
    return Identities(tuple(keys), frozenset(public), tuple(known), problem)


def _certificates(files: Iterable[Path]) -> "list[asyncssh.SSHCertificate]":
    import asyncssh

    found: list[asyncssh.SSHCertificate] = []
    for file in files:
        if (data := _small(file)) is not None:
            try:
                found.append(asyncssh.import_certificate(data))
            except (asyncssh.KeyImportError, ValueError):
                continue  # no certificate, as OpenSSH passes over it
    return found


def _public(file: Path) -> set[bytes]:
    """The public key of a file that cannot be opened: its .pub, or the file itself where that holds a public key."""
    import asyncssh

    for place in (Path(f"{file}.pub"), file):
        if (data := _small(place)) is not None:
            try:
                return {asyncssh.import_public_key(data).public_data}
            except (asyncssh.KeyImportError, ValueError):
                continue
    return set()


def _small(file: Path) -> bytes | None:
    try:
        return file.read_bytes() if file.stat().st_size <= LARGEST else None
    except OSError:
        return None
