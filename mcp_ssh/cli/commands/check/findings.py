"""What `check` finds: a thing, whether it is as it should be, and the next step where it is not."""

import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mcp_ssh.cli.hints import cli_hint
from mcp_ssh.cli.terminal import Failure
from mcp_ssh.errors import ToolError

CheckStatus = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    verdict: CheckStatus
    what: str
    says: str
    next_step: str | None = None

    def __post_init__(self) -> None:
        """Keep the next step in the words of the command line."""
        object.__setattr__(self, "next_step", cli_hint(self.next_step))

    def as_json(self) -> dict[str, str | None]:
        """For programs."""
        return {"status": self.verdict, "check": self.what, "message": self.says, "next": self.next_step}


def short(path: Path | str) -> str:
    """A path as people write it: what is in the home folder begins with `~`."""
    home = str(Path.home())
    return re.sub(rf"^{re.escape(home)}(?=/|$)", "~", str(path)) if home != "/" else str(path)


async def looked_at(what: str, look: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
    """The findings of a look; a look that fails is a finding itself."""
    try:
        return await look()
    except (ToolError, Failure) as error:
        return [Finding("fail", what, error.message, error.hint)]
    except OSError as error:
        return [Finding("fail", what, os.strerror(error.errno) if error.errno else str(error))]
