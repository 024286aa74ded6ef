"""The shell completes what there is: asked in real shells, by the scripts that are printed."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import anyio.to_thread
import pytest

from mcp_ssh.cli.commands.completion import SCRIPTS
from mcp_ssh.tools import REGISTRY
from tests.support.cli_kit import ROOT, environment, run

pytestmark = pytest.mark.requirement("cli.completion")


@pytest.fixture
async def home(tmp_path: Path) -> Path:
    """A folder with two saved connections and an ssh config with aliases."""
    for name in ("web1", "prod/db 2"):
        given = f'{{"name": "{name}", "host": "h", "username": "u", "password": "p"}}'
        assert (await run("call", "connection_add", "-", home=tmp_path, stdin=given)).code == 0
    ssh = tmp_path / "person/.ssh"
    (ssh / "more").mkdir(parents=True)
    (ssh / "config").write_text(
        'Include more/*\nHost bastion "inner one"\n  User ops\nHost *.example.org !x\nhost=eq\n'
    )
    (ssh / "more/a").write_text("Host included\nInclude config\n")
    return tmp_path


async def words(home: Path, *line: str) -> list[str]:
    """What fits at the last word of a line."""
    done = await run("completion", "words", "--", str(len(line) - 1), *line, home=home)
    assert (done.code, done.err) == (0, "")
    return done.out.splitlines()


async def test_each_place_of_a_line_has_its_words(home: Path) -> None:
    machines = ["prod/db 2", "web1", "bastion", "eq", "included", "inner", "one"]
    assert await words(home, "ssh-steward", "ch") == ["check"]
    assert {"exec", "upload", "download", "client-config"} <= set(await words(home, "ssh-steward", ""))
    for command in ("exec", "upload", "download", "check"):
        assert await words(home, "ssh-steward", command, "") == machines
    assert await words(home, "ssh-steward", "exec", "-l", "ops", "w") == ["web1"]
    assert await words(home, "ssh-steward", "upload", "web1", "") == []
    assert await words(home, "ssh-steward", "check", "web1", "b") == ["bastion"]
    assert await words(home, "ssh-steward", "exec", "web1", "--", "") == []
    assert await words(home, "ssh-steward", "-v", "call", "") == list(REGISTRY)
    assert await words(home, "ssh-steward", "call", "connection_q") == ["connection_query"]
    assert await words(home, "ssh-steward", "client-config", "c") == [
        "claude-desktop",
        "claude-code",
        "codex",
        "cursor",
        "cline",
    ]
    assert await words(home, "ssh-steward", "completion", "") == list(SCRIPTS)
    assert await words(home, "ssh-steward", "token", "a") == ["add"]
    assert await words(home, "ssh-steward", "token", "add", "x", "--role", "") == ["viewer", "operator", "admin"]
    assert "--toolsets" in await words(home, "ssh-steward", "serve", "--")
    assert await words(home, "ssh-steward", "no-such", "") == []


async def test_nothing_breaks_where_there_is_nothing(tmp_path: Path) -> None:
    assert await words(tmp_path, "ssh-steward", "exec", "") == []
    assert not (tmp_path / "state").exists()
    for wrong in ([], ["x"]):
        done = await run("completion", "words", "--", *wrong, home=tmp_path)
        assert (done.code, done.out, done.err) == (0, "", "")


async def test_a_name_with_a_newline_in_the_database_does_not_become_two_words(home: Path) -> None:
    with closing(sqlite3.connect(home / "state/state.db")) as db:
        db.execute("UPDATE connections SET name = 'web1' || char(10) || 'evil' WHERE name = 'web1'")
        db.commit()
    assert "evil" not in await words(home, "ssh-steward", "exec", "")


def in_shell(home: Path, shell: str, script: str) -> list[str]:
    """What a shell says that has read its script, with `ssh-steward` in its PATH."""
    folder = home / "bin"
    folder.mkdir(exist_ok=True)
    program = folder / "ssh-steward"
    program.write_text(f'#!/bin/sh\ncd {ROOT} && exec {sys.executable} -m mcp_ssh "$@"\n')
    program.chmod(0o755)
    env = environment(home) | {"PATH": f"{folder}:{os.environ['PATH']}"}
    done = subprocess.run([shell, "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


COMPLETING = {
    "bash": (
        """
        eval "$(ssh-steward completion bash)"
        complete -p ssh-steward mcp-ssh
        COMP_WORDS=(ssh-steward exec pro) COMP_CWORD=2
        _ssh_steward
        printf '%s\\n' "${COMPREPLY[@]}"
        COMP_WORDS=(ssh-steward upload web1 '') COMP_CWORD=3
        _ssh_steward
        echo "${#COMPREPLY[@]}"
        """,
        [
            "complete -o default -F _ssh_steward ssh-steward",
            "complete -o default -F _ssh_steward mcp-ssh",
            "prod/db\\ 2",
            "0",
        ],
    ),
    "zsh": (
        """
        compdef() { echo "for $2 $3" }
        compadd() { shift; print -rl -- "$@" }
        _files() { echo files }
        eval "$(ssh-steward completion zsh)"
        words=(ssh-steward exec pro) CURRENT=3
        _ssh_steward
        words=(ssh-steward upload web1 '') CURRENT=4
        _ssh_steward
        """,
        ["for ssh-steward mcp-ssh", "prod/db 2", "files"],
    ),
    "fish": (
        "ssh-steward completion fish | source; complete -C 'ssh-steward exec pro'; complete -C 'ssh-steward token '",
        ["prod/db 2", "add", "list", "revoke"],
    ),
}


@pytest.mark.parametrize("shell", [shell for shell in COMPLETING if shutil.which(shell)])
async def test_the_shells_of_this_machine_complete(shell: str, home: Path) -> None:
    script, completed = COMPLETING[shell]
    assert await anyio.to_thread.run_sync(in_shell, home, shell, script) == completed
