"""What proves who we are: private keys, read from a file or from base64 text, once, and their certificates."""

import base64
import binascii
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, Union

import anyio
from pydantic import SecretStr

from mcp_ssh.errors import InvalidInput
from mcp_ssh.ssh.auth.key_cost import expect_bounded_work
from mcp_ssh.ssh.local_read import in_abandonable_thread, read_file

if TYPE_CHECKING:
    import asyncssh

LARGEST = 64 * 1024
_PUTTY = "PuTTY-User-Key-File-"
KEPT = 64
READ_S = 20.0
"""How long reading and decrypting keys may take."""

T = TypeVar("T")

KeyCandidate = Union["asyncssh.SSHKey", tuple["asyncssh.SSHKey", "asyncssh.SSHCertificate"]]
"""What asyncssh takes as a key: alone, or with a certificate, when it offers both."""

_read: "OrderedDict[tuple[str, int, int, int], asyncssh.SSHKey]" = OrderedDict()


async def from_path(path: str, passphrase: SecretStr | None) -> "asyncssh.SSHKey":
    """The private key in a file; parsed once for as long as the file is the same.

    Parsing an RSA key takes 150 ms of arithmetic, so it runs in a thread.

    Raises:
        InvalidInput: No private key can be read there, which does not say why, or the passphrase is wrong or missing.
    """
    return await _within_deadline(lambda: _from_path(path, passphrase), unreadable_key)


async def _within_deadline(work: Callable[[], T], failed: Callable[[], InvalidInput]) -> T:
    """Read or parse in a thread that can be abandoned: a file system may not answer, a key may demand endless work."""
    try:
        with anyio.fail_after(READ_S):
            return await in_abandonable_thread(work)
    except (OSError, TimeoutError) as error:
        raise failed() from error


def unreadable_key() -> InvalidInput:
    """The error of a `key_path` that holds no private key. It does not say whether a file exists there."""
    return InvalidInput(
        "key_path: no private key can be read from this path",
        hint="name a private key file in OpenSSH, PEM or PKCS#8 form, not its .pub file, that the server's account may"
        f" read: a regular file of at most {LARGEST // 1024} KiB; or send the key itself as `key_content`",
    )


def _from_path(path: str, passphrase: SecretStr | None) -> "asyncssh.SSHKey":
    try:
        file = Path(path).expanduser()
        data, state = read_file(file, LARGEST)
    except (OSError, ValueError, RuntimeError) as error:
        raise unreadable_key() from error
    secret = passphrase.get_secret_value() if passphrase else ""
    mark = (str(file), state.st_mtime_ns, state.st_size, hash(secret))
    if (key := _read.get(mark)) is not None:
        return key
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
    if text.startswith(("-----BEGIN", _PUTTY)):
        data = text.encode() + b"\n"
    else:
        try:
            data = base64.b64decode("".join(text.split()), validate=True)
        except (binascii.Error, ValueError) as error:
            raise InvalidInput(
                "key_content: not base64", hint="send the private key file encoded with `base64`"
            ) from error
    return await _within_deadline(
        lambda: parse(data, passphrase, field="key_content"),
        lambda: InvalidInput("key_content: this key takes too long to decrypt", hint="encrypt it with fewer rounds"),
    )


def parse(data: bytes, passphrase: SecretStr | None, *, field: str) -> "asyncssh.SSHKey":
    """A private key from the bytes of its file.

    Raises:
        InvalidInput: Naming `field`, and whether the passphrase or the key is at fault.
    """
    import asyncssh

    secret = passphrase.get_secret_value() if passphrase else None
    if secret is not None:
        expect_bounded_work(data)
    try:
        return asyncssh.import_private_key(data, secret)
    except asyncssh.KeyEncryptionError as error:
        raise _wrong_passphrase() from error
    except asyncssh.KeyImportError as error:
        # A wrong passphrase turns a PEM key into noise, which now and then looks as if it were decrypted.
        if secret and (b"ENCRYPTED" in data or "Unable to decrypt" in str(error)):
            raise _wrong_passphrase() from error
        if "assphrase" in str(error):
            raise InvalidInput(
                "key_passphrase: this key is encrypted and no passphrase was given",
                hint="give `key_passphrase`",
                details={"wants": "key_passphrase"},
            ) from error
        raise _not_a_key(data, field) from error


def _wrong_passphrase() -> InvalidInput:
    return InvalidInput(
        "key_passphrase: the passphrase does not open this key", hint="give the passphrase the key was made with"
    )


def _not_a_key(data: bytes, field: str) -> InvalidInput:
    """The error of text that is not a private key, with the way to make it one."""
    text = data.lstrip()
    if text.startswith(_PUTTY.encode()):
        return InvalidInput(
            f"{field}: a PuTTY key (.ppk), which is not read here",
            hint="convert it: puttygen KEY.ppk -O private-openssh -o KEY, or Conversions > Export OpenSSH key",
        )
    if text.startswith(b"-----BEGIN") and b"\\n" in text:
        return InvalidInput(
            f"{field}: the line ends of this key are the two characters \\ and n",
            hint="put real line ends in their place (printf '%b' \"$KEY\"), or send the key file encoded with `base64`",
        )
    if field == "key_path":
        return unreadable_key()
    return InvalidInput(
        f"{field}: not a private key in OpenSSH, PEM or PKCS#8 form", hint="give the private key, not its .pub file"
    )


@dataclass(frozen=True)
class Identities:
    """What some IdentityFile and CertificateFile options come to.

    Attributes:
        keys: Keys that could be read, with their certificates.
        public: The public halves of all of them, also of those that could not: an agent may have these.
        certificates: Certificates by their public key, for keys of an agent.
        problem: Why the first key that could not be read could not.
    """

    keys: tuple[KeyCandidate, ...] = field(default=(), repr=False)
    public: frozenset[bytes] = field(default=frozenset(), repr=False)
    certificates: tuple["asyncssh.SSHCertificate", ...] = field(default=(), repr=False)
    problem: InvalidInput | None = None


async def with_certificate(path: str, key: "asyncssh.SSHKey") -> KeyCandidate:
    """A key with the certificate beside its file, where there is a fitting one."""
    fitting = await _within_deadline(
        lambda: _certificates([Path(f"{Path(path).expanduser()}-cert.pub")]), unreadable_key
    )
    return next(((key, each) for each in fitting if each.key.public_data == key.public_data), key)


async def identities(files: Sequence[Path], certificates: Sequence[Path], passphrase: SecretStr | None) -> Identities:
    """Read the keys of a config as OpenSSH does: what is missing or cannot be opened is passed over."""
    return await _within_deadline(lambda: _identities(files, certificates, passphrase), unreadable_key)


def _identities(files: Sequence[Path], certificates: Sequence[Path], passphrase: SecretStr | None) -> Identities:
    named = _certificates(certificates)
    beside = _certificates([Path(f"{file}-cert.pub") for file in files])
    known = [*named, *beside]
    keys: list[KeyCandidate] = []
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
        return read_file(file, LARGEST)[0]
    except (OSError, ValueError):
        return None
