"""What an error suggests: what the caller meant, never what destroys for its spelling, and a value by an example."""

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_ssh.config.edit import set_key, value_of
from mcp_ssh.config.models import Config, load
from mcp_ssh.dispatch import validate
from mcp_ssh.errors import InvalidInput, NotFound
from mcp_ssh.messages.suggestions import suggest
from mcp_ssh.tool import Risk
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import lookup, suggest_tools
from rest_bridge.families.registry import FAMILIES
from tests.support.rest_kit import rest_server

DESTROYING = {each.name for each in REGISTRY.values() if each.risk is Risk.DESTROY}


def refused(name: str, arguments: dict[str, Any]) -> InvalidInput:
    with pytest.raises(InvalidInput) as error:
        validate(REGISTRY[name], arguments)
    return error.value


# Names


@pytest.mark.requirement("fault.N8")
@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("install_package", "setup_requirements"),
        ("run_command", "command_exec"),
        ("comand_exec", "command_exec"),
        ("system_df", "system_disk"),
        ("delete_file", "file_remove"),
        ("session_conect", "session_connect"),
    ],
)
def test_an_unknown_tool_gets_the_tools_that_do_what_its_words_say(unknown: str, meant: str) -> None:
    with pytest.raises(NotFound) as error:
        lookup(REGISTRY, unknown)
    assert meant in (error.value.hint or "")
    assert "firewall" not in (error.value.hint or "")


@pytest.mark.requirement("fault.N8")
@pytest.mark.parametrize("name", sorted(DESTROYING))
def test_a_tool_that_destroys_is_not_suggested_for_a_word_that_is_only_spelled_like_its_own(name: str) -> None:
    noun, _, verb = name.partition("_")
    for mistyped in (f"{noun}_{verb[:-2]}xx", f"{noun}_{verb[0]}"):
        assert mistyped not in REGISTRY
        assert name not in {each.name for each in suggest_tools(REGISTRY, mistyped)}, mistyped


@pytest.mark.requirement("fault.N8")
@pytest.mark.parametrize(
    ("unknown", "meant"),
    [("/system/df", "/system/disk"), ("/session/conect", "/session/connect"), ("/fil/read", "/file/read")],
)
async def test_an_unknown_path_gets_the_path_that_is_meant_and_none_that_destroys(
    tmp_path: Path, unknown: str, meant: str
) -> None:
    async with rest_server(tmp_path, REGISTRY, FAMILIES) as rest, rest.client() as client:
        answer = await client.get(unknown)
        destroying = await client.get("/system/rmf")
    assert answer.status_code == 404
    assert answer.json()["hint"] == f"did you mean {meant}?"
    assert "rmrf" not in destroying.json()["hint"]


@pytest.mark.requirement("fault.N8")
def test_a_short_form_means_the_word_it_is_short_for() -> None:
    assert suggest("cmd", ["cwd", "command", "env"]) == ["command"]
    assert suggest("fiel", ["firewall", "file"]) == ["file"]
    assert "cmd → command?" in (refused("command_exec", {"cmd": "id"}).hint or "")


@pytest.mark.requirement("fault.N8")
@pytest.mark.parametrize(
    ("key", "near"),
    [("timeout", "ssh.timeout"), ("ssh.timout", "ssh.timeout"), ("sever.port", "server.port")],
)
def test_an_unknown_key_of_the_config_gets_near_ones(key: str, near: str, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as error:
        value_of(Config(), key)
    assert near in (error.value.hint or "")
    (tmp_path / "config.json").write_text(json.dumps({"ssh": {"timout": 5}}))
    with pytest.raises(InvalidInput) as unread:
        load(tmp_path)
    assert "ssh.timout: is not a key of config.json" in unread.value.message
    assert "did you mean ssh.timout → ssh.timeout?" in (unread.value.hint or "")


# Values


@pytest.mark.requirement("fault.N8", "fault.R18.values", "fault.R18.cwd")
@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("command_exec", {"env": {"A": 5}}, 'env.A: must be text, such as "value"'),
        ("command_exec", {"env": "A=5"}, 'env: must be an object, such as {"NAME": "value"}'),
        ("command_exec", {"become": "root"}, 'become: must be an object, such as {"user": "root"}'),
        ("command_exec", {"become": {"method": "run0"}}, "become.method: must be 'sudo', 'su' or 'doas'"),
        ("command_exec", {"timeout": "soon"}, "timeout: must be a number, such as 30.0"),
        ("command_exec", {"timeout": 99_999}, "timeout: must be at most 3600.0"),
        ("command_exec", {"exact": "perhaps"}, "exact: must be true or false"),
        ("command_exec", {"cwd": ""}, "cwd: must not be empty"),
        ("file_read", {"path": ""}, "path: must not be empty"),
        ("setup_requirements", {"packages": "nginx"}, 'packages: must be a list, such as ["nginx"]'),
        ("setup_remove", {"packages": []}, 'packages: must not be empty, such as ["nginx"]'),
        ("setup_remove", {"packages": ["a"] * 201}, "packages: must have at most 200 entries"),
    ],
)
def test_a_wrong_value_is_told_by_its_type_and_an_example(tool: str, arguments: dict[str, Any], message: str) -> None:
    given = {"command": "id", **arguments} if tool == "command_exec" else arguments
    error = refused(tool, given)
    assert error.message == message
    assert "did you mean" not in (error.hint or "")


@pytest.mark.requirement("fault.R18.values")
def test_a_value_that_breaks_a_pattern_is_no_misspelt_name() -> None:
    error = refused("setup_requirements", {"packages": ["a=1.0"]})
    assert error.message.startswith("packages.0: must be the plain name of a package")
    assert error.message.endswith(', such as "nginx"')
    assert "did you mean" not in (error.hint or "")
    misspelt = refused("command_exec", {"command": "id", "become": {"usr": "root"}})
    assert "did you mean become.usr → become.user?" in (misspelt.hint or "")


@pytest.mark.requirement("fault.N8")
def test_what_a_caller_sent_is_not_in_the_error() -> None:
    error = refused("session_connect", {"host": "web1", "password": ["hunter2"], "port": "hunter2"})
    assert "hunter2" not in f"{error.message}{error.hint}{error.details}"


@pytest.mark.requirement("fault.N8")
def test_a_wrong_value_of_the_config_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as error:
        set_key(tmp_path, "ssh.timeout", "soon")
    assert "ssh.timeout: must be a number" in error.value.message
    assert not (tmp_path / "config.json").exists()


@pytest.mark.requirement("fault.R18.mode")
@pytest.mark.parametrize(
    ("tool", "arguments", "field", "text"),
    [
        ("system_chmod", {"path": "/x", "mode": 644}, "mode", "644"),
        ("system_chown", {"path": "/x", "owner": 1000, "group": 100}, "owner", "1000"),
        ("system_chown", {"path": "/x", "owner": 1000, "group": 100}, "group", "100"),
        ("system_find", {"path": "/x", "mtime": -7}, "mtime", "-7"),
        ("system_find", {"path": "/x", "size": 100}, "size", "100"),
        ("file_write", {"path": "/x", "content": "", "permissions": 644}, "permissions", "0644"),
        ("file_upload", {"local_path": "x", "remote_path": "/x", "permissions": 644}, "permissions", "0644"),
    ],
)
def test_what_may_be_all_digits_may_be_a_number(tool: str, arguments: dict[str, Any], field: str, text: str) -> None:
    assert getattr(validate(REGISTRY[tool], arguments), field) == text


@pytest.mark.requirement("fault.R18.mode")
@pytest.mark.parametrize("mode", [888, -644, True, 6.44, 10_000])
def test_a_number_that_is_no_mode_is_refused(mode: Any) -> None:
    assert refused("system_chmod", {"path": "/x", "mode": mode}).message.startswith("mode: must ")
