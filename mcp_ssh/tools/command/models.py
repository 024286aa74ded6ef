"""What a command takes, whether somebody waits for it or not, and how much of its output one answer holds."""

import base64
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mcp_ssh.meanings import Meaning
from mcp_ssh.params import VARIABLE_NAME, FolderPath, ShellText


def _not_ours(name: str) -> str:
    if name == "MCP_SSH_CALL":
        raise ValueError("is set by this server for every command")
    return name


VariableName = Annotated[str, Field(pattern=VARIABLE_NAME, max_length=256), AfterValidator(_not_ours)]
StdinText = Annotated[
    str | None,
    Field(max_length=4_194_304, repr=False, description="Text for standard input, which is closed without it."),
]
WorkingFolder = Annotated[
    FolderPath | None, Field(min_length=1, max_length=4096, description="Folder to run in; `~` is the account's home.")
]
Environment = Annotated[
    dict[VariableName, ShellText] | None,
    Meaning.ENVIRONMENT,
    Field(
        max_length=256,
        repr=False,
        description="Environment variables to add. Their values are in no process list.",
    ),
]
Encoding = Literal["utf-8", "base64"]


def stdin_bytes(text: str | None) -> bytes | None:
    """What goes to standard input."""
    return text.encode("utf-8", "surrogatepass") if text is not None else None


def in_words(data: bytes, encoding: Encoding) -> str:
    """Bytes as an answer carries them."""
    return base64.b64encode(data).decode() if encoding == "base64" else data.decode("utf-8", "replace")


def is_utf8(data: bytes) -> bool:
    """Whether the bytes are text that nothing has to be replaced in."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
