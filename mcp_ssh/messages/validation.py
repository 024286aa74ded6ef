"""Errors of a model in plain words: the field, the rule it breaks, and an example of a right value."""

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mcp_ssh.messages.suggestions import LONGEST, MOST_NAMES, suggest

MOST_SHOWN = 8
"""How many errors one message holds."""

UNKNOWN = "extra_forbidden"

_KINDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}
_NOTHING: Mapping[str, Any] = {}
_FORMS: Mapping[str, Any] = {"string": "value", "integer": 5, "number": 1.5}
_TYPES = {
    "string_type": "string",
    "string_sub_type": "string",
    "int_type": "integer",
    "int_parsing": "integer",
    "int_parsing_size": "integer",
    "int_from_float": "integer",
    "float_type": "number",
    "float_parsing": "number",
    "finite_number": "number",
    "bool_type": "boolean",
    "bool_parsing": "boolean",
    "list_type": "array",
    "dict_type": "object",
    "mapping_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
}
_RULES = {
    "missing": "is required",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match the pattern {pattern}",
    "literal_error": "must be {expected}",
    "value_error": "{error}",
}
_WORDED: dict[str, str] = {}
"""Patterns, and what they ask for in words."""
_LENGTHS = {"too_short": ("at least", "min_length"), "too_long": ("at most", "max_length")}


def word_pattern(pattern: str, rule: str) -> str:
    """Return the pattern of a field, whose error is the rule from now on: few callers read regular expressions.

    Args:
        pattern: The pattern; a field that has `examples` gets the first of them behind the rule.
        rule: What it asks for, such as `must be 32 hexadecimal digits, such as …`.
    """
    if _WORDED.setdefault(pattern, rule) != rule:
        raise ValueError(f"{pattern} has other words already: {_WORDED[pattern]}")
    return pattern


def explain(error: ValidationError, schema: Mapping[str, Any], what: str) -> tuple[list[dict[str, str]], list[str]]:
    """Return the first errors as fields and rules, and near names for the first unknown ones.

    Args:
        error: What the model raised. What the caller sent is never shown, since it may be a secret.
        schema: JSON Schema of the model, references resolved.
        what: What an unknown name is not, such as `an argument of this tool`.
    """
    whole = "arguments" if "argument" in what else ""
    found = error.errors(include_url=False, include_input=False)
    shown = [
        {"field": _path(each["loc"]) or whole, "rule": _rule(each, schema, what)} for each in islice(found, MOST_SHOWN)
    ]
    return shown, _near(found, schema)


def describe_errors(errors: Sequence[Mapping[str, str]], count: int) -> str:
    """Return the errors as one sentence.

    Args:
        errors: Those that are shown.
        count: How many there are.
    """
    more = f"; and {count - len(errors)} more" if count > len(errors) else ""
    return "; ".join(": ".join(filter(None, (each["field"], each["rule"]))) for each in errors) + more


def without_nulls(schema: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without the null of each property that is not required, in the objects inside it too.

    Clients of every transport send null for what they leave out.
    """
    properties: dict[str, dict[str, Any]] = schema.get("properties", {})
    required: Sequence[str] = schema.get("required", ())
    return {
        name: _inner(properties.get(name), value)
        for name, value in given.items()
        if value is not None or name in required or name not in properties
    }


def _inner(schema: Mapping[str, Any] | None, value: Any) -> Any:
    """Return a value without such nulls. Depth is the schema's, so that no input makes it deeper."""
    if schema is None:
        return value
    for each in cast("list[Mapping[str, Any]]", schema.get("anyOf") or [schema]):
        if isinstance(value, dict) and "properties" in each:
            return without_nulls(each, cast("dict[str, Any]", value))
        if isinstance(value, list) and each.get("type") == "array":
            return [_inner(each.get("items"), item) for item in cast("list[Any]", value)]
    return cast("Any", value)


def _path(loc: Sequence[int | str]) -> str:
    return ".".join(str(part)[:LONGEST] for part in loc)


def _near(found: Sequence[ErrorDetails], schema: Mapping[str, Any]) -> list[str]:
    unknown = islice((each["loc"] for each in found if each["type"] == UNKNOWN), MOST_NAMES)
    pairs = ((loc, suggest(str(loc[-1]), _names(_at(schema, loc[:-1])))) for loc in unknown)
    return [f"{_path(loc)} → {_path((*loc[:-1], near[0]))}" for loc, near in pairs if near]


def _names(schema: Mapping[str, Any]) -> list[str]:
    return [name for each in _choices(schema) for name in each.get("properties", {})]


def _rule(error: ErrorDetails, schema: Mapping[str, Any], what: str) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == UNKNOWN:
        return f"is not {what}"
    node = _at(schema, error["loc"])
    if kind in _TYPES:
        return f"must be {_expected_kind(node, _TYPES[kind])}{_such_as(node, _TYPES[kind])}"
    if kind in _LENGTHS:
        return _length(kind, context, node)
    if (context.get("min_length"), kind) == (1, "string_too_short"):
        return "must not be empty"
    if kind not in _RULES:
        return error["msg"]
    if kind == "string_pattern_mismatch":
        return _WORDED.get(context["pattern"], _RULES[kind].format_map(context)) + _such_as(node)
    return _RULES[kind].format_map(context)


def _length(kind: str, context: Mapping[str, Any], node: Mapping[str, Any]) -> str:
    bound, name = _LENGTHS[kind]
    if kind == "too_short" and context[name] == 1:
        return f"must not be empty{_such_as(node, _kind(node)) if _kind(node) == 'array' else ''}"
    units = "characters" if _kind(node) == "string" else "entries"
    return f"must have {bound} {context[name]} {units}"


def _expected_kind(node: Mapping[str, Any], kind: str) -> str:
    """Return the kind of value in words; what the field takes beside it is said too."""
    kinds = [each.get("type") for each in _choices(node)]
    return " or ".join(dict.fromkeys(_KINDS[each] for each in (*kinds, kind) if each in _KINDS))


def _such_as(node: Mapping[str, Any], kind: str | None = None) -> str:
    example = _example(node, kind)
    return "" if example is None else f", such as {json.dumps(example, ensure_ascii=False)}"


def _example(node: Mapping[str, Any], kind: str | None = None) -> Any:
    """Return a right value: the declared example, or one that shows the form where the form is what is wrong."""
    for each in (node, *_choices(node)):
        if each.get("examples"):
            return each["examples"][0]
    choice = next(iter(_choices(node)), _NOTHING)
    if kind == "array":
        inner = _example(choice.get("items", {}))
        return [inner if inner is not None else _FORMS.get(_kind(choice.get("items", {})), "value")]
    if kind == "object":
        return _example_object(choice)
    default = node.get("default")
    return default if kind in _FORMS and default is not None else _FORMS.get(kind or "")


def _example_object(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties = cast("dict[str, Mapping[str, Any]]", schema.get("properties", {}))
    for name, each in properties.items():
        value = each.get("default") or _example(each)
        if value is not None:
            return {name: value}
    return {"NAME": "value"} if not properties else {}


def _kind(node: Mapping[str, Any]) -> str:
    return str(next((each.get("type") for each in _choices(node)), ""))


def _choices(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what the node may be, null apart."""
    choices = cast("list[Mapping[str, Any]]", node.get("anyOf") or node.get("oneOf") or [node])
    return [each for each in choices if each.get("type") != "null"]


def _at(schema: Mapping[str, Any], loc: Sequence[int | str]) -> Mapping[str, Any]:
    """Return the schema of the value at a place; empty where none is known."""
    node = schema
    for part in loc:
        node = next((found for each in _choices(node) if (found := _inside(each, part)) is not None), _NOTHING)
    return node


def _inside(node: Mapping[str, Any], part: int | str) -> Mapping[str, Any] | None:
    properties = cast("dict[str, Mapping[str, Any]]", node.get("properties", {}))
    inner = node.get("items") if isinstance(part, int) else properties.get(part, node.get("additionalProperties"))
    return cast("Mapping[str, Any]", inner) if isinstance(inner, dict) else None
