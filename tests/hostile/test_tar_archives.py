"""Tar streams of a hostile machine: they write what they hold and no more, and nothing in a header does harm."""

import io
import itertools
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_ssh.errors import InvalidInput, TooLarge
from mcp_ssh.policy import LocalFolders, local_place
from mcp_ssh.tool import Caller, Role
from mcp_ssh.transfers import tar_stream
from mcp_ssh.transfers.local_quota import ENTRY_BYTES, UNLIMITED, folder_quota, measure
from mcp_ssh.transfers.local_tree import TarExtractor, TransferCounts
from mcp_ssh.transfers.tar_stream import ForwardReader
from mcp_ssh.transfers.tree import _take
from tests.support.bystander import LIMIT_S, bystander

pytestmark = pytest.mark.requirement("fault.S10.archives")

MIB = 1024 * 1024


def forward(data: bytes, piece: int = 4096) -> ForwardReader:
    pieces = (data[start : start + piece] for start in itertools.count(0, piece))
    return ForwardReader(lambda: next(pieces))


def grown(folder: Path, data: bytes) -> tuple[TransferCounts, str]:
    """Take a stream into a folder; what it was and, if it was torn, why."""
    folder.mkdir(exist_ok=True)
    tally, root = TransferCounts(), os.open(folder, os.O_RDONLY)
    try:
        torn = _take(root, tally, UNLIMITED, forward(data), links_inside=False)
    finally:
        os.close(root)
    return tally, torn


def checked(header: bytearray) -> bytes:
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def sparse(stored: int, segments: list[tuple[int, int]], real: int) -> bytes:
    """The header of an old GNU sparse entry."""
    info = tarfile.TarInfo("sparse")
    info.size, info.type = stored, b"S"
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for number, (offset, size) in enumerate(segments):
        at = 386 + 24 * number
        header[at : at + 24] = b"%011o\0%011o\0" % (offset, size)
    header[483:495] = b"%011o\0" % real
    return checked(header)


def plain(name: str, content: bytes, **more: object) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in more.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


END = bytes(1024)


def test_holes_of_a_sparse_entry_are_not_written(tmp_path: Path) -> None:
    data = sparse(512, [(256 * MIB - 512, 512)], 256 * MIB) + b"x" * 512 + plain("after", b"1") + END
    tally, torn = grown(tmp_path / "t", data)
    assert (torn, tally.count) == ("", 2)
    facts = (tmp_path / "t/sparse").stat()
    assert facts.st_size == 256 * MIB
    assert facts.st_blocks * 512 < MIB
    with (tmp_path / "t/sparse").open("rb") as file:
        file.seek(-513, os.SEEK_END)
        assert file.read() == b"\0" + b"x" * 512
    assert (tmp_path / "t/after").read_bytes() == b"1"


@pytest.mark.parametrize(
    "segments",
    [
        [(0, 64 * MIB)],
        [(0, 512), (0, 512)],
        [(1024, 512), (0, 512)],
        [(MIB - 1, 512)],
        [(0, 512), (512, 512), (1024, 512)],
    ],
)
def test_a_map_that_does_not_fit_its_entry_is_refused(tmp_path: Path, segments: list[tuple[int, int]]) -> None:
    following = plain("after", b"not part of it") + END
    _, torn = grown(tmp_path / "t", sparse(512, segments, MIB) + b"x" * 512 + following)
    assert "sparse" in torn
    assert os.listdir(tmp_path / "t") == []  # noqa: PTH208


def _negative_size() -> bytes:
    header = bytearray(tarfile.TarInfo("f").tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-(2**20)).to_bytes(12, "big", signed=True)
    return checked(header) + b"x" * 8 * MIB


def _globals() -> bytes:
    return b"".join(
        tarfile.TarInfo.create_pax_global_header({f"k{number}-{each}": "v" for each in range(200)})
        + plain(f"f{number}", b"")
        for number in range(40)
    )


def _headers_of_headers() -> bytes:
    return b"".join(plain("x", b"9 a=" + b"b" * 100_000, type=b"x") for _ in range(2000))


TORN: dict[str, Callable[[], bytes]] = {
    "negative size": _negative_size,
    "global headers without an end": _globals,
    "headers of headers": _headers_of_headers,
    "long names of long names": lambda: b"".join(plain("x", b"n" * 100_000, type=b"L") for _ in range(2000)),
}


@pytest.mark.parametrize("name", sorted(TORN))
async def test_a_malformed_header_ends_the_stream_with_a_sentence(tmp_path: Path, name: str) -> None:
    data = TORN[name]()
    read = 0

    def more() -> bytes:
        nonlocal read
        read += 4096
        return data[read - 4096 : read]

    (tmp_path / "t").mkdir()
    tally, root = TransferCounts(), os.open(tmp_path / "t", os.O_RDONLY)
    async with bystander(4 * LIMIT_S):
        torn = _take(root, tally, UNLIMITED, ForwardReader(more), links_inside=False)
    os.close(root)
    assert torn
    assert read < 2 * tar_stream.LARGEST_HEADER
    assert sum(each.stat().st_size for each in (tmp_path / "t").iterdir()) < MIB


@pytest.mark.parametrize("mtime", [2**70, -(2**70), 2**63, 2**40, -5, 0])
def test_a_time_that_no_file_system_keeps_is_clamped(tmp_path: Path, mtime: int) -> None:
    header = bytearray(tarfile.TarInfo("f").tobuf(tarfile.GNU_FORMAT))
    header[136:148] = bytes([0x80 if mtime >= 0 else 0xFF]) + mtime.to_bytes(11, "big", signed=True)
    tally, torn = grown(tmp_path / "t", checked(header) + plain("after", b"") + END)
    assert (torn, tally.count) == ("", 2)
    assert abs((tmp_path / "t/f").stat().st_mtime) <= abs(mtime)


@pytest.mark.parametrize("mtime", ["nan", "inf", "-inf", "1e400", "1e30"])
def test_a_time_of_pax_that_is_no_time_is_clamped(tmp_path: Path, mtime: str) -> None:
    info = tarfile.TarInfo("f")
    info.pax_headers = {"mtime": mtime}
    tally, torn = grown(tmp_path / "t", info.tobuf(tarfile.PAX_FORMAT) + plain("after", b"") + END)
    assert (torn, tally.count) == ("", 2)


def test_ordinary_entries_keep_content_and_time(tmp_path: Path) -> None:
    """The harmless neighbour."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("ü" * 90)
        info.size, info.mtime = 3, 1_700_000_000.5
        tar.addfile(info, io.BytesIO(b"abc"))
    _, torn = grown(tmp_path / "t", made.getvalue())
    [kept] = (tmp_path / "t").iterdir()
    assert (torn, kept.read_bytes(), kept.stat().st_mtime) == ("", b"abc", 1_700_000_000.5)


@pytest.mark.requirement("fault.S5")
def test_files_behind_second_names_count_until_the_last_name_is_gone(tmp_path: Path) -> None:
    def hard_link(name: str, first: str) -> bytes:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.LNKTYPE, first
        return info.tobuf(tarfile.GNU_FORMAT)

    # Each round keeps the file by another name, and takes its first name for an empty one.
    data = b"".join(plain("a", b"x" * MIB) + hard_link(f"kept{number}", "a") + plain("a", b"") for number in range(10))
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        with folder_quota(tmp_path, 4 * MIB) as quota, pytest.raises(TooLarge, match="transfer folder"):
            TarExtractor(root, TransferCounts(), quota, links_inside=True).take(forward(data + END))
    finally:
        os.close(root)
    assert sum(each.stat().st_blocks * 512 for each in tmp_path.iterdir()) <= 4 * MIB
    # The negative control: what has one name is counted no more once it is replaced.
    (once := tmp_path / "once").mkdir()
    root = os.open(once, os.O_RDONLY)
    try:
        with folder_quota(once, 4 * MIB) as quota:
            TarExtractor(root, TransferCounts(), quota, links_inside=True).take(
                forward(plain("a", b"x" * MIB) * 10 + END)
            )
    finally:
        os.close(root)


@pytest.mark.requirement("fault.S5")
def test_folders_that_lie_too_deep_in_each_other_are_left_out_and_told(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("d/" * 3000 + "x", "e/" * 150 + "x"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO(b""))
    tally, torn = grown(tmp_path / "t", made.getvalue())
    assert (torn, tally.count, tally.left) == ("", 1, 1)
    assert measure(tmp_path / "t") == 151 * ENTRY_BYTES, "the folder can be walked through, at the next transfer"
    bob = Caller("bob", Role.OPERATOR)
    with pytest.raises(InvalidInput, match="folders in each other"):
        local_place(bob, "d/" * 300 + "x", LocalFolders(tmp_path / "state"))
    assert local_place(bob, "d/" * 150 + "x", LocalFolders(tmp_path / "state")).quota_folder is not None


def test_a_folder_that_takes_a_stream_keeps_no_descriptor(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    grown(tmp_path / "t", _negative_size())
    root = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(tarfile.TarError):
        TarExtractor(root, TransferCounts(), links_inside=False).take(forward(b"x" * 512))
    os.close(root)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
