"""The prompts: ready instructions for an agent, one Markdown file each, with what they need to know in front.

A file `prompts/<name>.md` begins with TOML between two lines of `+++`: `title`, `description` in one sentence, and a
table `[arguments.<name>]` for each place `{{name}}` in the text, with a `description`, and a `default` where it may be
left out. A wheel carries the files in `mcp_ssh/_prompts`; in a checkout they are read where they stand.
"""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from mcp_ssh.errors import InvalidInput, NotFound
from mcp_ssh.messages.suggestions import suggest

VALUE_LIMIT = 2000
"""The most characters of one argument."""

_FENCE = "+++\n"
_PLACE = re.compile(r"\{\{(\w+)\}\}")


class Argument(BaseModel):
    """Something a prompt has to be told. Never a secret: a prompt is read by the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field(min_length=1)
    default: str | None = None

    @property
    def required(self) -> bool:
        """Whether it has to be given."""
        return self.default is None


class Prompt(BaseModel):
    """Instructions for an agent, with places for arguments."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    title: str = Field(min_length=1)
    description: str = Field(pattern=r"^[A-Z].+\.$")
    arguments: dict[str, Argument] = Field(default_factory=dict)
    text: str = Field(min_length=1)

    @property
    def places(self) -> set[str]:
        """The arguments that the text has places for."""
        return set(_PLACE.findall(self.text))

    def fill(self, given: Mapping[str, str]) -> str:
        """The text with the arguments in their places. An empty argument counts as left out.

        Raises:
            InvalidInput: An argument is unknown, is too long, or is needed and missing.
        """
        for name, value in given.items():
            if name not in self.arguments:
                raise _wrong(name, f"{self.name} has no such argument", f"it takes {self._takes()}")
            if len(value) > VALUE_LIMIT:
                raise _wrong(name, f"must be at most {VALUE_LIMIT} characters", "put long texts into a file")
        values = {name: given.get(name) or each.default for name, each in self.arguments.items()}
        for name, value in values.items():
            if value is None:
                raise _wrong(name, f"{self.name} needs it", self.arguments[name].description)
        # In one pass: what an argument says is never taken for a place.
        return _PLACE.sub(lambda place: str(values[place[1]]), self.text)

    def _takes(self) -> str:
        return ", ".join(self.arguments) or "none"


def _wrong(field: str, rule: str, hint: str) -> InvalidInput:
    details = {"errors": [{"field": field[:80], "rule": rule}]}
    return InvalidInput(f"{field[:80]}: {rule}", hint=hint, details=details)


@cache
def load() -> Mapping[str, Prompt]:
    """All prompts by name, in alphabetical order. Reads files: outside the event loop."""
    found = sorted((each for each in _folder().iterdir() if each.name.endswith(".md")), key=lambda each: each.name)
    return {prompt.name: prompt for prompt in map(_read, found)}


def find(name: str) -> Prompt:
    """The prompt of that name.

    Raises:
        NotFound: There is none; names those that are spelled nearly so.
    """
    known = load()
    if (prompt := known.get(name)) is not None:
        return prompt
    near = suggest(name, known, most=2)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    raise NotFound(f"there is no prompt {name[:80]!r}", hint=hint)


def _folder() -> Traversable:
    """Where the files are: in the package that was installed, or beside it in a checkout."""
    installed = files("mcp_ssh") / "_prompts"
    return installed if installed.is_dir() else Path(__file__).parents[1] / "prompts"


def _read(file: Traversable) -> Prompt:
    import tomllib  # 18 ms that the start of a server need not wait for

    before, _, rest = file.read_text("utf-8").partition(_FENCE)
    head, fence, text = rest.partition(_FENCE)
    if before or not fence:
        raise ValueError(f"prompts/{file.name}: TOML between two lines of +++ comes first")
    prompt = Prompt(name=file.name.removesuffix(".md"), text=text.strip() + "\n", **tomllib.loads(head))
    if prompt.places != set(prompt.arguments):
        raise ValueError(f"prompts/{file.name}: its arguments are not the places in its text")
    return prompt
