"""Print what makes a shell complete commands, options, tools, saved connections and aliases of ~/.ssh/config."""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import cast

from mcp_ssh.cli.terminal import usage

# Each asks this program for the words that fit, one a line, and completes file names where there are none.
SCRIPTS = {
    "bash": """\
# ssh-steward: put `eval "$(ssh-steward completion bash)"` into ~/.bashrc
_ssh_steward() {
    local word
    COMPREPLY=()
    while IFS= read -r word; do
        COMPREPLY+=("$(printf %q "$word")")
    done < <(ssh-steward completion words -- "$COMP_CWORD" "${COMP_WORDS[@]}" 2>/dev/null)
}
complete -o default -F _ssh_steward ssh-steward mcp-ssh
""",
    "zsh": """\
# ssh-steward: put `eval "$(ssh-steward completion zsh)"` into ~/.zshrc, after compinit
_ssh_steward() {
    local -a found
    found=("${(@f)$(ssh-steward completion words -- $((CURRENT - 1)) "${words[@]}" 2>/dev/null)}")
    if [[ -n "${found[*]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _ssh_steward ssh-steward mcp-ssh
""",
    "fish": """\
# ssh-steward: put `ssh-steward completion fish | source` into ~/.config/fish/config.fish
function __ssh_steward
    set -l before (commandline -opc)
    set -l found (ssh-steward completion words -- (count $before) $before (commandline -ct) 2>/dev/null)
    if test -n "$found"
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c ssh-steward -f -a '(__ssh_steward)'
complete -c mcp-ssh -f -a '(__ssh_steward)'
""",
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward completion` takes."""
    parser.add_argument("shell", type=_shell, metavar="SHELL", help="bash, zsh or fish")


def _shell(text: str) -> str:
    """Read the shell; `words` is what the scripts ask with, and nothing to tell people about."""
    if text != "words" and text not in SCRIPTS:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is not a shell this program knows; there are {', '.join(SCRIPTS)}"
        )
    return text


def run(parsed: argparse.Namespace) -> int:
    """Print the script, or for the script the words that fit; return the exit code."""
    if parsed.shell == "words":
        # A file name that is not text must not break the line it stands in.
        sys.stdout.reconfigure(errors="surrogateescape")  # pyright: ignore[reportAttributeAccessIssue]
        print("".join(f"{word}\n" for word in _words(parsed.theirs)), end="")
        return 0
    if parsed.theirs:
        raise usage("completion takes nothing after --", "such as ssh-steward completion bash")
    print(SCRIPTS[parsed.shell], end="")
    return 0


def _words(given: list[str]) -> list[str]:
    """The words that fit where the cursor is: its place among the words of the line, then those words."""
    if not given or not given[0].isdigit():
        return []
    place, line = int(given[0]), given[1:]
    before, current = line[1:place], line[place] if place < len(line) else ""
    if "--" in before:
        return []
    return [word for word in _candidates(before, current) if word.startswith(current) and "\n" not in word]


def _candidates(before: list[str], current: str) -> list[str]:
    from mcp_ssh.cli import build_parser

    parser = build_parser()
    option = _awaiting(parser, before)
    names: list[str] = []
    for word in before:
        if (child := _subcommands(parser).get(word)) is not None:
            parser, names = child, [*names, word]
            option = _awaiting(parser, before)
    if option is not None:
        return [str(each) for each in option.choices or ()]
    if current.startswith("-"):
        return list(_options(parser))
    if below := _subcommands(parser):
        return list(below) if _place(parser, before) == len(names) - 1 else []
    return _FOR_COMMAND.get(names[0], _nothing)(_place(parser, before)) if names else []


def _subcommands(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:  # noqa: SLF001 argparse has no public way to look at a parser
        if isinstance(action.choices, Mapping):
            return cast("Mapping[str, argparse.ArgumentParser]", action.choices)
    return {}


def _awaiting(parser: argparse.ArgumentParser, before: list[str]) -> argparse.Action | None:
    """The option whose value the cursor is at."""
    last = before[-1] if before else ""
    return next((each for each in parser._actions if last in each.option_strings and each.nargs != 0), None)  # noqa: SLF001


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001
        if action.help != argparse.SUPPRESS:
            yield from (each for each in action.option_strings if each.startswith("--"))


def _place(parser: argparse.ArgumentParser, before: list[str]) -> int:
    """Which positional word of its command the cursor is at, from 0."""
    taking = {name for each in parser._actions if each.nargs != 0 for name in each.option_strings}  # noqa: SLF001
    plain = [
        word
        for word, previous in zip(before, ["", *before], strict=False)
        if not word.startswith("-") and previous not in taking
    ]
    return len(plain) - 1


def _nothing(place: int) -> list[str]:
    del place
    return []


def _machines_first(place: int) -> list[str]:
    return machines() if place == 0 else []


def _machines_everywhere(place: int) -> list[str]:
    del place
    return machines()


def _tools(place: int) -> list[str]:
    from mcp_ssh.tools import REGISTRY

    return list(REGISTRY) if place == 0 else []


def _clients(place: int) -> list[str]:
    from mcp_ssh.cli.commands.client_config import CLIENTS

    return list(CLIENTS) if place == 0 else []


def _shells(place: int) -> list[str]:
    return list(SCRIPTS) if place == 0 else []


_FOR_COMMAND: Mapping[str, Callable[[int], list[str]]] = {
    "exec": _machines_first,
    "upload": _machines_first,
    "download": _machines_first,
    "check": _machines_everywhere,
    "call": _tools,
    "client-config": _clients,
    "completion": _shells,
}


def machines() -> list[str]:
    """The names of saved connections and the aliases of ~/.ssh/config."""
    from mcp_ssh.config.models import home
    from mcp_ssh.ssh.openssh_config.aliases import alias_names
    from mcp_ssh.store import saved_names

    return list(dict.fromkeys([*saved_names(home()), *alias_names()]))
