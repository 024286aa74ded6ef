"""Machines by name and address: one canonical form, and the patterns with which tokens and config name machines."""

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import idna

MAX_HOST_CHARS = 255
_BRACKETS = re.compile(r"\[([^\[\]]*)\](?::\d{1,5})?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_DIGITS = frozenset("0123456789.*?")
_LOCALHOST = "localhost"
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 nothing listens here
_RULE = "must be a host name such as web1.example.org, or an address such as 10.1.2.3 or fd00::1"

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def canonical_host(text: str) -> str:
    """A host as it is compared, looked up and connected to.

    A name becomes lower-case ASCII (IDNA 2008, UTS 46) without its final dot. Every form of an address that the C
    library accepts (`127.1`, `0x7f000001`, `::ffff:10.0.0.1`) becomes a plain address; the unspecified addresses, which
    lead to this machine, become loopback addresses.

    Raises:
        ValueError: The text is neither.
    """
    plain = _plain(text)
    return _LOOPBACK_OF.get(plain, plain)


def _plain(text: str) -> str:
    """The canonical form in which the unspecified addresses stay what they are."""
    if len(text) > MAX_HOST_CHARS:
        raise ValueError(f"must have at most {MAX_HOST_CHARS} characters")
    bare = found[1] if (found := _BRACKETS.fullmatch(text)) else text
    mapped = _map_host(bare)
    if ":" in mapped:
        return _ipv6(mapped)
    name = ".".join(map(_ascii_label, mapped.removesuffix(".").split(".")))
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return _ipv4(name)
    if not _NAME.fullmatch(name):
        raise ValueError(_RULE)
    return name


def known_name(text: str) -> str:
    """A name as it is compared: canonical where it can be a host, else in lower case, as an alias may be any text."""
    try:
        return canonical_host(text)
    except ValueError:
        return text.strip().lower()


def _map_host(text: str) -> str:
    if text.isascii():
        return text.lower()
    try:
        return idna.uts46_remap(text, std3_rules=False, transitional=False)
    except idna.IDNAError as error:
        raise ValueError(_RULE) from error


def _ascii_label(label: str) -> str:
    if label.isascii():
        return label
    try:
        return idna.alabel(label).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(_RULE) from error


def _ipv4(text: str) -> str:
    """The address that inet_aton(3) reads: one to four numbers, the last one filling what is left."""
    parts = text.split(".")
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise ValueError(_RULE)
    *heads, last = [_number(part) for part in parts]
    if any(head > 255 for head in heads) or last >= 256 ** (4 - len(heads)):
        raise ValueError(_RULE)
    value = last + sum(head << 8 * (3 - index) for index, head in enumerate(heads))
    return str(ipaddress.IPv4Address(value))


def _number(text: str) -> int:
    if len(text) > 16:
        raise ValueError(_RULE)
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    try:
        return int(text, 8 if text.startswith("0") else 10)
    except ValueError:
        raise ValueError(_RULE) from None


def _ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError(_RULE) from None
    if address.scope_id is not None and not address.is_link_local:
        raise ValueError("must not name an interface (%) unless the address is link-local")
    if address.ipv4_mapped is not None:
        return _ipv4(str(address.ipv4_mapped))
    return str(address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a canonical text is, without its interface."""
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


def is_address(canonical: str) -> bool:
    """Whether a canonical host is an address and not a name."""
    return _address(canonical) is not None


def leads_here(host: str) -> bool:
    """Whether a connection to this host leads to the machine that makes it, as far as the text tells."""
    name = known_name(host)
    address = _address(name)
    return name == _LOCALHOST if address is None else address.is_loopback


def binds_loopback(host: str) -> bool:
    """Whether a listener on this address can be reached from the machine itself only."""
    try:
        plain = _plain(host)
    except ValueError:
        return False
    return plain not in _LOOPBACK_OF and leads_here(plain)


def is_link_local(host: str) -> bool:
    """Whether a canonical host is a link-local address, such as that of a cloud's metadata service."""
    address = _address(host)
    return address is not None and address.is_link_local


@dataclass(frozen=True)
class Machine:
    """What one machine is known by. Patterns are compared with all of it.

    Attributes:
        names: Names that were given for it, or that an alias stands for, canonical.
        addresses: Every address that its name leads to, in the order in which they are tried.
        also: Names in the owner's patterns that lead to one of its addresses. They can exclude it, never admit it.
        unsure: Names in the owner's patterns that cannot be looked up now, so that they may be this machine.
    """

    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = field(default=(), compare=False)
    also: tuple[str, ...] = field(default=(), compare=False)
    unsure: tuple[str, ...] = field(default=(), compare=False)
    known_addresses: frozenset[str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known_addresses", frozenset(self.addresses))

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Machine":
        """A machine from names and addresses in any spelling."""
        known = dict.fromkeys(known_name(text) for text in texts if text)
        names = tuple(each for each in known if not is_address(each))
        return cls(names, tuple(each for each in known if is_address(each)))

    def with_names(self, *texts: str) -> "Machine":
        """The same machine with more names."""
        more = tuple(known_name(text) for text in texts if text)
        return replace(self, names=tuple(dict.fromkeys((*self.names, *more))))

    def __str__(self) -> str:
        return next(iter((*self.names, *self.addresses)), "this machine")


@dataclass(frozen=True)
class HostPattern:
    """One pattern, parsed.

    Attributes:
        excludes: It starts with `!`.
        name: The name it stands for, where it has no wildcard and is not an address.
        network: The addresses it stands for, where it is one address or a CIDR block.
        glob: What it compares with otherwise.
        of_names: The glob fits names.
        of_addresses: The glob fits addresses.
    """

    excludes: bool
    name: str | None = None
    network: _Network | None = None
    glob: str | None = None
    of_names: bool = False
    of_addresses: bool = False

    def fits_name(self, name: str) -> bool:
        """Whether a canonical name fits."""
        return name == self.name or (self.of_names and pattern_matches(self.glob or "", name))

    def fits_address(self, text: str) -> bool:
        """Whether a canonical address fits."""
        address = _address(text)
        if address is None:
            return False
        if self.network is not None:
            return address in self.network
        return self.of_addresses and pattern_matches(self.glob or "", str(address))

    @property
    def means_loopback(self) -> bool:
        """Whether it stands for this machine itself, which has many addresses."""
        return self.name == _LOCALHOST or (self.network is not None and self.network.is_loopback)


@lru_cache(4096)
def parse_pattern(text: str) -> HostPattern:
    """A pattern of names or addresses.

    `*` and `?` stand for any text and any character, dots included. A pattern of digits, dots and wildcards, or with a
    colon, fits addresses only; one with a letter fits names only. A CIDR block is taken. `!` excludes.

    Raises:
        ValueError: It is neither a name, an address, a block nor a pattern.
    """
    excludes, bare = text.startswith("!"), text.removeprefix("!")
    if not bare or not bare.isprintable() or len(bare) > MAX_HOST_CHARS or set(bare) & set(" ,@!"):
        raise ValueError("a pattern is one word of at most 255 characters, without accounts")
    if not all(each.isalnum() or each in _SIGNS for each in _without_brackets(bare)):
        raise ValueError("of signs, a pattern has dots, dashes, underscores, colons, slashes, `*` and `?`")
    if "/" in bare:
        return HostPattern(excludes, network=_network(bare))
    if not {"*", "?"} & set(bare):
        return _literal(excludes, bare)
    mapped = _map_host(bare).removesuffix(".")
    plain = ".".join(each if {"*", "?"} & set(each) else _ascii_label(each) for each in mapped.split("."))
    if ":" in plain:
        return HostPattern(excludes, glob=plain.strip("[]"), of_addresses=True)
    free = not any(each.isalnum() for each in plain)
    numeric = _DIGITS.issuperset(plain)
    return HostPattern(excludes, glob=plain, of_names=free or not numeric, of_addresses=free or numeric)


_SIGNS = frozenset(".-_:/*?%")


def _without_brackets(text: str) -> str:
    """An address without the brackets around it; every other text as it is."""
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else ""
    return inside if ":" in inside or _address(inside) is not None else text


def check_patterns(patterns: Sequence[str]) -> Sequence[str]:
    """The patterns, for a validator of a config or a token.

    Raises:
        ValueError: One is not a pattern; names it.
    """
    for each in patterns:
        try:
            parse_pattern(each)
        except ValueError:
            raise ValueError(
                f"{each[:80]!r} is not a pattern of names or addresses; write *.example.org, 10.1.2.*, 10.1.2.0/24 or"
                " !db1.example.org"
            ) from None
    return patterns


def _literal(excludes: bool, bare: str) -> HostPattern:  # noqa: FBT001
    name = known_name(bare)
    address = _address(name)
    if address is not None:
        return HostPattern(excludes, network=ipaddress.ip_network(address))
    if _NUMBER.fullmatch(name.rstrip(".").rpartition(".")[2]) or ":" in name:
        raise ValueError(_RULE)
    return HostPattern(excludes, name=name)


def _network(text: str) -> _Network:
    network = ipaddress.ip_network(unicodedata.normalize("NFKC", text), strict=False)
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
    return network


def pattern_matches(pattern: str, name: str) -> bool:
    """Match `*` and `?`; every other sign, brackets too, stands for itself. Never slower than pattern times name."""
    at, star, resume = 0, -1, 0
    position = 0
    while position < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, resume = at, position
            at += 1
        elif at < len(pattern) and pattern[at] in ("?", name[position]):
            at += 1
            position += 1
        elif star >= 0:
            resume += 1
            at, position = star + 1, resume
        else:
            return False
    return not pattern[at:].strip("*")


def admits(machine: Machine, patterns: Sequence[str]) -> bool:
    """Whether an allow list lets a machine pass: a name of it or all its addresses fit, and no `!` pattern fits."""
    parsed = _parse_patterns(patterns)
    allowed = [each for each in parsed if not each.excludes]
    by_name = any(each.fits_name(name) for each in allowed for name in machine.names)
    by_address = bool(machine.addresses) and all(
        any(each.fits_address(address) for each in allowed) for address in machine.addresses
    )
    return (by_name or by_address) and not any(each.excludes and _concerns(each, machine) for each in parsed)


def restricts(machine: Machine, patterns: Sequence[str]) -> bool:
    """Whether a restriction holds for a machine: one name or address fits, and it is not an exception.

    An exception (`!`) needs a name that was given, or all addresses.
    """
    parsed = _parse_patterns(patterns)
    if not any(_concerns(each, machine) for each in parsed if not each.excludes):
        return False
    exceptions = [each for each in parsed if each.excludes]
    by_name = any(each.fits_name(name) for each in exceptions for name in machine.names)
    return not by_name and not (
        machine.addresses
        and all(any(each.fits_address(address) for each in exceptions) for address in machine.addresses)
    )


def matches(host: str, patterns: Sequence[str]) -> bool:
    """Whether one name or address, taken by itself, passes an allow list."""
    return admits(Machine.of([host]), patterns)


def names_outright(machine: Machine, patterns: Sequence[str]) -> bool:
    """Whether an allow list names a machine by a name, an address or a block, and not by a wildcard alone."""
    allowed = [each for each in _parse_patterns(patterns) if not each.excludes and each.glob is None]
    by_name = any(each.fits_name(name) for each in allowed for name in machine.names)
    return by_name or any(each.fits_address(address) for each in allowed for address in machine.addresses)


def literal_names(patterns: Sequence[str], *, excluding: bool) -> set[str]:
    """The names without wildcards in the patterns that exclude, or in those that do not."""
    return {each.name for each in _parse_patterns(patterns) if each.name and each.excludes is excluding}


def judges_addresses(patterns: Sequence[str], *, excluding: bool) -> bool:
    """Whether a pattern that excludes, or one that admits, can fit an address of a machine and not its name."""
    for each in _parse_patterns(patterns):
        by_address = each.network is not None or each.of_addresses
        if each.excludes is excluding and (each.name is not None if excluding and not by_address else by_address):
            return True
    return False


def _concerns(pattern: HostPattern, machine: Machine) -> bool:
    """Whether a pattern that takes something away fits a machine by anything it is known by."""
    names = (*machine.names, *machine.also)
    if any(pattern.fits_name(name) for name in names) or any(map(pattern.fits_address, machine.addresses)):
        return True
    return pattern.means_loopback and any(map(leads_here, (*names, *machine.addresses)))


def _parse_patterns(patterns: Sequence[str]) -> list[HostPattern]:
    """The patterns that are any; what was saved by an older version and is none fits nothing."""
    found: list[HostPattern] = []
    for each in patterns:
        try:
            found.append(parse_pattern(each))
        except ValueError:
            continue
    return found
