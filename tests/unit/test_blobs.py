"""Blobs: whole outputs kept within bounds, for their owner, for an hour, and never left behind."""

import asyncio
import os
import stat
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from mcp_ssh.blobs import blobs as module
from mcp_ssh.errors import NotFound
from mcp_ssh.store import Blobs, BlobWriter
from mcp_ssh.tool import Caller, Role
from tests.support.blob_kit import ADMIN, ANNA, BERT, KIB, Clock, files, make, open_files


async def test_what_was_written_in_any_chunks_reads_back_by_range_and_tail(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    content = os.urandom(700 * KIB)
    writer = blobs.writer("anna")
    for start in range(0, len(content), 7001):
        await writer.write(memoryview(content)[start : start + 7001])
    blob = await writer.finish()
    assert (blob.size_bytes, blob.complete, len(blob.id)) == (len(content), True, 32)
    assert blob == await writer.finish() == blobs.describe(ANNA, blob.id)
    assert await blobs.read_range(ANNA, blob.id, 0, 10**9) == (content, len(content))
    assert await blobs.read_range(ANNA, blob.id, 300_000, 5) == (content[300_000:300_005], len(content))
    assert await blobs.read_range(ANNA, blob.id, len(content) - 2, 10) == (content[-2:], len(content))
    assert await blobs.read_range(ANNA, blob.id, len(content) + 1, 10) == (b"", len(content))
    assert await blobs.read_tail(ANNA, blob.id, 9) == (content[-9:], len(content))
    assert await blobs.read_tail(ANNA, blob.id, 10**9) == (content, len(content))
    await blobs.close()


async def test_an_empty_output_is_an_empty_blob(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    assert await blobs.read_range(ANNA, await make(blobs, b""), 0, 10) == (b"", 0)
    await blobs.close()


async def test_files_and_folders_are_private_even_under_a_permissive_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        blobs = Blobs(tmp_path / "home")
        await make(blobs, b"x")
        modes = {stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "home").rglob("*") if each.is_file()}
        folders = {stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "home").rglob("*") if each.is_dir()}
        await blobs.close()
    finally:
        os.umask(before)
    assert modes == {0o600}
    assert folders == {0o700}
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700


async def test_a_symlink_in_the_place_of_a_blob_is_not_followed(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    await blobs.open()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    writer = blobs.writer("anna")
    folder = next(each for each in (tmp_path / "blobs").iterdir())
    (folder / writer.id).symlink_to(victim)
    await writer.write(b"evil")
    assert (await writer.finish()).complete is False
    assert victim.read_text() == "precious"
    await blobs.close()


async def test_only_its_maker_and_an_admin_can_tell_that_a_blob_exists(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    made = await make(blobs, b"secret")
    assert (await blobs.read_range(ADMIN, made, 0, 9))[0] == b"secret"
    refusals: list[object] = []
    for caller, wanted in ((BERT, made), (BERT, "0" * 32), (ANNA, "../" + made), (ANNA, "")):
        with pytest.raises(NotFound) as caught:
            await blobs.read_range(caller, wanted, 0, 9)
        refusals.append(caught.value.payload())
        with pytest.raises(NotFound):
            await blobs.read_tail(caller, wanted, 9)
        with pytest.raises(NotFound):
            await blobs.grep(caller, wanted, "s")
        with pytest.raises(NotFound):
            blobs.describe(caller, wanted)
    assert refusals == refusals[:1] * 4
    await blobs.close()


async def test_a_blob_cannot_be_read_before_it_is_finished(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    writer = blobs.writer("anna")
    await writer.write(b"x" * 300 * KIB)
    with pytest.raises(NotFound):
        blobs.describe(ANNA, writer.id)
    await blobs.close()


@pytest.mark.parametrize("chunk", [1, 3000, 400 * KIB])
async def test_a_blob_beyond_its_bound_keeps_its_beginning_and_says_so(tmp_path: Path, chunk: int) -> None:
    bound = 300 * KIB if chunk > 1 else 10
    content = os.urandom(500 * KIB if chunk > 1 else 100)
    blobs = Blobs(tmp_path, per_call=bound)
    writer = blobs.writer("anna")
    for start in range(0, len(content), chunk):
        await writer.write(content[start : start + chunk])
    blob = await writer.finish()
    assert (blob.size_bytes, blob.complete) == (bound, False)
    assert await blobs.read_range(ANNA, blob.id, 0, 10**9) == (content[:bound], bound)
    assert [each.stat().st_size for each in files(tmp_path)] == [bound]
    await blobs.close()


async def test_a_blob_exactly_at_its_bound_is_complete(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, per_call=100)
    made = await make(blobs, b"x" * 100)
    assert blobs.describe(ANNA, made).complete is True
    await blobs.close()


async def test_room_is_made_by_removing_what_was_not_read_for_longest(tmp_path: Path) -> None:
    clock = Clock()
    blobs = Blobs(tmp_path, total=300, clock=clock)
    made: list[str] = []
    for _ in range(3):
        made.append(await make(blobs, b"x" * 100))
        clock.now_s += 1
    await blobs.read_range(ANNA, made[0], 0, 1)
    made.append(await make(blobs, b"y" * 100))
    with pytest.raises(NotFound):
        blobs.describe(ANNA, made[1])
    assert [blobs.describe(ADMIN, made[each]).complete for each in (0, 2, 3)] == [True] * 3
    assert {each.name for each in files(tmp_path)} == {made[0], made[2], made[3]}
    await blobs.close()


async def test_a_blob_being_written_is_never_removed_for_another(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, total=400 * KIB)
    first = blobs.writer("anna")
    await first.write(b"a" * 300 * KIB)
    second = await make(blobs, b"b" * 300 * KIB)
    assert (await first.finish()).complete is True
    assert blobs.describe(ANNA, first.id).size_bytes == 300 * KIB
    assert (blobs.describe(ANNA, second).size_bytes, blobs.describe(ANNA, second).complete) == (100 * KIB, False)
    await blobs.close()


async def test_an_expired_blob_is_gone_for_readers_at_once_and_from_disk_at_the_next_one(tmp_path: Path) -> None:
    clock = Clock()
    blobs = Blobs(tmp_path, life_s=3600, clock=clock)
    old, read = await make(blobs, b"old"), await make(blobs, b"read")
    clock.now_s += 3599
    await blobs.read_range(ANNA, read, 0, 1)
    clock.now_s += 1
    with pytest.raises(NotFound):
        blobs.describe(ANNA, old)
    new = await make(blobs, b"new")
    assert {each.name for each in files(tmp_path)} == {read, new}
    clock.now_s += 3600
    await blobs.sweep()
    assert files(tmp_path) == []
    await blobs.close()


async def test_a_blob_being_written_for_longer_than_its_life_is_kept(tmp_path: Path) -> None:
    clock = Clock()
    blobs = Blobs(tmp_path, clock=clock)
    writer = blobs.writer("anna")
    await writer.write(b"x" * 300 * KIB)
    clock.now_s += 7200
    await make(blobs, b"other")
    blob = await writer.finish()
    assert (await blobs.read_range(ANNA, blob.id, 0, 10**9))[0] == b"x" * 300 * KIB
    await blobs.close()


async def test_a_discarded_blob_leaves_no_file_and_frees_its_room(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path, total=300 * KIB)
    writer = blobs.writer("anna")
    await writer.write(b"x" * 300 * KIB)
    assert len(files(tmp_path)) == 1
    await writer.discard()
    await writer.discard()
    await writer.write(b"late")
    assert files(tmp_path) == []
    with pytest.raises(NotFound):
        blobs.describe(ANNA, writer.id)
    finished = await make(blobs, b"y" * 300 * KIB)
    assert blobs.describe(ANNA, finished).complete is True
    await blobs.close()


async def test_closing_removes_every_file_of_this_process_open_ones_too(tmp_path: Path) -> None:
    before = open_files()
    blobs = Blobs(tmp_path)
    await make(blobs, b"x")
    writer = blobs.writer("anna")
    await writer.write(b"x" * 300 * KIB)
    await blobs.close()
    await blobs.close()
    assert list((tmp_path / "blobs").iterdir()) == []
    assert open_files() == before
    await writer.write(b"more" * 100 * KIB)
    assert (await writer.finish()).complete is False
    assert list((tmp_path / "blobs").iterdir()) == []
    assert open_files() == before


async def test_a_disk_that_takes_no_more_makes_the_blob_incomplete_not_the_call_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = Blobs(tmp_path)
    writer = blobs.writer("anna")
    await writer.write(b"x" * 256 * KIB)
    with monkeypatch.context() as patch:
        patch.setattr(module.os, "write", full_disk)
        await writer.write(b"y" * 256 * KIB)
    await writer.write(b"z" * 256 * KIB)
    blob = await writer.finish()
    assert (blob.size_bytes, blob.complete) == (256 * KIB, False)
    assert (await blobs.read_range(ANNA, blob.id, 0, 10**9))[0] == b"x" * 256 * KIB
    await blobs.close()


async def test_what_follows_bytes_that_were_lost_is_not_kept_as_if_it_joined_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = Blobs(tmp_path)
    writer = blobs.writer("anna")
    writing, may_fail = asyncio.Event(), threading.Event()
    loop, really_write = asyncio.get_running_loop(), os.write

    def fail_once(*arguments: Any) -> int:
        if may_fail.is_set():
            return really_write(*arguments)
        loop.call_soon_threadsafe(writing.set)
        may_fail.wait(5)
        return full_disk()

    monkeypatch.setattr(module.os, "write", fail_once)
    lost = asyncio.create_task(writer.write(b"a" * 300 * KIB))
    with anyio.fail_after(20):
        await writing.wait()
    lost.cancel()
    await asyncio.wait([lost])
    following = asyncio.create_task(writer.write(b"b" * 300 * KIB))
    may_fail.set()
    await following
    blob = await writer.finish()
    assert (blob.size_bytes, blob.complete) == (0, False)
    assert [each.stat().st_size for each in files(tmp_path)] == [0]
    await blobs.close()


def full_disk(*_: object) -> int:
    raise OSError(28, "No space left on device")


async def test_a_state_folder_that_cannot_be_used_makes_the_blob_incomplete_not_the_call_fail(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, no folder")
    blobs = Blobs(tmp_path / "home")
    writer = blobs.writer("anna")
    await writer.write(b"x" * 300 * KIB)
    blob = await writer.finish()
    assert (blob.size_bytes, blob.complete) == (0, False)
    with pytest.raises(NotFound):
        await blobs.read_range(ANNA, blob.id, 0, 1)
    await blobs.close()


@pytest.mark.parametrize("native", [True, False], ids=["asyncio", "anyio"])
async def test_a_write_cancelled_at_any_point_loses_and_reorders_nothing(tmp_path: Path, *, native: bool) -> None:
    blobs = Blobs(tmp_path)
    content = b"".join(bytes([each]) * 300 * KIB for each in range(3))

    async def write(writer: BlobWriter) -> None:
        await writer.write(content[: 300 * KIB])

    for steps in range(12):
        writer = blobs.writer("anna")
        if native:
            task = asyncio.create_task(write(writer))
            for _ in range(steps + 1):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        else:
            async with anyio.create_task_group() as group:
                group.start_soon(write, writer)
                for _ in range(steps + 1):
                    await asyncio.sleep(0)
                group.cancel_scope.cancel()
        await writer.write(content[300 * KIB :])
        blob = await writer.finish()
        assert blob.complete is True
        assert (await blobs.read_range(ANNA, blob.id, 0, 10**9))[0] == content
    await blobs.close()


async def test_discarding_while_being_cancelled_still_removes_the_file(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    writer = blobs.writer("anna")
    await writer.write(b"x" * 300 * KIB)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await writer.discard()
    with anyio.fail_after(20):
        while files(tmp_path):
            await anyio.lowlevel.checkpoint()
    await blobs.close()


async def test_the_first_writers_of_a_process_share_one_folder(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    made = await asyncio.gather(*(make(blobs, b"%d" % each) for each in range(20)))
    assert [(await blobs.read_range(ANNA, each, 0, 9))[0] for each in made] == [b"%d" % each for each in range(20)]
    assert len(list((tmp_path / "blobs").iterdir())) == 1
    await blobs.close()


async def test_memory_stays_flat_while_a_large_output_is_written_and_searched(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    chunk = b"a line of some fifty bytes, repeated over and over\n" * 640
    await make(blobs, chunk)
    tracemalloc.start()
    writer = blobs.writer("anna")
    for _ in range(1000):
        await writer.write(chunk)
    blob = await writer.finish()
    found = await blobs.grep(ANNA, blob.id, "not there")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert blob.size_bytes == 1000 * len(chunk) > 30 * KIB * KIB
    assert found.matches == ()
    assert peak < 3 * KIB * KIB
    await blobs.close()


@pytest.mark.requirement("fault.S7.blobs")
async def test_a_callers_outputs_push_out_its_own_blobs_only(tmp_path: Path) -> None:
    clock = Clock()
    blobs = Blobs(tmp_path, total=1000, share=400, clock=clock)
    kept = await make(blobs, b"a" * 300)
    clock.now_s += 1
    made = [await make(blobs, b"b" * 100, BERT) for _ in range(40)]
    assert blobs.describe(ANNA, kept).complete
    assert (await blobs.read_range(ANNA, kept, 0, 1000))[0] == b"a" * 300
    # Bert has his newest four, each whole.
    assert [blobs.describe(BERT, each).complete for each in made[-4:]] == [True] * 4
    with pytest.raises(NotFound):
        blobs.describe(BERT, made[-5])
    # An output larger than the share is cut, and says so.
    long = await make(blobs, b"b" * 900, BERT)
    assert (blobs.describe(BERT, long).size_bytes, blobs.describe(BERT, long).complete) == (400, False)
    # Where all is full, expired blobs of others make room, and no other ones do.
    for name in ("c", "d"):
        await make(blobs, b"c" * 400, Caller(name, Role.OPERATOR))
    assert blobs.describe(ANNA, kept).complete
    clock.now_s += 3600
    assert blobs.describe(BERT, await make(blobs, b"b" * 400, BERT)).complete
    await blobs.close()


@pytest.mark.requirement("fault.S7.blobs")
async def test_without_a_share_one_caller_fills_all_room(tmp_path: Path) -> None:
    """The negative control: the share leaves room for the next caller."""
    blobs = Blobs(tmp_path, total=1000, share=1000)
    await make(blobs, b"b" * 1000, BERT)
    assert not blobs.describe(ANNA, await make(blobs, b"a")).complete
    await blobs.close()
