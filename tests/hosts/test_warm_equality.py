"""A command handed to a shell that waited does what `ssh host command` does."""

import os
import tempfile
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import pytest

from mcp_ssh.app import App
from tests.support.machine import SOAK
from tests.support.shell_grammar import Grammar
from tests.support.warm import Ssh, Warm, warm

COMMANDS = 500 if SOAK else 10
SEED = int(os.environ.get("MCP_SSH_SEED", "1"))

SHELLS = {"bash": ("deb", "dev"), "dash": ("deb", "dash"), "ash": ("alpine", "dev"), "zsh": ("auth", "zsh")}

HOSTILE = {
    "a child holds the streams": "sleep 0.3 & echo first",
    "a child holds one stream": "(sleep 0.2; echo late) 2>/dev/null & echo first",
    "a detached child writes on": "(setsid sh -c 'sleep 0.2; echo late' &); echo first",
    "the shell is replaced": "exec printf '%s|' a 'b c'",
    "exit in the middle": "echo one; exit 42; echo two",
    "a syntax error behind a good line": "echo one\nif then",
    "an unclosed quote": "echo 'one",
    "the group kills itself": "echo one; kill 0; sleep 5",
    "the shell kills itself": "echo one; kill -KILL $$",
    "a trap at the end": "trap 'echo bye; exit 7' EXIT; exit 3",
    "a trapped signal": "trap 'echo got' USR1; kill -USR1 $$; echo on",
    "bytes of every kind": "cat; printf '\\000\\377\\200'",
    "standard output closed": "exec 1>&-; echo x; exit 5",
    "standard error closed": "exec 2>&-; echo x; ls /nosuch",
    "both closed": "exec 1>&- 2>&-; exit 6",
    "limits": "ulimit -n 40; ulimit -n; ulimit -f 0; (echo x >/tmp/mcp-$$) 2>/dev/null; echo $?; rm -f /tmp/mcp-$$",
    "10 MB on standard error only": "dd if=/dev/zero bs=1000 count=10000 2>/dev/null | tr '\\0' x >&2",
    "read takes its line and no more": 'read -r a; echo "<$a>"; cat',
    "input that nobody reads": "exit 0",
    "names of ours": 'set | grep -c ^MCP_SSH_LINE; echo "$#$*"; env | grep -v ^MCP_SSH_CALL= | grep -c MCP_SSH',
    "a lone backslash at the end": "echo one\\",
    "nothing but a comment": "# nothing",
}


class Pair:
    """The same account over our spares and over the system's ssh."""

    def __init__(self, ours: Warm, theirs: Ssh) -> None:
        self.ours, self.theirs = ours, theirs

    async def differences(self, commands: Iterable[str], stdin: bytes) -> list[str]:
        found: list[str] = []
        for command in commands:
            reference = await self.theirs.run(command, stdin)
            said = await self.ours.on_spare(command, stdin)
            if not said.like(reference):
                found.append(f"{command!r}\n  ours   {said}\n  theirs {reference}")
        return found


@pytest.fixture(params=SHELLS)
async def pair(request: pytest.FixtureRequest, app: App) -> AsyncGenerator[Pair]:
    name, user = SHELLS[request.param]
    host = request.getfixturevalue(name)
    with tempfile.TemporaryDirectory() as folder:  # short, since it holds a socket
        theirs = Ssh(host, user, Path(folder))
        try:
            yield Pair(await warm(app, host, user), theirs)
        finally:
            theirs.close()


@pytest.mark.requirement("exec.warm.equal")
async def test_generated_commands_do_the_same(pair: Pair) -> None:
    grammar = Grammar(SEED)
    commands = [grammar.command() for _ in range(COMMANDS)]
    assert not await pair.differences(commands, b"first line\nsecond \xff\0 line\nthird")


@pytest.mark.requirement("exec.warm.equal")
async def test_hostile_commands_do_the_same(pair: Pair) -> None:
    assert not await pair.differences(HOSTILE.values(), b"in 1\nin 2\0\xfe\n")
