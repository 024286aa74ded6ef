"""What an argument means to policy is declared on its field, and policy goes by that and not by the field's name."""

from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel, Field

from mcp_ssh.errors import Refused
from mcp_ssh.meanings import Meaning, argument, fields_with
from mcp_ssh.params import CommandLine, FolderPath, OnSession, Params, ShellText
from mcp_ssh.policy.rules import Rules
from mcp_ssh.tools import REGISTRY, command

UNJUDGED = {
    "blob": "blob_id pattern",
    "command": "session_id stdin task_id task_name",
    "config": "key value",
    "connection": "after category connection name",
    "file": "content expected_sha256 permissions raw_content session_id",
    "firewall": "comment destination expected_rule ip session_id source zone",
    "hostkey": "fingerprint_sha256 key_type public_key replaces",
    "session": "session_id",
    "setup": "packages query session_id",
    "shell": "session_id shell",
    "system": "entry group mode mtime name pattern schedule service session_id size value",
    "tunnel": "bind_address session_id tunnel_id",
}
"""Text that policy has nothing to judge about, by room and argument."""


def holds_text(hint: Any) -> bool:
    return hint is str or (get_origin(hint) is not None and any(map(holds_text, get_args(hint))))


def undeclared(model: type[BaseModel], room: str) -> set[str]:
    declared = {name for meaning in Meaning for name in fields_with(model, meaning)}
    texts = {name for name, info in model.model_fields.items() if holds_text(info.annotation)}
    return texts - declared - set(UNJUDGED[room].split())


@pytest.mark.parametrize("name", list(REGISTRY))
def test_every_text_that_a_tool_takes_says_what_it_means_to_policy(name: str) -> None:
    assert undeclared(REGISTRY[name].params, REGISTRY[name].room) == set()


def test_an_argument_that_says_nothing_is_noticed() -> None:
    class Late(Params):
        cmdline: ShellText = Field(description="A line.")

    assert undeclared(Late, "command") == {"cmdline"}


def test_no_argument_is_called_unjudged_that_no_tool_has() -> None:
    taken = {f"{tool.room} {name}" for tool in REGISTRY.values() for name in tool.params.model_fields}
    assert {f"{room} {name}" for room, names in UNJUDGED.items() for name in names.split()} <= taken


class Renamed(OnSession):
    line: CommandLine = Field(description="A line.")
    where: FolderPath | None = Field(default=None, description="A folder.")


@pytest.mark.parametrize("where", [None, "/srv"])
def test_a_command_line_is_judged_whatever_its_argument_is_called(where: str | None) -> None:
    params = Renamed(line="reboot", where=where)
    assert (argument(params, Meaning.COMMAND_LINE), argument(params, Meaning.FOLDER)) == ("reboot", where)
    with pytest.raises(Refused):
        Rules(denied=("reboot",)).expect_call(command.run_command, params)
    Rules(denied=("halt",)).expect_call(command.run_command, params)


@pytest.mark.parametrize("name", list(REGISTRY))
def test_what_policy_reads_of_a_tool_stands_in_one_argument(name: str) -> None:
    """Policy judges the one argument of a meaning; a second one would pass unjudged."""
    for meaning in (Meaning.COMMAND_LINE, Meaning.FOLDER, Meaning.ENVIRONMENT, Meaning.TARGET):
        assert len(fields_with(REGISTRY[name].params, meaning)) < 2
