"""References in hints, and how a transport words them.

A hint is written once, in the words of MCP. It refers to a tool by its name, as `file_stat`, or with an argument, as
`file_mkdir(parents: true)`; to an argument in backticks, as `key_content` or `use_config: false`; to a detail of the
error as `details.host_key`. A transport whose callers have other words for these replaces them.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

_TOOL = re.compile(
    r"(?<![\w./`-])(?<!ssh-steward call )([a-z]{1,32}_[a-z_]{1,64})"
    r"(?:\(([a-z_]{1,64}): (\w{1,64})\))?(?![\w/-])(?! takes )"
)
_ARGUMENT = re.compile(r"`([a-z_]{1,64}(?:\.[a-z_]{1,64})?)(?:: (\w{1,64}))?`")
_DETAIL = re.compile(r"(?<![\w.])details\.([a-z_]{1,64})")


@dataclass(frozen=True)
class Wording:
    """How a transport names what a hint refers to; `None` leaves the reference as it is.

    Attributes:
        tool: Takes the name of a tool, and an argument and its value where they are named.
        argument: Takes the name of an argument, and a value.
        detail: Takes the name of a detail.
    """

    tool: Callable[[str, str | None, str | None], str | None]
    argument: Callable[[str, str | None], str | None]
    detail: Callable[[str], str | None]


def render(hint: str, wording: Wording) -> str:
    """Return the hint in the words of a transport."""
    worded = _TOOL.sub(lambda found: wording.tool(found[1], found[2], found[3]) or found[0], hint)
    worded = _ARGUMENT.sub(lambda found: wording.argument(found[1], found[2]) or found[0], worded)
    return _DETAIL.sub(lambda found: wording.detail(found[1]) or found[0], worded)
