"""The start line of a command is found on either stream, however its bytes come, and nothing else is lost."""

import secrets
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_ssh.ssh.wire.command import StartLine, start_mark

COOKIE = secrets.token_hex(16)
MARK = start_mark(COOKIE)
LINE = MARK + b"4711\n"


def fed(data: bytes, cuts: list[int]) -> tuple[bytes, int | None]:
    """What passes of standard output that comes in these pieces."""
    line = StartLine(MARK)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    passed = b"".join(line.feed_out(data[start:end]) for start, end in pairwise(edges))
    return passed + line.rest_out(), line.pid


BEFORE = st.sampled_from([b"", b"a", b"noise\n", b"no newline "])
AFTER = st.sampled_from([b"", b"a", b"output\n", COOKIE[:1].encode(), COOKIE[:9].encode(), MARK[:-1]])


@pytest.mark.requirement("fault.R9")
@given(before=BEFORE, after=AFTER, cuts=st.lists(st.integers(0, 200), max_size=6))
def test_on_standard_output_the_line_is_removed_and_the_rest_stays(
    before: bytes, after: bytes, cuts: list[int]
) -> None:
    if before and not before.endswith(b"\n"):  # behind other text a few bytes of the mark are not taken for it
        cuts = []
    assert fed(before + LINE + after, cuts) == (before + after, 4711)
    assert fed(before + after, cuts) == (before + after, None)


@pytest.mark.requirement("fault.R9")
def test_output_without_the_line_passes_at_once() -> None:
    line = StartLine(MARK)
    assert line.feed_out(b"one\n") == b"one\n"
    assert line.feed_out(b"two") == b"two"
    assert line.feed(LINE) == b""
    assert line.feed_out(LINE) == LINE  # the command itself may say so


def test_what_standard_error_held_passes_once_the_line_came_on_standard_output() -> None:
    line = StartLine(MARK)
    assert line.feed(b"rc says\n") == b""
    assert line.feed_out(LINE) == b""
    assert line.rest() == b"rc says\n"


def test_where_no_line_is_expected_nothing_is_held() -> None:
    line = StartLine(MARK, expected=False)
    assert (line.feed(b"a"), line.feed_out(MARK)) == (b"a", MARK)


@pytest.mark.requirement("fault.R9")
def test_much_output_that_is_read_first_does_not_let_the_line_pass_on_standard_error() -> None:
    line = StartLine(MARK)
    flood = b"0123456789\n" * 10_000
    assert line.feed_out(flood) + line.rest_out() == flood
    assert (line.feed(LINE + b"short\n"), line.pid) == (b"short\n", 4711)
