"""The life of a tunnel as a pure function: what it is, and what happens to it, give what it is then."""

from dataclasses import dataclass
from typing import Literal

State = Literal["starting", "active", "failed", "closed"]


@dataclass(frozen=True)
class Life:
    """What a tunnel is.

    Attributes:
        state: `starting` until it listens, `active` while it does, `failed` where it cannot any more, `closed` on wish.
        reason: Why it failed.
    """

    state: State = "starting"
    reason: str | None = None


@dataclass(frozen=True)
class Listening:
    """It listens."""


@dataclass(frozen=True)
class Refused:
    """It could not listen."""

    reason: str


@dataclass(frozen=True)
class LinkLost:
    """The connection it goes through is gone."""


@dataclass(frozen=True)
class Close:
    """Somebody wants it closed."""


Event = Listening | Refused | LinkLost | Close

LOST = "the connection to the machine is lost"


def after(life: Life, event: Event) -> Life:
    """What a tunnel is after an event. What has ended stays as it ended."""
    if life.state in {"failed", "closed"}:
        return Life("closed", life.reason) if isinstance(event, Close) else life
    match event:
        case Listening():
            return Life("active")
        case Refused(reason):
            return Life("failed", reason)
        case LinkLost():
            return Life("failed", LOST)
        case Close():
            return Life("closed")
