"""Errors say what they say now."""

import pytest

from mcp_ssh.errors import RemoteFailed


@pytest.mark.requirement("fault.N13")
def test_an_error_that_was_made_more_precise_says_so_in_its_text_too() -> None:
    error = RemoteFailed("the link was lost")
    error.message += "; 3 files were downloaded all the same"
    assert str(error) == error.payload()["message"] == "the link was lost; 3 files were downloaded all the same"
