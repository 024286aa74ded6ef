"""`config.json` as models: every key has a type, a default, a sentence, and code that obeys it.

The six areas and their first keys are the documented ones; the file lies in the folder `MCP_SSH_HOME` names.
"""

import json
import os
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from mcp_ssh.errors import InvalidInput
from mcp_ssh.host_patterns import check_patterns
from mcp_ssh.messages.json_objects import without_repeats
from mcp_ssh.messages.validation import describe_errors, explain
from mcp_ssh.shell_command import words
from mcp_ssh.tool import plain_schema


def _command_patterns(patterns: list[str] | None) -> list[str] | None:
    for each in patterns or ():
        if not words(each):
            raise ValueError(f"{each!r} is not a pattern of a command: it is empty, or a quote in it does not end")
    return patterns


def _path_patterns(patterns: list[str]) -> list[str]:
    for each in patterns:
        if not each.startswith(("/", "*")) or not each.strip("/*") or not each.isprintable() or "\\" in each:
            raise ValueError(f"{each!r} must be a path from / on, or start with `*`, and name something")
    return patterns


def _host_patterns(patterns: list[str]) -> list[str]:
    return [*check_patterns(patterns)]


class Area(BaseModel):
    """Base of the six areas: unknown keys are refused, values never change once read."""

    # JSON has no infinity, so none that is given could be shown.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, allow_inf_nan=False)


class ServerConfig(Area):
    """Where `ssh-steward serve` listens, and who may call."""

    host: str = Field(
        default="127.0.0.1", description="Address to listen on. Anything but loopback needs TLS or behind_proxy."
    )
    port: int = Field(default=8754, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    debug: bool = Field(default=False, description="Log at DEBUG level, whatever logging.level says.")
    auth_mode: Literal["token", "none"] = Field(
        default="token",
        description="`token`: every call needs a bearer token. `none`: every program on this machine may call, and no"
        " page of another site; loopback only.",
    )
    behind_proxy: bool = Field(
        default=False, description="A TLS-terminating proxy stands in front, so a non-loopback address may be bound."
    )
    allowed_hosts: list[str] = Field(
        default_factory=list, description="Extra values of the Host header to answer, such as `ssh.example.org`."
    )
    allowed_origins: list[str] = Field(
        default_factory=list,
        description="Extra values of the Origin header to answer, such as `https://ops.example.org`.",
    )
    max_body_mb: float = Field(
        default=4.0, gt=0, le=64, description="Largest JSON request body in MiB; larger ones get 413."
    )


class SshConfig(Area):
    """How machines are reached."""

    default_port: int = Field(default=22, ge=1, le=65535, description="Port used where a call names none.")
    timeout: float = Field(
        default=30.0,
        gt=0,
        le=600,
        description="Seconds for look-up, connecting, login and first channel, retries included.",
    )
    banner_timeout: float = Field(
        default=15.0, gt=0, le=600, description="Seconds until the machine sends its SSH version."
    )
    auth_timeout: float = Field(default=30.0, gt=0, le=600, description="Seconds the login itself may take.")
    keepalive_interval: float = Field(
        default=60.0, ge=1, le=3600, description="Seconds between keepalives; three unanswered ones end the session."
    )
    max_concurrent_connections: int = Field(
        default=256,
        ge=1,
        le=1000,
        description="Sessions one caller may have open at once. At the limit, those that were opened by name and are"
        " not in use give way, the least recently used first.",
    )
    idle_minutes: float = Field(
        default=30.0,
        gt=0,
        description="Minutes without a call, traffic of a tunnel or output of a shell after which a session is closed,"
        " if it was opened over HTTP or by name.",
    )
    task_keep_days: int = Field(
        default=7, ge=1, le=365, description="Days a background task that has ended stays on its machine."
    )
    task_output_mb: int = Field(
        default=16,
        ge=1,
        le=4096,
        description="MiB of each stream's end a background task keeps on its machine, and up to a quarter more.",
    )
    plain_exec_hosts: list[str] = Field(
        default_factory=list,
        description="Host patterns (`*.example.org`) where every command is an exec request of its own, for machines"
        " that audit these. Elsewhere a shell is started ahead of need.",
    )


class AuthConfig(Area):
    """What `session_connect` uses for fields a call leaves out."""

    default_host: str = Field(default="", description="Host name or address.")
    default_username: str = Field(default="", description="Account to log in as.")
    default_password: SecretStr = Field(default=SecretStr(""), description="Password of that account.")
    default_key_path: str = Field(default="", description="Private key file on this machine.")
    default_key_passphrase: SecretStr = Field(default=SecretStr(""), description="Passphrase of that key.")


class SftpConfig(Area):
    """Files on their way to and from machines."""

    max_file_size_mb: int = Field(
        default=500,
        ge=1,
        le=1_000_000,
        description="Largest file in MiB that file_write leaves behind.",
    )
    local_folders: list[str] = Field(
        default_factory=list,
        description="Folders of this machine that every HTTP caller may upload from and download to, beside its own"
        " `transfers/<caller>` in the folder of this file. The owner, at the command line or over stdio, may use any.",
    )
    transfer_quota_mb: int = Field(
        default=2048,
        ge=1,
        le=1_000_000,
        description="MiB that each HTTP caller may keep in its own folder; each file counts 4 KiB more than its size.",
    )


class DisabledAlgorithms(Area):
    """Algorithms never offered to a machine, by their SSH names."""

    ciphers: list[str] = Field(default_factory=lambda: ["3des-cbc"], description="Ciphers.")
    macs: list[str] = Field(default_factory=lambda: ["hmac-md5"], description="Message authentication codes.")
    kex: list[str] = Field(default_factory=list, description="Key exchanges.")
    host_keys: list[str] = Field(
        default_factory=list, description="Signatures of host keys, and of keys that log in, such as `rsa-sha2-256`."
    )


class HostRule(Area):
    """What may be done on some machines. Each entry that fits a machine takes something away; none gives."""

    hosts: list[str] = Field(
        min_length=1,
        description="Patterns of names and addresses, such as `*.example.org`; `!pattern` makes exceptions.",
    )
    read_only: bool = Field(default=False, description="Refuse every tool that changes machines.")
    allow_commands: list[str] | None = Field(
        default=None,
        description="Patterns of command lines, and names of tools that change machines; nothing else runs."
        " null sets no bounds.",
    )
    deny_commands: list[str] = Field(
        default_factory=list,
        description="Patterns of commands, and names of tools, that do not run. One word is the program with any"
        " arguments; short options are compared as a set. A net, not a wall: a shell can write a command in ways that"
        " no pattern finds.",
    )
    protected_paths: list[str] = Field(
        default_factory=list, description="More paths that tools do not change, as in `security.protected_paths`."
    )

    _hosts = field_validator("hosts")(_host_patterns)
    _commands = field_validator("allow_commands", "deny_commands")(_command_patterns)
    _paths = field_validator("protected_paths")(_path_patterns)


class SecurityConfig(Area):
    """What may be trusted, and what callers may use."""

    disabled_algorithms: DisabledAlgorithms = Field(
        default_factory=DisabledAlgorithms, description="Algorithms never offered to a machine."
    )
    sha1_hosts: list[str] = Field(
        default_factory=list,
        description="Host patterns of old machines that may sign with SHA-1 (`ssh-rsa`) and exchange keys with it.",
    )
    reject_unknown_hosts: bool = Field(
        default=False, description="Refuse unknown host keys outright, with no way to accept them through a tool."
    )
    host_keys: Literal["confirm", "accept-new"] = Field(
        default="confirm",
        description="`confirm`: an unknown key must be accepted first. `accept-new`: an unknown key is stored at first"
        " sight; a changed one is refused all the same.",
    )
    allow_server_identities: list[str] = Field(
        default_factory=list,
        description="Host patterns (`*.example.org`) for which HTTP callers below admin may use"
        " key files and the agent of this server's owner.",
    )
    _identities = field_validator("allow_server_identities", "sha1_hosts")(_host_patterns)
    confirm_tools: list[str] = Field(
        default_factory=list,
        description="Tools that need `confirm: true` over every transport, REST included.",
    )
    hosts: list[HostRule] = Field(
        default_factory=list, description="What may be done on which machines, over every transport and by every role."
    )
    protected_paths: list[str] = Field(
        default_factory=lambda: ["/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/sudoers.d"],
        description="Paths of machines that tools do not change, with all that is in them, wherever links lead. `*` and"
        " `?` stand for any text and any character. Commands are not held up by these.",
    )
    max_calls_at_once: int = Field(default=64, ge=1, description="Calls one caller may have running.")
    max_calls_per_minute: int = Field(
        default=0, ge=0, description="Calls one caller may start within a minute; 0 sets no bounds."
    )
    max_scans_per_minute: int = Field(
        default=30,
        ge=1,
        description="Host key scans, and connections that come to no login, that one HTTP caller may make in a minute.",
    )
    allow_local_targets: bool = Field(
        default=False,
        description="Let HTTP callers below admin connect to and scan loopback and link-local addresses of this"
        " server's own machine. A token that names such an address may do so without it.",
    )
    max_output_kb: int = Field(default=1024, ge=1, le=16384, description="Ceiling in KiB of each stream in one answer.")

    _paths = field_validator("protected_paths")(_path_patterns)


class LoggingConfig(Area):
    """The log on standard error, and the history of calls."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least level that is written."
    )
    directory: str = Field(default="", description="Folder for a log file beside standard error; empty writes none.")
    history_rows: int = Field(default=100_000, ge=1000, description="Calls that the history keeps; older ones go.")
    history_days: float = Field(default=90.0, gt=0, le=36_500, description="Days that the history keeps a call.")


class Config(Area):
    """The whole of `config.json`."""

    server: ServerConfig = Field(default_factory=ServerConfig, description="The HTTP server.")
    ssh: SshConfig = Field(default_factory=SshConfig, description="Connections to machines.")
    auth: AuthConfig = Field(default_factory=AuthConfig, description="Defaults of session_connect.")
    sftp: SftpConfig = Field(default_factory=SftpConfig, description="File transfer.")
    security: SecurityConfig = Field(default_factory=SecurityConfig, description="Trust and limits.")
    logging: LoggingConfig = Field(default_factory=LoggingConfig, description="Logs.")


def home() -> Path:
    """The folder of config and state: `MCP_SSH_HOME`, else the platform's folder for this program's data."""
    named = os.environ.get("MCP_SSH_HOME")
    return Path(named).expanduser() if named else Path(platformdirs.user_data_dir("mcp-ssh"))


def file_version(folder: Path) -> tuple[int, ...]:
    """What tells one version of a folder's `config.json` from another; empty where there is none."""
    try:
        found = os.stat(folder / "config.json")  # noqa: PTH116 once a call, where Path.stat costs twice as much
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def load(folder: Path, *, required: bool = False) -> Config:
    """The config of a folder; defaults where it has no `config.json` and none is required.

    Raises:
        InvalidInput: The file is not JSON, or a key is unknown or has a wrong value; names the key and rule.
    """
    path = folder / "config.json"
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        if required:
            raise InvalidInput("config.json is gone", hint=f"restore {path}") from error
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"config.json cannot be read: {error}", hint=f"look at {path}") from error
    try:
        return Config.model_validate(read_object(text))
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"config.json is not JSON: line {error.lineno}, column {error.colno}: {error.msg}", hint=f"correct {path}"
        ) from error
    except ValidationError as error:
        wrong, near = explain(error, config_schema(), "a key of config.json")
        meant = f"did you mean {', '.join(near)}? " if near else ""
        raise InvalidInput(
            f"config.json: {describe_errors(wrong, error.error_count())}",
            hint=f"{meant}correct {path}; config.example.json has every key",
        ) from error


def read_object(text: str) -> dict[str, Any]:
    """The text of `config.json` as an object.

    Raises:
        InvalidInput: A key is given twice, so that one of its values, a policy perhaps, would be dropped.
        json.JSONDecodeError: It is not JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=without_repeats)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"config.json: {error}", hint="keep one of them, with all that both say") from None


def config_schema() -> dict[str, Any]:
    """Return the JSON Schema of `config.json`."""
    return plain_schema(Config.model_json_schema())


def example() -> str:
    """The text of `config.example.json`: every key with its default."""
    shown = Config().model_dump(mode="json")
    shown["auth"]["default_password"] = shown["auth"]["default_key_passphrase"] = ""
    return json.dumps(shown, indent=2) + "\n"
