"""Searching a blob: matches with their place, within a deadline, and a thread that ends with its caller."""

import asyncio
from pathlib import Path

import anyio
import pytest

from mcp_ssh.blobs import blobs as module
from mcp_ssh.blobs.search import BlobMatch
from mcp_ssh.errors import InvalidInput
from mcp_ssh.store import Blobs
from tests.support.blob_kit import ANNA, make


async def test_a_search_gives_lines_with_their_numbers_offsets_and_neighbours(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    made = await make(blobs, "eins\nzwei Ärger\ndrei\nVIER Fehler\nfünf fehler\n".encode())
    assert (await blobs.grep(ANNA, made, "Fehler")).matches == (BlobMatch(4, 27, "VIER Fehler"),)
    both = await blobs.grep(ANNA, made, "FEHLER", ignore_case=True, context=1)
    assert both.matches == (
        BlobMatch(4, 27, "VIER Fehler", ("drei",), ("fünf fehler",)),
        BlobMatch(5, 40, "fünf fehler", ("VIER Fehler",), ()),
    )
    assert both.next_offset is None
    with pytest.raises(InvalidInput):
        await blobs.grep(ANNA, made, "a\nb")
    with pytest.raises(InvalidInput):
        await blobs.grep(ANNA, made, "")
    await blobs.close()


async def test_a_search_past_its_deadline_says_where_to_go_on(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    made = await make(blobs, b"needle\n" * 10)
    stopped = await blobs.grep(ANNA, made, "needle", deadline_s=0)
    assert (stopped.matches, stopped.next_offset) == ((), 0)
    assert len((await blobs.grep(ANNA, made, "needle", start=stopped.next_offset or 0)).matches) == 10
    await blobs.close()


async def test_a_cancelled_search_ends_its_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(tmp_path)
    made = await make(blobs, b"x")
    began, ended = anyio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def endless(_handle: int, _size: int, _query: object, halted: "module.Callable[[], bool]") -> None:
        loop.call_soon_threadsafe(began.set)
        while not halted():
            pass
        loop.call_soon_threadsafe(ended.set)

    monkeypatch.setattr(module, "search", endless)
    async with anyio.create_task_group() as group:
        group.start_soon(blobs.grep, ANNA, made, "x")
        with anyio.fail_after(20):
            await began.wait()
        group.cancel_scope.cancel()
    with anyio.fail_after(20):
        await ended.wait()
    await blobs.close()
