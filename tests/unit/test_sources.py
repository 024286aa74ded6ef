"""What is sent of local files: the SHA-256 of a file that somebody writes to, and the headers of a tree."""

import hashlib
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_ssh.transfers.local_files import Source, source
from mcp_ssh.transfers.local_tree import plain_header


def opened(path: Path) -> Source:
    found = source(path)
    assert found is not None
    while found.next():
        pass
    return found


@pytest.mark.requirement("file.upload")
@pytest.mark.parametrize(("now", "same"), [(b"abc", True), (b"abcd", True), (b"axc", False), (b"ab", False)])
def test_the_sum_of_what_was_read_counts_only_while_the_file_still_holds_it(
    tmp_path: Path, now: bytes, same: bool
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc")
    os.utime(path, (0, 0))  # its time must tell this write from the next one
    found = opened(path)
    path.write_bytes(now)
    assert found.sha256() == (hashlib.sha256(b"abc").hexdigest() if same else "")
    found.close()


@pytest.mark.requirement("file.transfer.tree")
@given(st.binary(min_size=1, max_size=100), *3 * (st.integers(0, 8**11 - 1),))
def test_a_plain_header_is_the_one_that_tarfile_makes(name: bytes, mode: int, size: int, mtime: int) -> None:
    name, mode = name.replace(b"\0", b"0"), mode & 0o777
    info = tarfile.TarInfo(os.fsdecode(name))
    info.mode, info.size, info.mtime = mode, size, mtime
    assert plain_header(name, mode, size, mtime) == info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
