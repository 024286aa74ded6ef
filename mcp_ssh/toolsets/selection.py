"""Which tools an endpoint lists: chosen once, when it is built, and the same for every connection to it.

A toolset holds the tools of one noun. There are two presets beside them: `all`, and `core`, the default of both
transports: what most work needs, in a list that costs a model little. Both bring the tools of `meta_tools.py`, through
which a client of `core` finds and calls every other tool.
"""

from dataclasses import dataclass

from mcp_ssh.errors import InvalidInput, Refused, ToolError
from mcp_ssh.messages.suggestions import suggest_each
from mcp_ssh.tool import AnyTool, Registry, Risk

PRESETS = ("all", "core")

CORE = frozenset(
    {
        "session_connect",
        "session_list",
        "session_disconnect",
        "hostkey_accept",
        "command_exec",
        "command_background",
        "command_task",
        "command_task_cancel",
        "file_list",
        "file_stat",
        "file_read",
        "file_write",
        "blob_read",
    }
)
"""The rooms' tools of `core`. With the meta tools they stay within 30 tools and 32 KiB of list (a test counts)."""


@dataclass(frozen=True)
class ToolsetSelection:
    """What one endpoint shows of the registry.

    Attributes:
        toolsets: Rooms and presets by name.
        read_only: Show only tools that read.
    """

    toolsets: tuple[str, ...] = ("core",)
    read_only: bool = False

    @property
    def reaches_all(self) -> bool:
        """Whether tools that are not listed can be found and called through those of `meta_tools.py`."""
        return not set(PRESETS).isdisjoint(self.toolsets)

    def tools(self, registry: Registry) -> Registry:
        """The shown tools, by name in alphabetical order, so that every list of them is the same."""
        return Registry(registry[name] for name in sorted(registry) if self.hides(registry[name]) is None)

    def reachable(self, registry: Registry) -> Registry:
        """The tools that can be called here at all, listed or not."""
        if not self.reaches_all:
            return self.tools(registry)
        return Registry(tool for tool in registry.values() if self._changes(tool) is None)

    def hides(self, tool: AnyTool) -> ToolError | None:
        """Why the tool is not shown here, as the error of a call to it; `None` where it is."""
        if (changes := self._changes(tool)) is not None:
            return changes
        if "all" in self.toolsets or tool.room in self.toolsets or ("core" in self.toolsets and tool.name in CORE):
            return None
        through = "tool_call_readonly" if tool.risk is Risk.READ else "tool_call"
        way = f"call it through {through}, or " if self.reaches_all else ""
        return Refused(
            f"{tool.name} is not among the toolsets of this endpoint",
            hint=f"{way}start the server with --toolsets {','.join((*self.toolsets, tool.room))}",
        )

    def _changes(self, tool: AnyTool) -> Refused | None:
        if not self.read_only or tool.risk is Risk.READ:
            return None
        return Refused(
            f"{tool.name} changes machines, and this endpoint is read-only",
            hint="use a tool that only reads, or an endpoint that is not read-only",
        )


def parse(text: str, registry: Registry | None = None, *, read_only: bool = False) -> ToolsetSelection:
    """The surface that a list such as `core` or `session,file` asks for.

    Args:
        text: Toolsets, separated by commas; letter case and spaces do not count.
        registry: The tools whose rooms may be named; by default all of this program.
        read_only: Show only tools that read.

    Raises:
        InvalidInput: A name is not a toolset; names those that are spelled nearly so.
    """
    known = toolsets(registry)
    chosen = sorted({each.strip().lower() for each in text.split(",")} - {""})
    unknown = [each for each in chosen if each not in known]
    if unknown or not chosen:
        near = list(suggest_each(unknown, known).values())
        named = ", ".join(repr(each[:40]) for each in unknown[:8])
        wrong = f"there is no toolset {named}" if unknown else "no toolset is named"
        meant = f"did you mean {', '.join(dict.fromkeys(near))}? " if near else ""
        raise InvalidInput(wrong, hint=f"{meant}there are {', '.join(known)}", details={"toolsets": known})
    return ToolsetSelection(tuple(chosen), read_only)


def toolsets(registry: Registry | None = None) -> list[str]:
    """The names that `parse` takes: the presets, then the rooms."""
    if registry is None:
        from mcp_ssh.tools import REGISTRY

        registry = REGISTRY
    return [*PRESETS, *sorted({tool.room for tool in registry.values()})]
