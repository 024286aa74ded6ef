"""Files of the machine, one room in several modules: what they are and hold, how they travel, how they are moved."""

from mcp_ssh.tools.file.content import (
    FileListResult,
    FileReadResult,
    FileStatResult,
    FileWriteResult,
    list_folder,
    read,
    stat,
    write,
)
from mcp_ssh.tools.file.transfer import download, upload
from mcp_ssh.tools.file.tree import copy, mkdir, move, remove, rmdir

__all__ = [
    "FileListResult",
    "FileReadResult",
    "FileStatResult",
    "FileWriteResult",
    "copy",
    "download",
    "list_folder",
    "mkdir",
    "move",
    "read",
    "remove",
    "rmdir",
    "stat",
    "upload",
    "write",
]  # fmt: skip
