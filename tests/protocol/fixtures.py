"""What the conformance suite wants and no tool of ours has: pictures, sound, and resources and prompts it knows.

They stand in front of the product's handlers: what is not theirs goes on to the server as it was built.
"""

import base64
import json
import struct
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

from mcp import MCPError, types
from mcp.server import Server

Handler = Callable[[Any, Any], Awaitable[Any]]


def _picture() -> str:
    """One red pixel as PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0\xff\0\0")
    return _base64(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b""))


def _sound() -> str:
    """Eight silent samples as WAV."""
    samples = b"\x80" * 8
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 8000, 1, 8)
    body = b"WAVE" + form + b"data" + struct.pack("<I", len(samples)) + samples
    return _base64(b"RIFF" + struct.pack("<I", len(body)) + body)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


PICTURE, SOUND = _picture(), _sound()


def _text(text: str) -> types.TextContent:
    return types.TextContent(type="text", text=text)


def _image() -> types.ImageContent:
    return types.ImageContent(type="image", data=PICTURE, mime_type="image/png")


def _resource(uri: str, kind: str, text: str) -> types.EmbeddedResource:
    return types.EmbeddedResource(
        type="resource", resource=types.TextResourceContents(uri=uri, mime_type=kind, text=text)
    )


TOOLS: dict[str, list[Any]] = {
    "test_image_content": [_image()],
    "test_audio_content": [types.AudioContent(type="audio", data=SOUND, mime_type="audio/wav")],
    "test_embedded_resource": [
        _resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ],
    "test_multiple_content_types": [
        _text("Multiple content types test:"),
        _image(),
        _resource("test://mixed-content-resource", "application/json", json.dumps({"test": "data", "value": 123})),
    ],
    "json_schema_2020_12_tool": [_text("ok")],
    "test_headers": [_text("ok")],
    "test_unportable": [_text("ok")],
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "json_schema_2020_12_tool": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "$anchor": "addressDef",
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            }
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
            "contactMethod": {"type": "string", "enum": ["phone", "email"]},
            "phone": {"type": "string"},
            "email": {"type": "string"},
        },
        "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
        "additionalProperties": False,
    },
    "test_headers": {
        "type": "object",
        "properties": {"region": {"type": "string", "x-mcp-header": "Region"}},
    },
    # What the inspector is to find fault with: not every client reads such a schema.
    "test_unportable": {"type": "object", "properties": {"either": {"type": ["string", "null"]}, "any": {}}},
}
EMPTY = {"type": "object", "properties": {}, "additionalProperties": False}

PROMPTS: dict[str, tuple[str, ...]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}
STATIC = {
    "test://static-text": ("text/plain", "This is the content of the static text resource."),
    "test://static-binary": ("image/png", None),
}
TEMPLATE = "test://template/{id}/data"


def add_to(server: Server[Any]) -> Server[Any]:
    """The same server, with the fixtures in front of its handlers."""
    schema_of = server.get_tool_input_schema
    server.get_tool_input_schema = lambda name: SCHEMAS.get(name) or (schema_of(name) if schema_of else None)
    for method, params, front in (
        ("tools/list", types.PaginatedRequestParams, _list_tools),
        ("tools/call", types.CallToolRequestParams, _call_tool),
        ("resources/list", types.PaginatedRequestParams, _list_resources),
        ("resources/templates/list", types.PaginatedRequestParams, _list_templates),
        ("resources/read", types.ReadResourceRequestParams, _read_resource),
        ("prompts/list", types.PaginatedRequestParams, _list_prompts),
        ("prompts/get", types.GetPromptRequestParams, _get_prompt),
        ("completion/complete", types.CompleteRequestParams, _complete),
    ):
        entry = server.get_request_handler(method)
        server.add_request_handler(method, params, _before(front, entry.handler if entry else None))
    return server


def _before(front: Callable[[Any, Any, Handler | None], Awaitable[Any]], behind: Handler | None) -> Handler:
    async def handle(context: Any, params: Any) -> Any:
        return await front(context, params, behind)

    return handle


async def _list_tools(context: Any, params: Any, behind: Handler | None) -> types.ListToolsResult:
    assert behind
    theirs: types.ListToolsResult = await behind(context, params)
    ours = [
        types.Tool(name=name, description=f"Fixture {name}.", input_schema=SCHEMAS.get(name, EMPTY))
        for name in ("test_missing_capability", *TOOLS)
    ]
    return theirs.model_copy(update={"tools": [*theirs.tools, *ours]})


async def _call_tool(context: Any, params: types.CallToolRequestParams, behind: Handler | None) -> Any:
    if params.name == "test_missing_capability":
        wanted = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(code=-32021, message="the client has not declared sampling", data=wanted)
    if params.name in TOOLS:
        return types.CallToolResult(content=TOOLS[params.name])
    assert behind
    return await behind(context, params)


async def _list_resources(context: Any, params: Any, behind: Handler | None) -> types.ListResourcesResult:
    ours = [
        types.Resource(uri=uri, name=uri, description=f"Fixture {uri}.", mime_type=kind)
        for uri, (kind, _) in STATIC.items()
    ]
    theirs = (await behind(context, params)).resources if behind else []
    return types.ListResourcesResult(resources=[*theirs, *ours])


async def _list_templates(context: Any, params: Any, behind: Handler | None) -> types.ListResourceTemplatesResult:
    ours = types.ResourceTemplate(uri_template=TEMPLATE, name="template", description="Fixture with a variable.")
    theirs = (await behind(context, params)).resource_templates if behind else []
    return types.ListResourceTemplatesResult(resource_templates=[*theirs, ours])


async def _read_resource(context: Any, params: types.ReadResourceRequestParams, behind: Handler | None) -> Any:
    uri = str(params.uri)
    contents: types.TextResourceContents | types.BlobResourceContents
    if uri in STATIC:
        kind, text = STATIC[uri]
        if text is None:
            contents = types.BlobResourceContents(uri=uri, mime_type=kind, blob=PICTURE)
        else:
            contents = types.TextResourceContents(uri=uri, mime_type=kind, text=text)
        return types.ReadResourceResult(contents=[contents])
    before, _, after = TEMPLATE.partition("{id}")
    if uri.startswith(before) and uri.endswith(after):
        number = uri[len(before) : -len(after)]
        said = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        contents = types.TextResourceContents(uri=uri, mime_type="application/json", text=said)
        return types.ReadResourceResult(contents=[contents])
    if behind is None:
        raise MCPError(code=types.INVALID_PARAMS, message="Resource not found", data={"uri": uri})
    return await behind(context, params)


async def _list_prompts(context: Any, params: Any, behind: Handler | None) -> types.ListPromptsResult:
    ours = [
        types.Prompt(
            name=name,
            description=f"Fixture {name}.",
            arguments=[types.PromptArgument(name=each, required=True) for each in arguments],
        )
        for name, arguments in PROMPTS.items()
    ]
    theirs = (await behind(context, params)).prompts if behind else []
    return types.ListPromptsResult(prompts=[*theirs, *ours])


async def _get_prompt(context: Any, params: types.GetPromptRequestParams, behind: Handler | None) -> Any:
    given = params.arguments or {}
    if params.name == "test_input_required_result_prompt":
        answer = (params.input_responses or {}).get("user_context")
        if not isinstance(answer, types.ElicitResult):
            return _ask_for_context()
        return _prompt(_text(f"Context: {(answer.content or {}).get('context')}"))
    if params.name == "test_simple_prompt":
        return _prompt(_text("This is a simple prompt for testing."))
    if params.name == "test_prompt_with_arguments":
        return _prompt(_text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"))
    if params.name == "test_prompt_with_embedded_resource":
        embedded = _resource(given["resourceUri"], "text/plain", "Embedded resource content for testing.")
        return _prompt(embedded, _text("Please process the embedded resource above."))
    if params.name == "test_prompt_with_image":
        return _prompt(_image(), _text("Please analyze the image above."))
    if behind is None:
        raise MCPError(code=types.INVALID_PARAMS, message="Unknown prompt")
    return await behind(context, params)


def _ask_for_context() -> types.InputRequiredResult:
    schema = {"type": "object", "properties": {"context": {"type": "string"}}, "required": ["context"]}
    form = types.ElicitRequestFormParams(message="What context should the prompt use?", requested_schema=schema)
    return types.InputRequiredResult(input_requests={"user_context": types.ElicitRequest(params=form)})


def _prompt(*contents: Any) -> types.GetPromptResult:
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=each) for each in contents])


async def _complete(context: Any, params: types.CompleteRequestParams, behind: Handler | None) -> types.CompleteResult:
    if behind is None or getattr(params.ref, "name", None) in PROMPTS:
        return types.CompleteResult(completion=types.Completion(values=[]))
    return await behind(context, params)
