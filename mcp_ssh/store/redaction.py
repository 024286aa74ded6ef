"""Arguments made fit for the record: no secrets, and no more than a row holds."""

import json
import re
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, cast, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr

HIDDEN = "***"
MAX_ARGUMENTS_BYTES = 4096
CUT = "…(cut)"

_MAX_DEPTH = 12
_MAX_ITEMS = 100
_MAX_KEY_CHARS = 200

# Compared without case and separators, so `keyContent`, `key-content` and `key_content` are one word.
_SECRET_PARTS = re.compile(
    "password|passwd|passphrase|passcode|secret|token|privatekey|sshkey|keycontent|keydata|apikey|interactiveanswer"
    "|credential|authorization|cookie|jwt|filecontent"
)
_SECRET_NAMES = frozenset(
    {"content", "contents", "contentbase64", "rawcontent", "stdin", "input", "pin", "otp", "auth"}
)
_ENVIRONMENTS = frozenset({"env", "environ", "environment", "envvars"})

_IN_TEXT = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.S), HIDDEN),
    (re.compile(r"mcpssh_[A-Za-z0-9_-]{20,}"), HIDDEN),
    (re.compile(r"(://[^\s/:@]{0,256}:)[^\s/@]{1,512}@"), rf"\1{HIDDEN}@"),
)
_ENCODER = json.JSONEncoder(ensure_ascii=False)
_MARGIN_CHARS = 1024
"""Text is cut this far behind what is kept before it is searched, so that a secret across the cut is seen whole."""


def redact(arguments: Mapping[str, Any] | BaseModel) -> dict[str, Any]:
    """Arguments as they may be kept and shown: secrets replaced by `***`, very long or deep parts cut.

    Secret is what is named like a secret, at any depth, `SecretStr`, fields a model marks with
    `json_schema_extra={"secret": True}`, the values (not the names) of an environment, and in any text a private key,
    one of our tokens, or the password of a URL. `None` stays, since it says that nothing was given.
    """
    return _mapping(arguments, 0)


def arguments_text(arguments: Mapping[str, Any] | BaseModel, model: type[BaseModel] | None = None) -> str:
    """Redacted arguments as JSON text of at most 4 KiB; longer text is cut and ends in a mark.

    Where the model they are meant for is given, values under names it has not are hidden: `pasword` may be anything.
    """
    if not isinstance(arguments, BaseModel) and not arguments:
        return "{}"
    if model is not None and not isinstance(arguments, BaseModel):
        arguments = hide_unknown(arguments, model)
    return cut_text(_ENCODER.encode(redact(arguments)), MAX_ARGUMENTS_BYTES)


def hide_unknown(given: Mapping[str, Any], model: type[BaseModel] | None) -> dict[str, Any]:
    """Return arguments with the values hidden for which the model has no field, as they may be anything.

    Where no model is known, as of a tool that does not exist, all of them are hidden.
    """
    if model is None:
        return dict.fromkeys(given, HIDDEN)
    shown: dict[str, Any] = {}
    for name, value in given.items():
        field = model.model_fields.get(name)
        inner = _model_in(field.annotation) if field else None
        if field and isinstance(value, str) and get_origin(field.annotation) is dict:
            shown[name] = HIDDEN  # JSON text that could not be read: nothing says what in it is secret
        elif inner is not None and value is not None:
            shown[name] = (
                hide_unknown(cast("Mapping[str, Any]", value), inner) if isinstance(value, Mapping) else HIDDEN
            )
        else:
            shown[name] = value if field or (name == "confirm" and isinstance(value, bool)) else HIDDEN
    return shown


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, where it holds one."""
    for each in (annotation, *get_args(annotation)):
        if isinstance(each, type) and issubclass(each, BaseModel):
            return each
    return None


def cut_text(text: str, size_bytes: int) -> str:
    """Text that fits a number of bytes and can be stored; what was longer ends in a mark."""
    if len(text) <= size_bytes and text.isascii():
        return text
    encoded = text[: size_bytes + 1].encode("utf-8", "replace")
    if len(encoded) <= size_bytes:
        return encoded.decode()
    return encoded[: size_bytes - len(CUT.encode())].decode("utf-8", "ignore") + CUT


def _mapping(given: Mapping[str, Any] | BaseModel, depth: int) -> dict[str, Any]:
    marked = _secret_fields(given) if isinstance(given, BaseModel) else frozenset[str]()
    entries = dict(given) if isinstance(given, BaseModel) else given
    shown: dict[str, Any] = {}
    named_secret = any(_is_secret(str(entries.get(each, ""))) for each in ("key", "name"))
    for key, value in islice(entries.items(), _MAX_ITEMS):
        name = _text(str(key))[:_MAX_KEY_CHARS]
        secret = key in marked or _is_secret(str(key)) or (named_secret and key == "value")
        shown[name] = _hide(value) if secret else _entry(str(key), value, depth + 1)
    if len(entries) > _MAX_ITEMS:
        shown["…"] = f"{len(entries) - _MAX_ITEMS} more"
    return shown


def _entry(key: str, value: Any, depth: int) -> Any:
    if _plain_name(key) not in _ENVIRONMENTS or value is None:
        return _value(value, depth)
    if isinstance(value, Mapping):
        names = islice(cast("Mapping[Any, Any]", value), _MAX_ITEMS)
        return {_text(str(name))[:_MAX_KEY_CHARS]: HIDDEN for name in names}
    return HIDDEN


def _value(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _text(value)
    if depth >= _MAX_DEPTH:
        return CUT
    if isinstance(value, Mapping | BaseModel):
        return _mapping(cast("Mapping[str, Any] | BaseModel", value), depth)
    if isinstance(value, list | tuple | set | frozenset):
        return _items(list(islice(cast("Iterable[Any]", value), _MAX_ITEMS + 1)), depth)
    return HIDDEN if isinstance(value, SecretStr | SecretBytes) else f"({type(value).__name__})"


def _items(items: list[Any], depth: int) -> list[Any]:
    shown = [_value(each, depth + 1) for each in items[:_MAX_ITEMS]]
    return [*shown, CUT] if len(items) > _MAX_ITEMS else shown


def _text(text: str) -> str:
    shown = text[: MAX_ARGUMENTS_BYTES + _MARGIN_CHARS]
    for pattern, replacement in _IN_TEXT:
        shown = pattern.sub(replacement, shown)
    return shown if len(shown) <= MAX_ARGUMENTS_BYTES else shown[:MAX_ARGUMENTS_BYTES] + CUT


def _hide(value: Any) -> Any:
    return None if value is None else HIDDEN


def _plain_name(name: str) -> str:
    return "".join(filter(str.isalnum, name[:_MAX_KEY_CHARS])).lower()


def _is_secret(name: str) -> bool:
    plain = _plain_name(name)
    return plain in _SECRET_NAMES or _SECRET_PARTS.search(plain) is not None


def _secret_fields(model: BaseModel) -> frozenset[str]:
    fields = type(model).model_fields.items()
    return frozenset(
        name
        for name, field in fields
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("secret")
    )
