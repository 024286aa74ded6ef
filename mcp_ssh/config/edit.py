"""One key of `config.json` read, or changed in the file: the whole is checked before anything is written."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, SecretStr, ValidationError

from mcp_ssh.atomic_file import replace, turn_at
from mcp_ssh.config.models import Config, config_schema, load, read_object
from mcp_ssh.errors import InvalidInput, NotFound, RemoteFailed
from mcp_ssh.messages.suggestions import LONGEST, suggest
from mcp_ssh.messages.validation import describe_errors, explain

MASK = "***"

AT_START = ("server", "logging")
"""Areas that a server reads when it starts. What is in `security` counts from the next call on, the rest from the next
connection on."""

OWNER_ONLY = ("auth", "security", "server", "sftp.local_folders", "logging.directory")
"""Keys, and areas, that only the server's owner changes: with these an admin's token could become the owner."""

_BOUND_SECRETS = ("default_password", "default_key_passphrase")
"""Secrets that are for the configured host and account only."""


def keys(config: BaseModel, before: str = "") -> Iterator[str]:
    """All keys in dot notation, areas first."""
    for name in type(config).model_fields:
        yield before + name
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from keys(value, f"{before}{name}.")


def mask_secrets(value: Any) -> Any:
    """A value as callers may see it: what is secret is masked, and shows only whether it is set."""
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, BaseModel):
        return {name: mask_secrets(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, list):
        return [mask_secrets(each) for each in cast("list[Any]", value)]
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


@dataclass(frozen=True)
class Edit:
    """A change of the config: before, after, and the secret keys that were dropped with it."""

    before: Config
    after: Config
    dropped: tuple[str, ...] = ()


def set_key(folder: Path, key: str, value: Any, expect: Callable[[Edit], None] | None = None) -> Edit:
    """Change one key in the folder's `config.json`, 0600, in one step; the file keeps its other keys. Blocks.

    Other processes that share the folder take turns, so that none undoes what another has just changed. A change of
    `auth.default_host` or `auth.default_username` drops the secrets that were for the previous ones.

    Args:
        folder: Where the file is.
        key: In dot notation.
        value: The new value.
        expect: Raises where the change is not allowed; nothing is written then.

    Raises:
        NotFound: There is no such key.
        InvalidInput: The value breaks a rule, or the file as it is cannot be read; nothing was written.
        TimedOut: Another process had the file all the time; nothing was written.
    """
    if _holds_mask(value):
        raise InvalidInput(
            f"value: {MASK} stands for a secret and is none", hint="give the secret, or leave its key out"
        )
    path = Path(os.path.realpath(folder / "config.json"))  # a link stays one
    try:
        with turn_at(path, "config.json"):
            edit, text = _apply_edit(folder, path, key, value)
            if expect is not None:
                expect(edit)
            replace(path, text.encode())
    except OSError as error:
        raise RemoteFailed(f"config.json cannot be written: {error.strerror}", hint="the old file stands") from error
    return edit


def _apply_edit(folder: Path, path: Path, key: str, value: Any) -> tuple[Edit, str]:
    """The change, and the new text of the file."""
    before = load(folder)
    value_of(before, key)  # raises where there is no such key
    text = path.read_text("utf-8") if path.exists() else "{}"
    raw = read_object(text)
    *areas, name = key.split(".")
    area = raw
    for each in areas:
        area = area.setdefault(each, {})
    area[name] = value
    dropped = _drop_bound_secrets(before, key, value, raw)
    try:
        changed = Config.model_validate(raw)
    except ValidationError as error:
        wrong, near = explain(error, config_schema(), "a key of config.json")
        meant = f"did you mean {', '.join(near)}? " if near else ""
        raise InvalidInput(
            f"value: {describe_errors(wrong, error.error_count())}",
            hint=f"{meant}config_get shows the value it has; config.example.json every key",
        ) from None
    return Edit(before, changed, dropped), json.dumps(raw, indent=2) + "\n"


def _drop_bound_secrets(before: Config, key: str, value: Any, raw: dict[str, Any]) -> tuple[str, ...]:
    """Remove the secrets that are for another host or account than the file now names."""
    area, _, name = key.partition(".")
    moved = area == "auth" and name in {"default_host", "default_username"} and getattr(before.auth, name) != value
    if not moved or not before.auth.default_host:
        return ()
    auth: dict[str, Any] = raw["auth"]
    return tuple(f"auth.{each}" for each in _BOUND_SECRETS if auth.pop(each, ""))


def owner_only_keys(keys: Iterable[str]) -> list[str]:
    """Those of the keys that only the server's owner changes."""
    return [key for key in keys if any(key == each or key.startswith(f"{each}.") for each in OWNER_ONLY)]


def running(now: Config, wanted: Config) -> Config:
    """What is in force from now on: as wanted, except for the areas that were read at start."""
    return wanted.model_copy(update={area: getattr(now, area) for area in AT_START})


def _holds_mask(value: Any) -> bool:
    """Whether a value holds the mask, which stands for a secret that nobody was shown."""
    if isinstance(value, dict):
        return any(_holds_mask(each) for each in cast("dict[str, Any]", value).values())
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
    """Those of the keys that count only once the server restarts."""
    return [key for key in changed if any(key == each or key.startswith(f"{each}.") for each in AT_START)]
