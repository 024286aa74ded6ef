"""Every tool that changes something says in words what a call has done, for those who read the history."""

from string import Formatter
from typing import Any

import pytest

from mcp_ssh.audit import VALUE_CHARS, audit_text
from mcp_ssh.tool import Risk
from mcp_ssh.tools import REGISTRY

CHANGING = [name for name, tool in REGISTRY.items() if tool.risk is not Risk.READ]


def told(name: str, arguments: dict[str, Any], **result: Any) -> str | None:
    tool = REGISTRY[name]
    return audit_text(tool, tool.params.model_validate(arguments), tool.result.model_construct(**result))


@pytest.mark.parametrize("name", CHANGING)
def test_every_tool_that_changes_something_says_what_a_call_has_done(name: str) -> None:
    tool = REGISTRY[name]
    assert tool.audit is not None
    named = {field for _, field, _, _ in Formatter().parse(tool.audit) if field is not None}
    assert named <= set(tool.params.model_fields)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("firewall_allow_port", {"port": 443}, "opened port 443/tcp for any"),
        ("firewall_allow_port", {"port": 443, "source": "10.0.0.0/8"}, "opened port 443/tcp for 10.0.0.0/8"),
        ("system_chmod", {"path": "/srv", "mode": "0750"}, "gave /srv the mode 0750"),
        ("setup_remove", {"packages": ["vim", "nano"]}, "asked for the removal of vim, nano"),
        ("file_rmdir", {"path": "/srv/x"}, "removed the folder /srv/x with all in it"),
        ("command_exec", {"command": "curl https://ann:pw@h/"}, "ran: curl https://ann:***@h/"),
        ("shell_secret", {"secret": "hunter2"}, "typed a secret in the shell default"),
        ("file_read", {"path": "/etc/hosts"}, None),
    ],
)
def test_the_words_have_the_call_s_arguments_and_defaults_and_no_secret(
    name: str, arguments: dict[str, Any], expected: str | None
) -> None:
    assert told(name, arguments) == expected


@pytest.mark.parametrize("dry_run", [True, "true", 1, "yes"])
def test_a_dry_run_is_told_as_one_however_it_was_asked_for(dry_run: object) -> None:
    words = told("system_chmod", {"path": "/srv", "mode": "0", "dry_run": dry_run}, success=True)
    assert words == "dry run, nothing was changed: gave /srv the mode 0"


@pytest.mark.parametrize(
    ("name", "arguments", "result", "prefix"),
    [
        ("firewall_allow_port", {"port": 22}, {"success": True, "changed": True, "rolled_back": False}, ""),
        ("firewall_allow_port", {"port": 22}, {"success": True, "changed": False}, "nothing to change: "),
        ("firewall_block_port", {"port": 22}, {"success": False, "rolled_back": True}, "taken back: "),
        ("firewall_save", {}, {"success": False, "rolled_back": False}, "failed: "),
        ("system_kill", {"pid": 2, "signal": "KILL"}, {"status": "failed"}, "failed: "),
        ("system_archive", {"source": "/a", "destination": "/b.tar"}, {"success": False}, "failed: "),
        ("setup_update", {}, {"status": "failed"}, "failed: "),
        ("hostkey_remove", {"host": "h", "port": 22, "key_type": "k"}, {"changed": False}, "nothing to change: "),
    ],
)  # fmt: skip
def test_what_failed_was_taken_back_or_was_so_already_is_not_told_as_done(
    name: str, arguments: dict[str, Any], result: dict[str, Any], prefix: str
) -> None:
    words = told(name, arguments, **result)
    assert words is not None
    assert words.removeprefix(prefix) == told(name, arguments)
    assert words.startswith(prefix)


@pytest.mark.parametrize("path", ["\x1b[2Ja", "a" * 4000, "{path.__class__}", "a\nb", "a    b"])
def test_hostile_arguments_stay_text_of_one_short_line_without_columns(path: str) -> None:
    words = told("file_remove", {"path": path})
    assert words is not None
    assert words.isprintable()
    assert "  " not in words
    assert len(words) <= len("removed ") + VALUE_CHARS
    assert "class" not in words or words == "removed {path.__class__}"
