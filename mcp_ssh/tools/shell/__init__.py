"""Interactive shells, one room in several modules: open and close them, type and look, run a command in one."""

from mcp_ssh.tools.shell.io import key, read, screen, secret, send
from mcp_ssh.tools.shell.lifecycle import close, list_shells, open_shell, resize
from mcp_ssh.tools.shell.run import run_in_shell

__all__ = ["close", "key", "list_shells", "open_shell", "read", "resize", "run_in_shell", "screen", "secret", "send"]
