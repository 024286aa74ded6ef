"""Every tool that changes something says in words what a call has done, for whoever reads the history."""

import json
from string import Formatter

import pytest

from mcp_ssh.audit import VALUE_CHARS, audit_text
from mcp_ssh.tool import Risk
from mcp_ssh.tools import REGISTRY

CHANGING = [name for name, tool in REGISTRY.items() if tool.risk is not Risk.READ]


@pytest.mark.parametrize("name", CHANGING)
def test_every_tool_that_changes_something_says_what_a_call_has_done(name: str) -> None:
    tool = REGISTRY[name]
    assert tool.audit is not None
    named = {field for _, field, spec, conversion in Formatter().parse(tool.audit) if field is not None}
    assert named <= set(tool.params.model_fields)
    assert audit_text(tool, "{}")


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("firewall_allow_port", {"port": 443}, "opened port 443/tcp"),
        ("system_chmod", {"path": "/srv", "mode": "0750"}, "gave /srv the mode 0750"),
        ("setup_remove", {"packages": ["vim", "nano"]}, "asked for the removal of vim, nano"),
        (
            "system_chmod",
            {"path": "/", "mode": "0", "dry_run": True},
            "dry run, nothing was changed: gave / the mode 0",
        ),
        ("firewall_flush", {}, "removed the firewall rules of any"),
        ("file_read", {"path": "/etc/hosts"}, None),
    ],
)
def test_the_words_have_the_call_s_arguments_and_defaults(name: str, arguments: object, told: str | None) -> None:
    assert audit_text(REGISTRY[name], json.dumps(arguments)) == told


@pytest.mark.parametrize("path", ["\x1b[2Ja", "a" * 4000, "{path.__class__}", "a\nb"])
def test_hostile_arguments_stay_text_of_one_short_line(path: str) -> None:
    told = audit_text(REGISTRY["file_remove"], json.dumps({"path": path}))
    assert told is not None
    assert told.isprintable()
    assert len(told) <= len("removed ") + VALUE_CHARS
    assert "class" not in told or told == "removed {path.__class__}"


@pytest.mark.parametrize("arguments", ['{"path": "/srv/cut of', "[]", ""])
def test_nothing_is_said_of_arguments_that_were_not_kept_whole(arguments: str) -> None:
    assert audit_text(REGISTRY["file_remove"], arguments) is None
