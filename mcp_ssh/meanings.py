"""What an argument means to policy, declared on the field: a field's name says nothing."""

from collections.abc import Iterator
from enum import Enum
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel


class Meaning(Enum):
    """What an argument is."""

    COMMAND_LINE = "a line that a shell of the machine runs"
    FOLDER = "the folder that the line runs in"
    ENVIRONMENT = "variables that the line runs with"
    HOST = "a machine that this server reaches"
    TARGET = "a machine that the session's machine reaches"
    PATH = "a path on the machine"
    LOCAL_PATH = "a path on the server's machine"
    ACCOUNT = "an account of the machine"


def argument(params: BaseModel, meaning: Meaning) -> Any:
    """The value of the argument with this meaning; None where the tool has none, or it was left out."""
    name = next(iter(fields_with(type(params), meaning)), None)
    return None if name is None else getattr(params, name)


@lru_cache(maxsize=1024)
def fields_with(model: type[BaseModel], meaning: Meaning) -> tuple[str, ...]:
    """The names of a model's fields with this meaning."""
    hints = get_type_hints(model, include_extras=True)
    return tuple(name for name in model.model_fields if meaning in _marks(hints[name]))


def _marks(hint: Any) -> Iterator[Meaning]:
    for each in (*get_args(hint), *getattr(hint, "__metadata__", ())):
        if isinstance(each, Meaning):
            yield each
        else:
            yield from _marks(each)
