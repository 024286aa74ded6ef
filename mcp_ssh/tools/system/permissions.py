"""Permissions and owners of files and folders."""

from typing import Annotated

from pydantic import AfterValidator, Field

from mcp_ssh.errors import InvalidInput
from mcp_ssh.linux.files.permissions import RootRequired, ask_chmod, ask_chown
from mcp_ssh.linux.framing import PathQuery, ScriptAnswer
from mcp_ssh.meanings import Meaning
from mcp_ssh.messages.validation import word_pattern
from mcp_ssh.params import DryRunParams, Group, NumberAsText, RemotePath, Result, check_account, check_group
from mcp_ssh.sessions.session import Session
from mcp_ssh.shell_command import command
from mcp_ssh.tool import Call, Risk, tool

CLOSING_S = 10.0


def _owner(text: str) -> str:
    owner, colon, group = text.partition(":")
    check_account(owner)
    if colon:
        check_group(group)
    return text


class _Slow(DryRunParams):
    path: RemotePath
    recursive: bool = Field(default=False, description="Everything in the folder, too; links in it are not followed.")

    def time_limit_s(self) -> float:
        """Time for many files."""
        return 600.0


class SystemChmodParams(_Slow):
    mode: Annotated[str, NumberAsText] = Field(
        max_length=64,
        pattern=word_pattern(
            r"^(?:[0-7]{1,4}|[ugoa]*(?:[-+=][rwxXst]*|[-+=][ugo])+(?:,[ugoa]*(?:[-+=][rwxXst]*|[-+=][ugo])+)*)$",
            'must be one to four octal digits, such as 644, or symbols, such as "u+x" and "g=rX,o-w"',
        ),
        description='Octal digits, such as 644, or symbols, such as "u+x" and "g=rX,o-w".',
    )


class SystemChmodResult(Result):
    success: bool = Field(description="Always true; a failure is an error.")
    path: str = Field(description="The path, with `~` expanded.")
    mode: str = Field(description="The mode as it was asked for.")
    permissions: str | None = Field(default=None, description='What it has now, such as "0755".')
    commands: list[str] | None = Field(default=None, description="With dry_run: what would run.")


@tool(Risk.CHANGE, room="system", idempotent=True, audit="gave {path} the mode {mode}")
async def chmod(host: Session, params: SystemChmodParams, call: Call) -> SystemChmodResult:
    """Change the permissions of a file or folder.

    Links are followed. What belongs to another account needs root: without become, sudo -n is tried.
    """
    asked = ask_chmod(params.path, params.mode, recursive=params.recursive, look=params.dry_run)
    answer = await _try_as_root_too(host, params, asked)
    has = answer.text.strip().zfill(4)
    result = SystemChmodResult(success=True, path=answer.path, mode=params.mode, permissions=has)
    if params.dry_run:
        result.commands = [_line("chmod", params.mode, answer.path, params)]
    return result


class SystemChownParams(_Slow):
    owner: Annotated[str, NumberAsText, AfterValidator(_owner), Meaning.ACCOUNT] = Field(
        description="Account name or number, also `owner:group`; those of a directory service with their domain."
    )
    group: Annotated[Group | None, NumberAsText] = Field(default=None, description="Group name or number.")


class SystemChownResult(Result):
    success: bool = Field(description="Always true; a failure is an error.")
    path: str = Field(description="The path, with `~` expanded.")
    owner: str = Field(description="What it has now, as `user:group`.")
    commands: list[str] | None = Field(default=None, description="With dry_run: what would run.")


@tool(Risk.CHANGE, room="system", idempotent=True, audit="gave {path} the owner {owner}[ and the group {group}]")
async def chown(host: Session, params: SystemChownParams, call: Call) -> SystemChownResult:
    """Change the owner, and if given the group, of a file or folder.

    Needs root: without become, sudo -n is tried.
    """
    if params.group and ":" in params.owner:
        raise InvalidInput("group: owner names one, too", hint="give `owner` without it, or leave `group` out")
    owner = f"{params.owner}:{params.group}" if params.group else params.owner
    asked = ask_chown(params.path, owner, recursive=params.recursive, look=params.dry_run)
    answer = await _try_as_root_too(host, params, asked)
    result = SystemChownResult(success=True, path=answer.path, owner=answer.text.strip())
    if params.dry_run:
        result.commands = [_line("chown", owner, answer.path, params)]
    return result


def _line(program: str, what: str, path: str, params: _Slow) -> str:
    return command(program, *(["-R"] if params.recursive else []), "--", what, path).line()


async def _try_as_root_too(host: Session, params: _Slow, asked: PathQuery) -> ScriptAnswer:
    """Try it as the account; where it is for root to do, and nothing was changed, once more with its rights."""
    try:
        return await _ask(host, params, asked)
    except RootRequired:
        privileged = await host.as_root()
        if privileged is host:
            raise
        return await _ask(privileged, params, asked)


async def _ask(host: Session, params: _Slow, asked: PathQuery) -> ScriptAnswer:
    said = await host.run(asked.command, timeout_s=params.time_limit_s() - CLOSING_S)
    return asked.answer(said.stdout, said.stderr)
