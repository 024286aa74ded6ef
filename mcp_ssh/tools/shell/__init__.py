"""Interactive shells, one room in several modules: open and close them, type and look, run a command in one."""

from mcp_ssh.tools.shell.exec_ import exec_
from mcp_ssh.tools.shell.life import close, list_, open_, resize
from mcp_ssh.tools.shell.talk import key, read, screen, secret, send

__all__ = ["close", "exec_", "key", "list_", "open_", "read", "resize", "screen", "secret", "send"]
