"""One key of `config.json` read, or changed in the file: the whole is checked before anything is written."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, SecretStr, ValidationError

from mcp_ssh.config import Config, config_schema, load
from mcp_ssh.errors import InvalidInput, NotFound, RemoteFailed
from mcp_ssh.rewriting import replace, turn_at
from mcp_ssh.suggestions import LONGEST, suggest
from mcp_ssh.validation import explain, told

MASK = "***"

AT_START = (
    "server", "logging", "security.confirm_tools", "security.host_keys", "security.reject_unknown_hosts",
    "security.max_calls_at_once", "security.max_calls_per_minute", "ssh.max_concurrent_connections", "ssh.idle_minutes",
)  # fmt: skip
"""Keys, and areas, that a server reads when it starts; the others count from the next connection on."""


def keys(config: BaseModel, before: str = "") -> Iterator[str]:
    """All keys in dot notation, areas first."""
    for name in type(config).model_fields:
        yield before + name
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from keys(value, f"{before}{name}.")


def shown(value: Any) -> Any:
    """A value as callers may see it: what is secret is masked, and shows only whether it is set."""
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, BaseModel):
        return {name: shown(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, list):
        return [shown(each) for each in cast("list[Any]", value)]
    return value


def value_of(config: Config, key: str) -> Any:
    """The value of a key.

    Raises:
        NotFound: There is no such key; names those that are spelled nearly so.
    """
    found: Any = config
    for part in key.split("."):
        if not isinstance(found, BaseModel) or part not in type(found).model_fields:
            raise _no_key(config, key)
        found = getattr(found, part)
    return found


def _no_key(config: Config, key: str) -> NotFound:
    near = suggest_key(config, key)
    hint = f"did you mean {', '.join(near)}?" if near else "config_get lists all keys"
    return NotFound(f"Key {key[:LONGEST]!r} not found", hint=hint)


def suggest_key(config: Config, key: str) -> list[str]:
    """Return the keys that an unknown key may mean: spelled nearly like it, or with its last word in another area."""
    known = list(keys(config))
    word = key.rpartition(".")[2]
    by_word: dict[str, list[str]] = {}
    for each in known:
        by_word.setdefault(each.rpartition(".")[2], []).append(each)
    near = [each for last in suggest(word, by_word, most=3) for each in by_word[last]]
    return list(dict.fromkeys([*suggest(key, known), *near]))[:3]


def set_key(folder: Path, key: str, value: Any, expect: Callable[[Config], None] | None = None) -> Config:
    """Change one key in the folder's `config.json`, 0600, in one step; the file keeps its other keys. Blocks.

    Other processes that share the folder take turns, so that none undoes what another has just changed.

    Args:
        folder: Where the file is.
        key: In dot notation.
        value: The new value.
        expect: Raises where the changed config will not do; nothing is written then.

    Raises:
        NotFound: There is no such key.
        InvalidInput: The value breaks a rule, or the file as it is cannot be read; nothing was written.
        TimedOut: Another process had the file all the time; nothing was written.
    """
    if _masked(value):
        raise InvalidInput(
            f"value: {MASK} stands for a secret and is none", hint="give the secret, or leave its key out"
        )
    path = Path(os.path.realpath(folder / "config.json"))  # a link stays one
    try:
        with turn_at(path, "config.json"):
            changed, text = _changed(folder, path, key, value)
            if expect is not None:
                expect(changed)
            replace(path, text.encode())
    except OSError as error:
        raise RemoteFailed(f"config.json cannot be written: {error.strerror}", hint="the old file stands") from error
    return changed


def _changed(folder: Path, path: Path, key: str, value: Any) -> tuple[Config, str]:
    """The config with the change, and what then stands in the file."""
    value_of(load(folder), key)  # the file is right, and there is such a key
    text = path.read_text("utf-8") if path.exists() else "{}"
    raw: dict[str, Any] = json.loads(text)
    *areas, name = key.split(".")
    area = raw
    for each in areas:
        area = area.setdefault(each, {})
    area[name] = value
    try:
        changed = Config.model_validate(raw)
    except ValidationError as error:
        wrong, near = explain(error, config_schema(), "a key of config.json")
        meant = f"did you mean {', '.join(near)}? " if near else ""
        raise InvalidInput(
            f"value: {told(wrong, error.error_count())}",
            hint=f"{meant}config_get shows the value it has; config.example.json every key",
        ) from None
    return changed, json.dumps(raw, indent=2) + "\n"


def running(now: Config, wanted: Config) -> Config:
    """What counts from now on: as wanted, but for the keys that were read at start."""
    areas: dict[str, BaseModel] = {}
    for area in Config.model_fields:
        old: BaseModel = getattr(now, area)
        new: BaseModel = getattr(wanted, area)
        kept = {name: getattr(old, name) for name in type(old).model_fields if f"{area}.{name}" in AT_START}
        areas[area] = old if area in AT_START else new.model_copy(update=kept)
    return wanted.model_copy(update=areas)


def _masked(value: Any) -> bool:
    """Whether a value holds the mask, which stands for a secret that nobody was shown."""
    if isinstance(value, dict):
        return any(_masked(each) for each in cast("dict[str, Any]", value).values())
    return value == MASK


def differences(old: BaseModel, new: BaseModel, before: str = "") -> list[str]:
    """The keys whose values differ."""
    found: list[str] = []
    for name in type(new).model_fields:
        one, two = getattr(old, name), getattr(new, name)
        if isinstance(one, BaseModel) and isinstance(two, BaseModel):
            found += differences(one, two, f"{before}{name}.")
        elif one != two:
            found.append(before + name)
    return found


def needs_restart(changed: list[str]) -> list[str]:
    """Those of the keys that count only once the server starts anew."""
    return [key for key in changed if any(key == each or key.startswith(f"{each}.") for each in AT_START)]
