"""Searching: the same lines a naive reader would find, whatever their length and wherever the blocks end."""

from collections.abc import Callable, Iterator
from tempfile import TemporaryFile
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_ssh.blobs import search as module
from mcp_ssh.blobs.search import MAX_TEXT_BYTES, SHOWN_BYTES, BlobMatch, BlobMatches, BlobQuery, search


def run(content: bytes, needle: bytes, halted: Callable[[], bool] = lambda: False, **given: int | bool) -> BlobMatches:
    query = BlobQuery(
        needle,
        ignore_case=bool(given.get("ignore_case")),
        start=int(given.get("start", 0)),
        max_matches=int(given.get("max_matches", 10_000)),
        context=int(given.get("context", 0)),
    )
    with TemporaryFile(buffering=0) as file:
        file.write(content)
        return search(file.fileno(), len(content), query, halted)


def naive(content: bytes, needle: bytes, context: int, *, ignore_case: bool) -> Iterator[BlobMatch]:
    lines = content.split(b"\n")
    shown = [each.removesuffix(b"\r").decode("utf-8", "replace") for each in lines]
    last = len(lines) - (lines[-1] == b"")
    offset = 0
    for number, line in enumerate(lines):
        at = (line.lower() if ignore_case else line).find(needle.lower() if ignore_case else needle)
        if at >= 0:
            before = tuple(shown[max(0, number - context) : number])
            after = tuple(shown[number + 1 : min(last, number + 1 + context)])
            yield BlobMatch(number + 1, offset + at, shown[number], before, after)
        offset += len(line) + 1


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([b"", b"a", b"ab", b"AB", b"\n", b"\r\n", "ä".encode(), b"\xff", b"x" * 9, b"aab"])).map(
        b"".join
    ),
    st.sampled_from([b"a", b"ab", b"aab", b"AB", "ä".encode(), b"x" * 10]),
    st.integers(0, 3),
    st.booleans(),
    st.integers(1, 8),
)
def test_a_search_finds_what_a_naive_reader_finds(
    content: bytes, needle: bytes, context: int, ignore_case: bool, block: int
) -> None:
    with patch.object(module, "BLOCK_BYTES", block):
        found = run(content, needle, context=context, ignore_case=ignore_case)
        assert list(found.matches) == list(naive(content, needle, context, ignore_case=ignore_case))
        assert found.next_offset is None

        # One at a time, going on from next_offset, gives the same.
        paged: list[BlobMatch] = []
        start: int | None = 0
        while start is not None:
            page = run(content, needle, context=context, ignore_case=ignore_case, max_matches=1, start=start)
            paged.extend(page.matches)
            start = page.next_offset
        assert paged == list(found.matches)


@pytest.mark.parametrize("at", [0, 100, 4000, 4090, 300_000])
def test_a_match_in_a_very_long_line_is_shown_with_what_is_around_it(at: int) -> None:
    content = b"first\n" + b"." * at + b"needle" + b"." * 500_000 + b"\nlast"
    (match,) = run(content, b"needle", context=2).matches
    assert (match.line, match.offset) == (2, 6 + at)
    assert "needle" in match.text
    assert len(match.text) == SHOWN_BYTES


def test_a_very_long_line_matches_again_beyond_what_was_shown() -> None:
    content = (b"needle" + b"." * 10_000) * 3
    assert [(each.line, each.offset) for each in run(content, b"needle").matches] == [(1, 0), (1, 10_006), (1, 20_012)]


def test_a_match_across_two_blocks_is_found_once() -> None:
    content = b"x" * (module.BLOCK_BYTES - 3) + b"needle\n" + b"y" * 100
    assert [each.offset for each in run(content, b"needle").matches] == [module.BLOCK_BYTES - 3]


def test_neighbouring_lines_are_cut_too() -> None:
    content = b"b" * 50_000 + b"\nneedle\n" + b"a" * 50_000
    (match,) = run(content, b"needle", context=1).matches
    assert (match.before, match.after) == (("b" * SHOWN_BYTES,), ("a" * SHOWN_BYTES,))


def test_an_answer_stays_bounded_and_says_where_to_go_on() -> None:
    content = (b"needle" + b"." * 4000 + b"\n") * 1000
    found = run(content, b"needle", context=10)
    shown = sum(len(each.text) + sum(map(len, each.before + each.after)) for each in found.matches)
    assert shown <= MAX_TEXT_BYTES + 21 * SHOWN_BYTES
    assert found.next_offset is not None
    assert run(content, b"needle", start=found.next_offset).matches[0].line == len(found.matches) + 1


def test_a_search_asked_to_halt_gives_what_it_has() -> None:
    calls: list[None] = []

    def after_three() -> bool:
        calls.append(None)
        return len(calls) > 3

    found = run(b"needle\n" * 100, b"needle", after_three)
    assert [each.line for each in found.matches] == [1, 2, 3]
    assert found.next_offset == 20
