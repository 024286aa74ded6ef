"""A file of a machine that is read on as it grows."""

import contextlib
from collections.abc import AsyncGenerator

from mcp_ssh.errors import RemoteFailed
from mcp_ssh.probes.answers import Asked, named
from mcp_ssh.probes.following import Followed, Over, Position
from mcp_ssh.ssh.session import Session
from mcp_ssh.ssh.streaming import Stream, streaming


class Following:
    """What comes of a file that is followed."""

    def __init__(self, stream: Stream, asked: Asked, path: str) -> None:
        self._stream = stream
        self._parts = Followed(asked.mark)
        self._over = False
        self.path = path

    async def read(self) -> list[bytes | Position]:
        """What came since, and where it is from; waits for some, and gives none when its time is over.

        Raises:
            ConnectFailed: The connection was lost.
            RemoteFailed: The script on the machine ended before its time.
        """
        while not self._over and (chunk := await self._stream.read()):
            found = self._parts.feed(chunk)
            told = [each for each in found if not isinstance(each, Over)]
            self._over = len(told) < len(found)
            if told:
                return told
        _, said = await self._stream.finish()
        if self._over:
            return []
        reason = said.decode("utf-8", "replace").strip()[-300:]
        raise RemoteFailed(
            f"the machine stopped following {named(self.path)}{': ' if reason else ''}{reason}", hint="start it again"
        )


@contextlib.asynccontextmanager
async def following(host: Session, asked: Asked) -> AsyncGenerator[Following]:
    """Follow a file; left before its time is over, what runs on the machine for it is ended.

    Raises:
        ToolError: The file cannot be read.
    """
    async with streaming(host.link, host.guarded(asked.command), host.acting) as stream:
        stream.end_input()
        answer = await stream.answer(asked)
        yield Following(stream, asked, answer.path)
