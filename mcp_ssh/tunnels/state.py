"""The life of a tunnel as a pure function: what it is, and what happens to it, give what it is then."""

from dataclasses import dataclass
from typing import Literal

TunnelState = Literal["starting", "active", "failed", "closed"]


@dataclass(frozen=True)
class TunnelLife:
    """What a tunnel is.

    Attributes:
        state: `starting` until it listens, `active` while it does, `failed` where it cannot any more, `closed` on wish.
        reason: Why it failed.
    """

    state: TunnelState = "starting"
    reason: str | None = None


@dataclass(frozen=True)
class Listening:
    """It listens."""


@dataclass(frozen=True)
class ListenFailed:
    """It could not listen."""

    reason: str


@dataclass(frozen=True)
class LinkLost:
    """The connection it goes through is gone."""


@dataclass(frozen=True)
class Close:
    """Somebody wants it closed."""


TunnelEvent = Listening | ListenFailed | LinkLost | Close

LOST = "the connection to the machine is lost"


def after(life: TunnelLife, event: TunnelEvent) -> TunnelLife:
    """What a tunnel is after an event. What has ended stays as it ended."""
    if life.state in {"failed", "closed"}:
        return TunnelLife("closed", life.reason) if isinstance(event, Close) else life
    match event:
        case Listening():
            return TunnelLife("active")
        case ListenFailed(reason):
            return TunnelLife("failed", reason)
        case LinkLost():
            return TunnelLife("failed", LOST)
        case Close():
            return TunnelLife("closed")
