"""All tables, and the tools that have no address."""

from collections.abc import Mapping

from rest_bridge.api.route import Family
from rest_bridge.families.ssh_api import family as ssh_api
from rest_bridge.families.viewer import family as viewer

FAMILIES: tuple[Family, ...] = (ssh_api.FAMILY, viewer.FAMILY)

NOT_ON_REST: Mapping[str, str] = {
    **dict.fromkeys(
        ("connection_add", "connection_info", "connection_query", "connection_remove"),
        "the XPipe family has the documented addresses for saved connections, and is not built yet",
    ),
    **dict.fromkeys(
        ("tool_search", "tool_call_readonly", "tool_call", "tool_call_many"),
        "they keep an MCP client's list short; over REST every tool is listed in /openapi.json and has an address",
    ),
}
"""Tools without a route, each with the reason; a test holds that every tool stands here or in a table."""
