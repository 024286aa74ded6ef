"""Which machine a host name leads to: one look-up, whose addresses are judged and then connected to."""

import socket
import time
from collections import OrderedDict
from collections.abc import Iterable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread

from mcp_ssh.config.models import SecurityConfig
from mcp_ssh.errors import InvalidInput, Refused, ToolError
from mcp_ssh.host_patterns import Machine, canonical_host, is_address, known_name, leads_here, literal_names
from mcp_ssh.meanings import Meaning, argument
from mcp_ssh.params import Params
from mcp_ssh.policy import address_matters, expect_not_local, expect_reach
from mcp_ssh.ssh.errors import NetworkFailed
from mcp_ssh.ssh.openssh_config.resolve import settings
from mcp_ssh.tool import Caller, Role

PATTERN_LIMIT_S = 3.0
"""The longest that the names in patterns are looked up for, all together."""
PATTERN_KEPT_S = 30.0
MOST_PATTERNS = 256
LOOK_UP_LIMIT_S = 3.0
"""The longest that the addresses of a machine are looked up for, where the connection does not depend on them."""

P = TypeVar("P", bound=Params)

_looked_up: "OrderedDict[str, tuple[float, frozenset[str] | None]]" = OrderedDict()


def host_of(text: str, field: str = "host") -> str:
    """The canonical host of an argument.

    Raises:
        InvalidInput: It is not a host name or address; names the field.
    """
    try:
        return canonical_host(text)
    except ValueError as error:
        raise InvalidInput(
            f"{field}: {error}",
            hint="give a name such as web1.example.org, or an address",
            details={"errors": [{"field": field, "rule": str(error)}]},
        ) from None


async def look_up(host: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> tuple[str, ...]:
    """The addresses that a canonical host leads to from this machine, in the order in which they are tried.

    Raises:
        NetworkFailed: The name is not known, or cannot be looked up now.
    """
    if is_address(host):
        return (host,)
    try:
        found = await anyio.getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise _unknown(host, passing=error.errno == socket.EAI_AGAIN) from error
    except (OSError, UnicodeError) as error:
        raise _unknown(host, passing=False) from error
    return tuple(dict.fromkeys(canonical_host(str(address[0])) for *_, address in found))


def _unknown(host: str, *, passing: bool) -> NetworkFailed:
    """The error of a name that leads nowhere. A word without dots may be meant for a saved connection or an alias."""
    problem = "cannot be looked up now" if passing else "is not known"
    if "." in host:
        return NetworkFailed(f"the name {host} {problem}", passing=passing)
    failure = NetworkFailed(
        f"no saved connection or alias of yours is called {host!r}, and as the name of a machine it {problem}",
        passing=passing,
    )
    failure.hint = "connection_query lists your saved connections; or give a host name or an address"
    return failure


async def identify(
    caller: Caller, security: SecurityConfig, names: Iterable[str], addresses: tuple[str, ...]
) -> Machine:
    """All that a machine is known by, the owner's patterns included.

    A pattern without a wildcard that names the machine otherwise (`!db1.example.org`, and the call gives the address of
    db1) is found by its addresses: those of its alias in ~/.ssh/config, or of its look-up.
    """
    known = Machine.of([*names, *addresses])
    patterns = literal_names(caller.hosts or (), excluding=True)
    for rule in security.hosts:
        patterns |= literal_names(rule.hosts, excluding=False)
    if not (caller.owner or caller.role is Role.ADMIN):
        patterns |= literal_names(security.allow_server_identities, excluding=True)
    others = sorted(patterns - {*known.names})[:MOST_PATTERNS]
    if not others or not known.addresses:
        return known
    found: dict[str, frozenset[str] | None] = {}

    async def find(name: str) -> None:
        found[name] = await _pattern_addresses(name)

    with anyio.move_on_after(PATTERN_LIMIT_S):
        async with anyio.create_task_group() as group:
            for name in others:
                group.start_soon(find, name)
    return Machine(
        known.names,
        known.addresses,
        also=tuple(name for name in others if known.known_addresses & (found.get(name) or frozenset())),
        unsure=tuple(name for name in others if found.get(name) is None),
    )


async def addresses_if_known(host: str) -> tuple[str, ...]:
    """The addresses of a machine that another machine, or a program, looks up for itself; none where there are none."""
    try:
        with anyio.fail_after(LOOK_UP_LIMIT_S):
            return await look_up(host)
    except (NetworkFailed, TimeoutError):
        return ()


async def expect_host(caller: Caller, security: SecurityConfig, host: str) -> None:
    """See that the caller may speak of a machine. Nothing is connected to.

    Raises:
        Refused: Its token is for other machines.
    """
    if caller.hosts is not None:
        name = known_name(host)
        expect_reach(caller, await identify(caller, security, [name], await addresses_if_known(name)))


async def find_machine(caller: Caller, security: SecurityConfig, host: str) -> Machine:
    """The machine that a host leads to from here, for a caller who is about to connect to it without a login.

    Raises:
        InvalidInput: The host is neither a name nor an address.
        NetworkFailed: The name cannot be looked up.
        Refused: The caller's token is for other machines.
    """
    name = host_of(host)
    machine = await identify(caller, security, [name], await look_up(name))
    expect_reach(caller, machine)
    expect_not_local(caller, machine, security)
    return machine


async def expect_target(caller: Caller, security: SecurityConfig, params: P) -> P:
    """See that a tunnel leads to the machine that it goes through, or to another that the caller may reach.

    Returns:
        The parameters; with an address in place of the name where the verdict depends on where the name leads, since
        the machine at the other end would look it up for itself.

    Raises:
        Refused: It leads elsewhere, or where it leads is not known here and the verdict depends on it.
    """
    target = argument(params, Meaning.TARGET)
    if not isinstance(target, str) or caller.hosts is None or leads_here(target):
        return params
    name = host_of(target, "remote_host")
    addresses = await addresses_if_known(name)
    machine = await identify(caller, security, [name], addresses)
    expect_reach(caller, machine)
    if is_address(name) or not address_matters(caller, machine):
        return params
    if not addresses:
        raise address_unknown(name, "remote_host")
    return params.model_copy(update={"remote_host": addresses[0]})


def address_unknown(host: str, field: str) -> Refused:
    """The error where a token's verdict on a machine depends on its address, and only the other end knows it."""
    return Refused(
        f"whether this token is for the machine {host[:255]} depends on its address, which is not known here",
        hint=f"give its address as {field}, or use a token whose patterns name the machine",
    )


async def _pattern_addresses(name: str) -> frozenset[str] | None:
    """The addresses of a name in a pattern; `None` where they cannot be looked up now."""
    now = time.monotonic()
    before = _looked_up.get(name)
    if before is not None and now - before[0] < PATTERN_KEPT_S:
        return before[1]
    try:
        addresses: frozenset[str] | None = frozenset(await look_up(await _hostname(name)))
    except NetworkFailed as failure:
        addresses = None if failure.passing else frozenset()
    _looked_up[name] = (now, addresses)
    while len(_looked_up) > 4 * MOST_PATTERNS:
        _looked_up.popitem(last=False)
    return addresses


async def _hostname(name: str) -> str:
    """The host that a name stands for in ~/.ssh/config, which no caller is shown here."""
    try:
        found = await anyio.to_thread.run_sync(partial(settings, name))
    except ToolError:
        return name
    return known_name(found.hostname)
