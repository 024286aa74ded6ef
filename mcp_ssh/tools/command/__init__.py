"""Commands, one room in several modules: run one and wait for it, or have it run in the background."""

from mcp_ssh.tools.command.exec_ import Exec, Executed, exec_
from mcp_ssh.tools.command.task import Polled, background, task, task_cancel, tasks

__all__ = ["Exec", "Executed", "Polled", "background", "exec_", "task", "task_cancel", "tasks"]
