"""Environment variables."""

from typing import Annotated

from pydantic import Field

from mcp_ssh.audit import always
from mcp_ssh.errors import InvalidInput
from mcp_ssh.linux.system.environment import ask_get, ask_save, parse_get
from mcp_ssh.params import VARIABLE_NAME, DryRunParams, OnSession, Result, ShellText
from mcp_ssh.sessions.query import parts_of
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool

VALUE_BYTES = 1024 * 1024
"""The most that a variable's value may have, with its quoted form."""

EnvName = Annotated[str, Field(pattern=VARIABLE_NAME, max_length=256, description="Name of the variable.")]


class SystemEnvGetParams(OnSession):
    name: EnvName


class SystemEnvGetResult(Result):
    name: str = Field(description="The variable.")
    value: str | None = Field(description="Its value for commands of this session; null where it is not set.")
    saved: str | None = Field(default=None, description="What env_set saved for later logins.")


@tool(Risk.READ, room="system")
async def env_get(host: Session, params: SystemEnvGetParams, call: Call) -> SystemEnvGetResult:
    """Read an environment variable as commands of this session see it."""
    asked = ask_get(params.name)
    value, saved = await parts_of(host, asked, lambda parts: parse_get(parts, params.name), limit=VALUE_BYTES)
    result = SystemEnvGetResult(name=params.name, value=host.environment.get(params.name, value))
    if saved is not None:
        result.saved = saved
    return result


class SystemEnvSetParams(DryRunParams):
    name: EnvName
    value: ShellText | None = Field(default=None, max_length=65_536, description="Its value; null unsets it.")
    persist: bool = Field(
        default=False, description="Also for later logins of the account: one block in its rc files is edited."
    )


class SystemEnvSetResult(Result):
    success: bool = Field(description="Always true; a failure is an error.")
    name: str = Field(description="The variable.")
    value: str | None = Field(description="Its value.")
    files: list[str] | None = Field(default=None, description="With persist: the files that set it.")
    commands: list[str] | None = Field(default=None, description="With dry_run: what would be done.")


@tool(
    Risk.CHANGE,
    room="system",
    idempotent=True,
    audit=(
        (lambda params, _: params.value is None and params.persist, "unset the variable {name}, for later logins too"),
        (lambda params, _: params.value is None, "unset the variable {name}"),
        (lambda params, _: params.persist, "set the variable {name}, for later logins too"),
        (always, "set the variable {name}"),
    ),
)
async def env_set(host: Session, params: SystemEnvSetParams, call: Call) -> SystemEnvSetResult:
    """Set an environment variable for the commands of this session, and with persist for later logins, too.

    Values of command_exec's own env come first.
    """
    if params.name == "MCP_SSH_CALL":
        raise InvalidInput("name: MCP_SSH_CALL is set by this server for every command", hint="choose another name")
    if params.persist and params.value is not None and ("\n" in params.value or "\r" in params.value):
        raise InvalidInput("value: a saved one must be one line", hint="leave `persist` out, or encode the value")
    result = SystemEnvSetResult(success=True, name=params.name, value=params.value)
    if params.dry_run:
        where = "the session and the block in the account's rc files" if params.persist else "the session"
        result.commands = [f"{'export' if params.value is not None else 'unset'} {params.name} in {where}"]
        return result
    if params.persist:
        asked = ask_save(params.name, params.value)
        said = await host.run(asked.command)
        result.files = asked.answer(said.stdout, said.stderr).text.splitlines()
    if params.value is None:
        host.environment.pop(params.name, None)
    else:
        host.environment[params.name] = params.value
    return result
