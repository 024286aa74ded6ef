"""The ssh_api family's /setup; /setup/platform is with /system/platform."""

from mcp_ssh.tools import setup
from rest_bridge.api.route import Route

ROUTES = (
    Route("POST", "/setup/requirements", setup.requirements),
    # Not documented: what a package manager is for besides.
    Route("POST", "/setup/remove", setup.remove),
    Route("POST", "/setup/update", setup.update),
    Route("POST", "/setup/check", setup.check),
    Route("GET", "/setup/search", setup.search, only=("session_id", "query", "max_results", "lock_wait_s")),
    Route("GET", "/setup/upgradable", setup.upgradable, only=("session_id", "lock_wait_s")),
)
