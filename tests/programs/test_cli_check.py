"""`ssh-steward check` says what is wrong and what to do, and is quiet where nothing is."""

import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_ssh.ssh.demo.host import DemoHost, demo_host
from tests.support import cli_kit
from tests.support.cli_kit import needs_proc, on_terminal, run
from tests.support.demo import login, trust

pytestmark = pytest.mark.requirement("cli.check")


@pytest.fixture
async def host() -> AsyncIterator[DemoHost]:
    async with demo_host() as made:
        yield made


async def report(home: Path, *words: str, env: dict[str, str] | None = None) -> tuple[int, dict[str, dict[str, Any]]]:
    """Exit code, and the last finding of each kind."""
    done = await run("check", "--json", *words, home=home, env=env)
    assert done.err == ""
    return done.code, {each["check"]: each for each in json.loads(done.out)}


async def save(host: DemoHost, home: Path, **changes: object) -> None:
    given = json.dumps({"name": "web1", **json.loads(login(host, **changes))})
    added = await run("call", "connection_add", "-", home=home, stdin=given)
    assert added.code == 0, added.err


async def test_a_fresh_machine_is_in_order_and_stays_untouched(tmp_path: Path) -> None:
    code, found = await report(tmp_path)
    assert code == 0
    assert set(found) == {
        "python", "packages", "config", "state", "secrets", "identities", "agent", "known hosts"
    }  # fmt: skip
    assert {each["status"] for each in found.values()} <= {"ok", "warn"}
    assert not (tmp_path / "state").exists()


async def test_every_step_to_a_saved_machine_is_shown(host: DemoHost, tmp_path: Path) -> None:
    await trust(host, tmp_path)
    await save(host, tmp_path)
    for words in (["web1"], ["--all"]):
        code, found = await report(tmp_path, *words)
        assert code == 0, found
        assert found["web1: host key"]["status"] == found["web1: login"]["status"] == "ok"
        assert "answers in" in found["web1: port"]["message"]
        assert "exec" in found["web1: login"]["message"]
        assert "1 saved connection" in found["secrets"]["message"]


async def test_an_unknown_host_key_a_wrong_password_and_a_closed_port_each_name_the_next_step(
    host: DemoHost, tmp_path: Path
) -> None:
    await save(host, tmp_path, password="wrong")
    code, found = await report(tmp_path, "web1")
    assert code == 1
    assert host.fingerprint in found["web1: host key"]["message"]
    assert "ssh-steward call hostkey_accept" in found["web1: host key"]["next"]
    await trust(host, tmp_path)
    code, found = await report(tmp_path, "web1")
    assert code == 1
    assert found["web1: host key"]["status"] == "ok"
    assert found["web1: login"]["status"] == "fail"
    assert "password" in found["web1: login"]["next"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        code, found = await report(tmp_path, f"nobody@127.0.0.1:{port}")
    assert code == 1
    closed = found[f"nobody@127.0.0.1:{port}: port"]
    assert "connection refused" in closed["message"]
    assert "sshd" in closed["next"]
    code, found = await report(tmp_path, "nobody@no-such-name.invalid")
    assert code == 1
    assert found["nobody@no-such-name.invalid: name"]["status"] == "fail"


async def test_what_is_no_ssh_server_is_found_out(tmp_path: Path) -> None:
    async def say_nothing_of_ssh(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            await stream.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as server, anyio.create_task_group() as group:
        group.start_soon(server.serve, say_nothing_of_ssh)
        port = server.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 no Django here
        (tmp_path / "person/.ssh").mkdir(parents=True)
        make_key(tmp_path / "person/.ssh/id_ed25519")
        code, found = await report(tmp_path, f"u@127.0.0.1:{port}")
        group.cancel_scope.cancel()
    assert code == 1
    assert found[f"u@127.0.0.1:{port}: port"]["status"] == "ok"
    assert found[f"u@127.0.0.1:{port}: SSH"]["status"] == "fail"


async def test_a_wrong_config_and_open_files_are_found_and_machines_not_tried(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    (state / "config.json").write_text('{"ssh": {"tiemout": 3}}')
    code, found = await report(tmp_path, "web1")
    assert code == 1
    assert "tiemout" in found["config"]["message"]
    assert "config.example.json" in found["config"]["next"]
    assert "not tried" in found["machines"]["message"]
    (state / "config.json").write_text('{"auth": {"default_password": "hidden-word"}}')
    (state / "config.json").chmod(0o644)
    state.chmod(0o755)
    done = await run("check", home=tmp_path)
    assert done.code == 0
    assert "chmod 600" in done.out
    assert "chmod go=" in done.out
    assert "hidden-word" not in done.out


@needs_proc
@pytest.mark.requirement("fault.N7")
async def test_a_state_folder_that_cannot_be_written_is_named_by_check_and_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write everywhere, but for what it gave up.
    without = ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if os.geteuid() == 0 else ()
    monkeypatch.setattr(cli_kit, "COMMAND", (*without, *cli_kit.COMMAND))
    state, above, inside = tmp_path / "state", tmp_path / "above", tmp_path / "inside"
    state.mkdir()
    above.mkdir()
    assert (await run("token", "list", home=tmp_path, env={"MCP_SSH_HOME": str(inside)})).code == 0
    (inside / "state.db").chmod(0o400)
    for folder, closed, named in ((state, state, state), (above / "new", above, above), (inside, None, "state.db")):
        if closed is not None:
            closed.chmod(0o500)
        env = {"MCP_SSH_HOME": str(folder)}
        code, found = await report(tmp_path, env=env)
        assert (code, found["state"]["status"]) == (1, "fail")
        assert str(named) in found["state"]["message"]
        assert "MCP_SSH_HOME" in found["state"]["next"]
        for words in (["token", "list"], ["history"], ["call", "session_list", "{}"], ["serve", "--port", "0"]):
            done = await run(*words, home=tmp_path, env=env)
            assert done.code == 1
            assert str(folder) in done.failure
        for each in (state, above):
            each.chmod(0o700)
    code, found = await report(tmp_path)
    assert (code, found["state"]["status"]) == (0, "ok")


async def test_a_wrong_key_of_the_secrets_is_found(host: DemoHost, tmp_path: Path) -> None:
    await save(host, tmp_path)
    (tmp_path / "state/secrets.key").unlink()
    code, found = await report(tmp_path)
    assert code == 1
    assert "secrets.key" in found["secrets"]["message"]
    assert "put the secrets.key" in found["secrets"]["next"]


def make_key(path: Path, passphrase: str = "") -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-f", str(path)], check=True)


async def test_identities_agent_and_known_hosts_are_looked_at(tmp_path: Path) -> None:
    ssh = tmp_path / "person/.ssh"
    ssh.mkdir(parents=True)
    make_key(ssh / "id_ed25519")
    make_key(ssh / "id_ecdsa", "a passphrase")
    make_key(ssh / "id_rsa")
    (ssh / "id_rsa").chmod(0o644)
    (ssh / "id_broken").write_text("no key")
    (ssh / "id_broken").chmod(0o600)
    (ssh / "known_hosts").write_text(f"web1 {(ssh / 'id_ed25519.pub').read_text()}")
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(tmp_path / "agent")], stdout=subprocess.PIPE)
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        env = {"SSH_AUTH_SOCK": str(tmp_path / "agent")}
        _, found = await report(tmp_path, env=env)
        assert "holds no key" in found["agent"]["message"]
        subprocess.run(["ssh-add", "-q", str(ssh / "id_ed25519")], env=env, check=True)
        done = await run("check", "--json", home=tmp_path, env=env)
    finally:
        agent.terminate()
        agent.wait()
        agent.stdout.close()
    every = [(each["check"], each["status"], each["message"], each["next"]) for each in json.loads(done.out)]
    identities = {message.split(": ")[0].rpartition("/")[2]: (status, message, step)
                  for check, status, message, step in every if check == "identities"}  # fmt: skip
    assert set(identities) == {"id_ed25519", "id_ecdsa", "id_rsa", "id_broken"}
    assert identities["id_ed25519"][:2] == ("ok", "~/.ssh/id_ed25519: ssh-ed25519")
    assert "passphrase" in identities["id_ecdsa"][1]
    assert identities["id_rsa"][2] == "chmod 600 ~/.ssh/id_rsa"
    assert identities["id_broken"][0] == "warn"
    assert ("agent", "ok", f"the ssh-agent at {tmp_path}/agent holds 1 key", None) in every
    assert ("known hosts", "ok", "~/.ssh/known_hosts: 1 key", None) in every
    code, found = await report(tmp_path, env=env)
    assert code == 0
    assert found["agent"]["status"] == "warn"
    assert "does not answer" in found["agent"]["message"]


async def test_lines_are_plain_in_a_pipe_and_the_same_on_a_terminal(tmp_path: Path) -> None:
    plain = await run("check", home=tmp_path)
    assert "\x1b" not in plain.out
    assert plain.out.splitlines()[0].startswith("ok   python ")
    code, shown = await anyio.to_thread.run_sync(lambda: on_terminal(["check"], home=tmp_path))
    assert code == 0
    assert [line.split()[:2] for line in shown.splitlines()] == [line.split()[:2] for line in plain.out.splitlines()]


async def test_wrong_usage_is_one_line(tmp_path: Path) -> None:
    both = await run("check", "--all", "web1", home=tmp_path)
    assert both.code == 2
    assert "--all" in both.failure
