"""Outputs that are larger than what a blob keeps."""

import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import blob, command
from tests.fleet.hosts import Host
from tests.support.doors import Direct
from tests.support.transfers import opened


@pytest.mark.requirement("fault.C9.blob_size")
async def test_a_blob_that_has_only_the_start_of_an_output_says_so_in_the_result(app: App, deb: Host) -> None:
    on = await opened(Direct(app), app, deb)
    app.blobs._per_call = 100_000
    noisy = "head -c {} /dev/zero | tr '\\0' x"
    line = f"{noisy.format(300_000)}; {{ {noisy.format(50_000)}; }} >&2"
    both = await on.call(command.run_command, command=line, max_output_bytes=8192)
    assert (both["stdout_bytes"], both["stdout_blob_bytes"]) == (300_000, 100_000)
    page = await on.way.call(blob.read, {"blob_id": both["stdout_blob"]})
    assert (page["total_bytes"], page["complete"]) == (100_000, False)
    # The harmless neighbour has all.
    assert both["stderr_bytes"] == 50_000
    assert "stderr_blob_bytes" not in both
    assert (await on.way.call(blob.read, {"blob_id": both["stderr_blob"]}))["complete"]
