"""Type into an interactive shell and look at what it prints."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from mcp_ssh.errors import InvalidInput, Refused
from mcp_ssh.params import LARGEST_NUMBER, CommandLine, OneLine, Result, output_limit
from mcp_ssh.sessions.session import Session
from mcp_ssh.sessions.shell_exec import asks_secretly
from mcp_ssh.ssh.pty.shell import Shell, ShellState
from mcp_ssh.ssh.pty.terminal import KEYS, KeyName, ShellPrompt, to_keystrokes
from mcp_ssh.tool import Call, Question, Risk, tool
from mcp_ssh.tools.shell.models import OnShell, Waiting, as_text, hide_at_password_prompt, to_type_in, waiting_for


class ShellSendParams(OnShell):
    command: CommandLine = Field(max_length=65_536, description="Text to type, such as a command line or an answer.")
    enter: bool = Field(default=True, description="Press Enter after it.")


class ShellSendResult(Result):
    status: Literal["sent"] = Field(description="Always `sent`.")
    command: str = Field(description="The text.")
    offset: int = Field(description="Offset for shell_read of the output that follows.")


@tool(Risk.DESTROY, room="shell", open_world=True, audit="typed in the shell {shell}: {command}")
async def send(host: Session, params: ShellSendParams, call: Call) -> ShellSendResult:
    """Type text into an interactive shell, then Enter; see what comes of it with shell_read.

    The default shell opens on first use. Never type a password: shell_secret has the user asked.
    """
    shell = await to_type_in(host, call, params.shell)
    await hide_at_password_prompt(host, shell, "command")
    offset = await shell.type(to_keystrokes(params.command) + (KEYS["enter"] if params.enter else b""))
    host.renew_spares()
    return ShellSendResult(status="sent", command=params.command, offset=offset)


class ShellKeyParams(OnShell):
    key: Annotated[KeyName, BeforeValidator(lambda key: key.lower() if isinstance(key, str) else key)] = Field(
        description="Name of the key."
    )


class ShellKeyResult(Result):
    status: Literal["sent"] = Field(description="Always `sent`.")
    key: str = Field(description="The key.")
    offset: int = Field(description="Offset for shell_read of the output that follows.")


@tool(Risk.DESTROY, room="shell", open_world=True, audit="pressed {key} in the shell {shell}")
async def key(host: Session, params: ShellKeyParams, call: Call) -> ShellKeyResult:
    """Press a key in an interactive shell, such as ctrl+c to end a program, tab, or an arrow."""
    shell = await to_type_in(host, call, params.shell)
    offset = await shell.type(KEYS[params.key])
    host.renew_spares()
    return ShellKeyResult(status="sent", key=params.key, offset=offset)


class ShellReadParams(OnShell):
    offset: int | None = Field(
        default=None,
        ge=-LARGEST_NUMBER,
        le=LARGEST_NUMBER,
        description="First byte to return; negative: from the end. Omitted: on from the last read without offset.",
    )
    wait_s: float = Field(default=0.5, ge=0, le=300, description="Seconds to wait for output.")
    max_output_bytes: int | None = Field(
        default=None, ge=256, le=1024 * 1024, description="Default 8 KiB for models, 1 MiB over REST."
    )
    raw: bool = Field(default=False, description="True: with the terminal's control sequences.")

    def time_limit_s(self) -> float:
        """The wait, and time to draw the screen."""
        return self.wait_s + 30.0


class ShellReadResult(Result):
    output: str = Field(description="What it printed, prompts included.")
    lines: int = Field(description="Lines that have ended in it.")
    offset: int = Field(description="Where output starts.")
    next_offset: int = Field(description="Where the next read continues.")
    status: ShellState = Field(description="open; ended: by itself; lost: with the connection.")
    exit_code: int | None = Field(default=None, description="Of a shell that ended.")
    more: bool | None = Field(default=None, description="True where more is there already.")
    dropped: int | None = Field(default=None, description="Bytes that are no longer kept: the last 2 MiB are.")
    waiting_input: Waiting | None = Field(default=None, description="What the shell or program in it waits for.")


@tool(Risk.READ, room="shell", idempotent=False)
async def read(host: Session, params: ShellReadParams, call: Call) -> ShellReadResult:
    """Read what an interactive shell printed, since the last read or from an offset.

    Nothing is lost between calls, and by offset it can be read again. The answer comes as soon as output pauses;
    waiting_input tells when a program asks for something, and what to call then.
    """
    shell = host.shells.find(call.caller.id, params.shell)
    limit = output_limit(params.max_output_bytes, call.door, host.limits.output_bytes)
    wanted = shell.cursor if params.offset is None else params.offset
    piece = await shell.read(params.offset, limit, params.wait_s)
    if piece.content:  # what ran since may have changed what the next login finds
        host.renew_spares()
    text = piece.content.decode("utf-8", "replace") if params.raw else await as_text(piece.content)
    result = ShellReadResult(
        output=text, lines=text.count("\n"), offset=piece.start, next_offset=piece.end, status=shell.state
    )
    if piece.end < piece.total:
        result.more = True
    if piece.start > wanted >= 0:
        result.dropped = piece.start - wanted
    await _add_state(result, shell)
    return result


async def _add_state(result: "ShellReadResult | ShellScreenResult", shell: Shell) -> None:
    if shell.state == "ended":
        result.exit_code = shell.exit_code
    if (asked := await shell.waiting()) is not None:
        result.waiting_input = waiting_for(asked)


class ShellScreenResult(Result):
    screen: str = Field(description="Its rows from the top, blank ones at the end left out.")
    cursor_row: int = Field(description="Row of the cursor, from 1.")
    cursor_column: int = Field(description="Column of the cursor, from 1.")
    columns: int = Field(description="Width of the terminal in characters.")
    rows: int = Field(description="Height in lines.")
    status: ShellState = Field(description="open; ended: by itself; lost: with the connection.")
    exit_code: int | None = Field(default=None, description="Of a shell that ended.")
    waiting_input: Waiting | None = Field(default=None, description="What the shell or program in it waits for.")


@tool(Risk.READ, room="shell")
async def screen(host: Session, params: OnShell, call: Call) -> ShellScreenResult:
    """Show the screen of an interactive shell as a person would see it, for programs such as vim, top and less."""
    shell = host.shells.find(call.caller.id, params.shell)
    drawn = await shell.screen()
    row, column = drawn.cursor
    result = ShellScreenResult(
        screen="\n".join(drawn.rows).rstrip("\n"),
        cursor_row=row,
        cursor_column=column,
        columns=shell.terminal.columns,
        rows=shell.terminal.rows,
        status=shell.state,
    )
    await _add_state(result, shell)
    return result


class ShellSecretParams(OnShell):
    secret: OneLine | None = Field(default=None, description="Omitted: the user is asked. Models leave it out.")


class ShellSecretResult(Result):
    status: Literal["sent"] = Field(description="Always `sent`.")
    prompt: str = Field(description="The prompt that was answered.")
    offset: int = Field(description="Offset for shell_read of the output that follows.")


@tool(Risk.DESTROY, room="shell", open_world=True, audit="typed a secret in the shell {shell}")
async def secret(host: Session, params: ShellSecretParams, call: Call) -> ShellSecretResult:
    """Answer a password prompt in an interactive shell with a secret that the user is asked for; you do not see it.

    Only where waiting_input says password and the terminal does not show what is typed.
    """
    shell = host.shells.find(call.caller.id, params.shell)
    asked = await asks_secretly(host, shell)
    given = params.secret or await _answer(host, shell, asked, call)
    if await asks_secretly(host, shell) != asked:
        raise Refused("the prompt has changed meanwhile", hint="look with shell_read, and call again")
    offset = await shell.type(given.get_secret_value().encode() + KEYS["enter"])
    host.renew_spares()
    return ShellSecretResult(status="sent", prompt=asked.text, offset=offset)


_ONE_LINE: TypeAdapter[OneLine] = TypeAdapter(OneLine)


async def _answer(host: Session, shell: Shell, asked: ShellPrompt, call: Call) -> OneLine:
    question = Question(
        "shell_secret",
        f"A program in the shell {shell.name!r} on {host.name} asks: {asked.text!r}. Your answer goes to the machine;"
        " the assistant does not see it.",
        {"secret": {"type": "string", "title": "Secret"}},
    )
    answer = await call.need(question)
    if answer is None:
        raise InvalidInput(
            "secret: nobody can be asked here, and none was given",
            hint="have the user type it in a client that shows forms, or give `secret`",
        )
    try:
        return _ONE_LINE.validate_python(answer.get("secret") or "")
    except ValidationError:
        raise Refused(
            "the user gave no secret, or one that is more than a line", hint="ask the user what to do instead"
        ) from None
