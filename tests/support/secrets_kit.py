"""Secrets that nobody else has, every tool that takes one, and a search of all places where one must not be."""

import base64
import contextlib
import functools
import json
import secrets
import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from mcp_ssh.tool import AnyTool
from mcp_ssh.tools import command, connection, file, session, shell
from tests.fleet.hosts import Host
from tests.support.doors import Fault

Call = Callable[[AnyTool, Mapping[str, Any]], Awaitable[dict[str, Any]]]
ROOT = Path(__file__).parents[2]
LABELS = (
    *("login", "other", "passphrase", "env", "stdin", "file", "upload", "typed"),
    *("wrong_login", "wrong_passphrase", "wrong_become", "answer", "misspelt", "misplaced", "saved"),
)


@dataclass(repr=False)
class Kit:
    """Accounts on a host with passwords of their own, and the values that are given to tools."""

    host: Host
    user: str
    other: str
    key_content: str
    values: dict[str, str]
    heard: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=lambda: [f"seen-{secrets.token_hex(6)}" for _ in range(4)])
    used: int = 0

    @property
    def needles(self) -> dict[str, str]:
        """What to look for: each value, and of the key a piece of both its forms."""
        body = "".join(base64.b64decode(self.key_content).decode().splitlines()[1:-1])
        middle = len(body) // 2
        return {
            **self.values,
            "key": body[middle : middle + 40],
            "key_content": self.key_content[middle : middle + 40],
            "stdin_base64": base64.b64encode(self.values["stdin"].encode()).decode(),
        }

    def mark(self) -> str:
        """A word for a command line, by which the sampler shows that it looked in time."""
        self.used += 1
        return f"sleep 0.3; : {self.marks[self.used - 1]}"


@contextlib.asynccontextmanager
async def kit(host: Host, folder: Path) -> AsyncGenerator[Kit]:
    made = await anyio.to_thread.run_sync(_made, host, folder)
    try:
        yield made
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_removed, made)


def _made(host: Host, folder: Path) -> Kit:
    values = {label: f"{label}-{secrets.token_hex(12)}" for label in LABELS}
    user, other = (f"{each}{secrets.token_hex(3)}" for each in ("vault", "other"))
    key = folder / "vault_key"
    generate = ["ssh-keygen", "-q", "-t", "ed25519", "-C", "", "-N", values["passphrase"], "-f", str(key)]
    subprocess.run(generate, check=True, stdin=subprocess.DEVNULL)
    text = f"""
set -e
for name in {user} {other}; do
    if command -v useradd >/dev/null; then useradd -m -s /bin/bash $name; else adduser -D -s /bin/ash $name; fi
done
chpasswd >/dev/null 2>&1
echo '{user} ALL=(ALL:ALL) ALL' >/etc/sudoers.d/{user}
mkdir -p /home/{user}/.ssh
echo '{key.with_suffix(".pub").read_text().strip()}' >/home/{user}/.ssh/authorized_keys
chown -R {user} /home/{user}/.ssh; chmod 700 /home/{user}/.ssh
"""
    done = host.console(["sh", "-c", text], f"{user}:{values['login']}\n{other}:{values['other']}\n")
    assert done.returncode == 0, done.stderr
    content = base64.b64encode(key.read_bytes()).decode()
    key.unlink()
    return Kit(host, user, other, content, values)


def _removed(made: Kit) -> None:
    text = """for name in "$@"; do
    pkill -KILL -u "$name"
    rm -f "/etc/sudoers.d/$name"
    userdel -rf "$name" || deluser --remove-home "$name"
done"""
    made.host.console(["sh", "-c", text, "sh", made.user, made.other])


async def use_every_secret(kit: Kit, call: Call) -> None:
    """Give each value to the tools that take it, rightly and wrongly."""
    v, heard = kit.values, kit.heard

    async def refused(tool: AnyTool, arguments: Mapping[str, Any]) -> None:
        try:
            heard.append(json.dumps(await call(tool, arguments)))
        except Fault as fault:
            heard.append(json.dumps(fault.payload))
            return
        raise AssertionError(f"{tool.name} took {sorted(arguments)}")

    async def asked(tool: AnyTool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        answer = await call(tool, arguments)
        heard.append(json.dumps(answer))
        return answer

    where = {"host": kit.host.ip, "username": kit.user}
    key = {"key_content": kit.key_content, "key_passphrase": v["passphrase"]}
    await refused(session.connect, where | {"password": v["wrong_login"]})
    await refused(session.connect, where | {"password": v["wrong_login"], "interactive_answers": [v["answer"]]})
    await refused(session.connect, where | key | {"key_passphrase": v["wrong_passphrase"]})
    await refused(session.connect, where | {"pasword": v["misspelt"]})
    await refused(session.connect, where | {"password": [v["misplaced"]]})
    await asked(session.connect, where | key)
    on = {"session_id": (await asked(session.connect, where | {"password": v["login"]}))["session_id"]}

    env = {"TOKEN": v["env"]}
    script = f'test -n "$TOKEN" && read -r line && test -n "$line" && {kit.mark()}'
    given = on | {"env": env, "stdin": v["stdin"] + "\n"}
    assert (await asked(command.run_command, given | {"command": script}))["exit_code"] == 0
    for become in ({"use_login_password": True}, {"method": "su", "user": kit.other, "password": v["other"]}):
        script = f'test -n "$TOKEN" && read -r line && test -n "$line" && {kit.mark()}'
        assert (await asked(command.run_command, given | {"command": script, "become": become}))["exit_code"] == 0
    root = {"password": v["login"]}
    ended = {"command": f"{kit.mark()}; sleep 60", "timeout": 4.0, "become": root}
    assert (await asked(command.run_command, given | ended))["stopped"] is True
    await refused(command.run_command, given | {"command": "true", "become": {"password": v["wrong_become"]}})
    await refused(command.run_command, given | {"command": "true", "become": {"pasword": v["misspelt"]}})
    await refused(command.run_command, given | {"command": "true", "become": v["misplaced"]})
    await refused(command.run_command, given | {"command": "true", "env": {"A B": v["env"]}})
    await refused(command.run_command, on | {"command": "true", "stdin": {"x": v["misplaced"]}})
    task = {"command": 'read -r line && test -n "$line$TOKEN" && echo taken && sleep 60', "become": root}
    which = on | {"task_id": (await asked(command.background, given | task))["task_id"], "become": root}
    assert (await asked(command.task, which | {"wait_s": 20}))["output"] == "taken\n"
    assert (await asked(command.task_cancel, which))["stopped"] is True
    text = "stty -echo; printf 'Password: '; read -r given; stty echo; test -n \"$given\" && echo tak''en"
    at = on | {"shell": "default"}
    await asked(shell.send, at | {"command": text})
    await asked(shell.secret, at | {"secret": v["typed"]})
    assert "taken" in (await asked(shell.read, at | {"wait_s": 10}))["output"]
    await asked(shell.close, at)
    path = f"/root/{kit.user}"
    await asked(file.write, on | {"path": path, "content": v["file"], "become": root})
    await refused(file.write, on | {"path": "/root/no/folder", "content": v["file"], "become": root})
    text = {"raw_content": v["upload"], "remote_path": path, "become": root}
    await asked(file.upload, on | text)
    await asked(command.run_command, on | {"command": f"rm {path}", "become": root})


async def save_secrets(kit: Kit, call: Call) -> None:
    """The same for the tools that have no address of REST's."""
    saved = {"name": kit.user, "host": kit.host.ip, "username": kit.user, "password": kit.values["saved"]}
    key = {"key_content": kit.key_content, "key_passphrase": kit.values["passphrase"]}
    kit.heard.append(json.dumps(await call(connection.add, saved)))
    kit.heard.append(json.dumps(await call(connection.add, saved | key | {"replace": True})))
    kit.heard.append(json.dumps(await call(connection.info, {"connection": kit.user})))


@contextlib.contextmanager
def sampled(kit: Kit, more: Mapping[str, str], report: dict[str, Any]) -> Generator[None]:
    """Have all processes looked at for as long as the block lasts; the report is filled at its end."""
    argv = [sys.executable, "-m", "tests.support.sampler"]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps({"secrets": {**kit.needles, **more}, "marks": kit.marks}) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.stdin.close()
            report.update(json.loads(process.stdout.readline()))


def in_files(folder: Path, needles: Mapping[str, str]) -> set[tuple[str, str]]:
    """Which secrets the files below a folder hold, and in which file."""
    found: set[tuple[str, str]] = set()
    for path in (each for each in folder.rglob("*") if each.is_file()):
        data = path.read_bytes()
        found |= {(label, path.name) for label, value in needles.items() if value.encode() in data}
    return found


def in_texts(texts: list[str], needles: Mapping[str, str]) -> set[tuple[str, str]]:
    """Which secrets are in what callers heard."""
    return {(label, text[:200]) for text in texts for label, value in needles.items() if value in text}


async def on_machine(host: Host, needles: Mapping[str, str]) -> set[tuple[str, str]]:
    """Which secrets the machine's logs and folders hold."""
    text = """while read -r label value; do
    # Not in what other tests transferred: logs and state are never that large.
    find /var/log /run/log /root /home /tmp /var/tmp /var/spool /etc -type f -size -32768k \\
        -exec grep -laF -e "$value" {} + 2>/dev/null | sed "s/^/$label /"
done"""
    lines = "".join(f"{label} {value}\n" for label, value in needles.items())
    done = await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-c", text], lines, timeout=180))
    found: set[tuple[str, str]] = set()
    for line in done.stdout.splitlines():
        label, _, path = line.partition(" ")
        found.add((label, path))
    return found
