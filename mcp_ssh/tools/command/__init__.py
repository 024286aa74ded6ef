"""Commands, one room in several modules: run one and wait for it, or have it run in the background."""

from mcp_ssh.tools.command.run import CommandExecParams, CommandExecResult, run_command
from mcp_ssh.tools.command.task import CommandTaskResult, background, task, task_cancel, tasks

__all__ = [
    "CommandExecParams",
    "CommandExecResult",
    "CommandTaskResult",
    "background",
    "run_command",
    "task",
    "task_cancel",
    "tasks",
]
