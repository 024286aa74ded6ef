"""What comes from a terminal is read as a person reads it, whatever it is."""

import time
from typing import get_args

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_ssh.errors import Unsupported
from mcp_ssh.ssh.connection.connection import Connection, Terminal
from mcp_ssh.ssh.demo.host import demo_host
from mcp_ssh.ssh.pty.screen import Screen
from mcp_ssh.ssh.pty.shell import Shells
from mcp_ssh.ssh.pty.terminal import KEYS, KeyName, incomplete_tail, plain, prompt
from mcp_ssh.ssh.wire.command import interactive
from tests.support.demo import connect

PIECES = st.lists(
    st.one_of(
        st.binary(max_size=8),
        st.sampled_from(
            [b"\x1b[", b"\x1b]0;t\x07", b"\x1b[31m", b"\r\n", b"\r", b"\b", b"\x1b[?2004h", "š𝄞".encode(), b"\x1b"]
        ),
    ),
    max_size=20,
).map(b"".join)


def test_each_key_has_what_it_sends() -> None:
    assert set(KEYS) == set(get_args(KeyName))
    assert len(KEYS) == 21


@pytest.mark.requirement("shell.waiting")
@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("[sudo] password for ops: ", "password"),
        ("Enter passphrase for key '/home/a/.ssh/id': ", "password"),
        ("Do you want to continue? [Y/n] ", "confirm"),
        ("Are you sure you want to continue connecting (yes/no/[fingerprint])? ", "confirm"),
        (":", "pager"), ("(END)", "pager"), ("--More--(12%)", "pager"), ("lines 1-23", "pager"),
        ("dev@deb:~$ ", "shell"), ("alpine:~# ", "shell"), ("auth% ", "shell"), ("fish@auth ~> ", "shell"),
        (">>> ", "question"), ("mysql> ", "question"), ("postgres=# ", "question"), ("Name: ", "question"),
        ("", None), ("50%", None), ("~", None), ("compiling main.c", None), ("Password changed", None),
    ],
)  # fmt: skip
def test_a_line_tells_what_is_waited_for(line: str, kind: str | None) -> None:
    asked = prompt(line)
    assert (asked.kind if asked else None) == kind


@pytest.mark.requirement("shell.lossless")
@given(data=PIECES, size=st.integers(1, 40))
def test_pieces_end_where_nothing_is_cut(data: bytes, size: int) -> None:
    """Text is the same however the output is cut, where no line is written over."""
    data = data.replace(b"\r\n", b"\n").replace(b"\r", b"").replace(b"\b", b"")
    pieces, at = [], 0
    while at < len(data):
        end = min(at + size, len(data))
        while end < len(data) and (cut := incomplete_tail(data[at:end])) and cut == end - at:
            end += 1
        end = end - incomplete_tail(data[at:end]) if end < len(data) else end
        pieces.append(plain(data[at:end]))
        at = end
    assert "".join(pieces) == plain(data)


@pytest.mark.parametrize("output", [b"\r" * 2**20, b"\r" * 2**20 + b"x", b"\x1b[" * 2**19, b"a\b" * 2**19])
def test_no_output_takes_long_to_be_made_into_text(output: bytes) -> None:
    """With `\r*` in a pattern the first of these took more than ten minutes, in which a server answered nobody."""
    began = time.process_time()
    plain(output)
    assert time.process_time() - began < 20


def test_what_was_written_over_is_gone() -> None:
    assert plain(b" 10%\r 20%\r100%\r\nab\b \b\b \bok\r\n") == "100%\nok\n"
    assert plain(b"\x1b]0;dev@deb: ~\x07\x1b[01;32mdev\x1b[00m$ \x1b[?2004h") == "dev$ "


@given(data=PIECES)
def test_anything_can_be_drawn(data: bytes) -> None:
    screen = Screen(20, 5)
    screen.feed(data)
    screen.resize(30, 8)
    screen.feed(b"\x1b[>4;1m\x1bc\x1b[2J\x1b[Hhere")
    assert screen.rows[0] == "here"
    assert (len(screen.rows), screen.cursor, screen.line) == (8, (1, 5), "here")


@pytest.mark.requirement("shell.channels")
async def test_an_account_without_a_terminal_is_told_so() -> None:
    async def dial() -> asyncssh.SSHClientConnection:
        raise AssertionError("one connection is enough")

    async with demo_host() as host, connect(host) as connection:
        link = Connection(connection, dial)
        with pytest.raises(Unsupported, match="no terminal"):
            await Shells(link).open("x", "default", interactive(shell="posix"), Terminal(80, 24), replace=True)  # noqa: S604
