"""The viewer family: its error format and its routes, /api/remote."""

from mcp_ssh.tools import hostkey
from rest_bridge.api.route import Family, Route
from rest_bridge.errors import DETAIL_SCHEMA, ErrorFormat, detail_body

VIEWER = ErrorFormat(
    name="viewer",
    title="Remote viewer",
    about="Host keys of machines.",
    prefixes=("/api/remote",),
    body=detail_body,
    schema=DETAIL_SCHEMA,
    invalid_fields=422,
)

FAMILY = Family(
    VIEWER,
    (
        Route("POST", "/api/remote/known-hosts/accept", hostkey.accept),
        Route("GET", "/api/remote/known-hosts/list", hostkey.list_hostkeys),
        Route("POST", "/api/remote/known-hosts/remove", hostkey.remove),
        # Not documented: shows the key before the first connection, as the 409 does at the first one.
        Route("GET", "/api/remote/known-hosts/scan", hostkey.scan),
    ),
)
