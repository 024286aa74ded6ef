"""The OpenAPI document, made of the route tables and the tools' models."""

import copy
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from mcp_ssh import __version__
from mcp_ssh.config.models import Config
from mcp_ssh.tool import ToolStream, plain_schema
from rest_bridge.api.route import Family, Field, Route
from rest_bridge.errors import ErrorFormat
from rest_bridge.http.sse import MEDIA_TYPE

_NEVER_ON_A_ROUTE = frozenset({405})
"""A documented operation is a method that its path has."""
_ABOUT = """\
Administer Linux machines over SSH. Every call but those of this page needs a token: `Authorization: Bearer TOKEN`.

The same tools are offered to agents over MCP at `/mcp`. How to work with all this is in the [guide](/guide), ready
instructions for agents are among the [prompts](/prompts), and [llms.txt](/llms.txt) is an index for agents.
"""

HEALTH_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["service", "version", "status", "docs", "openapi", "guide", "llms", "mcp"],
    "additionalProperties": False,
    "properties": {
        "service": {"type": "string", "description": "The name of this server."},
        "version": {"type": "string", "description": "Its version."},
        "status": {"type": "string", "const": "running", "description": "Always `running`."},
        "docs": {"type": "string", "description": "Where this documentation is."},
        "openapi": {"type": "string", "description": "Where its document is."},
        "guide": {"type": "string", "description": "Where the operating guide is, as Markdown."},
        "llms": {"type": "string", "description": "Where the index for agents is."},
        "mcp": {"type": "string", "description": "Where MCP clients connect."},
    },
}


def document(families: Iterable[Family], config: Config) -> dict[str, Any]:
    """The whole document."""
    tables = list(families)
    schemas: dict[str, Any] = {"Health": HEALTH_SCHEMA}
    responses: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {"/": {"get": _health(tables[0].error_format)}}
    for family in tables:
        schemas[_error_name(family.error_format)] = family.error_format.schema
        responses |= _error_responses(family.error_format)
        for route in family.routes:
            fields = route.fields(confirm=route.tool.is_in(config.security.confirm_tools))
            operation = _operation(route, fields, family.error_format)
            paths.setdefault(route.path, {})[route.method.lower()] = operation
            schemas |= _results(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "SSH Steward", "version": __version__, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "tags": [{"name": each.error_format.title, "description": each.error_format.about} for each in tables],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "A token of `ssh-steward token add`."},
                "token_in_query": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "token",
                    "description": "The same, for clients that cannot send the header; on streams alone.",
                },
            },
            "responses": responses,
            "schemas": dict(sorted(schemas.items())),
        },
    }


def _health(error_format: ErrorFormat) -> dict[str, Any]:
    refused = {
        "description": "Not for this Host or Origin.",
        "content": _json({"$ref": f"#/components/schemas/{_error_name(error_format)}"}),
    }
    return {
        "operationId": "health",
        "summary": "What this server is, and that it runs",
        "tags": [error_format.title],
        "security": [],
        "responses": {
            "200": {"description": "It runs.", "content": _json({"$ref": "#/components/schemas/Health"})},
            "403": refused,
            "421": refused,
        },
    }


def _operation(route: Route, fields: Mapping[str, Field], error_format: ErrorFormat) -> dict[str, Any]:
    summary, _, more = route.tool.description.partition("\n")
    operation: dict[str, Any] = {
        "operationId": _operation_id(route),
        "summary": summary.removesuffix("."),
        "description": f"{more}\n\nTool: `{route.tool.name}`. Role: {route.tool.role.name.lower()}.".strip(),
        "tags": [error_format.title],
        "responses": {
            "200": _done_response(route) if route.stream is None else _events(route.stream, route, error_format),
            **{
                str(status): {"$ref": f"#/components/responses/{_response_name(error_format, status)}"}
                for status in sorted(error_format.statuses() - _NEVER_ON_A_ROUTE)
            },
        },
    }
    parameters = [_parameter(each) for each in fields.values() if each.place != "body"]
    if route.stream is not None:
        operation["security"] = [{"token": []}, {"token_in_query": []}]
        parameters.append(_last_event_id(fields[route.stream.resumes]))
    if parameters:
        operation["parameters"] = parameters
    if body := {wire: each for wire, each in fields.items() if each.place == "body"}:
        operation["requestBody"] = _body(body)
    return operation


def _done_response(route: Route) -> dict[str, Any]:
    return {"description": "Done.", "content": _json({"$ref": f"#/components/schemas/{_result_name(route)}"})}


def _events(stream: ToolStream[Any, Any, Any], route: Route, error_format: ErrorFormat) -> dict[str, Any]:
    """An answer of events. OpenAPI 3.1 has no words for what is in them, so the description says where each is."""
    named = {each.event: f"`{_event_name(route, each.event)}`" for each in stream.events}
    named |= {"end": f"`{_event_name(route, 'end')}`, the last", "error": f"`{_error_name(error_format)}`, the last"}
    listed = "\n".join(f"- `{name}`: {schema}" for name, schema in named.items())
    return {
        "description": "Server-sent events until the client leaves or the stream ends, and comments between them. The"
        f" `data` of each is JSON, by its name of the schema:\n\n{listed}",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }


def _event_name(route: Route, event: str) -> str:
    return _camel(f"{route.tool.name}_{event}_event")


def _last_event_id(field: Field) -> dict[str, Any]:
    shown = {**_parameter(field), "name": "Last-Event-ID", "in": "header"}
    return {**shown, "description": f"As `{field.wire}`; what an EventSource sends when it connects again."}


def _operation_id(route: Route) -> str:
    words = re.sub(r"[^0-9A-Za-z]+", "_", route.path).strip("_")
    return f"{route.method.lower()}_{words}"


def _parameter(field: Field) -> dict[str, Any]:
    schema = _without_null(field.schema)
    shown: dict[str, Any] = {"name": field.wire, "in": field.place, "required": field.required or field.place == "path"}
    if description := schema.pop("description", None):
        shown["description"] = description
    return {**shown, "schema": schema}


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of a text in an address, which is there or not, and never null."""
    shown = copy.deepcopy(dict(schema))
    kinds = [each for each in shown.get("anyOf", []) if each != {"type": "null"}]
    if len(kinds) == 1:
        del shown["anyOf"]
        shown = {**kinds[0], **shown}
    elif kinds:
        shown["anyOf"] = kinds
    if shown.get("default", ...) is None:
        del shown["default"]
    return shown


def _body(fields: Mapping[str, Field]) -> dict[str, Any]:
    required = [wire for wire, each in fields.items() if each.required]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {wire: each.schema for wire, each in fields.items()},
        "additionalProperties": False,
    }
    if required:
        schema["required"] = required
    return {"required": bool(required), "content": _json(schema)}


def _results(route: Route) -> dict[str, Any]:
    """The schemas of what a route answers, by their names."""
    if route.stream is None:
        return {_result_name(route): _result(route)}
    kinds = {each.event: plain_schema(each.model_json_schema(mode="serialization")) for each in route.stream.events}
    return {_event_name(route, name): schema for name, schema in {**kinds, "end": route.tool.output_schema}.items()}


def _result(route: Route) -> dict[str, Any]:
    if route.shape is not None:
        return plain_schema(route.shape.model.model_json_schema(mode="serialization"))
    return route.tool.output_schema


def _result_name(route: Route) -> str:
    named = _operation_id(route) if route.shape is not None else route.tool.name
    return _camel(named) + "Result"


def _error_name(error_format: ErrorFormat) -> str:
    return _camel(error_format.name) + "Error"


def _response_name(error_format: ErrorFormat, status: int) -> str:
    return f"{_camel(error_format.name)}{status}"


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _error_responses(error_format: ErrorFormat) -> dict[str, Any]:
    content = _json({"$ref": f"#/components/schemas/{_error_name(error_format)}"})
    return {
        _response_name(error_format, status): {
            "description": _MEANING.get(status, HTTPStatus(status).phrase),
            "content": content,
        }
        for status in sorted(error_format.statuses() - _NEVER_ON_A_ROUTE)
    }


_MEANING: Mapping[int, str] = {
    400: "The request is wrong, and nothing was changed; or this machine cannot do it.",
    401: "No token, or a wrong one. With code `auth_failed`: the machine refused the login.",
    403: "Not allowed: the token's role, a guarded thing, or the account on the machine.",
    404: "No such session, remote path or blob.",
    408: "The request body did not arrive in time.",
    409: "The state is not the expected one. With code `host_key_unconfirmed`: an unknown or changed host key.",
    413: "The request, or what it asks for, is larger than a configured bound.",
    415: "The body is not application/json.",
    421: "The Host header names another server.",
    422: "Fields break a rule; nothing was changed.",
    429: "A limit on calls or sessions is reached.",
    500: "The machine failed; with code `internal`: a fault of this server.",
    502: "The machine refuses the connection, has no address or no route, or the link to it was lost.",
    503: "This server is stopping, or has too many open files.",
    504: "The deadline passed.",
}


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
