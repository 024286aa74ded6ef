"""Redaction: no secret reaches the record, wherever in the arguments it stands, and the rest stays readable."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretBytes, SecretStr

from mcp_ssh.store import arguments_text, redact
from mcp_ssh.store.redaction import CUT, cut_text

SECRET = "correct-horse-battery-staple"


class Inner(BaseModel):
    pin_code: str = Field(json_schema_extra={"secret": True})
    colour: str = "red"


class Model(BaseModel):
    inner: Inner
    anything: SecretStr


@pytest.mark.parametrize(
    "name",
    [
        "password", "Password", "sudo_password", "sourcePassword", "passphrase", "key_passphrase", "key_content",
        "keyContent", "private_key", "privateKey", "PRIVATE-KEY", "sourceSSHKey", "secret", "client_secret", "token",
        "access_token", "api_key", "apiKey", "authFileContent", "Authorization", "cookie", "stdin", "content",
        "credentials",
    ],
)  # fmt: skip
def test_a_field_named_like_a_secret_is_hidden_at_any_depth(name: str) -> None:
    assert redact({name: SECRET}) == {name: "***"}
    assert redact({"a": [{"b": {name: SECRET}}]}) == {"a": [{"b": {name: "***"}}]}
    assert redact({name: {"deeper": [SECRET]}}) == {name: "***"}


@pytest.mark.parametrize(
    "name", ["host", "username", "command", "key_path", "path", "port", "cwd", "session_id", "key"]
)
def test_a_field_that_tells_what_was_done_stays(name: str) -> None:
    assert redact({name: "value"}) == {name: "value"}


def test_a_secret_that_was_not_given_is_seen_to_be_missing() -> None:
    assert redact({"password": None, "port": 22, "sudo": False}) == {"password": None, "port": 22, "sudo": False}


def test_an_environment_keeps_its_names_only() -> None:
    assert redact({"env": {"DEBUG": "1", "PATH": "/bin"}}) == {"env": {"DEBUG": "***", "PATH": "***"}}
    assert redact({"environment": ["A=" + SECRET]}) == {"environment": "***"}
    assert redact({"env": None}) == {"env": None}


def test_the_value_of_a_setting_named_like_a_secret_is_hidden() -> None:
    assert redact({"key": "auth.default_password", "value": SECRET}) == {"key": "auth.default_password", "value": "***"}
    assert redact({"key": "ssh.timeout", "value": 30}) == {"key": "ssh.timeout", "value": 30}


def test_secret_types_and_marked_fields_of_models_are_hidden_whatever_their_name() -> None:
    model = Model(inner=Inner(pin_code=SECRET), anything=SecretStr(SECRET))
    assert redact(model) == {"inner": {"pin_code": "***", "colour": "red"}, "anything": "***"}
    assert redact({"x": SecretStr(SECRET), "y": [SecretBytes(b"s")]}) == {"x": "***", "y": ["***"]}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"git clone https://me:{SECRET}@example.org/x", "git clone https://me:***@example.org/x"),
        (f"echo mcpssh_{'aB3-_' * 8}xyz | cat", "echo *** | cat"),
        (
            "a\n-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\nb",
            "a\n***\nb",
        ),
        ("cut short -----BEGIN RSA PRIVATE KEY-----\nAAAA", "cut short ***"),
        ("ssh://host:22/path and mail@example.org", "ssh://host:22/path and mail@example.org"),
    ],
)
def test_secrets_inside_other_text_are_hidden(text: str, shown: str) -> None:
    assert redact({"command": text}) == {"command": shown}


@pytest.mark.parametrize("before", range(4040, 4110, 7))
def test_a_token_across_the_place_where_long_text_is_cut_is_hidden(before: int) -> None:
    shown = json.dumps(redact({"command": "x" * before + "mcpssh_" + "S" * 43 + "y" * 9000}))
    assert "SSSS" not in shown


def test_bytes_and_unknown_objects_are_named_by_their_type() -> None:
    assert redact({"a": b"\xff", "b": object()}) == {"a": "(bytes)", "b": "(object)"}


def test_very_deep_or_wide_arguments_are_cut() -> None:
    deep: dict[str, Any] = {}
    for _ in range(900):
        deep = {"a": deep}
    assert CUT in json.dumps(redact(deep), ensure_ascii=False)
    wide = redact({"list": list(range(1000)), **{f"k{each}": each for each in range(1000)}})
    assert len(wide["list"]) == 101
    assert len(wide) == 101
    assert wide["…"] == "901 more"


def test_the_text_of_arguments_fits_a_row_whatever_they_are() -> None:
    text = arguments_text({"command": "é" * 3_000_000, "other": ["x" * 5000] * 500})
    assert len(text.encode()) <= 4096
    assert text.endswith(CUT)
    assert arguments_text({"a": "\ud800"}) == '{"a": "?"}'


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=20), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["password", "keyContent", "api_token", "stdin", "sudo-passphrase"]), json_values)
def test_a_secret_never_survives_in_any_surroundings(beside: object, name: str, secret_shape: object) -> None:
    hidden = {"outer": [beside, {name: {"shape": secret_shape, "value": SECRET}, "beside": beside}]}
    text = arguments_text(hidden)
    assert SECRET not in text
    assert len(text.encode()) <= 4096


@given(st.dictionaries(st.text(max_size=20), json_values, max_size=5))
def test_redacting_twice_changes_nothing_more(arguments: dict[str, Any]) -> None:
    once = redact(arguments)
    assert json.dumps(redact(once)) == json.dumps(once)


@given(st.text(st.characters()), st.integers(min_value=16, max_value=64))
def test_cut_text_fits_and_keeps_what_fits(text: str, size: int) -> None:
    cut = cut_text(text, size)
    assert len(cut.encode()) <= size
    storable = text.encode("utf-8", "replace").decode()
    assert cut == storable or (len(storable.encode()) > size and storable.startswith(cut.removesuffix(CUT)))


def test_values_under_names_that_the_model_has_not_are_hidden() -> None:
    given = {"anythin": SECRET, "inner": {"color": SECRET, "colour": "blue"}, "confirm": True}
    assert json.loads(arguments_text(given, Model)) == {
        "anythin": "***",
        "inner": {"color": "***", "colour": "blue"},
        "confirm": True,
    }
    assert json.loads(arguments_text({"inner": SECRET}, Model)) == {"inner": "***"}
