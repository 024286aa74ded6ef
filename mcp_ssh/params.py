"""Parameter models that many tools share."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Params(BaseModel):
    """Base of every tool's parameters: unknown names are refused. Text that spells a number is taken as one."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    def time_limit_s(self) -> float:
        """Seconds this call may take in all; dispatch ends it then."""
        return 60.0


class Result(BaseModel):
    """Base of every tool's result. Fields that were not set are not sent."""

    model_config = ConfigDict(extra="forbid")


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


class OnSession(Params):
    """Parameters of a tool that runs on a machine."""

    session_id: ShellText | None = Field(
        default=None,
        max_length=512,
        description="Session id from session_connect, or user@host[:port]. Omitted: your first connected one.",
    )


RemotePath = Annotated[
    ShellText,
    Field(
        min_length=1,
        max_length=4096,
        description="Path on the remote machine; relative ones start at the login folder.",
    ),
]
