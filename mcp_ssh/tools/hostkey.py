"""Host keys of machines: accept, list, remove, scan."""

import contextlib
from dataclasses import asdict
from typing import Annotated, Literal

import anyio.to_thread
from pydantic import Field

from mcp_ssh.app import App
from mcp_ssh.errors import NotFound
from mcp_ssh.host_patterns import canonical_host
from mcp_ssh.meanings import Meaning
from mcp_ssh.messages.validation import word_pattern
from mcp_ssh.params import Params, Result, ShellText
from mcp_ssh.sessions.host_lookup import find_machine
from mcp_ssh.sessions.login_planner import Logins
from mcp_ssh.ssh.hostkeys.known_hosts import KnownHost
from mcp_ssh.ssh.openssh_config.resolve import settings
from mcp_ssh.tool import Call, Risk, tool

_ONE_HOST = word_pattern(r"^[^\s,]+$", "must be one host, without blanks and commas, such as web1.example.org")
_ONE_WORD = word_pattern(r"^\S+$", "must be one word, without blanks")
_FINGERPRINTS = ["SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"]

# Plain `str`: the pattern of a type with validators of its own does not reach the schema.
SingleHost = Annotated[
    str,
    Meaning.HOST,
    Field(
        min_length=1,
        max_length=255,
        pattern=_ONE_HOST,
        description="Host name or address of the machine, as given to session_connect.",
    ),
]
SshPort = Annotated[int, Field(ge=1, le=65535, description="SSH port of the machine.")]
KeyType = Annotated[
    str,
    Field(
        min_length=1,
        max_length=64,
        pattern=_ONE_WORD,
        examples=["ssh-ed25519"],
        description="Type of the key, such as `ssh-ed25519`.",
    ),
]


class HostkeyAcceptParams(Params):
    host: SingleHost
    port: SshPort
    key_type: KeyType
    public_key: ShellText = Field(
        min_length=1,
        max_length=8192,
        description="The key in one line: type, base64 text and, optionally, a comment.",
    )
    fingerprint_sha256: ShellText = Field(
        min_length=1,
        max_length=128,
        pattern=_ONE_WORD,
        examples=_FINGERPRINTS,
        description="Fingerprint that the user compared: `SHA256:` and unpadded base64. It must be the key's own.",
    )

    replaces: ShellText | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=_ONE_WORD,
        examples=_FINGERPRINTS,
        description="Where another key is known: its fingerprint, once the user knows why the key changed.",
    )


class HostkeyAcceptResult(Result):
    ok: Literal[True] = Field(description="The machine's key is trusted from now on.")


@tool(
    Risk.CHANGE,
    room="hostkey",
    idempotent=True,
    confirm=True,
    audit="trusted the host key {fingerprint_sha256} of {host} port {port}",
)
async def accept(app: App, params: HostkeyAcceptParams, call: Call) -> HostkeyAcceptResult:
    """Trust the host key of a machine whose key is unknown or was replaced, so that connecting to it works.

    Takes the fields of `details.host_key` of the refused call. First have the user compare the fingerprint with the
    machine's own by another way. The key takes the place of an old one of the same machine and type. Replacing a key
    that another caller accepted needs an admin; one in the user's own known_hosts the user has to remove there. A
    revoked key is never accepted.
    """
    await app.hostkeys.accept(
        _known_as(params.host),
        params.port,
        params.key_type,
        params.public_key,
        params.fingerprint_sha256,
        caller=call.caller,
        replaces=params.replaces,
        must_replace=call.confirms,
    )
    return HostkeyAcceptResult(ok=True)


def _known_as(host: str) -> str:
    """The name under which a machine's keys are known; what cannot be a host may be an alias, or be refused below."""
    try:
        return canonical_host(host)
    except ValueError:
        return host


class HostkeyListParams(Params):
    pass


class HostkeyEntry(Result):
    host: str = Field(description="Host name or address; for a hashed name the hash.")
    port: int = Field(description="SSH port; 22 for a hashed name, which does not tell.")
    known_hosts_host: str = Field(description="The name as the file has it, such as `[web1]:2222`.")
    key_type: str = Field(description="Type of the key.")
    key_base64: str = Field(description="The key.")
    fingerprint_sha256: str = Field(description="Its fingerprint.")
    accepted_by: str | None = Field(default=None, description="The caller that accepted it, where that is known.")


class HostkeyListResult(Result):
    entries: list[HostkeyEntry] = Field(description="One entry for each name of each line.")


@tool(Risk.READ, room="hostkey", name="list")
async def list_hostkeys(app: App, params: HostkeyListParams, call: Call) -> HostkeyListResult:
    """Show the host keys that were accepted through this server: machine, type and fingerprint.

    Keys that machines have in the user's own known_hosts are trusted too, and not listed here.
    """
    known = [each for each in await app.hostkeys.list() if call.caller.reaches(each.host)]
    return HostkeyListResult(entries=[_row(each) for each in known])


def _row(known: KnownHost) -> HostkeyEntry:
    facts = asdict(known)
    return HostkeyEntry(**{name: value for name, value in facts.items() if value is not None})


class HostkeyRemoveParams(Params):
    host: SingleHost
    port: SshPort
    key_type: KeyType


class HostkeyRemoveResult(Result):
    ok: Literal[True] = Field(description="The key is not among the accepted ones any more.")
    changed: bool = Field(description="Whether it was before.")


@tool(Risk.CHANGE, room="hostkey", idempotent=True, audit="forgot the {key_type} host key of {host} port {port}")
async def remove(app: App, params: HostkeyRemoveParams, call: Call) -> HostkeyRemoveResult:
    """Forget the accepted host key of a machine, so that its key is asked about again.

    `host` may also be a `known_hosts_host` of hostkey_list, such as a hash. The user's own known_hosts stays as it is.
    A key that another caller accepted is removed by admins only.
    """
    host = _known_as(params.host)
    changed = await app.hostkeys.remove(host, params.port, params.key_type, caller=call.caller)
    return HostkeyRemoveResult(ok=True, changed=changed)


class HostkeyScanParams(Params):
    host: Annotated[
        str,
        Meaning.HOST,
        Field(
            min_length=1,
            max_length=255,
            pattern=_ONE_HOST,
            description="Host name or address; or a saved connection, or an alias of ~/.ssh/config.",
        ),
    ]
    port: Annotated[
        int | None, Field(ge=1, le=65535, description="SSH port; omitted: that of the connection or alias, else 22.")
    ] = None
    timeout: float = Field(default=10.0, gt=0, le=60, description="Seconds for all handshakes together.")

    def time_limit_s(self) -> float:
        """The scan's own deadline, and time to say how far it came."""
        return self.timeout + 5.0


class Shown(Result):
    key_type: str = Field(description="Type of the key.")
    public_key: str = Field(description="The key in one line: type and base64 text.")
    fingerprint_sha256: str = Field(description="Its fingerprint, to compare with the machine's own.")
    known: Literal["unknown", "trusted", "changed", "revoked"] = Field(
        description="What it is to this server; `changed` where another key of the type is known."
    )


class HostkeyScanResult(Result):
    host: str = Field(description="The machine.")
    port: int = Field(description="Its port.")
    keys: list[Shown] = Field(description="One key of each type that the machine has.")


@tool(Risk.READ, room="hostkey")
async def scan(app: App, params: HostkeyScanParams, call: Call) -> HostkeyScanResult:
    """Ask a machine which host keys it has, with fingerprints and whether each is trusted; nothing is stored or sent.

    An answer over the network proves nothing by itself: a machine in between can give it.
    """
    if not call.caller.owner:
        app.scans.expect(call.caller.id)
        app.scans.count(call.caller.id)
    name, known_port = await _resolve_host(app, call, params.host)
    port = params.port or known_port
    machine = await find_machine(call.caller, app.config.security, name)
    host = str(machine)
    keys = await app.hostkeys.scan(host, port, params.timeout, machine.addresses)
    return HostkeyScanResult(
        host=host,
        port=port,
        keys=[Shown.model_validate(each, from_attributes=True) for each in keys],
    )


async def _resolve_host(app: App, call: Call, word: str) -> tuple[str, int]:
    """The host and port of a saved connection or an alias that the caller may use; else the word itself and 22."""
    if not word.isdigit():
        with contextlib.suppress(NotFound):
            saved = await app.store.connections.find(call.caller, word)
            return saved.host, saved.port or 22
    if await Logins(call.caller, app.config, app.hostkeys).alias(word):
        found = await anyio.to_thread.run_sync(settings, word)
        return found.hostname, found.port or 22
    return word, 22
