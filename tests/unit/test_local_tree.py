"""A folder on its way as a tar stream while somebody works in it."""

import os
from pathlib import Path

import pytest

from mcp_ssh.errors import Conflict
from mcp_ssh.transfers import local_files
from mcp_ssh.transfers.local_tree import TransferCounts, archive


@pytest.mark.requirement("file.transfer.tree")
def test_a_file_that_is_removed_meanwhile_is_named_and_not_its_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    root = local_files.enter(tmp_path)
    try:
        pieces = archive(root, TransferCounts())
        next(pieces)
        next(pieces)  # the names of the folder were read
        (tmp_path / "b").unlink()
        with pytest.raises(Conflict, match="'b' in it was removed meanwhile"):
            list(pieces)
    finally:
        os.close(root)
