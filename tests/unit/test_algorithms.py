"""What machines are offered: the policy's lists, as the owner's ssh_config orders them."""

import asyncssh
import pytest
from asyncssh.encryption import get_encryption_algs
from asyncssh.kex import get_kex_algs
from asyncssh.mac import get_mac_algs
from asyncssh.public_key import get_public_key_algs

from mcp_ssh.config.models import SecurityConfig
from mcp_ssh.errors import Unsupported
from mcp_ssh.host_patterns import Machine, admits
from mcp_ssh.ssh.dial import algorithms
from mcp_ssh.ssh.dial.algorithms import CIPHERS, HOST_KEYS, KEX, MACS, Algorithms, choose

OLD = Machine.of(["old.example.org", "10.0.0.9"])


def chosen(security: dict[str, object] | None = None, **options: str) -> Algorithms:
    config = SecurityConfig.model_validate(security or {})
    return choose(config.disabled_algorithms, options, OLD, sha1=admits(OLD, config.sha1_hosts))


def test_asyncssh_has_everything_that_may_be_offered() -> None:
    names = vars(algorithms)
    for known, ours in (
        (get_kex_algs(), ("KEX", "MORE_KEX", "SHA1_KEX")),
        (get_encryption_algs(), ("CIPHERS", "MORE_CIPHERS")),
        (get_mac_algs(), ("MACS",)),
        (get_public_key_algs(), ("HOST_KEYS", "SIGNATURES")),
    ):
        assert {each for name in ours for each in names[name]} <= {each.decode() for each in known}
    assert asyncssh.SSHClientConnectionOptions(config=None, kex_algs=KEX, signature_algs=algorithms.SIGNATURES)


@pytest.mark.requirement("fault.S13.sha1")
def test_sha1_is_offered_to_machines_that_the_config_names_and_to_no_others() -> None:
    for hosts, sha1 in (([], False), (["web*"], False), (["old.*"], True), (["10.0.0.0/24"], True), (["*"], True)):
        found = chosen(
            {"sha1_hosts": hosts}, hostkeyalgorithms="+ssh-rsa", kexalgorithms="+diffie-hellman-group14-sha1"
        )
        assert ("ssh-rsa" in found.host_keys, "ssh-rsa" in found.signatures) == (sha1, sha1)
        assert ("diffie-hellman-group14-sha1" in found.kex) is sha1
        assert found.left_out == (() if sha1 else ("diffie-hellman-group14-sha1", "ssh-rsa"))
    assert not any("sha1" in each for each in chosen().kex)


@pytest.mark.requirement("fault.S13.sha1")
def test_the_owners_lists_mean_what_ssh_config_says() -> None:
    assert chosen() == Algorithms(KEX, CIPHERS, MACS, HOST_KEYS)
    assert chosen(ciphers="aes256-ctr,aes128-ctr").ciphers == ("aes256-ctr", "aes128-ctr")
    assert chosen(ciphers="+aes256-cbc").ciphers == (*CIPHERS, "aes256-cbc")
    assert chosen(ciphers="^aes128-ctr").ciphers[:2] == ("aes128-ctr", CIPHERS[0])
    assert chosen(ciphers="-*gcm*,chacha*").ciphers == ("aes256-ctr", "aes192-ctr", "aes128-ctr")
    assert chosen(macs="-*sha1*").macs == MACS[:4]
    assert chosen(hostkeyalgorithms="ssh-ed25519-cert-v01@openssh.com,ssh-ed25519").host_keys == ("ssh-ed25519",)
    assert (
        chosen(kexalgorithms="+diffie-hellman-group-exchange-sha256").kex[-1] == "diffie-hellman-group-exchange-sha256"
    )
    assert chosen(ciphers="+3des-cbc,aes128-cbc").left_out == ("3des-cbc",)


@pytest.mark.requirement("fault.S13.sha1")
def test_what_is_disabled_comes_back_by_no_list() -> None:
    for area, option, name in (
        ("kex", "kexalgorithms", "ecdh-sha2-nistp256"),
        ("host_keys", "hostkeyalgorithms", "ecdsa-sha2-nistp256"),
        ("ciphers", "ciphers", "aes128-ctr"),
        ("macs", "macs", "hmac-sha1"),
    ):
        security = {"disabled_algorithms": {area: [name]}}
        for asked in ("+", "^", ""):
            found = chosen(security, **{option: f"{asked}{name},*"})
            assert name not in (*found.kex, *found.ciphers, *found.macs, *found.host_keys)
        with pytest.raises(Unsupported, match=name):
            chosen(security, **{option: name})
    assert "rsa-sha2-256" not in chosen({"disabled_algorithms": {"host_keys": ["rsa-sha2-256"]}}).signatures
    with pytest.raises(Unsupported, match=r"security\.disabled_algorithms"):
        chosen({"disabled_algorithms": {"macs": [*MACS]}})
