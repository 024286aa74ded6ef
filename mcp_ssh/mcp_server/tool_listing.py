"""A tool as `tools/list` shows it: everything a model needs to call it, in few bytes."""

from collections.abc import Mapping
from typing import Any, cast

from mcp import types

from mcp_ssh.tool import AnyTool, Risk

Schema = dict[str, Any]

CHECKED = frozenset(
    {
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
        "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "propertyNames", "examples",
    }
)  # fmt: skip
"""Keywords that are not on the wire: what they rule out the server refuses, and says so."""


def tool_entry(tool: AnyTool, arguments: Mapping[str, Any]) -> types.Tool:
    """A tool in the list. All four hints are said, since clients take the worst for what is not.

    Of the arguments the list leaves out what some client SDKs cannot convert and the server checks anyway: that no
    other names are taken, bounds, patterns, and that `null` means the same as nothing. Results keep types and values;
    what each field means is in docs/tools.md, /openapi.json and `ssh-steward tools --json`, for hardly any client
    shows a model the schema of a result, and all of them carry it.
    """
    return types.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=_brief(dict(arguments), nullable=False, described=True),
        output_schema=_brief(tool.output_schema, nullable=True, described=False),
        annotations=types.ToolAnnotations(
            read_only_hint=tool.risk is Risk.READ,
            destructive_hint=tool.risk is Risk.DESTROY,
            idempotent_hint=tool.idempotent,
            open_world_hint=tool.open_world,
        ),
    )


def _brief(schema: Schema, *, nullable: bool, described: bool) -> Schema:
    """The schema without defaults of `null`; without `null` as a choice or descriptions where they are not wanted."""
    shown: Schema = {}
    for key, value in schema.items():
        if _left_out(key, value) or (key == "description" and not described):
            continue
        if key == "properties":
            shown[key] = {
                name: _brief(each, nullable=nullable, described=described)
                for name, each in cast("dict[str, Schema]", value).items()
            }
        elif isinstance(value, dict) and key in {"items", "additionalProperties"}:
            shown[key] = _brief(cast("Schema", value), nullable=nullable, described=described)
        elif key == "anyOf":
            choices = [_brief(each, nullable=nullable, described=described) for each in cast("list[Schema]", value)]
            shown |= _union(choices, nullable=nullable)
        else:
            shown[key] = value
    return shown


def _left_out(key: str, value: Any) -> bool:
    if key == "additionalProperties":
        return isinstance(value, bool)
    return key in CHECKED or (key == "default" and value is None)


def _union(choices: list[Schema], *, nullable: bool) -> Schema:
    kept = choices if nullable else [each for each in choices if each != {"type": "null"}]
    return kept[0] if len(kept) == 1 else {"anyOf": kept}
