"""The documented routes, described by the running server and called on a real host."""

import base64
import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from tests.fleet.hosts import Host
from tests.support.machine import outside
from tests.support.servers import Http, serve

CHECK = Path(__file__).parents[3] / "shared/contract/check.py"
ASKED = (("--family", "ssh_api"), ("--path", "/api/remote/known-hosts"))


@pytest.mark.requirement("http.contract")
@pytest.mark.skipif(
    not CHECK.exists(), reason="the documents are not beside this checkout; tests/contract/documented.py has the names"
)
async def test_the_served_document_lacks_nothing_that_is_documented(mcp_home: Path) -> None:
    async with serve(mcp_home) as server:
        for asked in ASKED:
            argv = [sys.executable, str(CHECK), server.url, *asked]
            run = functools.partial(subprocess.run, argv, capture_output=True, text=True, check=False)
            done = await anyio.to_thread.run_sync(run)
            assert done.returncode == 0, done.stdout
            assert len(done.stdout.splitlines()) == 1, done.stdout


async def body_of(server: Http, method: str, path: str, status: int = 200, **more: Any) -> Any:
    answer = await server.client.request(method, path, **more)
    assert answer.status_code == status, (method, path, answer.text)
    return answer.json()


@pytest.mark.requirement("http.contract")
async def test_every_documented_route_answers_on_a_real_host(mcp_home: Path, host: Host) -> None:
    async with serve(mcp_home) as server:
        said = await body_of(server, "GET", "/")
        assert {key: said[key] for key in ("status", "docs", "openapi")} == {
            "status": "running",
            "docs": "/docs",
            "openapi": "/openapi.json",
        }
        assert said["service"]
        assert said["version"]
        login = {
            "host": host.ip,
            "username": "dev",
            "key_content": base64.b64encode(host.key_path.read_bytes()).decode(),
        }
        refused = await body_of(server, "POST", "/session/connect", 409, json=login)
        offered = refused["detail"]["host_key"]
        fields = ("host", "port", "key_type", "public_key", "fingerprint_sha256")
        wrong = {field: offered[field] for field in fields} | {"fingerprint_sha256": "SHA256:" + "A" * 43}
        assert (await server.client.post("/api/remote/known-hosts/accept", json=wrong)).status_code in {400, 422}
        accepted = {field: offered[field] for field in fields}
        assert await body_of(server, "POST", "/api/remote/known-hosts/accept", json=accepted) == {"ok": True}
        opened = await body_of(server, "POST", "/session/connect", json=login)
        where = {"session_id": opened["session_id"]}
        assert (await body_of(server, "GET", f"/session/status/{opened['session_id']}"))["connected"] is True
        assert opened["session_id"] in (await body_of(server, "GET", "/session/list"))["sessions"]
        ran = await body_of(server, "POST", "/command/exec", params=where, json={"command": "id -un"})
        assert (ran["status"], ran["stdout"], ran["exit_code"]) == ("completed", "dev\n", 0)
        quick = await body_of(server, "GET", "/command/run", params={"cmd": "echo $((6 * 7))", "timeout": 30})
        assert quick["stdout"] == "42\n"
        path = "contract.txt"
        await outside(host, f"rm -f /home/dev/{path}")
        written = await body_of(server, "POST", "/file/write", params=where, json={"path": path, "content": "čau\n"})
        assert {key: written[key] for key in ("status", "size", "mode")} == {
            "status": "written",
            "size": 5,
            "mode": "overwrite",
        }
        assert await outside(host, f"cat /home/dev/{path}") == "čau\n"
        read = await body_of(server, "GET", "/file/read", params={**where, "path": path})
        assert read["content"] == "čau\n"
        stat = await body_of(server, "GET", "/file/stat", params={**where, "path": path})
        assert stat.keys() >= {"size", "mode", "uid", "gid", "atime", "mtime"}
        listed = await body_of(server, "GET", "/file/list", params={**where, "path": "."})
        item = next(each for each in listed["items"] if each["name"] == path)
        assert (item["size"], item["is_dir"]) == (5, False)
        assert item.keys() >= {"name", "size", "mode", "is_dir", "mtime"}
        assert listed["count"] == len(listed["items"])
        entries = (await body_of(server, "GET", "/api/remote/known-hosts/list"))["entries"]
        assert [each["fingerprint_sha256"] for each in entries] == [offered["fingerprint_sha256"]]
        gone = {"host": host.ip, "port": host.port, "key_type": offered["key_type"]}
        assert (await body_of(server, "POST", "/api/remote/known-hosts/remove", json=gone)) == {
            "ok": True,
            "changed": True,
        }
        closed = await body_of(server, "POST", f"/session/disconnect/{opened['session_id']}")
        assert closed == {"status": "disconnected", "session_id": opened["session_id"]}
        await body_of(server, "GET", f"/session/status/{opened['session_id']}", 404)
        for page in ("/docs", "/redoc", "/openapi.json"):
            assert (await server.client.get(page)).status_code == 200


@pytest.mark.requirement("session.connect.refused_login", "file.errors")
async def test_failures_of_the_machine_have_their_own_statuses(mcp_home: Path, host: Host) -> None:
    mcp_home.mkdir(mode=0o700)
    (mcp_home / "config.json").write_text('{"security": {"host_keys": "accept-new"}}')
    async with serve(mcp_home) as server:
        login = {"host": host.ip, "username": "ops", "password": "wrong"}
        answer = await server.client.post("/session/connect", json=login)
        assert (answer.status_code, answer.json()["code"]) == (401, "auth_failed")
        assert "www-authenticate" not in answer.headers
        unknown = await server.client.get("/session/list", headers={"authorization": "Bearer wrong"})
        assert (unknown.status_code, unknown.headers["www-authenticate"].split()[0]) == (401, "Bearer")
        await body_of(server, "POST", "/session/connect", json=login | {"password": host.password})
        await body_of(server, "GET", "/file/read", 404, params={"path": "/no/such/file"})
        await body_of(server, "GET", "/file/stat", 404, params={"path": "/no/such/file"})
        await body_of(server, "GET", "/file/read", 403, params={"path": "/etc/shadow"})
        await body_of(server, "POST", "/file/write", 403, json={"path": "/etc/passwd", "content": "x"})
        await body_of(server, "POST", "/command/exec", 404, params={"session_id": "0" * 12}, json={"command": "true"})
