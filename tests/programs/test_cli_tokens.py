"""Tokens are made, listed and revoked from the command line, and shown once."""

import json
from pathlib import Path

import pytest

from tests.support.cli_kit import run


def stored(home: Path) -> bytes:
    """Everything in the state folder."""
    return b"".join(path.read_bytes() for path in sorted((home / "state").rglob("*")) if path.is_file())


async def test_a_token_lives_from_add_to_revoke(tmp_path: Path) -> None:
    empty = await run("token", "list", home=tmp_path)
    assert (empty.code, empty.out) == (0, "")
    assert "no tokens" in empty.err

    added = await run("token", "add", "ci", "--role", "viewer", home=tmp_path)
    secret = added.out.rstrip("\n")
    assert added.code == 0
    assert added.out == f"{secret}\n"
    assert len(secret) > 40
    assert secret not in added.err

    listed = await run("token", "list", home=tmp_path)
    assert listed.out.splitlines()[1].split()[1:3] == ["ci", "viewer"]
    assert secret not in listed.out + listed.err
    [described] = json.loads((await run("token", "list", "--json", home=tmp_path)).out)
    assert (described["name"], described["role"], described["last_used_at"]) == ("ci", "viewer", None)

    assert b"ci" in stored(tmp_path)
    assert secret.encode() not in stored(tmp_path)

    again = await run("token", "add", "ci", home=tmp_path)
    assert again.code == 1
    assert "ci" in again.failure

    revoked = await run("token", "revoke", "ci", home=tmp_path)
    assert (revoked.code, revoked.err) == (0, "token ci is revoked\n")
    assert json.loads((await run("token", "list", "--json", home=tmp_path)).out) == []


async def test_a_new_token_is_an_operator_unless_said_otherwise(tmp_path: Path) -> None:
    await run("token", "add", "someone", home=tmp_path)
    [described] = json.loads((await run("token", "list", "--json", home=tmp_path)).out)
    assert described["role"] == "operator"


@pytest.mark.requirement("fault.S9")
@pytest.mark.parametrize(
    ("options", "says"), [(("--host", "web*"), "(operator, as it is bound to hosts)"), ((), "(admin)")]
)
async def test_a_new_token_that_is_bound_to_hosts_is_said_to_be_no_admin(
    tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    made = await run("token", "add", "ci", "--role", "admin", *options, home=tmp_path)
    assert says in made.err
    [described] = json.loads((await run("token", "list", "--json", home=tmp_path)).out)
    assert f"({described['role']}" in says
    table = (await run("token", "list", home=tmp_path)).out
    assert described["role"] in table.splitlines()[1].split()
