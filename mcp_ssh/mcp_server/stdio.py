"""MCP over standard input and output: for one client, which started this process and whose end is its end."""

import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
from mcp.server import Server
from mcp.shared.message import SessionMessage

from mcp_ssh.app import App
from mcp_ssh.mcp_server.handlers import build_server
from mcp_ssh.mcp_server.stdio_transport import Pipes, standard_streams
from mcp_ssh.tool import Caller, Registry, Role
from mcp_ssh.toolsets import ToolsetSelection

OWNER = Caller(id="stdio", role=Role.ADMIN, owner=True)
"""A person who can start this process owns it and the machine's files anyway."""

PARENT_LOOK_S = 2.0
"""How often the parent is looked for."""

SESSIONS_LIMIT_S = 3.0
"""How long the sessions may take to say goodbye."""

EXIT_LIMIT_S = 20.0
"""When the process ends at the latest, whatever hangs: calls have 12 s, then come the sessions."""

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PARENT_DIED = signal.SIGUSR1
_PR_SET_PDEATHSIG = 1


async def serve_stdio(app: App, registry: Registry, surface: ToolsetSelection) -> None:
    """Serve until standard input ends, a signal asks to stop, or the parent process is gone.

    Then running calls are cancelled, which ends their remote processes, and sessions are closed. The process has to end
    after this returns: from then on it is deaf to signals but an interrupt, so that closing the app is not cut short,
    and it ends by force a while after serving did, so that nothing that hangs keeps it alive.

    Logs must go to standard error, and be set up before.
    """
    parent = os.getppid()
    server = build_server(app, registry, surface, caller=OWNER)
    stop = anyio.Event()
    with (
        standard_streams() as pipes,
        # To the end of the clean-up: clients close the pipe first, and send SIGTERM when we take long over that.
        anyio.open_signal_receiver(*_ENDING, _PARENT_DIED) as signals,
    ):
        _tell_when_parent_dies()
        async with anyio.create_task_group() as group:
            group.start_soon(_watch_signals, signals, parent, stop)
            group.start_soon(_watch_parent, parent, stop)
            group.start_soon(_exchange, server, pipes, stop)
            try:
                await stop.wait()
            finally:
                _exit_within(EXIT_LIMIT_S)
                with anyio.CancelScope(shield=True):
                    await app.calls.close()
                    await pipes.wait_answered()
                    with anyio.move_on_after(SESSIONS_LIMIT_S):
                        await app.sessions.close_all()
                group.cancel_scope.cancel()
    for each in (signal.SIGTERM, signal.SIGHUP, _PARENT_DIED):
        signal.signal(each, signal.SIG_IGN)


async def _exchange(server: Server[Any], pipes: Pipes, stop: anyio.Event) -> None:
    """Run the server between the pipes; at the first of them to end, all stops."""
    received, inbox = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outbox, to_send = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        await pipes.receive(received, outbox.clone())
        stop.set()

    async def write() -> None:
        await pipes.send(to_send)
        stop.set()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(write)
        await server.run(inbox, outbox, server.create_initialization_options())


async def _watch_signals(signals: AsyncIterator[signal.Signals], parent: int, stop: anyio.Event) -> None:
    async for each in signals:
        if each is not _PARENT_DIED or os.getppid() != parent:
            stop.set()


async def _watch_parent(parent: int, stop: anyio.Event) -> None:
    while os.getppid() == parent:  # noqa: ASYNC110 # the kernel sets no event for us
        await anyio.sleep(PARENT_LOOK_S)
    stop.set()


def _tell_when_parent_dies() -> None:
    """Have Linux signal us at the parent's death, so that we need not wait until we look.

    The signal comes when the *thread* that started us ends, and a client may have started us from a thread that does
    not live as long as the client. So it is a signal of its own, and means only: look for the parent now.
    """
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(_PARENT_DIED), 0, 0, 0)


def _exit_within(limit_s: float) -> None:
    """End the process by force after a while, from a thread that does not keep it alive itself."""
    timer = threading.Timer(limit_s, os._exit, args=(1,))
    timer.daemon = True
    timer.start()
