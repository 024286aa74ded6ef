"""The room `hostkey`, called through dispatch as every door calls it."""

from pathlib import Path
from typing import Any

import pytest

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import InvalidInput, Refused
from mcp_ssh.tool import AnyTool, Risk, Role
from mcp_ssh.tools import connection, hostkey
from tests.support.doors import DirectCall, caller
from tests.support.hostkeys import KEY, LOOPBACK, machine, text

TOOLS: list[AnyTool] = [hostkey.accept, hostkey.list_hostkeys, hostkey.remove, hostkey.scan]


def given(port: int = 22, **changed: Any) -> dict[str, Any]:
    shown = {"host": "web1", "port": port, "key_type": "ssh-ed25519", "public_key": text(KEY)}
    return {**shown, "fingerprint_sha256": KEY.get_fingerprint(), **changed}


async def call(app: App, tool: AnyTool, arguments: dict[str, Any], by: DirectCall | None = None) -> dict[str, Any]:
    return (await dispatch(app, tool, arguments, by or DirectCall(caller()))).model_dump(exclude_unset=True)


async def test_a_key_is_accepted_listed_and_removed_in_the_documented_shapes(app: App) -> None:
    assert await call(app, hostkey.accept, given(2222)) == {"ok": True}
    assert await call(app, hostkey.list_hostkeys, {}) == {
        "entries": [
            {
                "host": "web1",
                "port": 2222,
                "known_hosts_host": "[web1]:2222",
                "key_type": "ssh-ed25519",
                "key_base64": text(KEY).split()[1],
                "fingerprint_sha256": KEY.get_fingerprint(),
                "accepted_by": "stdio",
            }
        ]
    }
    which = {"host": "web1", "port": 2222, "key_type": "ssh-ed25519"}
    assert await call(app, hostkey.remove, which) == {"ok": True, "changed": True}
    assert await call(app, hostkey.remove, which) == {"ok": True, "changed": False}
    assert await call(app, hostkey.list_hostkeys, {}) == {"entries": []}


async def test_a_scan_shows_keys_and_what_they_are(app: App) -> None:
    async with machine(KEY) as port:
        shown = {"key_type": "ssh-ed25519", "public_key": text(KEY), "fingerprint_sha256": KEY.get_fingerprint()}
        scanned = {"host": LOOPBACK, "port": port}
        assert await call(app, hostkey.scan, scanned) == {**scanned, "keys": [{**shown, "known": "unknown"}]}
        await call(app, hostkey.accept, {**scanned, **shown})
        assert await call(app, hostkey.scan, scanned) == {**scanned, "keys": [{**shown, "known": "trusted"}]}


@pytest.mark.requirement("fault.N13")
async def test_a_scan_takes_a_saved_connection_and_an_alias(app: App, tmp_path: Path) -> None:
    async with machine(KEY) as port:
        saved = {"name": "web1", "host": LOOPBACK, "port": port, "username": "ops", "password": "x"}
        await call(app, connection.add, saved)
        ssh = tmp_path / "home/.ssh"
        ssh.mkdir(mode=0o700)
        (ssh / "config").write_text(f"Host web2\n HostName {LOOPBACK}\n Port {port}\n")
        for name in ("web1", "web2"):
            found = await call(app, hostkey.scan, {"host": name})
            assert (found["host"], found["port"], len(found["keys"])) == (LOOPBACK, port, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"host": "a b"},
        {"host": "a,b"},
        {"host": "a\nb"},
        {"host": "*"},
        {"host": ""},
        {"port": 0},
        {"port": 65536},
        {"key_type": "ssh ed25519"},
        {"key_type": "ssh-rsa"},
        {"public_key": ""},
        {"public_key": "x" * 8193},
        {"public_key": text(KEY) + "\nevil"},
        {"fingerprint_sha256": "SHA256: x"},
        {"fingerprint_sha256": "SHA256:" + "A" * 43},
        {"extra": 1},
    ],
)
async def test_a_wrong_field_is_named_and_nothing_is_accepted(app: App, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        await call(app, hostkey.accept, given(**wrong))
    assert caught.value.details["errors"][0]["field"] in wrong
    assert await call(app, hostkey.list_hostkeys, {}) == {"entries": []}


async def test_accepting_needs_an_operator_and_through_a_door_that_asks_a_persons_consent(app: App) -> None:
    with pytest.raises(Refused, match="operator"):
        await call(app, hostkey.accept, given(), DirectCall(caller(role=Role.VIEWER)))
    asking = DirectCall(caller(), confirms=True)
    with pytest.raises(Refused, match="consent"):
        await call(app, hostkey.accept, given(), asking)
    assert await call(app, hostkey.list_hostkeys, {}, DirectCall(caller(role=Role.VIEWER))) == {"entries": []}
    assert await call(app, hostkey.accept, {**given(), "confirm": True}, asking) == {"ok": True}


def test_every_field_is_described_and_the_rules_stand_in_the_schemas() -> None:
    assert [(tool.name, tool.risk, tool.confirm) for tool in TOOLS] == [
        ("hostkey_accept", Risk.CHANGE, True),
        ("hostkey_list", Risk.READ, False),
        ("hostkey_remove", Risk.CHANGE, False),
        ("hostkey_scan", Risk.READ, False),
    ]
    for tool in TOOLS:
        for schema in (tool.input_schema, tool.output_schema):
            for name, field in schema.get("properties", {}).items():
                assert field.get("description"), (tool.name, name)
    properties = hostkey.accept.input_schema["properties"]
    assert hostkey.accept.input_schema["required"] == list(given())
    assert (properties["port"]["minimum"], properties["port"]["maximum"]) == (1, 65535)
    assert (properties["public_key"]["minLength"], properties["public_key"]["maxLength"]) == (1, 8192)
    assert all("pattern" in properties[name] for name in ("host", "key_type", "fingerprint_sha256"))
