"""The config through every door: shown without secrets, changed in one step, and never half."""

import json
import stat
import sys
from pathlib import Path

import anyio
import pytest

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import load
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import InvalidInput, Refused, TooMany
from mcp_ssh.tool import Caller, Role
from mcp_ssh.tools import REGISTRY, config, session
from tests.support.doors import DirectCall, Fault, Way, caller, open_rest, open_way

OWNER = DirectCall(caller())
ADMIN = DirectCall(Caller("admin", Role.ADMIN))


async def refused(way: Way, tool: object, **arguments: object) -> Fault:
    with pytest.raises(Fault) as fault:
        await way.call(tool, arguments)  # type: ignore[arg-type]
    return fault.value


@pytest.mark.requirement("config.look", "config.set")
async def test_a_value_is_written_at_once_and_counts(way: Way, app: App) -> None:
    assert (await way.call(config.get_key, {"key": "ssh.timeout"})) == {"key": "ssh.timeout", "value": 30.0}
    done = await way.call(config.set_value, {"key": "ssh.timeout", "value": 12.5})
    assert done == {"key": "ssh.timeout", "value": 12.5, "status": "updated"}
    path = app.home / "config.json"
    assert json.loads(path.read_text()) == {"ssh": {"timeout": 12.5}}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert app.config.ssh.timeout == 12.5
    assert (await way.call(config.get, {}))["config"]["ssh"]["timeout"] == 12.5
    later = await way.call(config.set_value, {"key": "logging.level", "value": "DEBUG"})
    assert later["needs_restart"] == ["logging.level"]


@pytest.mark.requirement("config.look")
async def test_secrets_are_masked_and_in_no_history(way: Way, app: App) -> None:
    secret = "not to be seen by anybody"
    done = await dispatch(app, config.set_value, {"key": "auth.default_password", "value": secret}, OWNER)
    assert done.value == "***"
    assert app.config.auth.default_password.get_secret_value() == secret
    shown = json.dumps(await way.call(config.get, {}))
    assert secret not in shown
    assert '"default_password": "***"' in shown
    assert '"default_key_passphrase": ""' in shown
    assert (await way.call(config.get_key, {"key": "auth.default_password"}))["value"] == "***"
    await app.store.history.flush()
    assert secret not in json.dumps([row.model_dump() for row in await app.store.history.list(50)], default=str)


@pytest.mark.requirement("config.set")
async def test_a_wrong_value_or_key_changes_nothing(way: Way, app: App) -> None:
    app.live.tools = REGISTRY
    await way.call(config.set_value, {"key": "ssh.timeout", "value": 20})
    before = (app.home / "config.json").read_text()
    for key, value, word in (
        ("ssh.timeout", "soon", "ssh.timeout"),
        ("ssh.timeout", -1, "ssh.timeout"),
        ("server.port", 70000, "server.port"),
        ("ssh", 5, "ssh"),
        ("ssh.idle_minutes", "inf", "idle_minutes"),
        ("security.confirm_tools", ["comand_exec"], "comand_exec"),
        ("security.host_keys", "never", "host_keys"),
    ):
        restricted = way.name == "rest" and not key.startswith("ssh")
        found = str(await refused(way, config.set_value, key=key, value=value))
        assert (key if restricted else word) in found
    for tool, arguments in (
        (config.set_value, {"key": "ssh.timeot", "value": 1}),
        (config.get_key, {"key": "ssh.timeot"}),
    ):
        fault = await refused(way, tool, **arguments)
        assert fault.status in {None, 404}
        assert "ssh.timeout" in fault.payload["hint"]
    assert (app.home / "config.json").read_text() == before
    assert app.config.ssh.timeout == 20
    assert list(app.home.glob(".config*")) == []


@pytest.mark.requirement("config.reload")
async def test_a_broken_file_keeps_the_old_config(way: Way, app: App) -> None:
    app.live.tools = REGISTRY
    path: Path = app.home / "config.json"
    path.write_text('{"ssh": {"timeout": 7}, "server": {"port": 8000}}')
    done = await way.call(config.reload, {})
    assert (done["status"], done["changed"]) == ("reloaded", ["server.port", "ssh.timeout"])
    assert done["needs_restart"] == ["server.port"]
    for broken, word in (
        ('{\n  "ssh": {,}}', "line 2"),
        ('{"ssh": {"timeuot": 7}}', "ssh.timeuot"),
        ("[]", "config.json: must be an object"),
        ('{"security": {"confirm_tools": ["comand_exec"]}}', "comand_exec"),
        ('{"ssh": {"timeout": 8}, "ssh": {"default_port": 23}}', "'ssh' is given twice"),
        ('{"ssh": {"timeout": 8, "timeout": 9}}', "'timeout' is given twice"),
    ):
        path.write_text(broken)
        assert word in str(await refused(way, config.reload))
        assert app.config.ssh.timeout == 7


@pytest.mark.requirement("config.set")
async def test_what_is_read_at_start_counts_as_it_was_until_the_next(way: Way, app: App) -> None:
    for key, value in (("server.port", 9001), ("logging.level", "DEBUG")):
        assert (await dispatch(app, config.set_value, {"key": key, "value": value}, OWNER)).needs_restart
        assert (await way.call(config.get_key, {"key": key}))["value"] == value
    assert (app.config.server.port, app.config.logging.level) == (8754, "INFO")
    assert (await way.call(config.reload, {}))["changed"] == []
    await dispatch(app, config.set_value, {"key": "security.max_output_kb", "value": 64}, OWNER)
    assert (app.config.security.max_output_kb, app.config.server.port) == (64, 8754)


@pytest.mark.requirement("config.set", "config.reload")
async def test_an_option_of_the_command_line_is_no_change_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"server": {"port": 9000}}')
    given = load(tmp_path)
    optioned = given.model_copy(update={"server": given.server.model_copy(update={"port": 9999})})
    async with open_app(tmp_path, optioned) as app, open_way("direct", app) as way:
        reloaded = await way.call(config.reload, {})
        assert reloaded == {"status": "reloaded", "changed": []}
        assert "needs_restart" not in await way.call(config.set_value, {"key": "ssh.timeout", "value": 9})
        later = await way.call(config.set_value, {"key": "server.port", "value": 9001})
        assert later["needs_restart"] == ["server.port"]
        assert app.config.server.port == 9999


@pytest.mark.requirement("config.set")
async def test_processes_that_change_keys_at_once_undo_nothing_of_each_other(tmp_path: Path) -> None:
    """Two servers share a folder; the file is a link, as keepers of dot files make it, and stays one."""
    (tmp_path / "kept.json").write_text("{}")
    (tmp_path / "config.json").symlink_to("kept.json")
    work = (
        "import pathlib, sys; from mcp_ssh.config.edit import set_key\n"
        "for n in range(1, 31): set_key(pathlib.Path(sys.argv[1]), sys.argv[2], n)"
    )
    async with anyio.create_task_group() as group:
        for key in ("ssh.timeout", "ssh.banner_timeout", "sftp.max_file_size_mb"):
            group.start_soon(anyio.run_process, [sys.executable, "-c", work, str(tmp_path), key])
    said = json.loads((tmp_path / "kept.json").read_text())
    assert said == {"ssh": {"timeout": 30, "banner_timeout": 30}, "sftp": {"max_file_size_mb": 30}}
    assert (tmp_path / "config.json").is_symlink()


@pytest.mark.requirement("config.set")
async def test_what_was_shown_masked_is_not_written_back(way: Way, app: App) -> None:
    await dispatch(app, config.set_value, {"key": "auth.default_password", "value": "the secret"}, OWNER)
    shown = (await way.call(config.get, {}))["config"]["auth"]
    for key, value in (("auth", shown), ("auth.default_password", "***")):
        with pytest.raises(InvalidInput, match="secret"):
            await dispatch(app, config.set_value, {"key": key, "value": value}, OWNER)
    assert app.config.auth.default_password.get_secret_value() == "the secret"


@pytest.mark.requirement("config.set")
async def test_the_config_is_for_admins(app: App) -> None:
    for role in (Role.VIEWER, Role.OPERATOR):
        async with open_rest(app, role) as client:
            for method, path in (("GET", "/config/"), ("GET", "/config/ssh.timeout"), ("POST", "/config/reload")):
                assert (await client.request(method, path)).status_code == 403
            answer = await client.put("/config/", json={"key": "ssh.timeout", "value": 1})
            assert answer.status_code == 403
    assert not (app.home / "config.json").exists()
    assert DirectCall(caller()).caller.role is Role.ADMIN


# ---- what only the owner changes ---------------------------------------------------------------------------------


@pytest.mark.requirement("fault.S9")
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auth.default_host", "203.0.113.9"),
        ("auth", {}),
        ("security.hosts", []),
        ("security.protected_paths", []),
        ("security", {}),
        ("server.auth_mode", "none"),
        ("sftp.local_folders", ["/"]),
        ("sftp", {"local_folders": ["/"]}),
        ("sftp", {}),
        ("logging.directory", "/root"),
        ("logging", {"directory": "/root"}),
    ],
)
async def test_an_admin_changes_nothing_that_makes_it_the_owner(app: App, key: str, value: object) -> None:
    """The negative control: the owner changes the same keys, at the command line and over stdio."""
    path = app.home / "config.json"
    path.write_text(json.dumps({"sftp": {"local_folders": ["/srv"]}, "security": {"hosts": [RULE]}}))
    before = path.read_text()
    local = DirectCall(Caller("local", Role.ADMIN))  # anybody, where server.auth_mode is none
    for who in (ADMIN, local):
        with pytest.raises(Refused, match="owner") as refusal:
            await dispatch(app, config.set_value, {"key": key, "value": value}, who)
        assert "the owner changes it over stdio" in str(refusal.value.hint)
        assert path.read_text() == before
    assert app.config.security.hosts
    await dispatch(app, config.set_value, {"key": key, "value": value}, OWNER)
    assert path.read_text() != before


RULE = {"hosts": ["*"], "read_only": True}


@pytest.mark.requirement("fault.S9")
async def test_an_admin_changes_what_is_not_the_owners(app: App) -> None:
    for key, value in (("ssh.timeout", 9), ("sftp.max_file_size_mb", 7), ("sftp", {"max_file_size_mb": 8})):
        await dispatch(app, config.set_value, {"key": key, "value": value}, ADMIN)
    assert json.loads((app.home / "config.json").read_text()) == {
        "ssh": {"timeout": 9},
        "sftp": {"max_file_size_mb": 8},
    }


@pytest.mark.requirement("fault.S9")
async def test_a_token_bound_to_hosts_reaches_no_config_whatever_its_role(app: App) -> None:
    _, secret = await app.store.tokens.create("bound", Role.ADMIN, ["10.77.0.9"])
    found = await app.store.tokens.find(secret)
    assert found is not None
    bound = DirectCall(Caller(found.id, found.role, hosts=found.hosts))
    for tool, given in (
        (config.get, {}), (config.get_key, {"key": "ssh"}), (config.reload, {}),
        (config.set_value, {"key": "ssh.timeout", "value": 1}),
    ):  # fmt: skip
        with pytest.raises(Refused, match="needs the role admin"):
            await dispatch(app, tool, given, bound)
    await dispatch(app, config.get, {}, ADMIN)


@pytest.mark.requirement("fault.S9")
@pytest.mark.parametrize(
    ("key", "value"), [("auth.default_host", "other.example.org"), ("auth.default_username", "eve")]
)
async def test_another_default_host_or_account_gets_no_secret_of_the_previous_one(
    app: App, key: str, value: str
) -> None:
    """The negative control: the same value again, and any other key, drop nothing."""
    secrets = {"default_password": "the secret", "default_key_passphrase": "the passphrase"}
    auth = {"default_host": "web.example.org", "default_username": "ops", **secrets}
    path = app.home / "config.json"
    path.write_text(json.dumps({"auth": auth}))
    for same in ((key, auth[key.partition(".")[2]]), ("auth.default_key_path", "/root/key"), ("ssh.timeout", 9)):
        done = await dispatch(app, config.set_value, {"key": same[0], "value": same[1]}, OWNER)
        assert done.dropped is None
        assert app.config.auth.default_password.get_secret_value() == "the secret"
    done = await dispatch(app, config.set_value, {"key": key, "value": value}, OWNER)
    assert done.dropped == ["auth.default_password", "auth.default_key_passphrase"]
    assert not any(each in path.read_text() for each in secrets.values())
    assert app.config.auth.default_password.get_secret_value() == ""


# ---- what another process changed --------------------------------------------------------------------------------


@pytest.mark.requirement("fault.S14")
async def test_a_file_that_another_process_changed_is_in_force_from_the_next_call_on(app: App) -> None:
    path = app.home / "config.json"
    for number in range(5):  # as fast as a program can write: no change is missed for having the time of the one before
        path.write_text(json.dumps({"ssh": {"timeout": 10 + number}}))
        await dispatch(app, session.list_sessions, {}, OWNER)
        assert app.config.ssh.timeout == 10 + number
    new = app.home / "new.json"
    new.write_text(json.dumps({"security": {"max_calls_per_minute": 1, "reject_unknown_hosts": True}}))
    new.replace(path)
    other = DirectCall(Caller("busy", Role.ADMIN))
    await dispatch(app, session.list_sessions, {}, other)
    with pytest.raises(TooMany):
        await dispatch(app, session.list_sessions, {}, other)
    with pytest.raises(Refused, match="reject_unknown_hosts"):
        await app.hostkeys.accept("h", 22, "ssh-ed25519", "ssh-ed25519 AAAA", "SHA256:x")


@pytest.mark.requirement("fault.S14")
async def test_a_file_that_is_broken_or_gone_leaves_the_previous_policy_in_force(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    path = app.home / "config.json"
    path.write_text(json.dumps({"security": {"hosts": [RULE]}}))
    await dispatch(app, session.list_sessions, {}, OWNER)
    for text in ("", '{"security": {"hosts": [', '{"security": {"hostes": []}}', None):
        caplog.clear()
        path.unlink() if text is None else path.write_text(text)
        for _ in range(3):
            await dispatch(app, session.list_sessions, {}, OWNER)
        assert app.config.security.hosts[0].read_only
        assert len([each for each in caplog.messages if "stays in force" in each]) == 1
    path.write_text("{}")
    await dispatch(app, session.list_sessions, {}, OWNER)
    assert app.config.security.hosts == []


@pytest.mark.requirement("fault.S14")
async def test_consent_that_another_process_asks_for_is_needed_through_rest_from_the_next_call_on(app: App) -> None:
    async with open_rest(app) as client:
        assert (await client.post("/config/reload")).status_code == 200
        (app.home / "config.json").write_text('{"security": {"confirm_tools": ["config_reload"]}}')
        assert (await client.post("/config/reload")).status_code == 403
        assert (await client.post("/config/reload", json={"confirm": True})).status_code == 200
