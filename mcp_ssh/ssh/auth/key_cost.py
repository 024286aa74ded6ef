"""Bound the work that decrypting a private key takes, which the key itself demands."""

import base64
import binascii
import re
from typing import cast

from mcp_ssh.errors import InvalidInput

MAX_BCRYPT_ROUNDS = 1000
"""Rounds of an OpenSSH key; `ssh-keygen` takes 24, and 1000 take seconds."""
MAX_ITERATIONS = 10_000_000
"""Iterations of a PKCS#8 key; OpenSSL takes 2048."""

_BODY = re.compile(rb"-----BEGIN (OPENSSH|ENCRYPTED) PRIVATE KEY-----([A-Za-z0-9+/=\s]*)-----END ")


def expect_bounded_work(data: bytes) -> None:
    """Check the rounds of an encrypted key before its passphrase is tried.

    Raises:
        InvalidInput: The key demands more work than any sensible key does.
    """
    found = _BODY.search(data)
    kind, body = (found[1], _decode(found[2])) if found else (b"", data)
    rounds = _bcrypt_rounds(body) if kind == b"OPENSSH" else 0
    if rounds > MAX_BCRYPT_ROUNDS or (kind != b"OPENSSH" and _largest_parameter(body) > MAX_ITERATIONS):
        raise InvalidInput(
            "this private key takes too long to decrypt",
            hint=f"encrypt it again with fewer rounds, such as `ssh-keygen -p -a 24 -f FILE`; at most"
            f" {MAX_BCRYPT_ROUNDS} are accepted",
        )


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(b"".join(text.split()))
    except binascii.Error:
        return b""


def _bcrypt_rounds(body: bytes) -> int:
    """Read the rounds of an OpenSSH key: magic, cipher, key derivation, and its salt and rounds (PROTOCOL.key)."""
    rest = body.removeprefix(b"openssh-key-v1\0")
    for _ in range(2):
        rest = rest[4 + int.from_bytes(rest[:4], "big") :]
    options = rest[4 : 4 + int.from_bytes(rest[:4], "big")]
    return int.from_bytes(options[4 + int.from_bytes(options[:4], "big") :][:4], "big")


def _largest_parameter(body: bytes) -> int:
    """Find the largest number in the algorithm of an EncryptedPrivateKeyInfo (RFC 5958)."""
    from asyncssh.asn1 import ASN1DecodeError, der_decode

    if not body.startswith(b"\x30"):
        return 0
    try:
        decoded: object = der_decode(body)
    except (ASN1DecodeError, RecursionError, ValueError):
        return 0  # asyncssh says what is wrong with it
    parts = cast("tuple[object, ...]", decoded) if isinstance(decoded, tuple) else ()
    # A key that is not encrypted begins with its version; its own numbers are large.
    if len(parts) != 2 or not isinstance(parts[0], tuple):
        return 0
    todo, largest = [cast("object", parts[0])], 0
    while todo:
        each = todo.pop()
        if isinstance(each, tuple):
            todo += cast("tuple[object, ...]", each)
        elif isinstance(each, int):
            largest = max(largest, each)
    return largest
