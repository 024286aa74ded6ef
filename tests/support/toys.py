"""A room of tools that do to the MCP door what real ones do, without a machine."""

from dataclasses import dataclass, field
from typing import Any

import anyio
from pydantic import BaseModel, Field, SecretStr

from mcp_ssh.app import App
from mcp_ssh.errors import NotFound
from mcp_ssh.params import Params, Result
from mcp_ssh.tool import Call, Question, Risk, tool


@dataclass
class Seen:
    """What the tools saw, for the tests to look at."""

    started: anyio.Event = field(default_factory=anyio.Event)
    cancelled: anyio.Event = field(default_factory=anyio.Event)
    erased: list[str] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    fingerprints: list[str] = field(default_factory=list)


SEEN = Seen()


class Place(BaseModel):
    x: int = Field(description="How far right.")


class Echo(Params):
    text: str = Field(description="What to say.")
    title: str = Field(default="", description="A field that is called like the noise pydantic makes.")
    times: int = Field(default=1, ge=1, le=9, description="How often.")
    tags: list[str] = Field(default_factory=list, description="Words.")
    place: Place | None = Field(default=None, description="Where.")
    password: str | None = Field(default=None, description="A secret.")


class Echoed(Result):
    text: str = Field(description="What was said.")
    title: str = Field(description="Its title.")
    tags: list[str] = Field(description="Its words.")
    place: Place | None = Field(default=None, description="Where, where that was said.")
    note: str | None = Field(default=None, description="Left unset.")


@tool(Risk.READ, room="toys")
async def echo(app: App, params: Echo, call: Call) -> Echoed:
    """Say something back."""
    said = Echoed(text=params.text * params.times, title=params.title, tags=params.tags)
    if params.place:
        said.place = params.place
    return said


class Nothing(Params):
    pass


class Done(Result):
    done: bool = Field(description="Whether it was done.")


@tool(Risk.CHANGE, room="toys")
async def wait(app: App, params: Nothing, call: Call) -> Done:
    """Wait until cancelled, then clean up for a while."""
    SEEN.started.set()
    try:
        (app.home / "waiting").touch()
        await anyio.sleep_forever()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.2)  # a clean-up that needs the loop, as ending a remote process does
            (app.home / "cleaned").touch()
        SEEN.cancelled.set()
    return Done(done=True)


@tool(Risk.CHANGE, room="toys")
async def hang(app: App, params: Nothing, call: Call) -> Done:
    """Wait, and never let go."""
    with anyio.CancelScope(shield=True):
        (app.home / "waiting").touch()
        await anyio.sleep_forever()
    return Done(done=True)


@tool(Risk.READ, room="toys")
async def loud(app: App, params: Nothing, call: Call) -> Done:
    """Print, and have a child print."""
    print("printed by a tool", flush=True)
    await anyio.run_process("echo printed by a child; cat", stdout=None)
    return Done(done=True)


@tool(Risk.READ, room="toys")
async def steps(app: App, params: Nothing, call: Call) -> Done:
    """Report progress, also where it stands still or goes back."""
    for each in (1, 1, 2, 1.5, 3):
        await call.progress(each, 3, f"step {each}")
    return Done(done=True)


class Large(Params):
    size: int = Field(ge=0, description="Characters.")
    lines: int = Field(default=0, ge=0, description="Lines beside them.")


class Text(Result):
    text: str = Field(description="Text.")
    lines: list[str] = Field(default_factory=list, description="Lines.")
    exit_code: int = Field(description="Exit status.")


@tool(Risk.READ, room="toys")
async def large(app: App, params: Large, call: Call) -> Text:
    """Say a lot."""
    text = "".join(chr(ord("a") + i % 26) for i in range(params.size))
    return Text(text=text, lines=[f"line {i}" for i in range(params.lines)], exit_code=3)


class Say(Params):
    text: str = Field(description="Text.")


@tool(Risk.READ, room="toys")
async def broken_text(app: App, params: Nothing, call: Call) -> Text:
    """Say what no transport can write."""
    return Text(text="a\udce9b", exit_code=0)


@tool(Risk.READ, room="toys")
async def crash(app: App, params: Nothing, call: Call) -> Done:
    """Fail as code of ours does."""
    raise RuntimeError("the secret lies in /etc/x")


@tool(Risk.READ, room="toys")
async def absent(app: App, params: Say, call: Call) -> Done:
    """Find nothing."""
    raise NotFound(f"no such thing: {params.text}", hint="try another", details={"near": ["thing"]})


class Erase(Params):
    path: str = Field(description="What to erase.")


@tool(Risk.DESTROY, room="toys", confirm=True, idempotent=True, open_world=True)
async def erase(app: App, params: Erase, call: Call) -> Done:
    """Erase something, if a person agrees.

    It is gone afterwards.
    """
    SEEN.erased.append(params.path)
    return Done(done=True)


class Login(Params):
    user: str = Field(description="Account.")
    secret: SecretStr | None = Field(default=None, description="Unused.")


@tool(Risk.CHANGE, room="toys")
async def login(app: App, params: Login, call: Call) -> Done:
    """Ask for a name, then for a secret."""
    name = await call.need(Question("name", f"Name of {params.user}?", {"name": {"type": "string"}}))
    secret = await call.need(Question("secret", "Secret?", {"secret": {"type": "string"}}))
    SEEN.answers.append((name, secret))
    return Done(done=True)


@tool(Risk.CHANGE, room="toys")
async def trust(app: App, params: Nothing, call: Call) -> Done:
    """Ask about a key that may have changed since it was asked about."""
    fingerprint = SEEN.fingerprints.pop(0) if len(SEEN.fingerprints) > 1 else SEEN.fingerprints[0]
    answer = await call.need(Question("key", f"Trust {fingerprint}?", {"trust": {"type": "boolean"}}))
    SEEN.answers.append((fingerprint, answer))
    return Done(done=answer is not None and answer.get("trust") is True)
