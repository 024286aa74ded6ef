"""Parameter models that many tools share."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from mcp_ssh.errors import InvalidInput
from mcp_ssh.host_patterns import canonical_host
from mcp_ssh.meanings import Meaning
from mcp_ssh.messages.validation import word_pattern


class Params(BaseModel):
    """Base of every tool's parameters: unknown names are refused. Text that spells a number is taken as one."""

    # Built when first used, 2 ms at most: a start, which lists few of the tools, need not wait for the others'.
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, defer_build=True)

    def time_limit_s(self) -> float:
        """Seconds this call may take in all; dispatch ends it then."""
        return 60.0


class Result(BaseModel):
    """Base of every tool's result. Fields that were not set are not sent."""

    model_config = ConfigDict(extra="forbid", defer_build=True)


class Event(Result):
    """Base of what a stream tells while it runs. `event` names the kind."""

    event: ClassVar[str]


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain a NUL character; no path, argument or command on Linux can")
    return text


def _encodable(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("must be valid Unicode text; lone surrogates cannot be sent") from error
    return text


ShellText = Annotated[str, AfterValidator(_no_nul), AfterValidator(_encodable)]
"""Text that can reach a remote shell: no NUL, and encodable as UTF-8."""


CommandLine = Annotated[ShellText, Meaning.COMMAND_LINE]
"""A line that a shell of the machine runs."""

FolderPath = Annotated[ShellText, Meaning.FOLDER]
"""The folder that a line runs in."""

LocalPath = Annotated[ShellText, Meaning.LOCAL_PATH]
"""A path on the server's machine."""

HostName = Annotated[ShellText, Meaning.HOST]
"""What names a machine that this server reaches: a host, or where a field says so an alias or a saved connection."""

LoginName = Annotated[ShellText, Meaning.ACCOUNT]
"""An account, by a name that is not checked here."""

_Canonical = Annotated[ShellText, Field(min_length=1, max_length=255), AfterValidator(canonical_host)]

Host = Annotated[_Canonical, Meaning.HOST]
"""A host name or address that this server reaches, made canonical."""

TargetHost = Annotated[_Canonical, Meaning.TARGET]
"""A host name or address that the session's machine reaches, made canonical."""


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


NumberAsText = BeforeValidator(_number_as_text, json_schema_input_type=str | int)
"""For text that may be all digits, such as a mode: clients send it as a number, too."""

LARGEST_NUMBER = 2**53 - 1
"""The largest whole number that every JSON reader keeps exactly; schemas name none beyond it."""


class OnSession(Params):
    """Parameters of a tool that runs on a machine."""

    session_id: ShellText | None = Field(
        default=None,
        max_length=512,
        description="Session id from session_connect, or user@host[:port]. Omitted: your first connected one.",
    )


RemotePath = Annotated[
    ShellText,
    Meaning.PATH,
    Field(
        min_length=1,
        max_length=4096,
        description="Path on the remote machine; relative ones start at the login folder.",
    ),
]

VARIABLE_NAME = word_pattern(
    r"^[A-Za-z_][A-Za-z0-9_]*$", "must be letters, digits and _, and not start with a digit, such as LANG"
)
"""What names an environment variable."""

MOST_OF_A_NAME = 256
_NOT_IN_A_NAME = frozenset(":/,;|&<>*?\"'`$(){}[]!~#%=")


def _check_name(text: str, *, blanks: bool) -> str:
    plain = text.removesuffix("$")  # as the machine accounts of Samba end
    allowed = all(each.isprintable() and each not in _NOT_IN_A_NAME and (blanks or each != " ") for each in plain)
    if not plain or len(text) > MOST_OF_A_NAME or not allowed or plain[0] in "-+.@\\ " or plain[-1] == " ":
        raise ValueError("must be a name such as `ann`, `CORP\\ann` or `ann@corp.example`, or a number")
    return text


def check_account(text: str) -> str:
    """Check the name or number of an account."""
    return _check_name(text, blanks=False)


def check_group(text: str) -> str:
    """Check the name or number of a group."""
    return _check_name(text, blanks=True)


AccountName = Annotated[str, AfterValidator(check_account), Meaning.ACCOUNT]
"""An account of a machine, by name or number; those of a directory service have a domain."""

Group = Annotated[str, AfterValidator(check_group)]
"""A group of a machine. Directory services have groups with blanks in their names."""

Method = Literal["sudo", "su", "doas"]


def _some_text(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if "\0" in text:
        raise ValueError("must not contain a NUL character")
    _encodable(text)
    return secret


Secret = Annotated[SecretStr, AfterValidator(_some_text)]
"""A secret that can be sent: no NUL, and encodable as UTF-8."""


def _one_line(password: SecretStr) -> SecretStr:
    text = _encodable(password.get_secret_value())
    if not 0 < len(text) <= 500 or any(each in text for each in "\0\r\n"):
        raise ValueError("must be one line of at most 500 characters")
    return password


OneLine = Annotated[SecretStr, AfterValidator(_one_line)]
"""A secret that is typed as one line."""


def _said_once(schema: dict[str, Any]) -> None:
    """The field that holds the model has a description already, and every tool that changes a machine shows it."""
    del schema["description"]


class Become(BaseModel):
    """Another account of the machine to act as, and how to become it."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, json_schema_extra=_said_once)

    user: AccountName = Field(default="root", description="The account.")
    method: Method = Field(default="sudo", description="doas works without a password only.")
    password: OneLine | None = Field(
        default=None, description="For sudo the login account's, for su the other's. Omitted: sudo -n."
    )
    use_login_password: bool = Field(default=False, description="Use the session's own.")

    @model_validator(mode="after")
    def _doas_has_no_password(self) -> "Become":
        if self.method == "doas" and (self.password is not None or self.use_login_password):
            raise ValueError("doas reads passwords from a terminal only; leave the password out, or use sudo or su")
        return self


class BecomeParams(OnSession):
    """Parameters of a tool that changes a machine. Dispatch gives the tool a session that acts as the account.

    A tool that needs root runs on `host.becoming(params.become or Become())`: sudo without a password.
    """

    become: Become | None = Field(default=None, description="Act as another account, such as root.")


class DryRunParams(BecomeParams):
    """Parameters of a tool that can show what it would do; its result then lists the commands, and nothing changed."""

    dry_run: bool = Field(default=False, description="Show the exact commands instead of running them.")


MODEL_OUTPUT = 8 * 1024
PROGRAM_OUTPUT = 1024 * 1024

MODEL_DOORS = frozenset({"stdio", "mcp"})
"""The transports whose callers are models."""


def output_limit(wanted: int | None, door: str, most: int) -> int:
    """Bytes of output that one answer may hold: by default less for models than over REST.

    Raises:
        InvalidInput: More is wanted than the config allows.
    """
    chosen = wanted or min(MODEL_OUTPUT if door in MODEL_DOORS else PROGRAM_OUTPUT, most)
    if chosen > most:
        raise InvalidInput(
            f"max_output_bytes: must be at most {most}",
            hint="page through the whole output; the ceiling is security.max_output_kb",
        )
    return chosen
