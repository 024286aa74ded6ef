"""~/.ssh/config beyond what `ssh -G` shows: who may write it, what is refused, and values expanded for use."""

import time
from pathlib import Path
from typing import Any

import pytest

from mcp_ssh.errors import InvalidInput, Refused, ToolError, Unsupported
from mcp_ssh.ssh.openssh_config import resolve as ssh_config
from mcp_ssh.ssh.openssh_config.parser import split
from mcp_ssh.ssh.openssh_config.resolve import Jump, Settings, local_user, seconds, settings


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    return tmp_path


def of(home: Path, text: str, host: str = "box", **more: Any) -> Settings:
    """What a ~/.ssh/config says of a host; no other file is read."""
    file = home / ".ssh/config"
    file.write_text(text)
    file.chmod(0o600)
    return settings(host, **more)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a b\tc", ["a", "b", "c"]),
        ('"a b" c', ["a b", "c"]),
        ("'a \"b' c", ['a "b', "c"]),
        (r"a\ b", ["a b"]),
        (r"a\nb", [r"a\nb"]),
        (r'"a\"b"', ['a"b']),
        (r'"a\ b"', [r"a\ b"]),
        ('pre"fix ed"', ["prefix ed"]),
        ("a # b", ["a"]),
        ("a#b", ["a#b"]),
        ('""', [""]),
        ("", []),
    ],
)
def test_words_are_split_as_openssh_splits_them(text: str, words: list[str]) -> None:
    assert split(text) == words


@pytest.mark.parametrize("text", ['"a', "a 'b", 'a "b\\"'])
def test_an_open_quote_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="quote"):
        split(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("90", 90), ("90s", 90), ("1m30s", 90), ("2H", 7200), ("1d", 86400), ("1w", 604800)],
)
def test_times_are_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "x", "1y", "-1", "1 m"])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(InvalidInput):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "jump"),
    [
        ("hop", Jump("hop", None, None)),
        ("me@hop:2022", Jump("hop", "me", 2022)),
        ("[::1]:22", Jump("::1", None, 22)),
        ("a@b@hop", Jump("hop", "a@b", None)),
        ("ssh://me@hop:7", Jump("hop", "me", 7)),
    ],
)
def test_a_jump_is_read(text: str, jump: Jump) -> None:
    assert Jump.parse(text) == jump


@pytest.mark.parametrize("text", ["", "me@", "hop:99999", "hop:x", "::1", "ssh://hop/path"])
def test_what_is_no_jump_is_an_error(text: str) -> None:
    with pytest.raises(InvalidInput):
        Jump.parse(text)


def test_a_host_is_an_alias_where_a_line_names_it_and_not_everybody(home: Path) -> None:
    text = "Host box *.lan !no.lan\n Port 1\nHost *\n Port 2\nMatch originalhost other,x*\n Port 3\nMatch all\n"
    named = {name: of(home, text, name).named for name in ("box", "a.lan", "no.lan", "other", "xy", "elsewhere")}
    assert named == {"box": True, "a.lan": True, "no.lan": False, "other": True, "xy": True, "elsewhere": False}


def test_a_missing_config_says_nothing(home: Path) -> None:
    found = settings("box")
    assert (found.hostname, found.username, found.named) == ("box", None, False)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_config_that_others_can_write_is_not_obeyed(home: Path, mode: int) -> None:
    file = home / ".ssh/config"
    file.write_text("Host box\n HostName 10.6.6.6\n")
    file.chmod(mode)
    with pytest.raises(InvalidInput, match="written by others"):
        settings("box")
    (home / ".ssh/included").write_text("Host box\n HostName 10.6.6.6\n")
    (home / ".ssh/included").chmod(mode)
    with pytest.raises(InvalidInput, match=r"~/.ssh/included can be written"):
        of(home, "Include included\n")


def test_files_that_include_each_other_come_to_an_end(home: Path) -> None:
    with pytest.raises(InvalidInput, match="circle"):
        of(home, "Include config\n")


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ('HostName "open', "quote"),
        ("HostName", "a value is missing"),
        ("HostName a b", "takes one value"),
        ("Match", "condition"),
        ("Match host", "needs a value"),
        ("HostName %q", "no meaning"),
    ],
)
def test_a_line_that_makes_no_sense_is_named(home: Path, line: str, rule: str) -> None:
    with pytest.raises(InvalidInput, match=rule) as error:
        of(home, f"User x\n{line}\n")
    assert "~/.ssh/config" in error.value.message
    assert str(home) not in str(error.value.payload())


@pytest.mark.requirement("config.refused_options")
@pytest.mark.parametrize(
    "option", ["ProxyUseFdpass", "KnownHostsCommand", "RevokedHostKeys", "SomethingNew", "BindInterface"]
)
def test_an_option_we_do_not_know_is_refused_by_name_where_it_applies(home: Path, option: str) -> None:
    with pytest.raises(Unsupported, match=option.lower()) as error:
        of(home, f"User x\n{option} /value\n")
    assert error.value.details == {"option": option.lower()}
    assert "line 2" in error.value.message
    assert of(home, f"Host other\n {option} /value\n").hostname == "box"
    assert of(home, f"IgnoreUnknown Some*,{option}\n{option} /value\n").hostname == "box"


@pytest.mark.parametrize("condition", ["tagged x", "localnetwork 10.0.0.0/8", "sessiontype shell"])
def test_a_condition_we_cannot_judge_is_refused_by_name(home: Path, condition: str) -> None:
    with pytest.raises(Unsupported, match=condition.split(maxsplit=1)[0]):
        of(home, f"Match {condition}\n")


@pytest.mark.requirement("fault.R16")
@pytest.mark.parametrize(
    "unknown", ["tagged x", "localnetwork 10.0.0.0/8", "sessiontype shell", "version x", "command y"]
)
def test_an_unknown_condition_counts_only_where_all_others_hold(home: Path, unknown: str) -> None:
    for lines in (
        f"Match host nothere {unknown}",
        f"Match {unknown} host nothere",
        f"Match !host box {unknown}",
        f"Match {unknown} !all",
        f"Match final {unknown} host nothere",
    ):
        found = of(home, f"{lines}\n User wrong\nHost box\n User right\n")
        assert found.username == "right", lines
    for lines in (f"Match host box {unknown}", f"Match {unknown} host box", f"Match {unknown} all"):
        with pytest.raises(Unsupported, match=unknown.split(maxsplit=1)[0]):
            of(home, f"{lines}\n User wrong\n")


@pytest.mark.requirement("fault.R16")
def test_behind_an_unknown_condition_no_command_is_run(home: Path) -> None:
    mark = home / "ran"
    with pytest.raises(Unsupported, match="tagged"):
        of(home, f'Match tagged x exec "touch {mark}"\n', may_exec=True)
    assert of(home, f'Match tagged x exec "touch {mark}" host nothere\n', may_exec=True).hostname == "box"
    assert not mark.exists()
    of(home, f'Match exec "touch {mark}"\n', may_exec=True)
    assert mark.exists()


@pytest.mark.requirement("fault.R19")
@pytest.mark.parametrize(
    ("lines", "jumps", "command"),
    [
        ("ProxyJump none\nProxyCommand nc %h %p", (), "nc %h %p"),
        ("ProxyJump None\nProxyCommand nc %h %p\nProxyCommand other", (), "nc %h %p"),
        ("ProxyJump none\nProxyJump hop\nProxyCommand nc", (), "nc"),
        ("ProxyJump hop\nProxyCommand nc", ("hop",), None),
        ("ProxyCommand none\nProxyJump hop", (), None),
        ("ProxyCommand nc\nProxyJump none", (), "nc"),
    ],
)
def test_proxy_jump_none_leaves_the_choice_to_a_proxy_command(
    home: Path, lines: str, jumps: tuple[str, ...], command: str | None
) -> None:
    found = of(home, f"Host box\n{lines}\n")
    assert (tuple(map(str, found.jumps)), found.raw_proxy_command) == (jumps, command)


def test_tokens_and_variables_have_their_values_in_the_names_of_files(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYS", "/keys")
    found = of(home, "Host box\n HostName %h.lan\n IdentityFile ~/.ssh/%n-%h-%p-%r-%u-%%\n IdentityFile ${KEYS}/a\n")
    assert [str(path) for path in found.paths(found.identity_files, "ops", 2022)] == [
        f"{home}/.ssh/box-box.lan-2022-ops-{local_user()}-%",
        "/keys/a",
    ]
    with pytest.raises(Refused):
        found.paths(["~/.ssh/known_hosts_%r"], "x/../../../tmp/mine", 22)
    for wrong in ("%j%", "${NOT_THERE_AT_ALL}"):
        with pytest.raises(InvalidInput):
            found.paths([wrong], "ops", 22)


def test_a_command_has_its_tokens_and_no_others(home: Path) -> None:
    found = of(home, "Host box\n HostName 10.0.0.1\n ProxyCommand nc -X %r %h %p # %%\n")
    assert found.proxy_command("ops", 22) == "nc -X ops 10.0.0.1 22 # %"
    with pytest.raises(InvalidInput, match="%d"):
        of(home, "ProxyCommand %d/nc\n").proxy_command("ops", 22)


@pytest.mark.requirement("config.no_injection")
@pytest.mark.parametrize(
    "value", ["a;b", "$(id)", "`id`", "-oX", "a b", "a'b", 'a"b', "a|b", "a&b", "a\nb", "", "~root", "*"]
)
def test_a_value_that_sh_would_read_is_refused_in_commands(home: Path, value: str) -> None:
    with pytest.raises(Refused, match="plain word"):
        of(home, "ProxyCommand nc %r\n").proxy_command(value, 22)
    with pytest.raises(Refused, match="plain word"):
        of(home, 'Match exec "echo %r"\n', username=value or "a;b", may_exec=True)


@pytest.mark.requirement("config.match_exec")
def test_a_condition_that_takes_too_long_is_ended_and_not_met(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh_config, "EXEC_LIMIT_S", 0.2)
    began = time.monotonic()
    assert of(home, 'Match exec "sleep 30; true"\n Port 9\n', may_exec=True).port is None
    assert time.monotonic() - began < 5
    assert of(home, 'Match exec "true"\n Port 9\n', may_exec=True).port == 9


@pytest.mark.requirement("config.match_exec")
def test_match_exec_is_refused_to_others_only_where_it_would_run(home: Path) -> None:
    text = 'Match originalhost other exec "true"\n Port 9\n'
    assert of(home, text).port is None
    with pytest.raises(Refused, match="Match exec"):
        of(home, text, "other")


def test_weakening_options_are_passed_over_and_strictness_is_kept(home: Path) -> None:
    weak = of(home, "StrictHostKeyChecking no\nNoHostAuthenticationForLocalhost yes\nCheckHostIP no\n")
    assert not weak.strict
    assert of(home, "StrictHostKeyChecking yes\n").strict


def test_methods_can_be_switched_off(home: Path) -> None:
    found = of(home, "PubkeyAuthentication no\nPasswordAuthentication no\nKbdInteractiveAuthentication yes\n")
    assert found.refused_methods == {"publickey", "password"}


def test_the_agent_is_where_the_config_says(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/a")
    monkeypatch.setenv("OTHER", "/run/b")
    said = {text: of(home, text and f"IdentityAgent {text}\n").agent_path("ops", 22) for text in ("", "none", "$OTHER")}
    assert said == {"": "/run/a", "none": None, "$OTHER": "/run/b"}
    assert of(home, "IdentityAgent ~/%r.sock\n").agent_path("ops", 22) == f"{home}/ops.sock"


def test_no_text_of_a_config_is_more_than_an_error(home: Path) -> None:
    for text in (
        "\0\n",
        "Host\n",
        "=\n",
        '"\n',
        "Match exec\n",
        "Include\n",
        "Port 0\nHost a\n",
        "\xff\n",
        "Host [\n" * 2000,
    ):
        try:
            of(home, text)
        except ToolError:
            continue
