"""The prompts as MCP clients list and get them; a person chooses one, and fills in what it asks."""

from typing import Any

import anyio.to_thread
from mcp import types

from mcp_ssh import prompts
from mcp_ssh.mcp_server.elicitation import Context
from mcp_ssh.prompts import Prompt
from mcp_ssh.store.redaction import HIDDEN
from mcp_ssh.tool import AnyTool, Registry, Risk
from mcp_ssh.toolsets import PRESETS, ToolsetSelection

LIST_TTL_MS = 300_000
"""How long clients may keep the list; it changes only with the server's version or options."""


class Prompts:
    """The handlers of one endpoint. It offers the prompts all of whose tools can be called there."""

    def __init__(self, registry: Registry, surface: ToolsetSelection) -> None:
        self._registry = registry
        self._surface = surface

    async def list(self, _context: Context, _params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        """Every prompt that is of use here."""
        known = await anyio.to_thread.run_sync(prompts.load)
        return types.ListPromptsResult(
            prompts=[_prompt_entry(each) for each in known.values() if self._usable(each)],
            ttl_ms=LIST_TTL_MS,
            cache_scope="public",
        )

    async def shown_arguments(self, params: types.GetPromptRequestParams) -> dict[str, Any]:
        """Return a request's arguments as the history may keep them: of those that no prompt has, the name alone."""
        known = (await anyio.to_thread.run_sync(prompts.load)).get(params.name)
        given = params.arguments or {}
        return {
            "arguments": {name: value if known and name in known.arguments else HIDDEN for name, value in given.items()}
        }

    async def get(self, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        """Return one prompt's text, as a message of the user.

        Raises:
            ToolError: There is no such prompt, or an argument is wrong.
        """
        prompt = await anyio.to_thread.run_sync(prompts.find, params.name)
        text = prompt.fill(params.arguments or {})
        message = types.PromptMessage(role="user", content=types.TextContent(type="text", text=text))
        return types.GetPromptResult(description=prompt.description, messages=[message])

    def _usable(self, prompt: Prompt) -> bool:
        named = [tool for name, tool in self._registry.items() if f"`{name}`" in prompt.text]
        return all(self._is_callable(tool) for tool in named)

    def _is_callable(self, tool: AnyTool) -> bool:
        """Whether the tool can be called here, directly or, from a preset, by search."""
        rooms = set(self._surface.toolsets)
        return (tool.room in rooms or bool(rooms.intersection(PRESETS))) and not (
            self._surface.read_only and tool.risk is not Risk.READ
        )


def _prompt_entry(prompt: Prompt) -> types.Prompt:
    return types.Prompt(
        name=prompt.name,
        title=prompt.title,
        description=prompt.description,
        arguments=[
            types.PromptArgument(name=name, description=each.description, required=each.required)
            for name, each in prompt.arguments.items()
        ],
    )
