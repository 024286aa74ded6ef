"""What people and programs see of a command: results on standard output, everything else on standard error."""

import argparse
import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, cast

from mcp_ssh.messages.printable import json_text, printable, printable_lines

if TYPE_CHECKING:
    from rich import console

USAGE = 2


class Failure(Exception):
    """A command that cannot go on: what is wrong, what to do next, and the exit code."""

    def __init__(self, message: str, hint: str | None = None, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


def usage(message: str, hint: str | None = None) -> Failure:
    """A failure of the person who typed the command."""
    return Failure(message, hint, USAGE)


_OPERAND = "\0"
"""Stands before a word that is not an option; no word of a command line can hold it."""


def operand(word: str) -> str:
    """A word after `--`, marked for `Parser`: argparse reads some of these as options."""
    return f"{_OPERAND}{word}" if word.startswith("-") else word


def with_operands(parsed: argparse.Namespace) -> argparse.Namespace:
    """What was read, with those words as they were."""
    for name, value in vars(parsed).items():
        if isinstance(value, str):
            setattr(parsed, name, value.removeprefix(_OPERAND))
        elif isinstance(value, list):
            words = cast("list[object]", value)
            setattr(parsed, name, [each.removeprefix(_OPERAND) if isinstance(each, str) else each for each in words])
    return parsed


class Parser(argparse.ArgumentParser):
    """An argument parser that fails in one line, and takes no abbreviations, which a later option could make wrong."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self._mixing = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] overloads
        """Read the words, options between the positional ones too; one too many is reported with this parser's help."""
        if self._subparsers is not None or self._mixing:
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            found, more = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False
        if more:
            self.error(f"it takes no {' '.join(more)[:80]}")
        return found, more

    def error(self, message: str) -> NoReturn:
        """Raise the mistake instead of printing the usage."""
        raise usage(message.replace(_OPERAND, "").replace(repr(_OPERAND)[1:-1], ""), f"see {self.prog} --help")


visible = printable


def say(text: str) -> None:
    """Text for people, on standard error."""
    print(printable_lines(text), file=sys.stderr, flush=True)


def say_failure(message: str, hint: str | None = None) -> None:
    """One line on standard error: `ssh-steward: message (hint)`."""
    text = f"{message} ({hint})" if hint else message
    say(f"ssh-steward: {visible(' '.join(text.split()))}")


def with_said(message: str, details: Mapping[str, Any]) -> str:
    """A message for a person, with what the machine said behind it."""
    return f"{message}; the machine said: {details['said']}" if details.get("said") else message


def parse_object(text: str, what: str, example: str) -> dict[str, Any]:
    """A JSON object that was typed; `-` means the one on standard input.

    Raises:
        Failure: It is not JSON, or not an object; says where, and gives an example.
    """
    source = sys.stdin.read() if text == "-" else text
    try:
        value = json.loads(source)
    except ValueError as error:
        raise usage(f"{what} is not JSON: {error}", f"in single quotes, such as '{example}'") from error
    if not isinstance(value, dict):
        raise usage(f"{what} must be a JSON object", f"in single quotes, such as '{example}'")
    return cast("dict[str, Any]", value)


def print_json(value: object) -> None:
    """JSON on standard output: indented for a terminal, in one line for a program."""
    if not sys.stdout.isatty():
        print(json_text(value))
        return
    from rich.console import Console
    from rich.highlighter import JSONHighlighter
    from rich.text import Text

    Console().print(JSONHighlighter()(Text(json_text(value, indent=2))), soft_wrap=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard output: drawn for a terminal, else in aligned columns, the last one at its full length."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns, box=box.SIMPLE_HEAD)
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def show_progress(done: float, total: float | None, message: str | None) -> None:
    """How far a call is, in one line of a terminal that the next one replaces; nothing where there is no terminal."""
    if sys.stderr.isatty():
        of = f"{done:g} of {total:g}" if total else f"{done:g}"
        print(f"\r\x1b[K{printable(message or '')} {of}", end="", file=sys.stderr, flush=True)


def end_progress() -> None:
    """Take the line of `show_progress` away."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def has_person() -> bool:
    """Whether somebody sits there who can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


async def ask(message: str, fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """Have the person at the terminal fill in a form of flat fields; `None` where they leave it (Ctrl-D).

    Free text is a password, a passphrase or a code in every question that we ask, so the terminal does not show it.

    Args:
        message: What it is about.
        fields: JSON Schema of each field.
    """
    say(message)
    answer: dict[str, Any] = {}
    for name, schema in fields.items():
        hidden = schema.get("type") == "string" and "enum" not in schema
        typed = await _line(f"{schema.get('title') or name}{_choices(schema)} ", secret=hidden)
        if typed is None:
            return None
        answer[name] = _value(typed, str(schema.get("type")))
    return answer


def _choices(schema: Mapping[str, Any]) -> str:
    if schema.get("type") == "boolean":
        return " [y/N]"
    return f" [{'/'.join(map(str, schema['enum']))}]" if "enum" in schema else ":"


def _value(typed: str, kind: str) -> str | float | bool:
    if kind == "boolean":
        return typed.strip().lower() in {"y", "yes"}
    if kind in {"integer", "number"}:
        try:
            return int(typed) if kind == "integer" else float(typed)
        except ValueError:
            return typed  # the server says what is wrong with it
    return typed


async def _line(prompt: str, *, secret: bool) -> str | None:
    """A line of the terminal, read without a thread, which nothing could interrupt."""
    import anyio

    with _echo_off() if secret else _as_it_is():
        print(printable(prompt), end="", file=sys.stderr, flush=True)
        await anyio.wait_readable(sys.stdin)
        data = os.read(sys.stdin.fileno(), 4096)
    return data.decode("utf-8", "replace").rstrip("\n") if data else None


@contextmanager
def _as_it_is() -> Generator[None]:
    yield


@contextmanager
def _echo_off() -> Generator[None]:
    import termios

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        say("")


class Printer:
    """Text for people on standard output: styled on a terminal, plain elsewhere, never wrapped, so it can be pasted."""

    def __init__(self) -> None:
        self._console: console.Console | None = None
        if sys.stdout.isatty():
            from rich.console import Console

            self._console = Console()

    def put(self, text: str, style: str = "") -> None:
        """A line, or several, in one style."""
        text = printable_lines(text)
        if self._console is None:
            print(text, flush=True)
            return
        from rich.text import Text

        self._console.print(Text(text, style), soft_wrap=True)

    def line(self, *parts: tuple[str, str]) -> None:
        """A line of texts, each in a style of its own."""
        parts = tuple((printable_lines(text), style) for text, style in parts)
        if self._console is None:
            print("".join(text for text, _ in parts).rstrip(), flush=True)
            return
        from rich.text import Text

        self._console.print(Text.assemble(*parts), soft_wrap=True)

    def heading(self, text: str) -> None:
        """The start of a part."""
        self.put(f"\n{text}", "bold")

    def text(self, text: str) -> None:
        """A sentence."""
        self.put(text)

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names with their values."""
        for name, value in rows:
            self.put(f"  {name:10} {value}")

    def code(self, text: str) -> None:
        """Text to be pasted; each line stands as it is, so that nothing has to be taken away from it."""
        self.put(text, "cyan")
