"""Whole folders between this machine and another, each as one tar stream."""

import contextlib
import functools
import os
import secrets
import tarfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import anyio.from_thread

from mcp_ssh.errors import RemoteFailed, ToolError
from mcp_ssh.linux.files.transfer import ask_receive_tree, parse_grown, tar_failure
from mcp_ssh.linux.framing import ScriptAnswer, quote_path
from mcp_ssh.sessions.session import Session
from mcp_ssh.ssh.exec.stream import RemoteProcess, streaming
from mcp_ssh.transfers import local_files
from mcp_ssh.transfers.file import DownloadTarget, RemoteFolder, TransferProgress, ahead, in_thread
from mcp_ssh.transfers.local_quota import Quota
from mcp_ssh.transfers.local_tree import TarExtractor, TransferCounts, archive, batch
from mcp_ssh.transfers.tar_stream import ForwardReader


@dataclass(frozen=True)
class TreeResult:
    """A tree that arrived.

    Attributes:
        sha256: Of the content of all its files, one after the other by path, where the machine compared it.
    """

    path: str
    tally: TransferCounts
    sha256: str | None = None


async def upload(host: Session, path: str, place: Path, shown: str, progress: TransferProgress) -> TreeResult:
    """Send what is in a local folder into one of the machine, which is made where it is missing.

    Raises:
        RemoteFailed: It did not arrive whole; the machine is as it was.
    """
    tally = TransferCounts()
    progress.left = lambda: f"up to {progress.done} bytes arrived, and the folder there is unchanged"
    asked = ask_receive_tree(path, secrets.token_hex(8))
    root = await in_thread(functools.partial(local_files.enter, place), shown)
    with _hold(root), contextlib.closing(archive(root, tally)) as pieces:
        async with streaming(host.link, host.protect(asked.command), host.acting) as stream:
            await stream.answer(asked)
            async with ahead(functools.partial(batch, pieces), shown) as batches:
                async for piece in batches:
                    if not await stream.write(piece):
                        break
                    await progress.advance(progress.done + len(piece))
                else:
                    progress.left = lambda: "all of it was sent, so some or all of its files may be there, each whole"
            stream.end_input()
            answer = await stream.answer(asked)
            await stream.finish()
    count, sha256 = parse_grown(answer)
    if count != tally.count:
        raise RemoteFailed(f"{count} of {tally.count} files arrived in {quote_path(answer.path)}")
    return TreeResult(answer.path, tally, sha256)


@contextlib.contextmanager
def _hold(handle: int) -> Generator[None]:
    try:
        yield
    finally:
        os.close(handle)


async def download(
    folder: RemoteFolder, goal: DownloadTarget, progress: TransferProgress, *, links_inside: bool
) -> TreeResult:
    """Receive what is in a folder of the machine into a local one, which is made where it is missing.

    Raises:
        NoTar: The machine has no tar.
        ToolError: The machine could not read all of it; what it could is here.
    """
    tally = TransferCounts()
    await folder.begin()
    root = await in_thread(functools.partial(local_files.enter, goal.place, make=goal.quota), goal.shown)
    with _hold(root):
        progress.left = lambda: came(tally)
        incoming = _incoming(folder.stream, progress)
        torn = await in_thread(
            functools.partial(_take, root, tally, goal.quota, incoming, links_inside=links_inside), goal.shown
        )
    code, said = await folder.stream.finish()
    if code:
        raise _unread(ScriptAnswer("tar", folder.path, said, b""), tally)
    if torn:
        raise RemoteFailed(f"the tar stream of {quote_path(folder.path)} cannot be read: {torn}", hint="try again")
    return TreeResult(folder.path, tally)


def came(tally: TransferCounts) -> str:
    """What of a tree is here, for the error of one that did not come whole."""
    return f"{tally.count} files came, each whole, and are in local_path; the rest is not"


def _take(root: int, tally: TransferCounts, quota: Quota, incoming: ForwardReader, *, links_inside: bool) -> str:
    try:
        TarExtractor(root, tally, quota, links_inside=links_inside).take(incoming)
    # tarfile passes on malformed numbers and names with NUL, and calls itself for each header of a header.
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        return str(error)
    return ""


def _unread(answer: ScriptAnswer, tally: TransferCounts) -> ToolError:
    error = tar_failure(answer)
    said = answer.text.strip().splitlines()
    error.details |= {"count": tally.count, "said": said[:20]}
    error.message += f"; {tally.count} files were downloaded all the same"
    return error


def _incoming(stream: RemoteProcess, progress: TransferProgress) -> ForwardReader:
    """A stream of the machine as a file that a thread reads; the loop waits for the bytes."""

    async def more() -> bytes:
        chunk = await stream.read()
        await progress.advance(progress.done + len(chunk))
        return chunk

    return ForwardReader(functools.partial(anyio.from_thread.run, more))
