"""The doors as tests see them: the same tool called directly, over MCP and over REST."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_ssh.tool import Caller, Door, Question, Role


def caller(name: str = "stdio", role: Role = Role.ADMIN, *, owner: bool = True) -> Caller:
    return Caller(name, role, owner)


@dataclass
class DirectCall:
    """A call without a door: nobody to ask, nobody to tell."""

    caller: Caller
    door: Door = "direct"
    confirms: bool = False

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        pass

    async def need(self, question: Question) -> Mapping[str, Any] | None:
        return None
