"""The guide of SSH~Api, sent as it stands to a live server that administers a real host."""

import functools
import json
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.fleet.hosts import Host
from tests.support.guide import AFTER, BEFORE, GUIDE, Asked
from tests.support.servers import Http, serve

pytestmark = pytest.mark.anyio


def filled(value: Any, known: dict[str, str]) -> Any:
    """With `{name}` replaced by what is known of it."""
    text = json.dumps(value)
    for name, word in known.items():
        text = text.replace(f"{{{name}}}", word)
    return json.loads(text)


async def ask(server: Http, asked: Asked, known: dict[str, str]) -> dict[str, Any]:
    method, target = filled(asked.request, known).split(" ")
    body = filled(asked.body, known)
    answer = await server.client.request(method, target, json=body)
    assert answer.status_code == 200, (asked.request, answer.text)
    said = answer.json()
    assert not set(asked.keys.split()) - said.keys(), (asked.request, said)
    # What can fail softly did not.
    assert said.get("success", True) is True, (asked.request, said)
    if asked.saves:
        known[asked.saves] = said[asked.saves]
    return said


async def root(host: Host, script: str) -> None:
    await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-c", script]))


@pytest.mark.requirement("http.contract")
@pytest.mark.parametrize("mode", ["token", "none"])
async def test_every_request_of_the_guide_is_answered_as_it_says(
    mcp_home: Path, deb: Host, mode: str, tmp_path: Path
) -> None:
    """With a token added, and as it is written."""
    mcp_home.mkdir(mode=0o700)
    local = tmp_path / "local"
    local.mkdir()
    (local / "index.html").write_text("<p>page")
    config = {
        "server": {"auth_mode": mode},
        "security": {"host_keys": "accept-new"},
        "sftp": {"local_folders": [str(local)]},
        "auth": {"default_host": deb.ip, "default_username": "root", "default_key_path": str(deb.key_path)},
    }
    (mcp_home / "config.json").write_text(json.dumps(config))
    await root(deb, BEFORE)
    try:
        async with serve(mcp_home) as server:
            if mode == "none":
                del server.client.headers["authorization"]
            given = {"host": deb.ip, "username": "ops", "password": deb.password}
            keys = "status session_id host username features"
            by_password = await ask(server, Asked("POST /session/connect", keys, given), {})
            await ask(server, Asked(f"POST /session/disconnect/{by_password['session_id']}", "status session_id"), {})
            known = {"local": str(local)}
            opened = await ask(server, Asked("POST /session/connect", keys, {}, "session_id"), known)
            assert opened["features"] == ["sftp", "shell", "exec", "background_tasks", "tunnels"]
            said = [(each, await ask(server, each, known)) for each in GUIDE]
    finally:
        await root(deb, AFTER)
    assert (local / "app.log").read_text() == "error: none\n"
    setup = next(answer for asked, answer in said if asked.request == "POST /setup/requirements")
    assert setup["platform"].keys() >= {"os", "family", "pretty_name", "version_id"}
    assert setup["output"].startswith("[PLATFORM] ")
    assert (setup["installed"], setup["failed"]) == ([], ["nginx", "docker.io"])  # the fleet's repositories lack both
