"""This server's config: look, change, read the file again."""

import functools
from collections.abc import Iterable
from typing import Any, Literal

import anyio.to_thread
from pydantic import Field

from mcp_ssh.app import App
from mcp_ssh.config.edit import Edit, differences, mask_secrets, owner_only_keys, set_key, value_of
from mcp_ssh.config.models import Config, load
from mcp_ssh.errors import Refused
from mcp_ssh.params import Params, Result, ShellText
from mcp_ssh.tool import Call, Caller, Risk, Role, tool


class ConfigResult(Params):
    pass


class ConfigGetResult(Result):
    config: dict[str, Any] = Field(description="All keys by area; secrets are masked.")


@tool(Risk.READ, room="config", role=Role.ADMIN)
async def get(app: App, params: ConfigResult, call: Call) -> ConfigGetResult:
    """Show this server's whole config. Secrets are masked."""
    return ConfigGetResult(config=mask_secrets(_pending_config(app)))


class ConfigGetKeyParams(Params):
    key: ShellText = Field(min_length=1, max_length=200, description="Key in dot notation, such as ssh.timeout.")


Value = bool | int | float | str | list[str] | list[dict[str, Any]] | dict[str, Any] | None
"""What a key, or an area, of the config can hold."""


class ConfigGetKeyResult(Result):
    key: str = Field(description="The key.")
    value: Value = Field(description="Its value; a secret is masked.")


@tool(Risk.READ, room="config", role=Role.ADMIN)
async def get_key(app: App, params: ConfigGetKeyParams, call: Call) -> ConfigGetKeyResult:
    """Show one value of this server's config. A secret is masked."""
    return ConfigGetKeyResult(key=params.key, value=mask_secrets(value_of(_pending_config(app), params.key)))


class ConfigSetParams(ConfigGetKeyParams):
    value: Value = Field(
        description="The new value, of the key's type.", json_schema_extra={"secret": True}, repr=False
    )


class ConfigSetResult(ConfigGetKeyResult):
    status: Literal["updated"] = Field(description="Always `updated`.")
    needs_restart: list[str] | None = Field(default=None, description="Keys that count once the server restarts.")
    dropped: list[str] | None = Field(
        default=None, description="Secrets that were for the previous host or account, and were removed."
    )


@tool(Risk.CHANGE, room="config", name="set", role=Role.ADMIN, idempotent=True, audit="set the config value {key}")
async def set_value(app: App, params: ConfigSetParams, call: Call) -> ConfigSetResult:
    """Change one value of this server's config, in its file and at once where that can be.

    The whole config is checked first; a wrong value changes nothing. auth, security, server, sftp.local_folders and
    logging.directory are changed by the server's owner only, over stdio or at the command line. Another default_host
    or default_username drops the secrets that were for the previous one.
    """
    _expect_owner(call.caller, [params.key])

    def expect(edit: Edit) -> None:
        _expect_owner(call.caller, differences(edit.before, edit.after))
        app.live.expect(edit.after)

    async with app.live.turn:
        write = functools.partial(set_key, app.home, params.key, params.value, expect)
        edit = await anyio.to_thread.run_sync(write)
        later = app.live.adopt(edit.after)
    result = ConfigSetResult(key=params.key, value=mask_secrets(value_of(edit.after, params.key)), status="updated")
    if later:
        result.needs_restart = later
    if edit.dropped:
        result.dropped = list(edit.dropped)
    return result


def _expect_owner(caller: Caller, keys: Iterable[str]) -> None:
    """Let the caller change these keys, or say why not.

    Raises:
        Refused: They decide what an admin may do, and the caller is not the server's owner.
    """
    if not caller.owner and (wrong := owner_only_keys(keys)):
        raise Refused(
            f"{', '.join(wrong[:8])}: only the server's owner changes this",
            hint="the owner changes it over stdio, on the command line, or in config.json",
        )


class ConfigReloadResult(Result):
    status: Literal["reloaded"] = Field(description="Always `reloaded`.")
    changed: list[str] = Field(description="Keys whose values are others now.")
    needs_restart: list[str] | None = Field(default=None, description="Those that count once the server restarts.")


@tool(Risk.CHANGE, room="config", role=Role.ADMIN, idempotent=True, audit="read the config again")
async def reload(app: App, params: ConfigResult, call: Call) -> ConfigReloadResult:
    """Read this server's config file again. A broken file changes nothing, and it is said where it is broken."""
    async with app.live.turn:
        fresh = await anyio.to_thread.run_sync(functools.partial(load, app.home))
        app.live.expect(fresh)
        changed = differences(app.live.reported, fresh)
        later = app.live.adopt(fresh)
    result = ConfigReloadResult(status="reloaded", changed=changed)
    if later:
        result.needs_restart = later
    return result


def _pending_config(app: App) -> Config:
    return app.live.wanted or app.config
