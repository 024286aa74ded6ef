"""Which algorithms a machine is offered: ours, less what the config disables, as the owner's ssh_config orders them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mcp_ssh.errors import Unsupported
from mcp_ssh.host_patterns import Machine, pattern_matches

# AES-GCM first: in asyncssh it costs half of what ChaCha20 does.
CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
MACS = (
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
    "hmac-sha1-etm@openssh.com",
    "hmac-sha1",
)
# Group exchange is left out: its primes keep this process busy for most of a second.
KEX = (
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group14-sha256",
)
HOST_KEYS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
SIGNATURES = (
    "ssh-ed25519",
    "ssh-ed448",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-256",
    "rsa-sha2-512",
)

# What is offered only where the owner's ssh_config names it.
MORE_CIPHERS = ("aes256-cbc", "aes192-cbc", "aes128-cbc")
MORE_KEX = (
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group15-sha512",
    "diffie-hellman-group17-sha512",
    "curve448-sha512",
)
# What is offered only where the config names the machine: what machines of before 2016 have.
SHA1_KEX = ("diffie-hellman-group14-sha1", "diffie-hellman-group-exchange-sha1")
SHA1_SIGNATURE = "ssh-rsa"

MOST_NAMES = 1000
_CERTIFICATE = "-cert-v01@openssh.com"


@dataclass(frozen=True)
class Algorithms:
    """What one machine is offered, best first.

    Attributes:
        left_out: What the owner's ssh_config names and the policy does not allow.
    """

    kex: tuple[str, ...] = KEX
    ciphers: tuple[str, ...] = CIPHERS
    macs: tuple[str, ...] = MACS
    host_keys: tuple[str, ...] = HOST_KEYS
    signatures: tuple[str, ...] = SIGNATURES
    left_out: tuple[str, ...] = ()


class Disabled(Protocol):
    """Algorithms that are never offered, by their SSH names."""

    ciphers: list[str]
    macs: list[str]
    kex: list[str]
    host_keys: list[str]


def choose(disabled: Disabled, options: Mapping[str, str], machine: Machine, *, sha1: bool) -> Algorithms:
    """The algorithms for a machine.

    Args:
        disabled: What is never offered.
        options: Options of the owner's ssh_config, by their names in lower case; empty for other callers.
        machine: The machine, for the error.
        sha1: Whether SHA-1 counts for it.

    Raises:
        Unsupported: Nothing is left of one kind; names the option or the config key.
    """
    left_out: list[str] = []

    def pick(option: str, usual: Sequence[str], more: Sequence[str], without: Iterable[str]) -> tuple[str, ...]:
        banned = frozenset(without)
        usual, more = ([each for each in names if each not in banned] for names in (usual, more))
        asked = options.get(option.lower())
        chosen = usual if asked is None else _apply_list(asked, usual, [*usual, *more], left_out)
        if not chosen:
            where = f"~/.ssh/config: {option} {asked}" if asked else f"security.disabled_algorithms, for {option},"
            raise Unsupported(
                f"{where} leaves nothing that this server may offer to {machine}",
                hint=f"allowed are {', '.join((*usual, *more)) or 'none, since all are disabled'}",
            )
        return tuple(chosen)

    signature = (SHA1_SIGNATURE,) if sha1 else ()
    return Algorithms(
        kex=pick("KexAlgorithms", (*KEX, *(SHA1_KEX[:1] if sha1 else ())), MORE_KEX + SHA1_KEX * sha1, disabled.kex),
        ciphers=pick("Ciphers", CIPHERS, MORE_CIPHERS, disabled.ciphers),
        macs=pick("MACs", MACS, (), disabled.macs),
        host_keys=pick("HostKeyAlgorithms", (*HOST_KEYS, *signature), (), disabled.host_keys),
        signatures=pick("PubkeyAcceptedAlgorithms", (*SIGNATURES, *signature), (), disabled.host_keys),
        left_out=tuple(dict.fromkeys(left_out)),
    )


def _apply_list(asked: str, usual: Sequence[str], allowed: Sequence[str], left_out: list[str]) -> list[str]:
    """What a list of ssh_config(5) makes of ours: `+` adds, `-` removes, `^` puts first, anything else replaces."""
    sign, names = ("", asked) if asked[:1] not in {"+", "-", "^"} else (asked[0], asked[1:])
    patterns = [each.strip().removesuffix(_CERTIFICATE) for each in names.split(",")]
    if sign == "-":
        return [each for each in usual if not any(pattern_matches(pattern, each) for pattern in patterns)]
    named = [each for pattern in patterns for each in allowed if pattern_matches(pattern, each)]
    left_out += [each for each in patterns if not any(pattern_matches(each, one) for one in allowed)]
    ordered = {"+": [*usual, *named], "^": [*named, *usual], "": named}[sign]
    return list(dict.fromkeys(ordered))


_KEXINIT = 20
_KINDS = ("key exchange", "host key", "cipher", "cipher", "message authentication code", "message authentication code")


def mismatch(first: bytes, ours: Algorithms) -> tuple[str, list[str]] | None:
    """What kind of algorithm a machine has none of ours of, and which it has; `None` where that is not the reason.

    asyncssh cannot say: where the machine sees it first, it only hangs up.

    Args:
        first: What the machine sent first: its version and its KEXINIT (RFC 4253, 7.1), in plain.
        ours: What it was offered.
    """
    offers = (ours.kex, ours.host_keys, ours.ciphers, ours.ciphers, ours.macs, ours.macs)
    for kind, known, theirs in zip(_KINDS, offers, _name_lists(first), strict=False):
        if kind == "message authentication code" and any("gcm" in each or "poly" in each for each in ours.ciphers):
            continue  # such a cipher needs none
        if not {*known} & {each.removesuffix(_CERTIFICATE) for each in theirs}:
            return kind, theirs
    return None


def _name_lists(first: bytes) -> list[list[str]]:
    """The lists of names in a KEXINIT; fewer where it ends early or is something else."""
    at = 0 if first.startswith(b"SSH-") else first.find(b"\nSSH-") + 1
    packet = first[first.find(b"\n", at) + 1 :]
    if len(packet) < 22 or packet[5] != _KEXINIT:
        return []
    lists: list[list[str]] = []
    at = 22
    while len(lists) < len(_KINDS) and at + 4 <= len(packet):
        length = int.from_bytes(packet[at : at + 4], "big")
        if at + 4 + length > len(packet):
            break
        text = packet[at + 4 : at + 4 + length].decode("ascii", "replace")
        lists.append([each for each in text.split(",") if each.isprintable()][:MOST_NAMES])
        at += 4 + length
    return lists
