"""Files of the machine, one room in several modules: what they are and hold, how they travel, how they are moved."""

from mcp_ssh.tools.file.content import Content, Listed, Status, Written, list_, read, stat, write

__all__ = ["Content", "Listed", "Status", "Written", "list_", "read", "stat", "write"]
