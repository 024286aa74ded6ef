"""How many connections the HTTP server holds: in all, for each peer, and whose goes where there are too many."""

import ipaddress
import resource
from collections.abc import Iterable
from typing import Protocol, cast

MOST = 4096
"""The most connections, however many descriptors there are."""

LEAST = 64
"""The most connections where there are hardly any descriptors."""


class Connection(Protocol):
    """One connection as it is counted."""

    @property
    def peer(self) -> str:
        """Whose it is."""
        ...

    @property
    def trusted(self) -> bool:
        """Whether a request on it was admitted."""
        ...

    @property
    def answering(self) -> bool:
        """Whether a request on it is being answered."""
        ...

    def give_up(self) -> None:
        """Close it for another one."""
        ...


class Connections:
    """The connections of a server, each peer's in the order of their last use.

    At a bound the longest idle one goes, first of those that showed no token, and never one whose call runs.

    Args:
        most: How many there may be in all.
        each_peer: How many one peer may have.
    """

    def __init__(self, most: int, each_peer: int) -> None:
        self._most = most
        self._each_peer = each_peer
        self._peers: dict[str, dict[Connection, None]] = {}
        self._count = 0

    def admit(self, connection: Connection) -> bool:
        """Count a new connection; another may have to go for it. `False` where none can."""
        own = self._peers.get(connection.peer, {})
        if len(own) >= self._each_peer:
            crowd: Iterable[Connection] = own
        elif self._count >= self._most:
            crowd = max(self._peers.values(), key=len)
        else:
            crowd = ()
        if crowd and not self._make_room(crowd):
            return False
        self._peers.setdefault(connection.peer, {})[connection] = None
        self._count += 1
        return True

    def _make_room(self, crowd: Iterable[Connection]) -> bool:
        found: Connection | None = None
        best = (True, True)
        for each in crowd:
            state = (each.trusted, each.answering)
            if state < best:
                found, best = each, state
            if best == (False, False):
                break
        if found is None:
            return False
        self.forget(found)
        found.give_up()
        return True

    def note_use(self, connection: Connection) -> None:
        """Note that a connection was used just now."""
        own = self._peers.get(connection.peer, {})
        if connection in own:
            del own[connection]
            own[connection] = None

    def forget(self, connection: Connection) -> None:
        """Stop counting a connection."""
        own = self._peers.get(connection.peer, {})
        if connection in own:
            del own[connection]
            self._count -= 1
            if not own:
                del self._peers[connection.peer]

    def give_up_handshakes(self) -> None:
        """Close what is not yet a connection of the server, when the server ends."""
        for own in [*self._peers.values()]:
            for each in [*own]:
                if not each.trusted and not each.answering:
                    self.forget(each)
                    each.give_up()


def connections(*, behind_proxy: bool) -> Connections:
    """The connections of a server in this process: at most half of its descriptors, the rest is for SSH and files.

    Args:
        behind_proxy: Whether a proxy is the only peer, so that a share for each peer would be one for all callers.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    half = MOST if descriptors == resource.RLIM_INFINITY else descriptors // 2
    most = max(LEAST, min(MOST, half))
    return Connections(most, most if behind_proxy else most // 2)


def peer_of(address: object) -> str:
    """Whose connection it is, by its address: of IPv6 the network, since a peer has 2^64 addresses of its own."""
    host = str(cast("tuple[object, ...]", address)[0]) if isinstance(address, tuple) else ""
    try:
        parsed = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return host
