"""The command `ssh-steward`: what it takes, what it says, and its exit code.

Nothing heavy is imported before a subcommand needs it: `--help` and a mistyped word answer at once.
"""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from typing import cast

from mcp_ssh import __version__
from mcp_ssh.cli.commands import (
    call,
    client_config,
    completion,
    demo,
    exec_,
    guide,
    history,
    serve,
    stdio,
    tokens,
    tools,
)
from mcp_ssh.cli.commands.check import command as check
from mcp_ssh.cli.commands.transfer import download, upload
from mcp_ssh.cli.hints import cli_hint
from mcp_ssh.cli.terminal import Failure, Parser, operand, say, say_failure, usage, with_operands, with_said
from mcp_ssh.errors import ToolError
from mcp_ssh.messages.suggestions import suggest

COMMANDS = {
    "stdio": stdio,
    "serve": serve,
    "demo": demo,
    "exec": exec_,
    "upload": upload,
    "download": download,
    "check": check,
    "call": call,
    "tools": tools,
    "guide": guide,
    "token": tokens,
    "history": history,
    "client-config": client_config,
    "completion": completion,
}

PASSING_ON = frozenset({"exec", "completion"})
"""Commands that take words after `--`, as `theirs`."""

ABOUT = "Administer Linux machines over SSH through typed tools: as an MCP server, over REST, or from here."
SHORT_HELP = """ssh-steward is an MCP server: a client starts it and talks to it through its standard input.

  ssh-steward demo            try everything on a throw-away SSH host
  ssh-steward stdio           what an MCP client starts (also without a command, where input is not a terminal)
  ssh-steward serve           the same tools over HTTP: MCP at /mcp, REST with /docs
  ssh-steward check           is everything as it should be? `ssh-steward check MACHINE` tries to log in
  ssh-steward exec            run a command on a machine: ssh-steward exec MACHINE -- COMMAND
  ssh-steward upload          copy files there; `ssh-steward download` copies them here
  ssh-steward tools           the tools; `ssh-steward call TOOL JSON` calls one
  ssh-steward guide           how to work with the server over HTTP; `--prompts`: ready instructions for agents
  ssh-steward token add NAME  let somebody call over HTTP
  ssh-steward history         the calls that were made; `history verify` proves that no record was changed
  ssh-steward client-config   what to put into the configuration of an MCP client
  ssh-steward --help          all commands and options"""

INTERRUPTED = 130
BROKEN_PIPE = 141


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and end the process with its exit code: 0, 1 for a failure, 2 for wrong usage."""
    sys.exit(_run(list(sys.argv[1:] if argv is None else argv)))


def ssh_api() -> None:
    """`ssh-api`: the same as `ssh-steward serve`."""
    main(["serve", *sys.argv[1:]])


def _run(argv: list[str]) -> int:
    # What stands after `--` is none of our options: words of another program, or operands that begin with a dash.
    dashes = argv.index("--") if "--" in argv else len(argv)
    ours, theirs = argv[:dashes], argv[dashes + 1 :]
    if _command_of(ours) not in PASSING_ON:
        argv, theirs = [*ours, *map(operand, theirs)], []
    else:
        argv = ours
    verbose = "-v" in ours or "--verbose" in ours
    try:
        words = _with_command(argv)
        if words is None:
            print(SHORT_HELP)
            return 0
        parsed = with_operands(build_parser().parse_args(words, argparse.Namespace(theirs=theirs)))
        code = COMMANDS[parsed.command_name].run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 the last place to turn a failure into one line
        return _report_failure(_reason(error), verbose=verbose, command=_command_of(ours))
    else:
        return code


def _with_command(argv: list[str]) -> list[str] | None:
    """The arguments with a command in them; `None` where a person at a terminal gave none.

    Raises:
        Failure: The command is unknown; names those that are spelled nearly so.
    """
    word = _command_of(argv)
    if word is None:
        if {"-h", "--help", "--version"} & set(argv):
            return argv
        return None if sys.stdin is not None and sys.stdin.isatty() else ["stdio", *argv]
    if word not in COMMANDS:
        near = suggest(word, COMMANDS, most=2)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(COMMANDS)}"
        raise usage(f"there is no command {word[:40]!r}", hint)
    return argv


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    common = Parser(add_help=False)
    common.add_argument("-v", "--verbose", action="store_true", default=argparse.SUPPRESS, help="log everything")
    common.add_argument(
        "--log-json", action="store_true", default=argparse.SUPPRESS, help="log one JSON object per line"
    )
    parser = Parser(prog="ssh-steward", description=ABOUT, parents=[common])
    parser.set_defaults(verbose=False, log_json=False)
    parser.add_argument("--version", action="version", version=f"ssh-steward {__version__}")
    commands = parser.add_subparsers(dest="command_name", metavar="COMMAND", required=True)
    for name, module in COMMANDS.items():
        text = (module.__doc__ or "").partition("\n")[0]
        module.arguments(commands.add_parser(name, help=text, description=text, parents=[common]))
    return parser


def _command_of(argv: Sequence[str]) -> str | None:
    return next((each for each in argv if not each.startswith("-")), None)


def _report_failure(reason: BaseException, *, verbose: bool, command: str | None) -> int:
    """Say what went wrong in one line, and return the exit code."""
    if isinstance(reason, BrokenPipeError):
        # The reader of our output has enough. The flush at exit must not fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    if verbose:
        # The text of an exception may be a machine's, escape sequences and all.
        say("".join(traceback.format_exception(reason)).rstrip("\n"))
    if isinstance(reason, Failure):
        say_failure(reason.message, cli_hint(reason.hint, command))
        return reason.exit_code
    if isinstance(reason, ToolError):
        say_failure(with_said(reason.message, reason.details), cli_hint(reason.hint, command))
    elif isinstance(reason, OSError) and reason.strerror:
        name = f"{reason.filename}: " if reason.filename else ""
        say_failure(f"{name}{reason.strerror}", "run it with -v to see where")
    else:
        say_failure(
            f"a mistake in ssh-steward itself, {type(reason).__name__}", "run it with -v to see where, and report it"
        )
    return 1


def _reason(error: BaseException) -> BaseException:
    """What a group of errors comes down to: the first that says what to do, else the first."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_reason(each) for each in cast("BaseExceptionGroup[BaseException]", error).exceptions]
    return next((each for each in leaves if isinstance(each, Failure | ToolError)), leaves[0])
