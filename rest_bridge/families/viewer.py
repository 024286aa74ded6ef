"""The viewer family: /api/remote."""

from mcp_ssh.tools import hostkey
from rest_bridge.api.route import Family, Route
from rest_bridge.errors import VIEWER

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
