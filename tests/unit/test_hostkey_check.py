"""Handshakes with an in-process server: what is trusted, what is refused, and what the caller hears."""

import asyncio
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
import asyncssh
import pytest

from mcp_ssh.errors import ConnectFailed, HostKeyUnconfirmed, InvalidInput, Refused, TimedOut
from mcp_ssh.ssh.hostkeys.store import HostKeys
from tests.support.hostkeys import CA, ECDSA, KEY, LOOPBACK, OTHER, machine, text

RSA = asyncssh.generate_private_key("ssh-rsa", key_size=2048)


class Files:
    """A managed file and a user's, in a HOME of their own."""

    def __init__(self, folder: Path) -> None:
        self.managed = folder / "state" / "known_hosts"
        self.users = folder / "home" / ".ssh" / "known_hosts"
        for file in (self.managed, self.users):
            file.parent.mkdir(parents=True)

    def keys(self, policy: Literal["confirm", "accept-new"] = "confirm", *, reject_unknown: bool = False) -> HostKeys:
        return HostKeys(self.managed, [self.users], policy, reject_unknown)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return Files(tmp_path)


async def connect(host_keys: HostKeys, port: int, host: str = LOOPBACK) -> tuple[asyncssh.SSHKey | None, int]:
    """Connect as sessions/open.py does; the key of the machine, and the number of handshakes."""
    with anyio.fail_after(10):
        check = host_keys.client(await host_keys.load(), host, port)
        for handshakes in range(1, 4):
            try:
                async with asyncssh.connect(
                    host, port, config=None, username="tester", client_keys=None, **check.options()
                ) as connection:
                    return connection.get_server_host_key(), handshakes
            except asyncssh.HostKeyNotVerifiable as refusal:
                check = await host_keys.settle(check, refusal)
    raise AssertionError("settle asked for a fourth handshake")


async def refused(host_keys: HostKeys, port: int) -> HostKeyUnconfirmed:
    with pytest.raises(HostKeyUnconfirmed) as caught:
        await connect(host_keys, port)
    return caught.value


async def test_an_unknown_key_is_shown_in_the_documented_payload_and_after_accepting_it_the_machine_is_trusted(
    files: Files,
) -> None:
    host_keys = files.keys()
    async with machine(KEY) as port:
        error = await refused(host_keys, port)
        shown = error.details["host_key"]
        assert error.details == {
            "code": "HOST_KEY_CONFIRMATION_REQUIRED",
            "message": "Host key verification failed",
            "host_key": {
                "host": LOOPBACK,
                "port": port,
                "known_hosts_host": f"[{LOOPBACK}]:{port}",
                "key_type": "ssh-ed25519",
                "fingerprint_sha256": KEY.get_fingerprint(),
                "public_key": text(KEY),
                "reason": "unknown",
            },
        }
        assert KEY.get_fingerprint() in error.message
        assert error.hint
        assert "hostkey_accept" in error.hint
        assert "details.host_key" in error.hint
        assert not files.managed.exists()

        given = {name: shown[name] for name in ("host", "port", "key_type", "public_key", "fingerprint_sha256")}
        assert await host_keys.accept(**given)
        assert await connect(host_keys, port) == (KEY.convert_to_public(), 1)
        assert await connect(files.keys(), port) == (KEY.convert_to_public(), 1)


async def test_the_system_ssh_trusts_what_was_accepted(files: Files) -> None:
    if shutil.which("ssh") is None:
        pytest.skip("no ssh on this machine")
    async with machine(KEY) as port:
        shown = (await refused(files.keys(), port)).details["host_key"]

        async def ssh() -> int | None:
            argv = ["-F", "none", "-p", str(port), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
            argv += ["-o", f"UserKnownHostsFile={files.managed}", "-o", "GlobalKnownHostsFile=/dev/null"]
            process = await asyncio.create_subprocess_exec("ssh", *argv, f"tester@{LOOPBACK}", "true", stderr=-3)
            with anyio.fail_after(10):
                return await process.wait()

        assert await ssh() == 255
        for name in ("known_hosts_host", "reason"):
            del shown[name]
        await files.keys().accept(**shown)
        assert await ssh() == 0


async def test_accept_new_stores_an_unknown_key_and_goes_on(files: Files) -> None:
    async with machine(KEY) as port:
        assert (await connect(files.keys("accept-new"), port))[1] == 2
        assert files.managed.read_text() == f"[{LOOPBACK}]:{port} {text(KEY)}\n"
        assert (await connect(files.keys("confirm"), port))[1] == 1


async def test_accept_new_never_stores_a_name_that_would_speak_of_other_machines_too(files: Files) -> None:
    host_keys = files.keys("accept-new")
    async with machine(KEY) as port:
        check = host_keys.client(await host_keys.load(), "*", port)  # as an alias or a proxy command can have it
        with pytest.raises(asyncssh.HostKeyNotVerifiable) as refusal:
            await asyncssh.connect(LOOPBACK, port, config=None, username="tester", client_keys=None, **check.options())
        with pytest.raises(InvalidInput):
            await host_keys.settle(check, refusal.value)
    assert not files.managed.exists()


async def test_accept_new_replaces_no_key_that_another_process_stored_in_the_meantime(files: Files) -> None:
    host_keys = files.keys("accept-new")
    async with machine(KEY) as port:
        check = host_keys.client(await host_keys.load(), LOOPBACK, port)
        with pytest.raises(asyncssh.HostKeyNotVerifiable) as refusal:
            await asyncssh.connect(LOOPBACK, port, config=None, username="tester", client_keys=None, **check.options())
        await files.keys().accept(LOOPBACK, port, "ssh-ed25519", text(OTHER), OTHER.get_fingerprint())
        check = await host_keys.settle(check, refusal.value)
        assert files.managed.read_text() == f"[{LOOPBACK}]:{port} {text(OTHER)}\n"
        assert (await refused(host_keys, port)).details["host_key"]["reason"] == "changed"


@pytest.mark.parametrize("policy", ["confirm", "accept-new"])
async def test_a_changed_key_is_refused_naming_the_line_and_both_keys(
    files: Files, policy: Literal["confirm", "accept-new"]
) -> None:
    async with machine(KEY) as port:
        before = f"# one\n\n[{LOOPBACK}]:{port} {text(OTHER)}\n"
        files.managed.write_text(before)
        error = await refused(files.keys(policy), port)
    assert "CHANGED" in error.message
    assert "the managed known_hosts, line 3" in error.message
    assert KEY.get_fingerprint() in error.message
    assert OTHER.get_fingerprint() in error.message
    shown = error.details["host_key"]
    assert (shown["reason"], shown["public_key"]) == ("changed", text(KEY))
    assert shown["expected_fingerprint_sha256"] == OTHER.get_fingerprint()
    assert shown["expected_public_key"] == text(OTHER)
    assert str(files.managed.parent) not in f"{error.message} {error.hint} {error.details}"
    assert files.managed.read_text() == before


async def test_a_key_that_changed_after_it_was_trusted_is_refused_by_the_same_object(files: Files) -> None:
    host_keys = files.keys("accept-new")
    async with machine(KEY) as port:
        await connect(host_keys, port)
    files.managed.write_text(files.managed.read_text().replace(text(KEY), text(OTHER)))
    async with machine(KEY) as another:
        files.managed.write_text(f"[{LOOPBACK}]:{another} {text(OTHER)}\n")
        assert (await refused(host_keys, another)).details["host_key"]["reason"] == "changed"


async def test_a_changed_key_in_the_users_file_has_to_be_removed_there(files: Files) -> None:
    async with machine(KEY) as port:
        files.users.write_text(f"[{LOOPBACK}]:{port} {text(OTHER)}\n")
        error = await refused(files.keys(), port)
    assert "~/.ssh/known_hosts, line 1" in error.message
    assert error.hint
    assert f"ssh-keygen -R '[{LOOPBACK}]:{port}' -f ~/.ssh/known_hosts" in error.hint


@pytest.mark.parametrize("policy", ["confirm", "accept-new"])
async def test_a_machine_that_lost_the_key_we_know_has_changed_even_if_it_shows_another_type(
    files: Files, policy: Literal["confirm", "accept-new"]
) -> None:
    async with machine(ECDSA) as port:
        files.managed.write_text(f"[{LOOPBACK}]:{port} {text(KEY)}\n")
        error = await refused(files.keys(policy), port)
    shown = error.details["host_key"]
    assert (shown["reason"], shown["key_type"]) == ("changed", "ecdsa-sha2-nistp256")
    assert shown["expected_public_key"] == text(KEY)


@pytest.mark.parametrize("known", [KEY, ECDSA, RSA])
async def test_a_machine_with_several_keys_shows_the_one_we_know(files: Files, known: asyncssh.SSHKey) -> None:
    async with machine(RSA, ECDSA, KEY) as port:
        files.users.write_text(f"[{LOOPBACK}]:{port} {text(known)}\n")
        assert await connect(files.keys(), port) == (known.convert_to_public(), 1)


async def test_a_machine_we_do_not_know_is_asked_for_its_best_key(files: Files) -> None:
    async with machine(RSA, ECDSA, KEY) as port:
        assert (await refused(files.keys(), port)).details["host_key"]["key_type"] == "ssh-ed25519"


async def test_a_key_under_the_bare_name_is_trusted_on_another_port(files: Files) -> None:
    async with machine(KEY) as port:
        files.users.write_text(f"{LOOPBACK} {text(KEY)}\n")
        assert (await connect(files.keys(), port))[1] == 1
        files.users.write_text(f"{LOOPBACK} {text(OTHER)}\n")
        assert (await refused(files.keys(), port)).details["host_key"]["reason"] == "unknown"


@pytest.mark.parametrize("policy", ["confirm", "accept-new"])
@pytest.mark.parametrize("reject_unknown", [False, True])
async def test_a_revoked_key_is_refused_whatever_else_trusts_it(
    files: Files, policy: Literal["confirm", "accept-new"], *, reject_unknown: bool
) -> None:
    async with machine(KEY) as port:
        files.managed.write_text(f"[{LOOPBACK}]:{port} {text(KEY)}\n")
        files.users.write_text(f"\n@revoked * {text(KEY)}\n")
        with pytest.raises(Refused, match=r"revoked by ~/\.ssh/known_hosts, line 2") as caught:
            await connect(files.keys(policy, reject_unknown=reject_unknown), port)
        assert KEY.get_fingerprint() in caught.value.message


async def test_with_reject_unknown_neither_unknown_nor_changed_keys_can_be_accepted(files: Files) -> None:
    host_keys = files.keys("accept-new", reject_unknown=True)
    async with machine(KEY) as port:
        with pytest.raises(Refused, match="unknown"):
            await connect(host_keys, port)
        with pytest.raises(Refused, match="reject_unknown_hosts"):
            await host_keys.accept(LOOPBACK, port, "ssh-ed25519", text(KEY), KEY.get_fingerprint())
        files.users.write_text(f"[{LOOPBACK}]:{port} {text(OTHER)}\n")
        with pytest.raises(Refused, match="CHANGED"):
            await connect(host_keys, port)
        files.users.write_text(f"[{LOOPBACK}]:{port} {text(KEY)}\n")
        assert (await connect(host_keys, port))[1] == 1
    assert not files.managed.exists()


def certified(signer: asyncssh.SSHKey, key: asyncssh.SSHKey = KEY, principals: Sequence[str] = (LOOPBACK,)) -> Any:
    return key, signer.generate_host_certificate(key, "id", principals=principals)


async def test_a_certificate_of_a_known_authority_is_trusted(files: Files) -> None:
    async with machine(certified(CA)) as port:
        files.users.write_text(f"@cert-authority *:{port} {text(CA)}\n")
        assert (await connect(files.keys(), port))[1] == 1


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda: certified(OTHER), "CA key is not trusted"),
        (lambda: certified(CA, principals=["elsewhere"]), "principal mismatch"),
    ],
)
@pytest.mark.parametrize("policy", ["confirm", "accept-new"])
async def test_a_certificate_that_is_not_believed_leaves_the_plain_key_to_decide(
    files: Files, certificate: Callable[[], Any], reason: str, policy: Literal["confirm", "accept-new"]
) -> None:
    async with machine(certificate()) as port:
        files.users.write_text(f"@cert-authority * {text(CA)}\n")
        error = await refused(files.keys(policy), port)
        assert reason in error.message
        assert error.details["host_key"]["public_key"] == text(KEY)
        assert error.details["host_key"]["reason"] == "unknown"
        files.users.write_text(f"@cert-authority * {text(CA)}\n[{LOOPBACK}]:{port} {text(KEY)}\n")
        assert (await connect(files.keys(), port))[1] == 2


@pytest.mark.parametrize("gone", [KEY, CA])
async def test_a_certificate_is_refused_when_its_key_or_its_authority_is_revoked(
    files: Files, gone: asyncssh.SSHKey
) -> None:
    async with machine(certified(CA)) as port:
        files.users.write_text(f"@cert-authority * {text(CA)}\n@revoked * {text(gone)}\n")
        with pytest.raises(Refused, match=r"revoked by ~/\.ssh/known_hosts, line 2"):
            await connect(files.keys(), port)


async def test_a_machine_with_certificates_but_no_known_authority_is_known_by_its_plain_key(files: Files) -> None:
    async with machine(certified(CA)) as port:
        assert (await refused(files.keys(), port)).details["host_key"]["public_key"] == text(KEY)
        assert (await connect(files.keys("accept-new"), port))[1] == 2


async def test_a_machine_that_shows_no_plain_key_though_one_was_asked_for_is_refused_at_once(files: Files) -> None:
    host_keys = files.keys("accept-new")
    check = host_keys.client(await host_keys.load(), LOOPBACK, 22)
    refusal = asyncssh.HostKeyNotVerifiable("Host CA key is not trusted for host x")
    with pytest.raises(Refused, match="cannot be verified: Host CA key is not trusted"):
        await host_keys.settle(check, refusal)


async def test_no_trust_comes_from_the_users_files_that_asyncssh_reads_by_itself(files: Files) -> None:
    async with machine(KEY) as port:
        files.users.write_text(f"[{LOOPBACK}]:{port} {text(KEY)}\n")
        alone = HostKeys(files.managed, [], "confirm", reject_unknown=False)
        assert (await refused(alone, port)).details["host_key"]["reason"] == "unknown"


async def test_a_file_that_cannot_be_read_refuses_every_machine(files: Files) -> None:
    files.users.symlink_to(files.users)
    with pytest.raises(Refused, match=r"~/\.ssh/known_hosts cannot be read"):
        await files.keys().load()


async def test_what_was_read_is_kept_until_a_file_changes(files: Files) -> None:
    host_keys = files.keys()
    files.users.write_text(f"web1 {text(KEY)}\n")
    first = await host_keys.load()
    assert await host_keys.load() is first
    files.users.write_text(f"web2 {text(KEY)}\n")
    assert [entry.names for entry in (await host_keys.load()).entries] == ["web2"]
    files.users.unlink()
    assert (await host_keys.load()).entries == ()


async def test_a_scan_finds_every_type_and_says_what_each_is(files: Files) -> None:
    host_keys = files.keys()
    async with machine(RSA, ECDSA, KEY) as port:
        name = f"[{LOOPBACK}]:{port}"
        files.users.write_text(f"{name} {text(OTHER)}\n{name} {text(ECDSA)}\n@revoked * {text(RSA)}\n")
        found = await host_keys.scan(LOOPBACK, port, 10)
        assert {(key.public_key, key.known) for key in found} == {
            (text(KEY), "changed"),
            (text(ECDSA), "trusted"),
            (text(RSA), "revoked"),
        }
        assert [key.fingerprint_sha256 for key in found if key.known == "changed"] == [KEY.get_fingerprint()]
        files.users.write_text(f"{name} {text(ECDSA)}\n")
        assert {key.key_type: key.known for key in await host_keys.scan(LOOPBACK, port, 10)} == {
            "ssh-ed25519": "unknown",
            "ecdsa-sha2-nistp256": "trusted",
            "ssh-rsa": "unknown",
        }
    assert not files.managed.exists()


async def test_a_scan_of_nothing_fails_of_silence_ends_at_its_deadline_and_of_nonsense_is_refused(files: Files) -> None:
    with socket.socket() as silent:
        silent.bind((LOOPBACK, 0))
        port = silent.getsockname()[1]
        with pytest.raises(ConnectFailed):
            await files.keys().scan(LOOPBACK, port, 5)
        silent.listen()
        with anyio.fail_after(5), pytest.raises(TimedOut, match=r"after 0\.2 s"):
            await files.keys().scan(LOOPBACK, port, 0.2)
    for nonsense in ("two words", "a" * 300, "*", ""):
        with pytest.raises(InvalidInput):
            await files.keys().scan(nonsense, 22, 1)
    with pytest.raises((InvalidInput, ConnectFailed)):
        await files.keys().scan("." + "a" * 200, 22, 5)
