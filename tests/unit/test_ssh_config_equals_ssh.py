"""~/.ssh/config as we read it and as the system's ssh does: the same machine, account, keys, way and trust."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from mcp_ssh.ssh.openssh_config.resolve import (
    DEFAULT_GLOBAL_KNOWN_HOSTS,
    DEFAULT_IDENTITIES,
    DEFAULT_USER_KNOWN_HOSTS,
    Settings,
    local_user,
    settings,
)

NAMES = ("web1", "web2", "db", "DB", "db.example.org", "10.0.0.7", "::1", "inner-1")
PATTERNS = ("web1", "web?", "web*", "db", "*.example.org", "*", "!web2", "10.*", "inner-1", "::1", "DB", "db*")

pytestmark = pytest.mark.skipif(shutil.which("ssh") is None, reason="needs the system's ssh to compare with")


def option(pick: random.Random) -> str:
    """One line of options, in one of the many ways of writing it."""
    values = {
        "HostName": ["%h.example.org", "10.1.2.3", "Upper.Example.ORG", "fd00::7", '"%h"', "100%%.example"],
        "Port": ["22", "2222", "ssh", "65535"],
        "User": ["ops", "dev", '"odd name"', "a.b"],
        "IdentityFile": [
            "~/.ssh/id_%h",
            "/keys/%n_%r",
            '"/with blank/%%x"',
            "none",
            "rel/ative",
            r"/a\ b",
            "${HOME}/k",
        ],
        "CertificateFile": ["~/.ssh/c-cert.pub", "none", "'/q/c'"],
        "ProxyJump": ["hop", "ops@hop:2022", "a,b,ops@[::1]:22", "none", "ssh://me@hop:7", "10.0.0.1 # why"],
        "ProxyCommand": ["nc %h %p", "none", '"/opt/my nc" -x %h:%p # kept', "ssh -W [%h]:%p hop"],
        "UserKnownHostsFile": ["~/.ssh/kh", "/dev/null", '"/k h" /other/%n', "none"],
        "GlobalKnownHostsFile": ["/etc/kh", "/dev/null"],
        "ConnectTimeout": ["5", "1m30s", "none"],
        "ServerAliveInterval": ["15", "1m", "0"],
        "HostKeyAlias": ["alias", "%h"],
        "IdentityAgent": ["none", "~/.agent", "SSH_AUTH_SOCK", "/run/%u"],
        "IdentitiesOnly": ["yes", "no", "TRUE"],
        "StrictHostKeyChecking": ["no", "yes", "accept-new"],
        "ForwardAgent": ["yes"],
        "Compression": ["no"],
    }
    keyword = pick.choice(list(values))
    value = pick.choice(values[keyword])
    glue = pick.choice([" ", "=", " = ", "\t", "  "])
    comment = pick.choice(["", "", " # said"]) if not keyword.startswith("Proxy") else ""
    return (
        pick.choice(["", "  ", "\t"])
        + pick.choice([keyword, keyword.lower(), keyword.upper()])
        + glue
        + value
        + comment
    )


def condition(pick: random.Random) -> str:
    some = ",".join(pick.sample(PATTERNS, pick.randint(1, 2)))
    return pick.choice(
        [
            f"Host {' '.join(pick.sample(PATTERNS, pick.randint(1, 3)))}",
            f'Host "{pick.choice(PATTERNS)}" {pick.choice(PATTERNS)} # some',
            f"Match host {some}",
            f"Match originalhost={some}",
            f"Match !originalhost {some} user ops",
            f'Match user "{pick.choice(["ops", "dev", "*"])}" host {some}',
            f"Match localuser {pick.choice([local_user(), 'nobody'])}",
            f"Match final host {some}",
            "Match final",
            "Match !final",
            "Match canonical",
            "Match all",
            f'Match host {some} exec "{pick.choice(["true", "false", "test %h = db", "test %n,%p = web1,22"])}"',
        ]
    )


def body(pick: random.Random, included: Path | None) -> str:
    lines = [option(pick) for _ in range(pick.randint(0, 2))]
    for _ in range(pick.randint(2, 6)):
        lines += [pick.choice(["", "# a comment", "   "]), condition(pick)]
        lines += [option(pick) for _ in range(pick.randint(1, 4))]
        if included and pick.random() < 0.3:
            lines.append(f"Include {included}/*.conf /no/such/file")
    return "\n".join(lines) + "\n"


def wanted(file: Path, host: str) -> dict[str, list[str]] | None:
    """What the system's ssh says; nothing where it will not go, since the host is the way to itself."""
    answer = subprocess.run(["ssh", "-G", "-F", file, "--", host], capture_output=True, text=True, check=False)
    if "jumphost loop" in answer.stderr:
        return None
    assert answer.returncode == 0, answer.stderr
    found: dict[str, list[str]] = {}
    for line in answer.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        found.setdefault(keyword, []).append(value)
    return found


def given(found: Settings) -> dict[str, list[str]]:
    """What we say, in the same words."""
    username, port = found.username or local_user(), found.port or 22
    words = found.found.words
    users = words.get("userknownhostsfile", list(DEFAULT_USER_KNOWN_HOSTS))
    systems = words.get("globalknownhostsfile", list(DEFAULT_GLOBAL_KNOWN_HOSTS))
    jumps, command = found.jumps, found.raw_proxy_command
    said = {
        "hostname": [found.hostname],
        "user": [username],
        "port": [str(port)],
        "identityfile": list(found.identity_files or DEFAULT_IDENTITIES),
        "certificatefile": list(found.certificate_files),
        "proxyjump": [",".join(map(str, jumps))] if jumps else [],
        "proxycommand": [command] if command else [],
        "userknownhostsfile": [" ".join(map(str, found.paths(users, username, port))) or "none"],
        "globalknownhostsfile": [" ".join(systems)],
        "connecttimeout": [str(int(found.connect_timeout_s)) if found.connect_timeout_s else "none"],
        "serveraliveinterval": [str(int(found.alive_interval_s or 0))],
        "hostkeyalias": [found.host_key_alias] if found.host_key_alias else [],
        "identitiesonly": ["yes" if found.identities_only else "no"],
        "identityagent": [agent if agent == "SSH_AUTH_SOCK" else str(*found.paths([agent], username, port) or ["none"])]
        if (agent := found.found.first.get("identityagent"))
        else [],
    }
    return {keyword: values for keyword, values in said.items() if values}


@pytest.fixture(scope="module")
def forgets_commands(tmp_path_factory: pytest.TempPathFactory) -> bool:
    """Whether the installed ssh passes over a ProxyCommand after `ProxyJump none`, as all did before OpenSSH 10.3."""
    file = tmp_path_factory.mktemp("ssh") / "config"
    file.write_text("ProxyJump none\nProxyCommand nc %h %p\n")
    return "proxycommand" not in (wanted(file, "web1") or {})


@pytest.mark.requirement("config.equals_ssh")
@pytest.mark.requirement("fault.R19")
@pytest.mark.parametrize("seed", range(48))
def test_a_generated_config_means_to_us_what_it_means_to_ssh(seed: int, tmp_path: Path, forgets_commands: bool) -> None:
    pick = random.Random(seed)
    included = tmp_path / "more"
    included.mkdir()
    for name in ("a.conf", "b.conf", "no"):
        (included / name).write_text(body(pick, None))
        (included / name).chmod(0o600)
    file = tmp_path / "config"
    file.write_text(body(pick, included))
    for host in NAMES:
        theirs = wanted(file, host)
        if theirs is None:
            continue
        found = settings(host, may_exec=True, files=[(file, True)])
        ours = given(found)
        if forgets_commands and found.found.first.get("proxyjump", "").lower() == "none":
            ours.pop("proxycommand", None)
        expected = {keyword: theirs.get(keyword, []) for keyword in ours}
        assert ours == expected, f"{host}\n{file.read_text()}"
        assert set(theirs) & {"proxyjump", "proxycommand", "certificatefile", "hostkeyalias"} <= set(ours)
