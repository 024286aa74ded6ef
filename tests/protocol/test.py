"""The room `test`: tools that the official conformance suite calls by name, real ones, through every floor.

What they do is what the suite demands of them; how it is listed, asked, reported and answered is the product's.
"""

from typing import Any

from pydantic import Field

from mcp_ssh.app import App
from mcp_ssh.errors import RemoteFailed
from mcp_ssh.params import Params, Result
from mcp_ssh.tool import Call, Question, Risk, tool


class Nothing(Params):
    pass


class Message(Params):
    message: str = Field(description="What to ask.")


class Said(Result):
    text: str = Field(description="What the tool has to say.")


@tool(Risk.READ, room="test")
async def simple_text(app: App, params: Nothing, call: Call) -> Said:
    """Say one sentence."""
    return Said(text="This is a simple text response for testing.")


@tool(Risk.READ, room="test")
async def error_handling(app: App, params: Nothing, call: Call) -> Said:
    """Fail."""
    raise RemoteFailed("This tool intentionally returns an error for testing")


@tool(Risk.READ, room="test")
async def tool_with_progress(app: App, params: Nothing, call: Call) -> Said:
    """Report progress."""
    for done in (0, 50, 100):
        await call.progress(done, 100, f"Completed {done} of 100")
    return Said(text="done")


@tool(Risk.READ, room="test")
async def logging_tool(app: App, params: Nothing, call: Call) -> Said:
    """Log nothing to the client, which did not ask for logs."""
    return Said(text="done")


async def _asked(call: Call, key: str, message: str, **fields: dict[str, Any]) -> str:
    answer = await call.need(Question(key, message, fields))
    return "nobody answered" if answer is None else ", ".join(f"{name}={value}" for name, value in answer.items())


@tool(Risk.CHANGE, room="test")
async def elicitation(app: App, params: Message, call: Call) -> Said:
    """Ask a person."""
    username = {"type": "string", "description": "User's response"}
    email = {"type": "string", "description": "User's email address"}
    return Said(text="User response: " + await _asked(call, "user", params.message, username=username, email=email))


@tool(Risk.CHANGE, room="test")
async def elicitation_sep1034_defaults(app: App, params: Nothing, call: Call) -> Said:
    """Ask a person, with a default for every answer."""
    answered = await _asked(
        call,
        "defaults",
        "Look at these, and change what is wrong",
        name={"type": "string", "default": "John Doe"},
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
        verified={"type": "boolean", "default": True},
    )
    return Said(text=f"Elicitation completed: {answered}")


def _titled(*choices: tuple[str, str]) -> list[dict[str, str]]:
    return [{"const": value, "title": title} for value, title in choices]


@tool(Risk.CHANGE, room="test")
async def elicitation_sep1330_enums(app: App, params: Nothing, call: Call) -> Said:
    """Ask a person to choose, in each way there is."""
    plain = ["option1", "option2", "option3"]
    one = _titled(("value1", "First Option"), ("value2", "Second Option"), ("value3", "Third Option"))
    many = _titled(("value1", "First Choice"), ("value2", "Second Choice"), ("value3", "Third Choice"))
    old = {"enum": ["opt1", "opt2", "opt3"], "enumNames": ["Option One", "Option Two", "Option Three"]}
    answered = await _asked(
        call,
        "choices",
        "Choose",
        untitledSingle={"type": "string", "enum": plain},
        titledSingle={"type": "string", "oneOf": one},
        legacyEnum={"type": "string", **old},
        untitledMulti={"type": "array", "items": {"type": "string", "enum": plain}},
        titledMulti={"type": "array", "items": {"anyOf": many}},
    )
    return Said(text=f"Elicitation completed: {answered}")


@tool(Risk.CHANGE, room="test")
async def streaming_elicitation(app: App, params: Nothing, call: Call) -> Said:
    """Report progress, then ask."""
    await call.progress(1, 2, "about to ask")
    return Said(text=await _asked(call, "name", "What is your name?", name={"type": "string"}))


@tool(Risk.CHANGE, room="test")
async def input_required_result_elicitation(app: App, params: Nothing, call: Call) -> Said:
    """Ask for a name."""
    answer = await call.need(Question("user_name", "What is your name?", {"name": {"type": "string"}}))
    return Said(text=f"Hello, {(answer or {}).get('name')}!")


@tool(Risk.CHANGE, room="test")
async def input_required_result_request_state(app: App, params: Nothing, call: Call) -> Said:
    """Ask whether all is well."""
    answer = await call.need(Question("confirm", "Please confirm", {"ok": {"type": "boolean"}}))
    return Said(text="state-ok" if answer else "nobody answered")


@tool(Risk.CHANGE, room="test")
async def input_required_result_tampered_state(app: App, params: Nothing, call: Call) -> Said:
    """Ask whether all is well, and let nobody answer another question with it."""
    answer = await call.need(Question("confirm", "Please confirm", {"ok": {"type": "boolean"}}))
    return Said(text=f"confirmed: {answer}")


@tool(Risk.CHANGE, room="test")
async def input_required_result_multi_round(app: App, params: Nothing, call: Call) -> Said:
    """Ask twice."""
    name = await _asked(call, "step1", "Step 1: What is your name?", name={"type": "string"})
    color = await _asked(call, "step2", "Step 2: What is your favorite color?", color={"type": "string"})
    return Said(text=f"{name}, {color}")


@tool(Risk.READ, room="test")
async def reconnection(app: App, params: Nothing, call: Call) -> Said:
    """Answer on the stream that is open; ours are not resumed, as the protocol has dropped that."""
    return Said(text="done")
