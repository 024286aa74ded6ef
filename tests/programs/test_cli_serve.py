"""`ssh-steward serve` lets its owner in, says where it listens, and logs without telling."""

import datetime
import ipaddress
import json
import os
import pty
import signal
import ssl
import stat
import subprocess
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mcp_ssh.cli import mcp_client
from mcp_ssh.ssh.demo.host import demo_host
from tests.support.cli_kit import COMMAND, ROOT, environment, run, running

TOKEN = "the-token-of-this-test-0123456789"
PRESET = {"MCP_SSH_TOKEN": TOKEN}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def status(url: str, token: str) -> int:
    async with httpx2.AsyncClient(trust_env=False) as client:
        return (await client.get(f"{url}/session/list", headers=bearer(token))).status_code


@pytest.mark.requirement("fault.S13.first_token")
@pytest.mark.parametrize("as_json", [False, True])
async def test_the_first_start_of_a_service_keeps_its_token_out_of_the_log(tmp_path: Path, as_json: bool) -> None:
    words = ["serve", "--port", "0", *(["--log-json"] if as_json else [])]
    async with running(*words, home=tmp_path) as server:
        file = Path((await server.until(r"made the token admin; it is in (\S+),")).group(1))
        url = (await server.until(r"listening on (http://[0-9.:]+)")).group(1)
        secret = file.read_text().strip()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert file == tmp_path / "state/first-token"
        assert url.startswith("http://127.0.0.1:")
        assert await status(url, secret) == 200
        assert await status(url, secret + "x") == 401
        assert await server.end() == 0
        assert secret not in server.said["out"] + server.said["err"]
    file.unlink()
    state = b"".join(path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())
    assert secret.encode() not in state
    async with running("serve", "--port", "0", home=tmp_path) as server:
        url = (await server.until(r"serves (\S+) ")).group(1)
        assert await status(url, secret) == 200
        assert await server.end(signal.SIGINT) == 0
        assert "token" not in server.said["err"]


@pytest.mark.requirement("fault.S13.first_token")
async def test_the_first_start_on_a_terminal_shows_its_token_there(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0"], stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT,
        env=environment(tmp_path, TERM="xterm"),
    )  # fmt: skip
    os.close(theirs)
    try:
        shown = await anyio.to_thread.run_sync(_read_until, ours, b"serves ")
        assert b"shown only now: mcpssh_" in shown
        assert not (tmp_path / "state/first-token").exists()
    finally:
        process.terminate()
        await anyio.to_thread.run_sync(process.wait)
        os.close(ours)


def _read_until(handle: int, text: bytes) -> bytes:
    shown = b""
    while text not in shown:
        shown += os.read(handle, 65536)
    return shown


@pytest.mark.requirement("fault.S13.first_token")
async def test_a_first_token_that_cannot_be_written_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "state/first-token.new").mkdir(parents=True)
    (tmp_path / "state").chmod(0o700)
    done = await run("serve", "--port", "0", home=tmp_path)
    assert done.code == 1
    assert f"the first token cannot be written to {tmp_path}/state/first-token" in done.failure
    assert json.loads((await run("token", "list", "--json", home=tmp_path)).out) == []


async def test_a_token_revoked_from_the_command_line_is_worthless_at_once(tmp_path: Path) -> None:
    secret = (await run("token", "add", "ci", "--role", "admin", home=tmp_path)).out.strip()
    async with running("serve", "--port", "0", home=tmp_path) as server:
        url = (await server.until(r"serves (\S+) ")).group(1)
        assert await status(url, secret) == 200
        assert (await run("token", "revoke", "ci", home=tmp_path)).code == 0
        assert await status(url, secret) == 401


async def test_the_token_of_the_environment_opens_and_is_not_stored(tmp_path: Path) -> None:
    async with running("serve", "--port", "0", home=tmp_path, env=PRESET) as server:
        url = (await server.until(r"serves (\S+) ")).group(1)
        assert await status(url, TOKEN) == 200
        assert await server.end() == 0
        assert TOKEN not in server.said["err"]
    assert json.loads((await run("token", "list", "--json", home=tmp_path)).out) == []


async def test_toolsets_and_read_only_hold_for_what_clients_see(tmp_path: Path) -> None:
    words = ["serve", "--port", "0", "--toolsets", "session,file", "--read-only"]
    async with running(*words, home=tmp_path, env=PRESET) as server:
        url = (await server.until(r"serves (\S+) ")).group(1)
        async with mcp_client.connect_client(f"{url}/mcp", TOKEN) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"session_connect", "file_read"} <= names
        assert not names & {"file_write", "command_exec", "hostkey_list"}
        async with httpx2.AsyncClient(trust_env=False) as client:
            answer = await client.post(f"{url}/command/exec", json={"command": "id"}, headers=bearer(TOKEN))
        assert answer.status_code == 403


async def test_with_a_certificate_it_speaks_https_on_any_address(tmp_path: Path) -> None:
    certificate, key = _self_signed(tmp_path)
    words = ["serve", "--host", "0.0.0.0", "--port", "0", "--tls-cert", certificate, "--tls-key", key]
    async with running(*words, home=tmp_path, env=PRESET) as server:
        url = (await server.until(r"serves (https://\S+) ")).group(1)
        assert "listening on https://0.0.0.0:" in server.said["err"]
        trusted = ssl.create_default_context(cafile=certificate)
        async with httpx2.AsyncClient(trust_env=False, verify=trusted) as client:
            answer = await client.get(f"{url}/session/list", headers=bearer(TOKEN))
        assert answer.status_code == 200, "the address that is shown is one that the server answers to"


def _self_signed(folder: Path) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(paths[0]), str(paths[1])


@pytest.mark.parametrize("as_json", [False, True])
async def test_the_log_tells_no_command_no_output_and_no_secret(tmp_path: Path, *, as_json: bool) -> None:
    state, logs = tmp_path / "state", tmp_path / "logs"
    state.mkdir(mode=0o700)
    settings = {"logging": {"directory": str(logs)}, "security": {"host_keys": "accept-new"}}
    (state / "config.json").write_text(json.dumps(settings))
    words = ["serve", "--port", "0", *(["--log-json"] if as_json else [])]
    async with demo_host() as host, running(*words, home=tmp_path, env=PRESET) as server:
        url = (await server.until(r"listening on (http://[0-9.:]+)")).group(1)
        async with httpx2.AsyncClient(trust_env=False, headers=bearer(TOKEN), timeout=30) as client:
            login = {"host": host.host, "port": host.port, "username": host.username, "password": host.password}
            assert (await client.post(f"{url}/session/connect", json=login)).status_code == 200
            done = await client.post(
                f"{url}/command/exec", json={"command": "echo very$((40+2))private", "env": {"KEY": "sesame"}}
            )
            assert done.json()["stdout"] == "very42private\n"
            late = await client.post(f"{url}/command/exec", json={"command": "sleep 601", "timeout": 0.2})
            assert late.json()["status"] == "timed_out"
        assert await server.end() == 0
        log = logs / "mcp-ssh.log"
        text = log.read_text()
    assert "listening on" in text
    for told in ("very", "private", "sesame", "sleep 601", host.password, TOKEN):
        assert told not in text
        assert told not in server.said["err"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(logs.stat().st_mode) == 0o700
    if as_json:
        for line in (*text.splitlines(), *server.said["err"].splitlines()):
            assert {"time", "level", "logger", "message"} <= set(json.loads(line))


async def test_a_log_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "config.json").write_text('{"logging": {"directory": "/dev/null/x"}}')
    done = await run("serve", "--port", "0", home=tmp_path)
    assert done.code == 1
    assert "logging.directory" in done.failure


@pytest.mark.parametrize("command", ["serve", "stdio", "check"])
async def test_consent_for_a_tool_that_is_none_is_told_at_the_start(tmp_path: Path, command: str) -> None:
    """A misspelled name would silently ask for nothing."""
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state/config.json").write_text('{"security": {"confirm_tools": ["comand_exec"]}}')
    done = await run(command, *(["--port", "0"] if command == "serve" else []), home=tmp_path, env=PRESET)
    assert done.code == 1
    assert "'comand_exec'" in done.out + done.err
    assert "command_exec" in (done.out + done.err).replace("'comand_exec'", "")
