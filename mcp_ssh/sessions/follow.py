"""A file of a machine that is read on as it grows."""

import contextlib
from collections.abc import AsyncGenerator

import anyio

from mcp_ssh.errors import RemoteFailed, TimedOut
from mcp_ssh.linux.files.follow import SILENT_S, FollowParser, Over, Position
from mcp_ssh.linux.framing import PathQuery, quote_path
from mcp_ssh.messages.printable import said_details
from mcp_ssh.sessions.session import Session
from mcp_ssh.ssh.errors import connection_lost
from mcp_ssh.ssh.exec.stream import RemoteProcess, streaming

ANSWER_S = 30.0
"""How long the machine may take to find the last lines."""


class FollowState:
    """What comes of a file that is followed."""

    def __init__(self, stream: RemoteProcess, asked: PathQuery, path: str) -> None:
        self._stream = stream
        self._parts = FollowParser(asked.mark)
        self._over = False
        self.path = path

    async def read(self) -> list[bytes | Position]:
        """What came since, and where it is from; waits for some, and gives none when its time is over.

        Raises:
            ConnectFailed: The connection was lost.
            RemoteFailed: The script on the machine ended before its time.
        """
        while not self._over and (chunk := await self._chunk()):
            found = self._parts.feed(chunk)
            told = [each for each in found if not isinstance(each, Over)]
            self._over = len(told) < len(found)
            if told:
                return told
        _, said = await self._stream.finish()
        if self._over:
            return []
        raise RemoteFailed(
            f"the machine stopped following {quote_path(self.path)}", hint="start it again", details=said_details(said)
        )

    async def _chunk(self) -> bytes:
        try:
            with anyio.fail_after(SILENT_S):
                return await self._stream.read()
        except TimeoutError as error:
            raise connection_lost() from error


@contextlib.asynccontextmanager
async def following(host: Session, asked: PathQuery) -> AsyncGenerator[FollowState]:
    """Follow a file; left before its time is over, what runs on the machine for it is ended.

    Raises:
        ToolError: The file cannot be read.
    """
    async with streaming(host.link, host.protect(asked.command), host.acting) as stream:
        stream.end_input()
        try:
            with anyio.fail_after(ANSWER_S):
                answer = await stream.answer(asked)
        except TimeoutError as error:
            raise TimedOut(f"the machine did not answer within {ANSWER_S:g} s") from error
        yield FollowState(stream, asked, answer.path)
