"""The part of `check` that looks at this machine: programs, config, state, keys, agent, known hosts."""

import importlib.metadata
import os
import platform
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from mcp_ssh import __version__
from mcp_ssh.cli.commands.check.findings import Finding, looked_at, short
from mcp_ssh.errors import InvalidInput
from mcp_ssh.private_files import is_usable

if TYPE_CHECKING:
    from mcp_ssh.config.models import Config

DISTRIBUTION = "ssh-steward"
OLDEST_PYTHON = (3, 11)
AGENT_LIMIT_S = 5.0
LEAST_SPACE = 1024 * 1024
OWN_FOLDER = "set MCP_SSH_HOME to a folder of yours"
PRIVATE = ("state.db", "secrets.key", "known_hosts", "first-token", "config.json")
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?(?P<bounds>[^;]*)(?P<marker>;.*)?")


async def findings(folder: Path) -> list[Finding]:
    """All of it, without changing anything."""
    found = [*await looked_at("python", _python), *await looked_at("packages", _packages)]
    found += await looked_at("config", lambda: _config(folder))
    found += await looked_at("state", lambda: _state(folder))
    found += await looked_at("secrets", lambda: _store(folder))
    found += await looked_at("identities", _identities)
    found += await looked_at("agent", _agent)
    return [*found, *await looked_at("known hosts", lambda: _known_hosts(folder))]


async def _python() -> list[Finding]:
    says = f"{platform.python_version()} at {short(sys.executable)}; ssh-steward {__version__}"
    if sys.version_info < OLDEST_PYTHON:
        return [Finding("fail", "python", says, "install Python 3.11 or later")]
    return [Finding("ok", "python", says)]


async def _packages() -> list[Finding]:
    """Each package this program needs, and whether it is old enough to trip over."""
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return [Finding("warn", "packages", f"{DISTRIBUTION} is not installed, only run", "pip install -e .")]
    wrong: list[str] = []
    shown: list[str] = []
    for line in required:
        parts = _REQUIREMENT.match(line)
        if parts is None or "extra" in (parts["marker"] or ""):
            continue
        try:
            version = importlib.metadata.version(parts["name"])
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{parts['name']} is missing")
            continue
        shown.append(f"{parts['name']} {version}")
        wrong += [f"{parts['name']} {version} is older than {least}" for least in _least(parts["bounds"], version)]
    if wrong:
        return [Finding("fail", "packages", "; ".join(wrong), f"pip install --upgrade {DISTRIBUTION}")]
    named = ", ".join(each for each in shown if each.split()[0] in {"mcp", "asyncssh"})
    return [Finding("ok", "packages", f"{named}, and {len(shown) - 2} more, all new enough")]


def _least(bounds: str, version: str) -> list[str]:
    """The lower bounds that a version does not reach."""
    return [least for least in re.findall(r">=\s*([\d.]+)", bounds) if _numbers(version) < _numbers(least)]


def _numbers(version: str) -> list[int]:
    return [int(each) for each in re.findall(r"\d+", version)[:3]]


async def _config(folder: Path) -> list[Finding]:
    from mcp_ssh.config.models import load
    from mcp_ssh.policy import expect_tools
    from mcp_ssh.tools import REGISTRY

    path = folder / "config.json"
    config = load(folder)
    expect_tools(config.security, REGISTRY)
    if not path.exists():
        return [Finding("ok", "config", f"no config.json in {short(folder)}: the defaults count")]
    found = [Finding("ok", "config", f"{short(path)} is valid")]
    if _has_secrets(config) and path.stat().st_mode & 0o077:
        found.append(
            Finding("warn", "config", "it holds a password and others may read it", f"chmod 600 {short(path)}")
        )
    return found


def _has_secrets(config: "Config") -> bool:
    return any(each.get_secret_value() for each in (config.auth.default_password, config.auth.default_key_passphrase))


async def _state(folder: Path) -> list[Finding]:
    return await anyio.to_thread.run_sync(_modes, folder)


def _modes(folder: Path) -> list[Finding]:
    try:
        state = folder.stat()
    except FileNotFoundError:
        return [_not_made(folder)]
    if state.st_uid != os.geteuid():
        return [
            Finding(
                "fail", "state", f"{short(folder)} belongs to another user", "set MCP_SSH_HOME to a folder of yours"
            )
        ]
    if not stat.S_ISDIR(state.st_mode):
        return [Finding("fail", "state", f"{short(folder)} is not a folder", "set MCP_SSH_HOME to a folder of yours")]
    if unusable := _unusable(folder):
        return [unusable]
    open_to_others = [
        path
        for path in (folder, *(folder / name for name in PRIVATE if name != "config.json"))
        if path.exists() and path.stat().st_mode & 0o077
    ]
    if open_to_others:
        names = " ".join(short(each) for each in open_to_others)
        return [Finding("warn", "state", f"others may look into {names}", f"chmod go= {names}")]
    return [Finding("ok", "state", f"{short(folder)}, for this user alone")]


def _not_made(folder: Path) -> Finding:
    """A folder that is not there yet can be made where the nearest one above it can be written."""
    above = next(each for each in folder.absolute().parents if each.exists())
    if above.is_dir() and is_usable(above):
        return Finding("ok", "state", f"{short(folder)} is made at the first use")
    says = f"{short(folder)} cannot be made: {short(above)} cannot be written by this user"
    return Finding("fail", "state", says, OWN_FOLDER)


def _unusable(folder: Path) -> Finding | None:
    """What of the folder this user cannot change, or has no room for."""
    for path in (folder, *(folder / name for name in PRIVATE)):
        if path.exists() and not is_usable(path):
            return Finding(
                "fail", "state", f"{short(path)} cannot be written by this user", f"chmod u+rw, or {OWN_FOLDER}"
            )
    space = os.statvfs(folder)
    if space.f_bavail * space.f_frsize < LEAST_SPACE:
        return Finding("fail", "state", f"the file system of {short(folder)} is full", "make room there")
    return None


async def _store(folder: Path) -> list[Finding]:
    if not (folder / "state.db").exists():
        return [Finding("ok", "secrets", "nothing is saved yet")]
    from mcp_ssh.cli.local_call import TerminalCall
    from mcp_ssh.store import Store

    store = await Store.open(folder)
    try:
        saved = await store.connections.query(TerminalCall().caller)
        place = await store.connections.key_place()
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()
    key = {"file": "sealed with secrets.key", "keyring": "sealed with a key in the OS keyring", None: "none sealed"}
    count = "1 saved connection" if len(saved) == 1 else f"{len(saved)} saved connections"
    return [Finding("ok", "secrets", f"{count}, secrets: {key[place]}")]


async def _identities() -> list[Finding]:
    from mcp_ssh.ssh.auth import private_keys

    folder = Path.home() / ".ssh"
    found: list[Finding] = []
    for path in sorted(folder.glob("id_*")) if folder.is_dir() else []:
        if path.suffix == ".pub" or not path.is_file():
            continue
        try:
            says = (await private_keys.from_path(str(path), None)).get_algorithm()
        except InvalidInput as error:
            if not error.message.startswith("key_passphrase"):
                found.append(Finding("warn", "identities", f"{short(path)}: {error.message}", error.hint))
                continue
            says = "with a passphrase, so for ssh-agent"
        if path.stat().st_mode & 0o077:
            found.append(
                Finding("warn", "identities", f"{short(path)}: others may read it", f"chmod 600 {short(path)}")
            )
        else:
            found.append(Finding("ok", "identities", f"{short(path)}: {says}"))
    none = Finding("ok", "identities", f"no keys in {short(folder)}; give a key or a password when you log in")
    return found or [none]


async def _agent() -> list[Finding]:
    address = os.environ.get("SSH_AUTH_SOCK")
    if not address:
        return [Finding("ok", "agent", "no ssh-agent: SSH_AUTH_SOCK is not set")]
    dead = Finding(
        "warn",
        "agent",
        f"the ssh-agent at {short(address)} does not answer",
        'eval "$(ssh-agent)", or unset SSH_AUTH_SOCK',
    )
    try:
        with anyio.fail_after(AGENT_LIMIT_S):
            count = await _agent_keys(address)
    except (OSError, TimeoutError, EOFError, anyio.EndOfStream, anyio.IncompleteRead):
        return [dead]
    if not count:
        return [Finding("warn", "agent", f"the ssh-agent at {short(address)} holds no key", "ssh-add")]
    return [Finding("ok", "agent", f"the ssh-agent at {short(address)} holds {count} key{'s' if count > 1 else ''}")]


async def _agent_keys(address: str) -> int:
    """How many keys the agent holds: one request and its answer (draft-ietf-sshm-ssh-agent, 3.5)."""
    from anyio.streams.buffered import BufferedByteReceiveStream

    list_identities, identities_answer = 11, 12
    async with await anyio.connect_unix(address) as stream:
        await stream.send(bytes([0, 0, 0, 1, list_identities]))
        answer = await BufferedByteReceiveStream(stream).receive_exactly(9)
    if answer[4] != identities_answer:
        raise EOFError
    return int.from_bytes(answer[5:])


async def _known_hosts(folder: Path) -> list[Finding]:
    from mcp_ssh.app import known_hosts_files
    from mcp_ssh.ssh.hostkeys import known_hosts

    found: list[Finding] = []
    for path in (folder / "known_hosts", *known_hosts_files()):
        if not path.exists():
            continue
        data = await anyio.to_thread.run_sync(known_hosts.read, path, str(path))
        count = len(known_hosts.parse(data, str(path), managed=False))
        found.append(Finding("ok", "known hosts", f"{short(path)}: {count} key{'' if count == 1 else 's'}"))
    none = Finding("ok", "known hosts", "no host is known yet; each is asked about at first sight")
    return found or [none]
