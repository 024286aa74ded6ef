"""What the owner's config allows on one machine, for every caller."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mcp_ssh.config.models import SecurityConfig
from mcp_ssh.errors import Refused
from mcp_ssh.host_patterns import Machine, restricts
from mcp_ssh.meanings import Meaning, argument
from mcp_ssh.params import BecomeParams, Params
from mcp_ssh.policy.commands import MAX_LINE, allows, denied_by, denied_program
from mcp_ssh.tool import AnyTool, Risk

_OUR_SCRIPT = "ssh-steward"
"""Stands for a script of this program: `sudo` and `sudo *` deny it, patterns of other programs do not."""
_HINT = "the server's owner decides: security.hosts in config.json"


@dataclass(frozen=True)
class Rules:
    """All that counts for a machine. Every entry of `security.hosts` that fits it takes something away, none gives.

    Attributes:
        read_only: Tools that change machines are refused.
        allow_lists: A command line has to be on each of them.
        denied: No command may fit one of these.
        protected: Paths that our tools do not change.
    """

    read_only: bool = False
    allow_lists: tuple[tuple[str, ...], ...] = ()
    denied: tuple[str, ...] = ()
    protected: tuple[str, ...] = ()

    def expect_call(self, tool: AnyTool, params: Params, environment: Mapping[str, str] | None = None) -> None:
        """Let a call go on to this machine, or say why not. Nothing was sent yet.

        Args:
            tool: What is called.
            params: Its arguments.
            environment: Variables that the session adds to every command.

        Raises:
            Refused: The machine is read-only, or the command line, the tool, or the way to another account is not one
                of those that may run.
        """
        if tool.is_in(self.denied):
            raise _denied_by_pattern(tool.name, tool.name)
        line = argument(params, Meaning.COMMAND_LINE)
        if tool.risk is not Risk.READ:
            self._expect_change(tool, params, line)
            if line is not None and environment and self.allow_lists:
                raise Refused(
                    "the session has variables, which can change what a program does, and a list says what may run",
                    hint="end the session with session_disconnect, which forgets them, and connect again",
                    details={"variables": sorted(environment)},
                )
        if isinstance(params, BecomeParams) and params.become is not None:
            self.expect_becoming(params.become.method, line)

    def expect_becoming(self, method: str, line: str | None = None) -> None:
        """Let a command run as another account, or say why not.

        Args:
            method: The program that makes it so, such as sudo.
            line: The caller's command line; None for a script of this program.

        Raises:
            Refused: A pattern denies the program.
        """
        if self.denied and (pattern := denied_by(f"{method} {line or _OUR_SCRIPT}", self.denied)) is not None:
            raise _denied_by_pattern(f"to become another account by {method}", pattern)

    def _expect_change(self, tool: AnyTool, params: Params, line: str | None) -> None:
        if self.read_only:
            raise Refused(f"{tool.name} changes machines, and this one is read-only here", hint=_HINT)
        if line is not None:
            self._expect_line(line, argument(params, Meaning.FOLDER), argument(params, Meaning.ENVIRONMENT))
        if line is None or not tool.open_world:  # what schedules a line does more than run it
            self.expect_tool(tool)

    def expect_program(self, argv: tuple[str, ...]) -> None:
        """Let a program of our own run, or say why not.

        Raises:
            Refused: A pattern denies it.
        """
        if argv[:2] == ("sh", "-c"):
            return  # our script, which stands for its tool
        if self.denied and (pattern := denied_program(argv, self.denied)) is not None:
            raise _denied_by_pattern(argv[0], pattern)

    def expect_tool(self, tool: AnyTool) -> None:
        """Let a tool go on that takes no command line, or opens the way to any, or say why not.

        Raises:
            Refused: It is not on a list of what may run here, or is denied.
        """
        if not all(tool.is_in(each) for each in self.allow_lists):
            raise Refused(f"{tool.name} is not on the list of what may run on this machine", hint=_HINT)
        if tool.is_in(self.denied):
            raise _denied_by_pattern(tool.name, tool.name)

    def _expect_line(self, line: str, cwd: str | None, env: Mapping[str, str] | None) -> None:
        if self.allow_lists and env:
            raise Refused(
                "env: is not taken where a list says what may run: it can change what a program does",
                hint="leave `env` out",
            )
        whole = line if cwd is None else f"cd {cwd} && {line}"
        if not all(allows(whole, each) for each in self.allow_lists):
            raise Refused(
                "the command line is not on the list of what may run on this machine",
                hint="one plain command of the list, without cwd and without characters that are special to a shell"
                f" other than quotes; {_HINT}",
            )
        if not self.denied:
            return
        if len(line) > MAX_LINE:
            raise Refused(
                f"the command line has more than the {MAX_LINE} characters that are compared with the deny list",
                hint="put it into a file with file_write, and run that",
            )
        if (pattern := denied_by(line, self.denied)) is not None:
            raise _denied_by_pattern("the command line", pattern)


def _denied_by_pattern(what: str, pattern: str) -> Refused:
    return Refused(f"{what} is denied on this machine by the pattern {pattern!r}", hint=_HINT)


def rules_for(machine: Machine | Iterable[str], security: SecurityConfig) -> Rules:
    """What counts for a machine, or for one that is known by these names and addresses."""
    known = machine if isinstance(machine, Machine) else Machine.of(machine)
    fitting = [each for each in security.hosts if restricts(known, each.hosts)]
    return Rules(
        read_only=any(each.read_only for each in fitting),
        allow_lists=tuple(tuple(each.allow_commands) for each in fitting if each.allow_commands is not None),
        denied=tuple(pattern for each in fitting for pattern in each.deny_commands),
        protected=(*security.protected_paths, *(path for each in fitting for path in each.protected_paths)),
    )
