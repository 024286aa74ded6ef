"""Each string that a tool takes, with hostile words, on real shells: a word stands for itself, and that is all."""

import functools
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any, get_args

import anyio.to_thread
import pytest

from mcp_ssh import shell_command as commandline
from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ToolError
from mcp_ssh.ssh.wire import command as wire
from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import REGISTRY, system
from tests.fleet.hosts import Host
from tests.support.doors import DirectCall, caller
from tests.support.hostile import HOSTILE
from tests.support.machine import SOAK, connected

ROOMS = {"system", "setup", "firewall", "tunnel"}
USUAL: dict[str, Any] = {
    "path": "fuzz/file", "pattern": "x", "name": "FUZZ", "value": "x", "persist": True, "mode": "755", "owner": "root",
    "service": "cron", "schedule": "0 0 31 2 *", "command": "true", "entry": "0 0 31 2 * true",
    "query": "no-such-package", "action": "status", "pid": 999999, "ip": "192.0.2.1", "update_first": False,
    "index_only": True, "local_port": 0, "remote_port": 0, "remote_host": "127.0.0.1", "tunnel_id": "local_00000000",
    "bind_address": "127.0.0.1", "local_host": "127.0.0.1", "lock_wait_s": 1, "timeout": 60,
    "source": "fuzz", "destination": "/tmp/fuzz.tgz", "archive": "fuzz/file",
}  # fmt: skip
OF_TOOL: dict[str, dict[str, Any]] = {
    "setup_check": {"action": "install"},
    # What `system_archive` made under a hostile name is an archive of `fuzz`, and must not be put over it.
    "system_extract": {"destination": "/tmp/fuzz-out"},
}
SMALL = {"destination", "persist", "update_first", "index_only", "lock_wait_s", "timeout"}
STUMBLED = re.compile(r"unexpected|syntax|unterminated|ended before it answered", re.IGNORECASE)
PROTECTS = "find fuzz -exec stat -c '%n %a %U %G %s %Y' {} + | sort"


def takes_text(annotation: Any) -> bool:
    return annotation is str or any(takes_text(each) for each in get_args(annotation))


def cases() -> Iterator[tuple[AnyTool, str]]:
    for tool in REGISTRY.values():
        if tool.room in ROOMS or tool.name == "shell_open":  # what else shells take is typed into them
            for name, field in tool.params.model_fields.items():
                if name not in {"session_id", "become"} and takes_text(field.annotation):
                    yield tool, name


def arguments(tool: AnyTool, name: str, word: str) -> dict[str, Any]:
    fields = tool.params.model_fields
    usual = USUAL | OF_TOOL.get(tool.name, {})
    given = {each: usual[each] for each in fields if each in usual and (fields[each].is_required() or each in SMALL)}
    return given | {name: [word] if name == "packages" else word}


def chosen(number: int) -> tuple[str, ...]:
    """All of them in `make soak`, else a few, so that every word meets some parameter."""
    return HOSTILE if SOAK else tuple(HOSTILE[(number * 3 + n * 13) % len(HOSTILE)] for n in range(3))


def sharp(number: int) -> tuple[str, ...]:
    """All of them in `make soak`, else now and then one of those that csh or fish reads otherwise than POSIX."""
    words = [word for word in HOSTILE if set(word) & set("'\\\n!")]
    return HOSTILE if SOAK else (words[number // 6 % len(words)],) if number % 6 == 0 else ()


async def root(host: Host, script: str) -> str:
    return (await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-c", script]))).stdout


async def ready(app: App, host: Host, user: str, who: DirectCall) -> tuple[str, str]:
    session_id = await connected(app, host, user, who)
    home = (await root(host, f"getent passwd {user} 2>/dev/null || grep ^{user}: /etc/passwd")).split(":")[5]
    made = f"cd {home} && rm -rf fuzz /tmp/pwned && mkdir fuzz && echo text >fuzz/file && chown -R {user} fuzz"
    await root(host, f"{made}; rm -f pwned")
    return session_id, home


async def complaint(app: App, tool: AnyTool, given: dict[str, Any], who: DirectCall) -> str:
    try:
        await dispatch(app, tool, given, who)
    except ToolError as error:
        return str(error)
    return ""


@pytest.mark.requirement("quoting.tools")
@pytest.mark.parametrize(
    ("name", "user", "words"),
    [
        ("deb", "dash", chosen),
        ("deb", "root", chosen),
        ("alpine", "root", chosen),
        ("auth", "tcsh", sharp),
        ("auth", "fish", sharp),
    ],
)
async def test_no_word_given_to_a_tool_does_anything_but_stand_for_itself(
    app: App, name: str, user: str, words: Callable[[int], tuple[str, ...]], request: pytest.FixtureRequest
) -> None:
    host: Host = request.getfixturevalue(name)
    who = DirectCall(caller())
    session_id, home = await ready(app, host, user, who)
    before = await root(host, f"cd {home} && {PROTECTS}")
    mode = (await root(host, f"stat -c %a {home}")).strip()  # `~` is a path, too
    for number, (tool, parameter) in enumerate(cases()):
        for word in words(number):
            given = arguments(tool, parameter, word) | {"session_id": session_id}
            # Whatever is wrong with it, the machine's shell did not stumble over it.
            said = await complaint(app, tool, given, who)
            assert not STUMBLED.search(said), (tool.name, given, said)
        assert await root(host, f"ls -d /tmp/pwned {home}/pwned 2>/dev/null") == "", (tool.name, parameter)
    after = await root(host, f"cd {home} && {PROTECTS}")
    await root(host, f"cd {home} && chmod {mode} . && rm -rf fuzz /tmp/fuzz-out; crontab -u {user} -r")
    await root(host, f"cd {home} && sed -i /FUZZ/d .profile .bashrc")
    assert after == before


async def test_without_quoting_a_word_does_what_it_says(app: App, deb: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control."""
    who = DirectCall(caller())
    session_id, _ = await ready(app, deb, "dash", who)
    monkeypatch.setattr(commandline, "quote", lambda word: word if word == HOSTILE[0] else shlex.quote(word))
    with pytest.raises(ToolError):
        await dispatch(app, system.tail, {"session_id": session_id, "path": HOSTILE[0]}, who)
    assert await root(deb, "ls /tmp/pwned") == "/tmp/pwned\n"
    await root(deb, "rm /tmp/pwned")


@pytest.mark.parametrize("user", ["tcsh", "fish"])
async def test_without_the_digits_a_word_does_what_it_says_to_csh_and_fish(
    app: App, auth: Host, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control, for which quoting as POSIX shells read it is not enough."""
    who = DirectCall(caller())
    session_id, _ = await ready(app, auth, user, who)
    monkeypatch.setattr(wire, "_through_sh", lambda script: f"exec sh -c {shlex.quote(script)}")
    with pytest.raises(ToolError):
        await dispatch(app, system.tail, {"session_id": session_id, "path": HOSTILE[-1]}, who)
    assert await root(auth, "ls /tmp/pwned") == "/tmp/pwned\n"
    await root(auth, "rm /tmp/pwned")
