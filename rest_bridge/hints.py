"""Hints in the words of REST: routes for tools, fields of the body for arguments and details."""

from functools import cache, partial

from mcp_ssh.errors import HostKeyUnconfirmed, ToolError
from mcp_ssh.messages.hints import Wording, render


def rest_hint(error: ToolError) -> str | None:
    """Return the hint of an error as a caller of REST reads it."""
    if error.hint is None:
        return None
    # The documented body of an unconfirmed host key holds the details as `detail`.
    where = "detail" if isinstance(error, HostKeyUnconfirmed) and error.details else "details"
    return render(error.hint, Wording(_route, _field, partial(_detail, where)))


@cache
def _addresses() -> dict[str, str]:
    from mcp_ssh.tools import REGISTRY
    from mcp_ssh.toolsets import TOOLS
    from rest_bridge.families.registry import FAMILIES

    only_mcp = {name: f"{name} over MCP" for name in (*REGISTRY, *TOOLS)}
    routes = [route for family in FAMILIES for route in family.routes]
    return only_mcp | {route.tool.name: route.address for route in reversed(routes)}


def _route(name: str, argument: str | None, value: str | None) -> str | None:
    address = _addresses().get(name)
    return f"{address} and `{argument}: {value}`" if address and argument else address


def _field(name: str, value: str | None) -> None:
    """An argument is a field of the request, called as it is."""
    del name, value


def _detail(where: str, name: str) -> str:
    return f"{where}.{name}"
