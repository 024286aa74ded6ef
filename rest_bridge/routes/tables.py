"""All tables, and the tools that have no address."""

from collections.abc import Mapping

from rest_bridge.routes import Family, ssh_api, viewer

FAMILIES: tuple[Family, ...] = (ssh_api.FAMILY, viewer.FAMILY)

NOT_ON_REST: Mapping[str, str] = {}
"""Tools without a route, each with the reason; a test holds that every tool stands here or in a table."""
