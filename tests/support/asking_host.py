"""An SSH server in this process that wants what the test says, and counts how often it was given what."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import asyncssh


@dataclass
class AskingHost:
    """What it lets in by, and what it saw."""

    password: str = ""
    code: str = ""
    key: bool = False
    port: int = 0
    host_key: asyncssh.SSHKey = field(default_factory=lambda: asyncssh.generate_private_key("ssh-ed25519"))
    passwords: list[str] = field(default_factory=list)
    answers: list[tuple[str, ...]] = field(default_factory=list)
    conversations: int = 0
    logins: int = 0
    connections: list[asyncssh.SSHServerConnection] = field(default_factory=list)


class _Server(asyncssh.SSHServer):
    def __init__(self, host: AskingHost) -> None:
        self.host = host
        self.asked: list[str] = []

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.host.connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        return True

    def auth_completed(self) -> None:
        self.host.logins += 1

    def public_key_auth_supported(self) -> bool:
        return self.host.key

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return bool(self.host.password) and not self.host.code

    def validate_password(self, username: str, password: str) -> bool:
        self.host.passwords.append(password)
        return password == self.host.password

    def kbdint_auth_supported(self) -> bool:
        return bool(self.host.code)

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> object:
        self.host.conversations += 1
        return "", "", "", [(f"{each}: ", False) for each in ("Password", "Code")[not self.host.password :]]

    def validate_kbdint_response(self, username: str, responses: list[str]) -> bool:
        self.host.answers.append(tuple(responses))
        return responses == [each for each in (self.host.password, self.host.code) if each]


async def _run(process: "asyncssh.SSHServerProcess[bytes]") -> None:
    child = await asyncio.create_subprocess_exec(
        "sh", "-c", process.command or "true", stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await child.communicate()
    process.stdout.write(out)
    process.stderr.write(err)
    process.exit(child.returncode or 0)


@contextlib.asynccontextmanager
async def asking_host(**wanted: object) -> AsyncGenerator[AskingHost]:
    host = AskingHost(**wanted)  # pyright: ignore
    server = await asyncssh.create_server(
        lambda: _Server(host), "127.0.0.1", 0, server_host_keys=[host.host_key], process_factory=_run, encoding=None
    )
    host.port = server.get_port()
    try:
        yield host
    finally:
        server.close()
        # Since Python 3.12 a server waits until the connections that it accepted have ended.
        for each in host.connections:
            each.abort()
        await server.wait_closed()
