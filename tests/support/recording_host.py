"""An SSH server that writes down what it is asked to run, runs nothing, and answers as if all went well."""

import asyncio
import contextlib
import threading
from collections.abc import Generator

import asyncssh

USER, PASSWORD = "recorder", "recorded-pass"


class RecordingHost:
    """Its port, its key, and the command lines that came."""

    def __init__(self) -> None:
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.commands: list[str] = []
        self.port = 0

    async def _answer(self, process: "asyncssh.SSHServerProcess[bytes]") -> None:
        command = process.command or ""
        self.commands.append(command)
        if "mcp-ssh account" in command:
            process.stdout.write(b"mcp-ssh account /bin/sh\n")
        # Whoever waits for an answer before it says more gets none: a sudo, a transfer.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.stdin.read(), 0.5)
        process.exit(0)

    async def serve(self, ready: threading.Event, stop: asyncio.Event) -> None:
        class Server(asyncssh.SSHServer):
            def begin_auth(self, username: str) -> bool:
                return True

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == (USER, PASSWORD)

        listener = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[self.key], server_factory=Server,
            process_factory=self._answer, encoding=None,
        )  # fmt: skip
        self.port = listener.get_port()
        ready.set()
        await stop.wait()
        listener.close()
        await listener.wait_closed()


@contextlib.contextmanager
def recording_host() -> Generator[RecordingHost]:
    """A recording host on a thread of its own."""
    host, ready = RecordingHost(), threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(host.serve(ready, stop)), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield host
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
