"""The prompts as MCP clients list and get them; a person chooses one, and fills in what it asks."""

import anyio.to_thread
from mcp import MCPError, types

from mcp_ssh import prompts
from mcp_ssh.errors import ToolError
from mcp_ssh.prompts import Prompt
from mcp_ssh.server.call import Context
from mcp_ssh.surface import PRESETS, Surface
from mcp_ssh.tool import AnyTool, Registry, Risk

LIST_TTL_MS = 300_000
"""How long clients may keep the list; it changes only with the server's version or options."""


class Prompts:
    """The handlers of one endpoint. It offers the prompts all of whose tools can be called there."""

    def __init__(self, registry: Registry, surface: Surface) -> None:
        self._registry = registry
        self._surface = surface

    async def list(self, _context: Context, _params: types.PaginatedRequestParams | None) -> types.ListPromptsResult:
        """Every prompt that is of use here."""
        known = await anyio.to_thread.run_sync(prompts.load)
        return types.ListPromptsResult(
            prompts=[_listed(each) for each in known.values() if self._usable(each)],
            ttl_ms=LIST_TTL_MS,
            cache_scope="public",
        )

    async def get(self, _context: Context, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        """One prompt's text, as a message of the user."""
        try:
            prompt = await anyio.to_thread.run_sync(prompts.find, params.name)
            text = prompt.filled(params.arguments or {})
        except ToolError as error:
            said = f"{error.message} ({error.hint})" if error.hint else error.message
            raise MCPError(code=types.INVALID_PARAMS, message=said, data=error.payload()) from None
        message = types.PromptMessage(role="user", content=types.TextContent(type="text", text=text))
        return types.GetPromptResult(description=prompt.description, messages=[message])

    def _usable(self, prompt: Prompt) -> bool:
        named = [tool for name, tool in self._registry.items() if f"`{name}`" in prompt.text]
        return all(self._reached(tool) for tool in named)

    def _reached(self, tool: AnyTool) -> bool:
        """Whether the tool can be called here, directly or, from a preset, by search."""
        rooms = set(self._surface.toolsets)
        return (tool.room in rooms or bool(rooms.intersection(PRESETS))) and not (
            self._surface.read_only and tool.risk is not Risk.READ
        )


def _listed(prompt: Prompt) -> types.Prompt:
    return types.Prompt(
        name=prompt.name,
        title=prompt.title,
        description=prompt.description,
        arguments=[
            types.PromptArgument(name=name, description=each.description, required=each.required)
            for name, each in prompt.arguments.items()
        ],
    )
