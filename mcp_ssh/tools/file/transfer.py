"""Files and trees on their way to and from the machine."""

import base64
import contextlib
import functools
import hashlib
import posixpath
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from types import ModuleType
from typing import Literal, TypeVar, cast

import anyio
import anyio.to_thread
from pydantic import Field, model_validator

from mcp_ssh.errors import ConnectFailed, InvalidInput, TimedOut, TooLarge
from mcp_ssh.linux.files.transfer import Larger, NoTar
from mcp_ssh.params import BecomeParams, LocalPath, RemotePath, Result
from mcp_ssh.policy import LocalPlace, local_place
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.file.content import OctalDigits
from mcp_ssh.transfers import file as transfer
from mcp_ssh.transfers import local_files, sftp_transfer, tree
from mcp_ssh.transfers.file import DownloadTarget, TransferProgress, TransferResult, UploadTarget, in_thread
from mcp_ssh.transfers.local_files import Source
from mcp_ssh.transfers.local_quota import folder_quota
from mcp_ssh.transfers.tree import TreeResult

LARGEST_CONTENT = 16 * 1024 * 1024
CLOSING_S = 15.0
"""What a call keeps of its time, to end what runs on the machine."""

LOCAL = "on this server's machine. Callers over HTTP: a relative path, which starts in their own transfer folder."


# ---- file_upload -------------------------------------------------------------------------------------------------


class Transfer(BecomeParams):
    remote_path: RemotePath = Field(
        description="File or folder on the machine; `~` is the account's home. A file is uploaded into a path that ends"
        " in `/`."
    )
    timeout: float = Field(
        default=3600.0, gt=0, le=86_400, description="Seconds for everything. A file resumes there the next time."
    )

    def time_limit_s(self) -> float:
        """Longer than the deadline inside."""
        return self.timeout + CLOSING_S


class FileUploadParams(Transfer):
    local_path: LocalPath | None = Field(
        default=None, min_length=1, max_length=4096, description=f"File or folder {LOCAL}"
    )
    raw_content: str | None = Field(default=None, repr=False, description="The content itself, as text; may be empty.")
    content: str | None = Field(
        default=None, repr=False, description="The content itself, as base64 of any bytes; may be empty."
    )
    permissions: OctalDigits | None = Field(
        default=None,
        description='Permissions of the file as octal digits: 644 or "0644" mean rw-r--r--. Omitted: a file keeps those'
        " it has, a new one gets the local file's.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "FileUploadParams":
        given = [each for each in (self.local_path, self.raw_content, self.content) if each is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of local_path, raw_content and content; {len(given)} were given")
        return self


class Moved(Result):
    path: str = Field(description="File or folder on the machine, with `~` expanded.")
    local_path: str | None = Field(
        default=None, description="File or folder on this server's machine, its absolute path."
    )
    size: int = Field(description="Bytes of the file, or of all files of the tree.")
    sha256: str | None = Field(
        default=None,
        description="SHA-256 of the file, the same on both sides; of an uploaded folder that of all its files' content,"
        " one after the other by path.",
    )
    resumed_bytes: int | None = Field(
        default=None, description="Bytes that an earlier call had brought already, where there were any."
    )
    count: int | None = Field(default=None, description="Files, links and others in the tree, folders not counted.")
    skipped_count: int | None = Field(
        default=None,
        description="How many things stayed behind: sockets, devices, and what would have replaced a folder or, for"
        " callers over HTTP, linked to outside of the tree.",
    )
    skipped: list[str] | None = Field(default=None, description="The first 20 of them.")


class FileUploadResult(Moved):
    status: Literal["uploaded"] = Field(default="uploaded", description="Always `uploaded`; a failure is an error.")
    content: None = Field(default=None, description="Always null.")
    permissions: str | None = Field(default=None, description='Permissions of the file now, such as "0644".')
    atomic: bool | None = Field(
        default=None, description="False where a file had to be written in place, as file_write says."
    )


@tool(Risk.CHANGE, room="file", idempotent=True, audit="uploaded [{result.local_path} ]to {remote_path}")
async def upload(host: Session, params: FileUploadParams, call: Call) -> FileUploadResult:
    """Upload a file or a whole folder to the machine, from this server's machine or from content in the call.

    Of any size, in constant memory. A file is the old one until it is the new one, with the same SHA-256 on both sides;
    after a cut or a timeout the same call resumes where the last one ended. A folder's content is put into the folder
    `remote_path`, which is made; other files there stay.
    """
    progress = TransferProgress(call, "uploading")
    with _bound_transfer(params, progress):
        place = None if params.local_path is None else (await _place(host, params.local_path, call)).path
        source = await _source(params, place)
        if source is None:
            return await _upload_tree(host, params, cast("Path", place), progress)
        try:
            wish = UploadTarget(_file_path(params), params.permissions, source.mode)
            done = await _single(host).upload(host, wish, source, progress)
        finally:
            source.close()
    uploaded = FileUploadResult(status="uploaded", path=done.path, size=done.size, content=None, sha256=done.sha256)
    uploaded.permissions, uploaded.atomic = done.permissions, done.atomic
    if place is not None:
        uploaded.local_path = str(place)
    return _add_resumed(uploaded, done)


def _file_path(params: FileUploadParams) -> str:
    """The remote path of a file: in the folder `remote_path` where that ends in a slash."""
    name = posixpath.basename((params.local_path or "").rstrip("/"))
    into = params.remote_path.endswith("/") and name not in _NO_NAMES
    return params.remote_path + name if into else params.remote_path


async def _upload_tree(
    host: Session, params: FileUploadParams, place: Path, progress: TransferProgress
) -> FileUploadResult:
    if params.permissions is not None:
        raise InvalidInput("permissions: are for a file, and local_path is a folder", hint="leave them out")
    grown = await _sent_tree(host, params.remote_path, place, str(params.local_path), progress)
    uploaded = FileUploadResult(
        status="uploaded", path=grown.path, local_path=str(place), size=grown.tally.size, content=None
    )
    if grown.sha256 is not None:
        uploaded.sha256 = grown.sha256
    return _grown(uploaded, grown)


async def _sent_tree(host: Session, path: str, place: Path, shown: str, progress: TransferProgress) -> TreeResult:
    if host.has_shell:
        try:
            return await tree.upload(host, path, place, shown, progress)
        except NoTar:
            if not _may_use_sftp(host):
                raise
    return await sftp_transfer.upload_tree(host, path, place, shown, progress)


async def _source(params: FileUploadParams, place: Path | None) -> Source | None:
    if place is not None:
        return await in_thread(functools.partial(local_files.source, place), str(params.local_path))
    return await anyio.to_thread.run_sync(lambda: Source(None, _bytes(params), 0o666))


def _bytes(params: FileUploadParams) -> bytes:
    if params.raw_content is not None:
        try:
            return params.raw_content.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidInput(
                "raw_content: must be valid Unicode text; lone surrogates have no UTF-8",
                hint="give the bytes as base64 in `content`",
            ) from error
    try:
        return base64.b64decode("".join((params.content or "").split()), validate=True)
    except ValueError as error:
        raise InvalidInput("content: is not base64", hint="give text as `raw_content`") from error


# ---- file_download -----------------------------------------------------------------------------------------------


class FileDownloadParams(Transfer):
    local_path: LocalPath | None = Field(
        default=None,
        min_length=1,
        max_length=4096,
        description=f"Where to put it {LOCAL} Missing folders are made; a file goes into a path that ends in `/`.",
    )
    return_content: bool = Field(default=False, description="Return the content as base64; a file of up to 16 MiB.")

    @model_validator(mode="after")
    def _some_goal(self) -> "FileDownloadParams":
        if self.local_path is None and not self.return_content:
            raise ValueError("give local_path, or return_content: true, or both")
        return self


class FileDownloadResult(Moved):
    status: Literal["downloaded"] = Field(default="downloaded", description="Always `downloaded`.")
    content: str | None = Field(default=None, description="The content as base64, where it was asked for.")


@tool(Risk.CHANGE, room="file", idempotent=True, audit="downloaded {remote_path}[ to {result.local_path}]")
async def download(host: Session, params: FileDownloadParams, call: Call) -> FileDownloadResult:
    """Download a file or a whole folder from the machine, to this server's machine or as content.

    Of any size, in constant memory. A local file is the old one until it is the new one, with the same SHA-256 on both
    sides; after a cut or a timeout the same call resumes where the last one ended. A folder's content is put into the
    folder `local_path`, which is made; other files there stay.
    """
    progress = TransferProgress(call, "downloading")
    with _bound_transfer(params, progress):
        async with contextlib.AsyncExitStack() as held:
            goal = None if params.local_path is None else await held.enter_async_context(_goal(host, params, call))
            if params.return_content:
                return await _content(host, params, goal)
            done = await _receive(host, params, cast("DownloadTarget", goal), call, progress)
    if isinstance(done, TreeResult):
        grown = FileDownloadResult(status="downloaded", path=done.path, size=done.tally.size)
        grown.local_path = str(cast("DownloadTarget", goal).place)
        return _grown(grown, done)
    downloaded = FileDownloadResult(status="downloaded", path=done.path, size=done.size, sha256=done.sha256)
    downloaded.local_path = str(_file_goal(params, cast("DownloadTarget", goal)).place)
    return _add_resumed(downloaded, done)


@contextlib.asynccontextmanager
async def _goal(host: Session, params: FileDownloadParams, call: Call) -> AsyncGenerator[DownloadTarget]:
    shown = str(params.local_path)
    place = await _place(host, shown, call)
    if place.quota_folder is None:
        yield DownloadTarget(place.path, shown)
        return
    quota = folder_quota(place.quota_folder, host.limits.local_folders.quota_bytes)
    opened = await in_thread(quota.__enter__, shown)
    try:
        yield DownloadTarget(place.path, shown, opened)
    finally:
        quota.__exit__(None, None, None)


def _file_goal(params: FileDownloadParams, goal: DownloadTarget) -> DownloadTarget:
    """Where a single file goes: into the folder `local_path` where that ends in a slash."""
    name = posixpath.basename(params.remote_path)
    return goal.with_name(name) if goal.shown.endswith("/") and name not in _NO_NAMES else goal


async def _receive(
    host: Session, params: FileDownloadParams, goal: DownloadTarget, call: Call, progress: TransferProgress
) -> TransferResult | TreeResult:
    path, single = params.remote_path, _file_goal(params, goal)
    if host.has_shell:
        grow = functools.partial(tree.download, goal=goal, progress=progress, links_inside=not call.caller.owner)
        try:
            return await transfer.download(host, path, single, progress, grow)
        except NoTar:
            if not _may_use_sftp(host):
                raise
            return await sftp_transfer.download_tree(host, path, goal, progress)
    done = await sftp_transfer.download(host, path, single, progress)
    return done or await sftp_transfer.download_tree(host, path, goal, progress)


async def _content(host: Session, params: FileDownloadParams, goal: DownloadTarget | None) -> FileDownloadResult:
    try:
        path, data = await _single(host).fetch(host, params.remote_path, LARGEST_CONTENT)
    except Larger as error:
        raise TooLarge(
            f"remote_path: the file has {error.size} bytes, more than the {LARGEST_CONTENT} that content may have",
            hint="give `local_path` without `return_content`, or read parts with file_read",
        ) from error
    if data is None:
        raise InvalidInput(
            "return_content: remote_path is a folder, which has no content to return",
            hint="give `local_path` alone, or list it with file_list",
        )
    sha256 = await anyio.to_thread.run_sync(lambda: hashlib.sha256(data).hexdigest())
    encoded = await anyio.to_thread.run_sync(lambda: base64.b64encode(data).decode("ascii"))
    downloaded = FileDownloadResult(status="downloaded", path=path, size=len(data), content=encoded, sha256=sha256)
    if goal is not None:
        single = _file_goal(params, goal)
        await in_thread(functools.partial(local_files.keep, single.place, data, sha256, single.quota), single.shown)
        downloaded.local_path = str(single.place)
    return downloaded


# ---- both --------------------------------------------------------------------------------------------------------


def _single(host: Session) -> ModuleType:
    """What moves single files: the shell where there is one, else SFTP. Both have the same functions."""
    return transfer if host.has_shell else sftp_transfer


def _may_use_sftp(host: Session) -> bool:
    return host.acting is None and "sftp" in host.account.features


M = TypeVar("M", bound=Moved)


def _add_resumed(moved: M, done: TransferResult) -> M:
    if done.resumed:
        moved.resumed_bytes = done.resumed
    return moved


def _grown(moved: M, grown: TreeResult) -> M:
    moved.count = grown.tally.count
    if grown.tally.left:
        moved.skipped_count, moved.skipped = grown.tally.left, grown.tally.skipped
    return moved


_NO_NAMES = frozenset({"", ".", "..", "~"})
"""Ends of paths that name a folder and not what is in it."""


async def _place(host: Session, path: str, call: Call) -> LocalPlace:
    allowed = functools.partial(local_place, call.caller, path, host.limits.local_folders)
    try:
        return await in_thread(allowed, path)
    except RuntimeError as error:
        raise InvalidInput(
            "local_path: leads in a circle, or starts with the `~` of nobody", hint="give the full path"
        ) from error


@contextlib.contextmanager
def _bound_transfer(params: Transfer, progress: TransferProgress) -> Generator[None]:
    """The call's deadline, and errors that say what an interrupted transfer left and how it continues."""
    again = "make the same call again: "
    try:
        with anyio.fail_after(params.timeout):
            yield
    except TimeoutError as error:
        raise TimedOut(
            f"the transfer did not end within {params.timeout:g} s: {progress.left()}",
            hint=f"{again}{_goes_on(progress)}; raise `timeout` for a slow link",
            details=_progress_fields(progress),
        ) from error
    except ConnectFailed as error:
        raise ConnectFailed(
            f"the connection to the machine was lost during the transfer: {progress.left()}",
            hint=f"open a new session with session_connect, and {again}{_goes_on(progress)}",
            details=_progress_fields(progress),
        ) from error


def _goes_on(progress: TransferProgress) -> str:
    return "it resumes where this one ended" if progress.resumes else "it starts again"


def _progress_fields(progress: TransferProgress) -> dict[str, int]:
    return {"done_bytes": progress.done} | ({} if progress.total is None else {"total_bytes": progress.total})
