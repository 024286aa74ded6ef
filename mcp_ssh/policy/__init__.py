"""May this caller do this? Asked once for every call, whichever door it came through."""

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

from mcp_ssh.config import AuthConfig, SecurityConfig
from mcp_ssh.errors import InvalidInput, Refused
from mcp_ssh.hosts import is_loopback, matches
from mcp_ssh.policy.limits import CallLimits
from mcp_ssh.policy.rules import Rules, rules_for
from mcp_ssh.tool import AnyTool, Caller, Risk, Role

__all__ = [
    "CallLimits",
    "Rules",
    "allow",
    "expect_reach",
    "expect_target",
    "expect_tools",
    "local_place",
    "may_use_defaults",
    "may_use_identities",
    "needs_confirmation",
    "rules_for",
]


def allow(tool: AnyTool, caller: Caller, *, read_only: bool) -> None:
    """Let the call pass, or say why not.

    Raises:
        Refused: The tool changes machines and this server is read-only, or the caller's role is too low.
    """
    if read_only and tool.risk is not Risk.READ:
        raise Refused(
            f"{tool.name} changes machines, and this server is read-only",
            hint="use a tool that only reads, or start the server without --read-only",
        )
    if caller.role < tool.role:
        bound = "" if caller.hosts is None else "; a token with --host is at most an operator"
        raise Refused(
            f"{tool.name} needs the role {tool.role.name.lower()}; this token has {caller.role.name.lower()}",
            hint=f"use a token with the role {tool.role.name.lower()} (mcp-ssh token add NAME --role ROLE){bound}",
        )


def expect_reach(caller: Caller, host: str) -> None:
    """Let the caller go on to this machine, or say why not.

    Raises:
        Refused: Its token is for other machines.
    """
    if not caller.reaches(host):
        raise Refused(
            f"this token is not for the machine {host[:255]}",
            hint=f"it is for {', '.join(caller.hosts or ())}; mcp-ssh token add NAME --host PATTERN makes another",
        )


def expect_target(caller: Caller, params: object) -> None:
    """See that a tunnel leads to the machine it goes through, or to another the caller may reach.

    Raises:
        Refused: It leads elsewhere.
    """
    target = getattr(params, "remote_host", None)
    if isinstance(target, str) and not is_loopback(target):
        expect_reach(caller, target)


def needs_confirmation(tool: AnyTool, security: SecurityConfig, *, door_confirms: bool) -> bool:
    """Whether a person has to agree to this call first."""
    return tool.name in security.confirm_tools or (tool.confirm and door_confirms)


def expect_tools(security: SecurityConfig, tools: Collection[str]) -> None:
    """See that what needs consent is named as tools are: a name that is none would silently ask for nothing.

    Raises:
        InvalidInput: One is no tool; names those that are spelled nearly so.
    """
    for name in security.confirm_tools:
        if name not in tools:
            near = difflib.get_close_matches(name, tools, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else "mcp-ssh tools lists them"
            raise InvalidInput(f"security.confirm_tools: there is no tool {name[:80]!r}", hint=hint)


def may_use_identities(caller: Caller, host: str, security: SecurityConfig) -> bool:
    """Whether the caller may log in to the host with key files or the agent of this server's owner."""
    return caller.owner or caller.role is Role.ADMIN or matches(host, security.allow_server_identities)


def may_use_defaults(host: str | None, username: str | None, auth: AuthConfig) -> bool:
    """Whether a call may use the configured secrets: they go to the configured host and account, never elsewhere."""
    return host in {None, "", auth.default_host} and username in {None, "", auth.default_username}


def local_place(caller: Caller, path: str, folders: Sequence[Path]) -> Path:
    """Where a path of this machine leads at the end of all links, if the caller may go there. Asks the file system.

    Args:
        caller: The server's owner may go anywhere the server's process may; others stay in the folders.
        path: As the caller gave it; relative ones start in the first folder, the owner's where the server was started.
        folders: The folders for others than the owner.

    Raises:
        Refused: The path leads out of the folders.
    """
    if caller.owner:
        return Path(path).expanduser().resolve()
    allowed = [folder.resolve() for folder in folders]
    place = (allowed[0] / path).resolve()
    if not any(place.is_relative_to(folder) for folder in allowed):
        raise Refused(
            "local_path: leads out of the folders that callers over HTTP may use on this server's machine",
            hint="give a relative path: it starts in the transfers folder; the owner can add folders to"
            " sftp.local_folders",
        )
    return place
