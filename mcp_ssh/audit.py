"""What a call has done, in words for the history: its tool's text, the arguments, and what the result says of it."""

import contextlib
import re
from collections.abc import Callable, Collection, Generator, Mapping
from contextvars import ContextVar
from typing import Any, cast

from mcp_ssh.messages.printable import printable
from mcp_ssh.params import Params, Result
from mcp_ssh.store.redaction import HIDDEN, redact
from mcp_ssh.tool import AnyTool, AuditCase

VALUE_CHARS = 80
"""How much of one value is shown."""
LISTED = 5
"""How many values of a list are shown."""

_PART = re.compile(r"\[([^\[\]|]*)(?:\|([^\[\]]*))?\]")
_NAME = re.compile(r"\{([a-z0-9_.]+)\}")
_OF_RESULT = "result."

_Facts = Mapping[str, Any]


def audit_text(tool: AnyTool, params: Params, result: Result, hidden: Collection[str] = ()) -> str | None:
    """Describe what a call has done; None where it changes nothing.

    Args:
        tool: The tool, with its text as `texts_of` returns it.
        params: The arguments, after validation.
        result: The result. Where it says that nothing was changed, or that it failed, so does the text.
        hidden: Names of arguments whose values are not shown.
    """
    facts: _Facts = vars(result)
    text = _choose_text(tool, params, facts)
    if text is None:
        return None
    values = _Values(params, facts, hidden)
    became = f"as {values.text('become.user')}, " if values.is_given("become.user") else ""
    everything = ", with all in it" if getattr(params, "recursive", False) is True else ""
    return f"{_prefix(params, facts)}{became}{values.fill(text)}{everything}"


def texts_of(tool: AnyTool) -> list[str]:
    """List the texts of a tool.

    `{name}` stands for an argument, `{result.name}` for a field of the result. `[a|b]` is `a`, or `b` (or nothing)
    where a value that `a` names is empty or is the argument's default.
    """
    if tool.audit is None or isinstance(tool.audit, str):
        return [tool.audit] if tool.audit else []
    return [text for _, text in tool.audit if text is not None]


def names_in(text: str) -> set[str]:
    """Return the names of arguments, and of fields of the result as `result.name`, in a text."""
    return set(_NAME.findall(text))


def _choose_text(tool: AnyTool, params: Params, facts: _Facts) -> str | None:
    if tool.audit is None or isinstance(tool.audit, str):
        return tool.audit
    return next((text for holds, text in tool.audit if holds(params, facts)), None)


# ---- what the result says ----------------------------------------------------------------------------------------


def _is_partial(facts: _Facts) -> bool:
    return facts.get("status") == "partial" or (facts.get("success") is False and facts.get("changed") is True)


_PREFIXES: tuple[tuple[Callable[[_Facts], bool], str], ...] = (
    (lambda facts: facts.get("rolled_back") is True, "taken back: "),
    (_is_partial, "partly: "),
    (lambda facts: facts.get("success") is False or facts.get("status") == "failed", "failed: "),
    (lambda facts: facts.get("changed") is False, "nothing to change: "),
)


def _prefix(params: Params, facts: _Facts) -> str:
    if getattr(params, "dry_run", False) is True:
        return "dry run, nothing was changed: "
    return next((prefix for holds, prefix in _PREFIXES if holds(facts)), "")


def always(_params: Any, _facts: _Facts) -> bool:
    """Hold for each call: the condition of a tool's last text."""
    return True


def may_still_run(_params: Any, facts: _Facts) -> bool:
    """Whether the result leaves open that processes of the call still run."""
    return facts.get("stopped") in (False, "unknown") or (
        facts.get("ran") == "unknown" and facts.get("stopped") is not True
    )


def _did_not_begin(_params: Any, facts: _Facts) -> bool:
    if (ran := facts.get("ran")) is not None:
        return ran is False
    # A command of which something was sent has its processes looked for at the timeout.
    return facts.get("status") == "timed_out" and facts.get("stopped") is None


def of_a_command(done: str, what: str) -> tuple[AuditCase, ...]:
    """Return the texts of a tool that runs a command and waits for it.

    Args:
        done: What it has done where the command ended by itself, such as `ran`.
        what: The command.
    """
    return (
        (_did_not_begin, f"did not begin: {what}"),
        (may_still_run, f"may still run: {what}"),
        (lambda _, facts: facts.get("ran") == "unknown", f"may have run: {what}"),
        (lambda _, facts: facts.get("status") == "timed_out", f"ended after its timeout: {what}"),
        (always, f"{done}: {what}"),
    )


# ---- values ------------------------------------------------------------------------------------------------------


class _Values:
    """The values that a text names."""

    def __init__(self, params: Params, facts: _Facts, hidden: Collection[str]) -> None:
        self._params = params
        self._facts = facts
        self._hidden = hidden

    def fill(self, text: str) -> str:
        whole = _PART.sub(self._part, text)
        return _NAME.sub(lambda name: self.text(name[1]), whole)

    def is_given(self, name: str) -> bool:
        """Whether there is a value, other than the argument's default."""
        value = self._value(name)
        field = type(self._params).model_fields.get(name)
        return value not in (None, "", [], False) and (field is None or value != field.default)

    def text(self, name: str) -> str:
        if name in self._hidden:
            return HIDDEN
        key = name.rpartition(".")[2]
        value = redact({key: self._value(name)})[key]
        if value is None:
            return "any"
        parts = cast("list[Any]", value) if isinstance(value, list) else [value]
        more = f" and {len(self._value(name)) - LISTED} more" if len(parts) > LISTED else ""
        # Columns of the history's table are kept apart by two blanks.
        shown = printable(" ".join(", ".join(map(str, parts[:LISTED])).split()))
        return (shown if len(shown) <= VALUE_CHARS else f"{shown[: VALUE_CHARS - 1]}…") + more

    def _part(self, part: re.Match[str]) -> str:
        return part[1] if all(map(self.is_given, _NAME.findall(part[1]))) else part[2] or ""

    def _value(self, name: str) -> Any:
        if name.startswith(_OF_RESULT):
            return self._facts.get(name.removeprefix(_OF_RESULT))
        value: Any = self._params
        for each in name.split("."):
            value = getattr(value, each, None)
        return value


# ---- arguments that turn out to be secrets -----------------------------------------------------------------------

_hidden: ContextVar[set[str] | None] = ContextVar("hidden", default=None)


@contextlib.contextmanager
def hidden_arguments() -> Generator[set[str]]:
    """Collect the names of arguments that the call in this block hides."""
    names: set[str] = set()
    token = _hidden.set(names)
    try:
        yield names
    finally:
        _hidden.reset(token)


def hide_argument(name: str) -> None:
    """Keep an argument of the running call out of its history row, however the call ends."""
    if (names := _hidden.get()) is not None:
        names.add(name)


def show_argument(name: str) -> None:
    """Take back `hide_argument`."""
    if (names := _hidden.get()) is not None:
        names.discard(name)


def without(arguments: Mapping[str, Any], hidden: Collection[str]) -> dict[str, Any]:
    """Return arguments with the values of the hidden ones replaced."""
    return {name: HIDDEN if name in hidden else value for name, value in arguments.items()}
