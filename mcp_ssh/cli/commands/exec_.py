"""Run a command on a machine, with its output as it comes and its exit code as ours."""

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING, Any, cast

from mcp_ssh.cli import logging_setup
from mcp_ssh.cli.target import HELP, SUDO_HELP, login_arguments, session_on
from mcp_ssh.cli.terminal import Failure, print_json, say, usage, with_said
from mcp_ssh.cli.values import seconds
from mcp_ssh.errors import ToolError
from mcp_ssh.shell_command import command

if TYPE_CHECKING:
    from mcp_ssh.sessions.session import Session
    from mcp_ssh.tool import Call
    from mcp_ssh.tools.command import CommandExecParams, CommandExecResult

NOT_RUN = 255
"""Exit code where the command could not be run, as ssh has it: no command's own code is mistaken for ours."""
TIMED_OUT = 124
LONGEST_S = 3600.0
LEFT: dict[bool | str, str] = {
    True: "all its processes were ended",
    False: "not all its processes could be ended",
    "unknown": "its processes may still run",
}
"""What became of a command that took too long, by `stopped`."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward exec` takes."""
    parser.usage = "ssh-steward exec [options] MACHINE -- COMMAND ..."
    parser.epilog = "COMMAND in one word is a line for the account's shell; several are a program and its arguments."
    parser.add_argument("machine", metavar="MACHINE", help=HELP)
    parser.add_argument("misplaced", nargs="*", metavar="COMMAND", help=argparse.SUPPRESS)
    login_arguments(parser)
    parser.add_argument("--sudo", action="store_true", help=SUDO_HELP)
    parser.add_argument(
        "-i", "--stdin", action="store_true", help="pass what is typed here on to it; a pipe or a file is always passed"
    )
    parser.add_argument("-n", "--no-stdin", action="store_true", help="pass no standard input on, not even a pipe's")
    parser.add_argument("--cwd", metavar="FOLDER", help="folder to run in")
    parser.add_argument(
        "--timeout",
        type=seconds(LONGEST_S),
        default=LONGEST_S,
        metavar="SECONDS",
        help="end it, with all it started, after so long (default, and at most: 3600)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON when it has ended")


def run(parsed: argparse.Namespace) -> int:
    """Run it, and return its exit code: 255 where it did not run, 124 where it took too long."""
    from mcp_ssh.cli.run_async import run_async

    logging_setup.set_up_command(verbose=parsed.verbose, as_json=parsed.log_json)
    if not parsed.theirs or parsed.misplaced:
        raise usage("the command stands after --", "such as ssh-steward exec web1 -- uptime; -k FILE gives the key")
    job = _Job(parsed)
    try:
        interrupted = run_async(job.run)
    except* (ToolError, Failure) as errors:
        raise _not_run(errors) from None
    if job.reader_left:
        raise BrokenPipeError
    return interrupted or job.exit_code


def _not_run(error: BaseException) -> Failure:
    """The failure with an exit code that tells it from the command's own; wrong usage has one already."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    if isinstance(error, Failure):
        return Failure(error.message, error.hint, error.exit_code if error.exit_code != 1 else NOT_RUN)
    assert isinstance(error, ToolError)  # noqa: S101 nothing else is caught
    return Failure(with_said(error.message, error.details), error.hint, NOT_RUN)


class _Job:
    """One command on its way."""

    def __init__(self, parsed: argparse.Namespace) -> None:
        self._parsed = parsed
        self._stdin: bytes | None = None
        self.exit_code = 0
        self.reader_left = False

    @property
    def _passes_input(self) -> bool:
        """Whether the command gets our standard input: a pipe or a file always, a terminal only with --stdin."""
        if sys.stdin is None or self._parsed.no_stdin:
            return False
        return bool(self._parsed.stdin) or not sys.stdin.isatty()

    async def run(self) -> None:
        """Log in and run it."""
        from mcp_ssh.cli.streams import whole_input
        from mcp_ssh.dispatch import dispatch
        from mcp_ssh.tools import REGISTRY

        parsed, tool = self._parsed, REGISTRY["command_exec"]
        if self._passes_input and parsed.json:
            self._stdin = await whole_input(parsed.timeout)
        async with session_on(parsed, parsed.machine) as (app, call, session_id):
            given = {**self._arguments(), "session_id": session_id}
            if parsed.json:
                given["max_output_bytes"] = app.config.security.max_output_kb * 1024
            else:
                # The same tool by the same road, with policy and history: only where its output goes is our own.
                tool = dataclasses.replace(tool, run=self._as_it_comes)
            body = (await dispatch(app, tool, given, call)).model_dump(mode="json", exclude_unset=True)
        if parsed.json:
            print_json(body)
        if body["status"] == "timed_out":
            say(f"ssh-steward: it did not end within {parsed.timeout:g} s ({LEFT[body.get('stopped', 'unknown')]})")
        self.exit_code = TIMED_OUT if body["exit_code"] is None else int(body["exit_code"])

    def _arguments(self) -> dict[str, Any]:
        parsed = self._parsed
        line = parsed.theirs[0] if len(parsed.theirs) == 1 else command(*parsed.theirs).line()
        given: dict[str, Any] = {"command": line, "timeout": parsed.timeout}
        if parsed.cwd is not None:
            given["cwd"] = parsed.cwd
        if parsed.sudo:
            given["become"] = {}
        if parsed.json and self._stdin is not None:
            try:
                given["stdin"] = self._stdin.decode()
            except UnicodeDecodeError:
                raise usage("with --json, standard input must be UTF-8 text", "leave --json out") from None
        return given

    async def _as_it_comes(self, host: "Session", params: "CommandExecParams", call: "Call") -> "CommandExecResult":
        """What `command_exec` does, each chunk of output passed on at once."""
        from mcp_ssh.cli.streams import Passing, standard_input
        from mcp_ssh.tools.command import CommandExecResult

        del call
        out, err = (Passing(each, in_folder=params.cwd is not None) for each in (1, 2))
        stdin = standard_input() if self._passes_input else None
        try:
            ended = await host.execute(
                params.command, timeout_s=params.timeout, stdout=out, stderr=err, stdin=stdin, cwd=params.cwd
            )
            await out.release()
            await err.release()
        except BrokenPipeError:
            # The reader of our output has enough; what ran has been ended.
            self.reader_left = True
            return CommandExecResult(
                status="completed", command=params.command, stdout="", stderr="", exit_code=141, duration_ms=0
            )
        shown = CommandExecResult(
            status=ended.status,
            command=params.command,
            stdout="",
            stderr="",
            exit_code=ended.exit_code,
            duration_ms=round(ended.duration_s * 1000, 1),
        )
        if ended.stopped is not None:
            shown.stopped = ended.stopped.as_field()
        return shown
