"""The MCP door with the toys behind it: whose it is, who sits before the client, and what calls answer and leave."""

import json
from typing import Any

from mcp import types

from mcp_ssh.app import App
from mcp_ssh.tool import Caller, Role, tools_of
from tests.support import toys

REGISTRY = tools_of(toys)
OWNER = Caller(id="stdio", role=Role.ADMIN, owner=True)


class Person:
    """Who sits before the client, and answers by the field that is asked for."""

    def __init__(self, action: str = "accept", **answers: Any) -> None:
        self.action = action
        self.answers = answers
        self.asked: list[types.ElicitRequestFormParams] = []

    async def __call__(
        self,
        context: Any,  # the SDK passes it by this name
        params: types.ElicitRequestParams,
    ) -> types.ElicitResult:
        assert isinstance(params, types.ElicitRequestFormParams)
        self.asked.append(params)
        if self.action != "accept":
            return types.ElicitResult(action=self.action)  # pyright: ignore[reportArgumentType]
        return types.ElicitResult(action="accept", content=dict(self.answers))


def text(result: types.CallToolResult) -> str:
    assert isinstance(result.content[0], types.TextContent)
    return result.content[0].text


def error(result: types.CallToolResult) -> dict[str, Any]:
    """The payload of an error, which has no structured half."""
    assert result.is_error
    assert result.structured_content is None
    return json.loads(text(result))


async def history(app: App) -> list[Any]:
    await app.store.history.flush()
    return await app.store.history.list(50)
