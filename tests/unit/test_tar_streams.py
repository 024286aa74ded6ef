"""Tar streams taken apart: the same as tarfile finds in them, in whatever pieces they come, and never half of one."""

import io
import itertools
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_ssh.transfers import tar_stream
from mcp_ssh.transfers.tar_stream import ForwardReader, OffsetChunks, entries, plain

Found = list[tuple[str, bytes, int, float, str, bytes]]


def forward(data: bytes, piece: int = 1000) -> ForwardReader:
    pieces = (data[start : start + piece] for start in itertools.count(0, piece))
    return ForwardReader(lambda: next(pieces))


def whole(entry: tarfile.TarInfo, content: OffsetChunks) -> bytes:
    data = bytearray(entry.size)
    for offset, piece in content:
        data[offset : offset + len(piece)] = piece
    return bytes(data)


def taken(data: bytes, piece: int = 1000) -> Found:
    return [
        (each.name, each.type, each.mode & 0o777, each.mtime, each.linkname, whole(each, content))
        for each, content in entries(forward(data, piece))
    ]


def by_tarfile(data: bytes) -> Found:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="surrogateescape") as tar:
        return [
            (each.name, each.type, each.mode & 0o777, each.mtime, each.linkname, content.read() if content else b"")
            for each in tar
            for content in [tar.extractfile(each) if each.isreg() else None]
        ]


def planted(folder: Path) -> None:
    """Files that need headers of every kind."""
    (folder / "d" / ("x" * 120)).mkdir(parents=True)
    for number, name in enumerate(("a", "d/b", f"d/{'x' * 120}/{'y' * 150}", "\udcff", "empty")):
        (folder / name).write_bytes(os.urandom(number % 4 * 700))
    (folder / "link").symlink_to("z" * 200)
    (folder / "second name").hardlink_to(folder / "a")
    with (folder / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(1_000_000)
        file.write(b"end")


@pytest.mark.requirement("file.transfer.tree")
@pytest.mark.parametrize("options", [[], ["-S"], ["--format=ustar"], ["--format=v7"], ["--format=posix", "-S"]])
@pytest.mark.parametrize("piece", [100, 512, 1000, 100_000])
def test_what_a_tar_sends_is_what_tarfile_finds_in_it(tmp_path: Path, options: list[str], piece: int) -> None:
    planted(tmp_path)
    short = ["--exclude=x*", "--exclude=link"] if {"--format=ustar", "--format=v7"} & set(options) else []
    data = subprocess.run(
        ["tar", "-c", "-f", "-", *options, *short, "-C", tmp_path, "."], check=True, capture_output=True
    ).stdout
    found = taken(data, piece)
    assert found == by_tarfile(data)
    assert len(found) > 7


@pytest.mark.requirement("file.transfer.tree")
@given(
    st.binary(min_size=1, max_size=100).filter(lambda name: b"\0" not in name),
    st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE]),
    *3 * (st.integers(0, 8**11 - 1),),
)
def test_a_plain_header_says_what_tarfile_reads_in_it(
    name: bytes, kind: bytes, mode: int, size: int, time: int
) -> None:
    info = tarfile.TarInfo(os.fsdecode(name))
    info.type, info.mode, info.size, info.mtime = kind, mode & 0o7777, size, time
    block = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")[-512:]
    found, want = plain(block), tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    assert (found is not None) == (kind == tarfile.REGTYPE or (kind == tarfile.DIRTYPE and not size))
    if found is not None:
        assert [getattr(found, each) for each in ("type", "mode", "size", "mtime")] == [kind, mode & 0o7777, size, time]
        assert found.name.rstrip("/") == want.name.rstrip("/")


@pytest.mark.requirement("file.transfer.tree")
@given(st.integers(0, 511), st.integers(1, 255))
def test_a_header_with_one_wrong_byte_is_not_believed(place: int, change: int) -> None:
    info = tarfile.TarInfo("name")
    info.size = 700
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    assert plain(bytes(block)) is not None
    block[place] ^= change
    assert plain(bytes(block)) is None


def made(count: int) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number in range(count):
            info = tarfile.TarInfo(f"f{number}")
            info.size = 700
            tar.addfile(info, io.BytesIO(b"x" * 700))
    return held.getvalue()


@pytest.mark.requirement("file.transfer.tree")
def test_a_stream_that_ends_early_or_is_damaged_in_between_is_an_error() -> None:
    data, entry = made(3), 512 + 1024
    assert len(taken(data[: 3 * entry + 512])) == 3
    for end in (0, 100, 512, 600, entry, entry + 512, 3 * entry, 3 * entry + 511):
        with pytest.raises(tarfile.TarError):
            taken(data[:end])
    with pytest.raises(tarfile.TarError):
        taken(data[:entry] + b"?" * 512 + data[entry + 512 :])


@pytest.mark.requirement("file.transfer.escape")
@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_header_that_claims_to_be_huge_is_not_collected(kind: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tarfile.TarInfo("name")
    info.type, info.size = kind, 64 * 1024 * 1024
    given_out = 0

    def more() -> bytes:
        nonlocal given_out
        given_out += 65536
        return info.tobuf(tarfile.GNU_FORMAT) if given_out == 65536 else b"n" * 65536

    def looked_at() -> int:
        nonlocal given_out
        given_out = 0
        with pytest.raises((tarfile.TarError, ValueError)):
            for _ in entries(ForwardReader(more)):
                if given_out > info.size:
                    raise tarfile.TarError
        return given_out

    assert looked_at() <= tar_stream.LARGEST_READ
    # The negative control: without the bound all of it is.
    monkeypatch.setattr(tar_stream, "LARGEST_READ", 2**40)
    monkeypatch.setattr(tar_stream, "LARGEST_HEADER", 2**40)
    assert looked_at() > info.size
