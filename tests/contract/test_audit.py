"""Every tool that changes something says in words what a call has done, for those who read the history."""

import re
from typing import Any

import pytest

from mcp_ssh.audit import VALUE_CHARS, audit_text, hidden_arguments, hide_argument, names_in, texts_of, without
from mcp_ssh.tool import Risk
from mcp_ssh.tools import REGISTRY

CHANGING = [name for name, tool in REGISTRY.items() if tool.risk is not Risk.READ]
NAME = re.compile(r"\{[a-z0-9_.]+\}")
PART = re.compile(r"\[[^{}\[\]|]*(\|[^{}\[\]]*)?\]")


def told(tool_name: str, arguments: dict[str, Any], /, **result: Any) -> str | None:
    tool = REGISTRY[tool_name]
    made = tool.result.model_construct()
    vars(made).update(result)  # also what the model has not: not every result says whether its command `ran`
    return audit_text(tool, tool.params.model_validate(arguments), made)


@pytest.mark.parametrize("name", CHANGING)
def test_every_tool_that_changes_something_says_what_a_call_has_done(name: str) -> None:
    tool = REGISTRY[name]
    assert texts_of(tool)
    known = set(tool.params.model_fields) | {f"result.{field}" for field in tool.result.model_fields}
    for text in texts_of(tool):
        assert names_in(text) <= known
        assert not set("{}[]|") & set(PART.sub("", NAME.sub("", text))), "a part or a name that is not read as one"


@pytest.mark.parametrize("name", [each.name for each in REGISTRY.values() if isinstance(each.audit, tuple)])
def test_one_of_the_texts_fits_every_call_that_changes_something(name: str) -> None:
    tool = REGISTRY[name]
    assert isinstance(tool.audit, tuple)
    condition, text = tool.audit[-1]
    assert text is not None
    assert condition(tool.params.model_construct(), {})


@pytest.mark.parametrize("name", sorted(set(REGISTRY) - set(CHANGING)))
def test_a_tool_that_only_reads_says_nothing(name: str) -> None:
    assert texts_of(REGISTRY[name]) == []


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("firewall_allow_port", {"port": 443}, "opened port 443/tcp for any"),
        ("firewall_allow_port", {"port": 443, "source": "10.0.0.0/8"}, "opened port 443/tcp for 10.0.0.0/8"),
        (
            "firewall_allow_port",
            {"port": 443, "source": "10.0.0.0/8", "ip_version": "ipv4"},
            "opened port 443/tcp for 10.0.0.0/8 (ipv4)",
        ),
        ("system_chmod", {"path": "/srv", "mode": "0750"}, "gave /srv the mode 0750"),
        ("setup_remove", {"packages": ["vim", "nano"]}, "asked for the removal of vim, nano"),
        ("file_rmdir", {"path": "/srv/x"}, "removed the folder /srv/x with all in it"),
        ("file_write", {"path": "/srv/x", "content": "a"}, "wrote /srv/x"),
        ("file_write", {"path": "/srv/x", "content": "a", "mode": "append"}, "wrote /srv/x (append)"),
        ("command_exec", {"command": "curl https://ann:pw@h/"}, "ran: curl https://ann:***@h/"),
        ("shell_secret", {"secret": "hunter2"}, "typed a secret in the shell default"),
        ("system_env_set", {"name": "X", "value": "hunter2"}, "set the variable X"),
        ("system_env_set", {"name": "X", "value": None, "persist": True}, "unset the variable X, for later logins too"),
        (
            "system_cron_add",
            {"schedule": "@daily", "command": "true", "user": "ann"},
            "scheduled for ann at @daily: true",
        ),
        (
            "hostkey_remove",
            {"host": "h", "port": 2222, "key_type": "ssh-rsa"},
            "forgot the ssh-rsa host key of h port 2222",
        ),
        ("file_read", {"path": "/etc/hosts"}, None),
    ],
)
def test_the_words_have_the_call_s_arguments_and_defaults_and_no_secret(
    name: str, arguments: dict[str, Any], expected: str | None
) -> None:
    assert told(name, arguments) == expected


# ---- 1: what became of a command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"status": "completed"}, "ran: reboot"),
        ({"status": "timed_out", "stopped": True}, "ended after its timeout: reboot"),
        ({"status": "timed_out", "stopped": False}, "may still run: reboot"),
        ({"status": "timed_out", "stopped": "unknown"}, "may still run: reboot"),
        ({"status": "timed_out"}, "did not begin: reboot"),
        ({"status": "timed_out", "stopped": True, "ran": False}, "did not begin: reboot"),
        ({"status": "timed_out", "stopped": "unknown", "ran": False}, "did not begin: reboot"),
        ({"status": "timed_out", "stopped": True, "ran": True}, "ended after its timeout: reboot"),
        ({"status": "timed_out", "stopped": True, "ran": "unknown"}, "may have run: reboot"),
        ({"status": "timed_out", "stopped": "unknown", "ran": "unknown"}, "may still run: reboot"),
        ({"status": "timed_out", "ran": "unknown"}, "may still run: reboot"),
    ],
)
def test_a_command_is_told_as_run_only_where_it_ended_by_itself(result: dict[str, Any], expected: str) -> None:
    assert told("command_exec", {"command": "reboot"}, **result) == expected


@pytest.mark.parametrize(
    ("name", "arguments", "result", "expected"),
    [
        ("shell_exec", {"command": "top"}, {"status": "completed"}, "ran in the shell default: top"),
        ("shell_exec", {"command": "top"}, {"status": "running"}, "may still run in the shell default: top"),
        ("shell_exec", {"command": "top"}, {"status": "waiting_input"}, "waits for input in the shell default: top"),
        ("shell_exec", {"command": "top"}, {"status": "interrupted"}, "typed in the shell default: top"),
        ("shell_exec", {"command": "top"}, {"status": "ended"}, "typed in the shell default: top"),
        ("shell_close", {}, {"stopped": True}, "closed the shell default"),
        ("shell_close", {}, {"stopped": False}, "closed the shell default; what was started in it may still run"),
        ("shell_close", {}, {"stopped": "unknown"}, "closed the shell default; what was started in it may still run"),
        ("command_task_cancel", {"task_id": "t"}, {"status": "cancelled", "stopped": True}, "ended the task t"),
        (
            "command_task_cancel",
            {"task_id": "t"},
            {"status": "running", "stopped": False},
            "asked to end the task t, which may still run",
        ),
        (
            "command_task_cancel",
            {"task_id": "t"},
            {"status": "completed", "stopped": True},
            "nothing to change: the task t had ended",
        ),
    ],
)
def test_what_may_still_run_is_not_told_as_ended(
    name: str, arguments: dict[str, Any], result: dict[str, Any], expected: str
) -> None:
    assert told(name, arguments, **result) == expected


# ---- 3: firewall rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "result", "expected"),
    [
        ("firewall_rule_add", {"target": "DROP"}, {}, "added a rule to INPUT: DROP tcp"),
        (
            "firewall_rule_add",
            {"target": "DROP", "protocol": "all", "source": "10.9.9.9", "destination": "10.77.0.0/24"},
            {},
            "added a rule to INPUT: DROP all from 10.9.9.9/32 to 10.77.0.0/24",
        ),
        (
            "firewall_rule_add",
            {"chain": "OUTPUT", "port": 53, "protocol": "udp", "destination": "fd00::1", "ip_version": "ipv6"},
            {},
            "added a rule to OUTPUT: ACCEPT udp port 53 to fd00::1/128 (ipv6)",
        ),
        (
            "firewall_rule_add_range",
            {"port_start": 8000, "port_end": 8010, "source": "10.0.0.0/8"},
            {},
            "added a rule to INPUT: ACCEPT tcp port 8000:8010 from 10.0.0.0/8",
        ),
        (
            "firewall_rule_delete",
            {"chain": "INPUT", "rule_num": 3},
            {"rule": "-A INPUT -s 10.9.9.9/32 -j DROP"},
            "removed rule 3 of INPUT: -A INPUT -s 10.9.9.9/32 -j DROP",
        ),
        (
            "firewall_rule_delete",
            {"chain": "INPUT", "rule_num": 1, "zone": "public", "ip_version": "ipv4"},
            {"rule": "service ssh"},
            "removed rule 1 of INPUT in the zone public (ipv4): service ssh",
        ),
        ("firewall_flush", {}, {}, "removed the firewall rules of all chains"),
        ("firewall_flush", {"chain": "INPUT"}, {}, "removed the firewall rules of INPUT"),
    ],
)
def test_a_firewall_rule_is_told_with_all_its_conditions(
    name: str, arguments: dict[str, Any], result: dict[str, Any], expected: str
) -> None:
    assert told(name, arguments, **result) == expected


# ---- 4: tunnels, and other facts of results ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "result", "expected"),
    [
        (
            "tunnel_local",
            {"local_port": 0, "remote_host": "db1", "remote_port": 5432},
            {"bind_address": "127.0.0.1", "port": 40123},
            "opened a tunnel from 127.0.0.1 port 40123 here to db1 port 5432",
        ),
        (
            "tunnel_remote",
            {"remote_port": 0, "local_port": 22, "bind_address": "0.0.0.0"},
            {"bind_address": "0.0.0.0", "port": 40124},
            "opened a tunnel from 0.0.0.0 port 40124 there to 127.0.0.1 port 22 here",
        ),
        ("tunnel_close_all", {}, {"count": 0}, "nothing to change: no tunnel was open"),
        ("tunnel_close_all", {}, {"count": 2}, "closed all tunnels: 2"),
        ("connection_remove", {"connection": "5"}, {"name": "web1"}, "removed the saved connection web1"),
        (
            "file_upload",
            {"local_path": "a", "remote_path": "/b"},
            {"local_path": "/home/ann/a"},
            "uploaded /home/ann/a to /b",
        ),
        ("file_upload", {"raw_content": "a", "remote_path": "/b"}, {}, "uploaded to /b"),
        ("file_download", {"remote_path": "/b", "return_content": True}, {}, "downloaded /b"),
        ("system_service", {"service": "ssh", "action": "status"}, {"success": True}, None),
        (
            "system_service",
            {"service": "ssh", "action": "stop"},
            {"success": True},
            "asked for stop of the service ssh",
        ),
    ],
)
def test_what_only_the_result_knows_is_told_from_it(
    name: str, arguments: dict[str, Any], result: dict[str, Any], expected: str | None
) -> None:
    assert told(name, arguments, **result) == expected


# ---- 5: packages -------------------------------------------------------------------------------------------------

SEVEN = ["a1", "a2", "a3", "a4", "a5", "a6", "a7"]


@pytest.mark.parametrize(
    ("name", "arguments", "result", "expected"),
    [
        ("setup_update", {"index_only": True}, {"status": "completed", "changes": []}, "refreshed the package lists"),
        ("setup_update", {"index_only": True}, {"status": "partial"}, "partly: refreshed the package lists"),
        ("setup_update", {"index_only": True}, {"status": "failed"}, "failed: refreshed the package lists"),
        ("setup_update", {}, {"status": "completed", "changes": [1]}, "asked for an update of all packages"),
        (
            "setup_update",
            {},
            {"status": "completed", "changes": []},
            "nothing to change: asked for an update of all packages",
        ),
        ("setup_update", {"packages": SEVEN}, {}, "asked for an update of a1, a2, a3, a4, a5 and 2 more"),
        (
            "setup_requirements",
            {},
            {"status": "completed", "changes": [1], "resolved_packages": ["curl", "git"]},
            "asked for the installation of the default set: curl, git",
        ),
        (
            "setup_requirements",
            {"dry_run": True},
            {"status": "planned", "changes": [], "resolved_packages": ["curl"]},
            "dry run, nothing was changed: asked for the installation of the default set: curl",
        ),
        (
            "setup_requirements",
            {"packages": ["vim", "nope"]},
            {"status": "partial", "changes": [1], "failed": ["nope"]},
            "partly: asked for the installation of vim, nope; not done: nope",
        ),
        (
            "setup_remove",
            {"packages": ["vim"]},
            {"status": "completed", "changes": [], "failed": []},
            "nothing to change: asked for the removal of vim",
        ),
        (
            "setup_remove",
            {"packages": ["vim"]},
            {"status": "failed", "changes": [], "failed": ["vim"]},
            "failed: asked for the removal of vim; not done: vim",
        ),
    ],
)
def test_packages_are_told_by_name_and_by_what_became_of_them(
    name: str, arguments: dict[str, Any], result: dict[str, Any], expected: str
) -> None:
    assert told(name, arguments, **result) == expected


# ---- 7: what the arguments say of every tool ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "result", "expected"),
    [
        ("command_exec", {"command": "id", "become": {}}, {"status": "completed"}, "as root, ran: id"),
        (
            "command_exec",
            {"command": "id", "become": {"user": "CORP\\ann"}},
            {"status": "timed_out", "stopped": "unknown"},
            "as CORP\\ann, may still run: id",
        ),
        ("system_kill", {"pid": 2, "become": {}}, {"status": "failed"}, "failed: as root, sent TERM to the process 2"),
        (
            "system_chmod",
            {"path": "/srv", "mode": "0750", "recursive": True, "dry_run": True},
            {},
            "dry run, nothing was changed: gave /srv the mode 0750, with all in it",
        ),
        ("system_chown", {"path": "/srv", "owner": "ann"}, {}, "gave /srv the owner ann"),
        (
            "system_chown",
            {"path": "/srv", "owner": "ann", "group": "adm", "recursive": True, "become": {}},
            {},
            "as root, gave /srv the owner ann and the group adm, with all in it",
        ),
    ],
)
def test_another_account_and_all_that_is_in_a_folder_are_told(
    name: str, arguments: dict[str, Any], result: dict[str, Any], expected: str
) -> None:
    assert told(name, arguments, **result) == expected


# ---- 8: arguments that turn out to be secrets --------------------------------------------------------------------


def test_a_hidden_argument_is_in_neither_text() -> None:
    tool = REGISTRY["shell_send"]
    given = {"command": "hunter2", "shell": "s1"}
    with hidden_arguments() as hidden:
        hide_argument("command")
    words = audit_text(tool, tool.params.model_validate(given), tool.result.model_construct(), hidden)
    assert words == "typed in the shell s1: ***"
    assert without(given, hidden) == {"command": "***", "shell": "s1"}


def test_a_call_within_a_call_hides_its_own_arguments() -> None:
    with hidden_arguments() as outer:
        with hidden_arguments() as inner:
            hide_argument("command")
        hide_argument("secret")
    assert (outer, inner) == ({"secret"}, {"command"})
    hide_argument("nobody")
    assert (outer, inner) == ({"secret"}, {"command"})


# ---- prefixes and hostile values ---------------------------------------------------------------------------------


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
        ("setup_update", {}, {"status": "partial"}, "partly: "),
        ("firewall_block_port", {"port": 22}, {"success": False, "changed": True, "rolled_back": False}, "partly: "),
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
