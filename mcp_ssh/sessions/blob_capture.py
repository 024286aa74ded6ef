"""The output of a command, all of which goes to a blob of the caller's where it is longer than memory may hold."""

from mcp_ssh.blobs.blobs import Blob, Blobs, BlobWriter
from mcp_ssh.ssh.exec.capture import Capture


class _BlobSink:
    """A blob that begins with the first bytes."""

    def __init__(self, blobs: Blobs, caller_id: str) -> None:
        self.blob: Blob | None = None
        self._blobs = blobs
        self._caller_id = caller_id
        self._writer: BlobWriter | None = None

    async def write(self, chunk: bytes) -> None:
        if self._writer is None:
            self._writer = self._blobs.writer(self._caller_id)
        await self._writer.write(chunk)

    async def finish(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            self.blob = await writer.finish()

    async def discard(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.discard()


class BlobCapture(Capture):
    """A capture whose whole stream is kept in a blob where it is longer than `limit` bytes."""

    def __init__(self, limit: int, blobs: Blobs, caller_id: str) -> None:
        self._blob_sink = _BlobSink(blobs, caller_id)
        super().__init__(limit, self._blob_sink)

    @property
    def blob(self) -> Blob | None:
        """The blob, once the stream is finished; None where it fitted into memory."""
        return self._blob_sink.blob
