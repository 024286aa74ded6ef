"""A machine is the same machine however its host is written: for tokens, rules, the owner's keys, tunnels and scans."""

import socket
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config, HostRule, SecurityConfig
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import Refused, ToolError
from mcp_ssh.host_patterns import Machine, admits, canonical_host
from mcp_ssh.policy.rules import rules_for
from mcp_ssh.sessions import host_lookup as machines
from mcp_ssh.sessions.host_lookup import expect_target
from mcp_ssh.tool import AnyTool, Caller, Role
from mcp_ssh.tools import connection, hostkey, session, tunnel
from mcp_ssh.tools.tunnel import TunnelLocalParams
from tests.support.doors import DirectCall
from tests.support.hostkeys import KEY, machine

LOOPBACK = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "017700000001", "0", "0.0.0.0",
    "localhost", "LOCALHOST", "localhost.", "127.0.0.1.", "[127.0.0.1]", "127.0.0.2", "::1", "[::1]", "::",
    "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "::ffff:7f00:1", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021",
    "\u246b7.0.0.1",
]  # fmt: skip
DB = [
    "db1.example.org",
    "DB1.Example.Org",
    "db1.example.org.",
    "\uff44b1.example.org",
    "db\u00ad1.example.org",
    "10.1.2.9",
]
STRANGER = ["10.1.2.attacker.net"]
NAMES = {
    "db1.example.org": ["10.1.2.9"],
    "10.1.2.attacker.net": ["127.0.0.1"],
    "web1.example.org": ["10.1.2.7"],
    "mixed.example.org": ["10.1.2.7", "10.1.2.9"],
}


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, list[str]], None]:
    """Names that lead somewhere in this test; the machine's own resolver answers for all others."""
    known = dict(NAMES)
    real = socket.getaddrinfo

    def getaddrinfo(host: Any, port: Any, *more: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name in known:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port or 0)) for each in known[name]]
        if isinstance(name, str) and name.endswith((".net", ".org")):
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return real(host, port, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    machines._looked_up.clear()
    return known.__setitem__


@pytest.fixture
async def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[App]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USER", "tester")
    async with open_app(tmp_path / "state", configured()) as app:
        app.scans._per_minute = lambda: 10_000
        yield app


def configured(**security: Any) -> Config:
    return Config.model_validate({"security": {"allow_local_targets": True, **security}})


def bound(*hosts: str) -> DirectCall:
    return DirectCall(Caller("bound", Role.OPERATOR, hosts=hosts))


def test_there_are_as_many_spellings_as_the_issue_counts() -> None:
    assert len({*LOOPBACK, *DB, *STRANGER}) >= 31


@pytest.mark.requirement("fault.S2")
@pytest.mark.parametrize(
    ("spelling", "patterns"),
    [(each, ("*", "!127.0.0.1")) for each in LOOPBACK]
    + [(each, ("*", "!localhost")) for each in LOOPBACK]
    + [(each, ("*", "!127.0.0.0/8")) for each in LOOPBACK]
    + [(each, ("*", "!db1.example.org")) for each in DB]
    + [(each, ("*", "!10.1.2.9")) for each in DB]
    + [(each, ("*", "!db*")) for each in DB if each != "10.1.2.9"]
    + [(each, ("10.1.2.*",)) for each in STRANGER]
    + [("mixed.example.org", ("10.1.2.7",)), ("mixed.example.org", ("*.example.org", "!10.1.2.9"))],
)
async def test_no_spelling_passes_a_token_at_any_way_in(app: App, spelling: str, patterns: tuple[str, ...]) -> None:
    who = bound(*patterns)
    calls: list[tuple[AnyTool, dict[str, Any]]] = [
        (session.connect, {"host": spelling, "port": 9, "username": "a", "password": "x", "timeout": 3, "retries": 1}),
        (hostkey.scan, {"host": spelling, "port": 9, "timeout": 1}),
        (hostkey.remove, {"host": spelling, "port": 22, "key_type": "ssh-rsa"}),
        (connection.add, {"name": "x", "host": spelling, "username": "a", "password": "x"}),
    ]
    for tool, arguments in calls:
        with pytest.raises(Refused, match="not for the machine"):
            await dispatch(app, tool, arguments, who)
    if spelling in LOOPBACK:
        return  # of the machine that a tunnel goes through, which the token is for
    with pytest.raises(Refused, match="not for the machine"):
        target = TunnelLocalParams(local_port=0, remote_host=spelling, remote_port=22)
        await expect_target(who.caller, app.config.security, target)


@pytest.mark.requirement("fault.S2")
@pytest.mark.parametrize("spelling", LOOPBACK)
async def test_a_jump_host_is_judged_like_the_machine_itself(mcp_home: Path, tmp_path: Path, spelling: str) -> None:
    who = bound("*", "!127.0.0.1")
    given = {"host": "10.1.2.7", "username": "a", "password": "x", "jump": "hop", "timeout": 3, "retries": 1}
    ssh = tmp_path / "home/.ssh"
    ssh.mkdir(mode=0o700)
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(ssh / "id_ed25519"))
    (ssh / "config").write_text(f"Host in\n HostName 10.1.2.7\n ProxyJump me@over\nHost over\n HostName {spelling}\n")
    config = Config.model_validate({"security": {"allow_server_identities": ["*"]}})
    async with open_app(mcp_home, config) as app:
        saved = {"name": "hop", "host": spelling, "username": "a", "password": "x"}
        await dispatch(app, connection.add, saved, bound("*"))
        with pytest.raises(ToolError) as caught:
            await dispatch(app, session.connect, given, who)
        assert caught.value.code in {"refused", "invalid_input"}, (
            caught.value
        )  # a name it does not see is no way either
        with pytest.raises(Refused, match="not for the machine"):
            await dispatch(app, session.connect, {"host": "in", "timeout": 3, "retries": 1}, who)


@pytest.mark.requirement("fault.S2")
async def test_what_the_token_is_for_passes_by_every_spelling(app: App) -> None:
    """The negative control: the machine is there, and the judge lets these through to it."""
    async with machine(KEY) as port:
        for spelling in LOOPBACK:
            if "::1" in spelling or spelling in {"::", "0:0:0:0:0:0:0:1", "127.0.0.2"}:
                continue  # not 127.0.0.1
            for patterns in (("127.0.0.0/8", "::1"), ("*", "!10.*"), ("127.*", "::1")):
                found = await dispatch(app, hostkey.scan, {"host": spelling, "port": port}, bound(*patterns))
                assert [each.key_type for each in found.keys] == ["ssh-ed25519"], spelling


@pytest.mark.requirement("fault.S2")
@pytest.mark.parametrize("spelling", [*LOOPBACK, *DB])
async def test_a_rule_holds_for_every_spelling(spelling: str) -> None:
    here = spelling in LOOPBACK
    security = SecurityConfig(hosts=[HostRule(hosts=["127.0.0.1" if here else "db1.example.org"], read_only=True)])
    name = canonical_host(spelling)
    found = await machines.identify(Caller("x", Role.ADMIN), security, [name], await machines.look_up(name))
    assert rules_for(found, security).read_only
    assert not rules_for(Machine.of(["web1.example.org", "10.1.2.7"]), security).read_only


@pytest.mark.requirement("fault.S2")
async def test_the_owners_keys_are_not_offered_to_a_name_that_only_looks_like_an_address(
    app: App, tmp_path: Path
) -> None:
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(tmp_path / "key"))
    operator = DirectCall(Caller("operator", Role.OPERATOR))
    given = {"username": "a", "key_path": str(tmp_path / "key"), "timeout": 3, "retries": 1, "port": 9}
    changed = configured(allow_server_identities=["10.1.2.*", "!10.1.2.9"])
    app.live.config = changed
    for host in ("10.1.2.attacker.net", "db1.example.org", "10.1.2.9", "mixed.example.org", "127.1"):
        with pytest.raises(Refused, match="key_path"):
            await dispatch(app, session.connect, {**given, "host": host}, operator)
    app.live.config = configured(allow_server_identities=["127.*"])
    with pytest.raises(ToolError) as caught:  # it may, and nobody listens
        await dispatch(app, session.connect, {**given, "host": "127.1"}, operator)
    assert caught.value.code == "connect_failed"


@pytest.mark.requirement("fault.S2")
async def test_a_name_that_leads_elsewhere_at_the_second_look_does_not_get_the_connection(
    app: App, names: Callable[[str, list[str]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that was judged is connected to, though the name server has another answer each time."""
    asked: list[str] = []
    before = socket.getaddrinfo

    def rebinding(host: Any, *more: Any, **options: Any) -> Any:
        if host in {"moving.net", b"moving.net"}:
            asked.append("moving.net")
            names("moving.net", ["127.0.0.1"] if len(asked) % 2 else ["10.1.2.9"])
        return before(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    async with machine(KEY) as port:
        given = {"host": "moving.net", "port": port, "username": "a", "password": "x", "timeout": 5, "retries": 1}
        with pytest.raises(ToolError) as caught:
            await dispatch(app, session.connect, given, bound("127.0.0.1"))
        assert caught.value.code == "host_key_unconfirmed"  # so it spoke with the machine that it judged
        assert asked == ["moving.net"]


@pytest.mark.requirement("fault.S2")
async def test_a_tunnel_leads_to_the_address_that_was_judged(app: App) -> None:
    who, security = bound("10.1.2.*", "!10.1.2.9").caller, app.config.security

    async def led(host: str) -> str:
        return (
            await expect_target(who, security, TunnelLocalParams(local_port=0, remote_host=host, remote_port=1))
        ).remote_host

    assert await led("web1.example.org") == "10.1.2.7"
    assert await led("127.1") == "127.0.0.1"
    assert await led("10.1.2.7") == "10.1.2.7"
    for host in ("nowhere.example.org", "db1.example.org", "mixed.example.org"):
        with pytest.raises(Refused):
            await led(host)


@pytest.mark.requirement("fault.S2")
@pytest.mark.parametrize("wrong", ["1.2.3.4.5", "256.1.1.1", "08.1.1.1", "a..b", "fe80::1%eth0%x", "::1%lo", "a*b"])
async def test_what_is_neither_a_name_nor_an_address_is_refused_by_field(app: App, wrong: str) -> None:
    with pytest.raises(ToolError, match=r"^host: must"):
        await dispatch(app, session.connect, {"host": wrong, "username": "a", "password": "x"}, bound("*"))
    with pytest.raises(ToolError, match="remote_host: must"):
        given = {"session_id": "x", "local_port": 0, "remote_host": wrong, "remote_port": 1}
        await dispatch(app, tunnel.local, given, bound("*"))


@pytest.mark.parametrize("listens", ["0.0.0.0", "::", "0", "0x0", "*", "10.0.0.1", "::ffff:0.0.0.0"])
def test_an_address_for_all_interfaces_does_not_count_as_loopback_for_a_listener(listens: str) -> None:
    from mcp_ssh.host_patterns import binds_loopback

    assert not binds_loopback(listens)
    assert binds_loopback("127.0.0.1")
    assert binds_loopback("localhost")


def test_a_pattern_with_a_number_fits_addresses_only_and_a_block_is_taken() -> None:
    for pattern, yes, no in (
        ("10.1.2.*", "10.1.2.3", "10.1.2.evil.net"),
        ("10.1.2.0/24", "10.1.2.3", "10.1.3.3"),
        ("fd00::/16", "fd00::1", "fe80::1"),
        ("fd*", "fdx", "fd00::1"),
        ("fd00:*", "fd00::1", "fd00.example.org"),
        ("*.Bücher.example", "a.xn--bcher-kva.example", "a.bucher.example"),
    ):
        assert admits(Machine.of([yes]), [pattern])
        assert not admits(Machine.of([no]), [pattern])


WRONG = ("", "!", "a b", "10.0.0.0/33", "1.2.3.4.5", "a@b", "::1::", "127.0.0.[0-9]", "web[1-3]*", "[", "^web", "(a|b)")


@pytest.mark.parametrize("wrong", WRONG)
async def test_a_pattern_that_is_none_is_refused_for_tokens_and_in_the_config(app: App, wrong: str) -> None:
    with pytest.raises(ToolError, match="is not a pattern"):
        await app.store.tokens.create("t", Role.VIEWER, ["ok", wrong])
    with pytest.raises(ValueError, match="is not a pattern"):
        SecurityConfig.model_validate({"allow_server_identities": [wrong]})
    with pytest.raises(ValueError, match="is not a pattern"):
        HostRule.model_validate({"hosts": [wrong]})
