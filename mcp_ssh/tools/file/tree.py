"""Making, removing, copying and moving files and folders on the machine itself."""

import secrets
from typing import Literal

from pydantic import Field

from mcp_ssh.linux.files.tree import ask_copy, ask_mkdir, ask_move, ask_remove, ask_rmdir, parse_count
from mcp_ssh.linux.framing import PathQuery, ScriptAnswer
from mcp_ssh.params import BecomeParams, RemotePath, Result
from mcp_ssh.sessions.session import Session
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.transfers import sftp

CLOSING_S = 10.0
"""What a call keeps of its time, so that the machine's own deadline comes first and is reported."""

# ---- file_mkdir --------------------------------------------------------------------------------------------------


class FileMkdirParams(BecomeParams):
    path: RemotePath = Field(description="Folder to make; `~` is the account's home.")
    parents: bool = Field(
        default=False, description="Make the folders above it, too, and be content with one that is there already."
    )


class FileMkdirResult(Result):
    status: Literal["created"] = Field(default="created", description="Always `created`; a failure is an error.")
    path: str = Field(description="The folder, with `~` expanded.")
    permissions: str = Field(description='Its permissions, such as "0755".')


@tool(Risk.CHANGE, room="file", audit="made sure of the folder {path}")
async def mkdir(host: Session, params: FileMkdirParams, call: Call) -> FileMkdirResult:
    """Make a folder on the machine.

    The folder above it must exist, unless `parents` is set.
    """
    if not host.has_shell:
        path, permissions = await sftp.mkdir(host, params.path, parents=params.parents)
        return FileMkdirResult(status="created", path=path, permissions=permissions)
    answer = await _ask(host, params, ask_mkdir(params.path, parents=params.parents))
    return FileMkdirResult(status="created", path=answer.path, permissions=answer.text.zfill(4))


# ---- file_remove -------------------------------------------------------------------------------------------------


class FileRemoveParams(BecomeParams):
    path: RemotePath = Field(description="File or link to remove; `~` is the account's home.")


class FileRemoveResult(Result):
    status: Literal["removed"] = Field(default="removed", description="Always `removed`; a failure is an error.")
    path: str = Field(description="What was removed, with `~` expanded.")


@tool(Risk.DESTROY, room="file", audit="removed {path}")
async def remove(host: Session, params: FileRemoveParams, call: Call) -> FileRemoveResult:
    """Remove one file or link from the machine.

    A link is removed, not what it leads to. Folders are for file_rmdir.
    """
    if not host.has_shell:
        return FileRemoveResult(status="removed", path=await sftp.remove(host, params.path))
    answer = await _ask(host, params, ask_remove(params.path))
    return FileRemoveResult(status="removed", path=answer.path)


# ---- file_rmdir --------------------------------------------------------------------------------------------------


class Slow(BecomeParams):
    def time_limit_s(self) -> float:
        """Time for many files, or large ones."""
        return 600.0


class FileRmdirParams(Slow):
    path: RemotePath = Field(description="Folder to remove; `~` is the account's home.")


class FileRmdirResult(FileRemoveResult):
    count: int = Field(description="Files, links and others that were in it, folders not counted.")


@tool(Risk.DESTROY, room="file", confirm=True, audit="removed the folder {path} with all in it")
async def rmdir(host: Session, params: FileRmdirParams, call: Call) -> FileRmdirResult:
    """Remove a folder and everything in it from the machine.

    Refused, wherever links lead: `/` and the folders directly in it, homes, mount points, folders that hold one of
    these, links, and paths that end in `.` or `..`.
    """
    if not host.has_shell:
        path, count = await sftp.rmdir(host, params.path)
        return FileRmdirResult(status="removed", path=path, count=count)
    answer = await _ask(host, params, ask_rmdir(params.path))
    return FileRmdirResult(status="removed", path=answer.path, count=parse_count(answer)[0])


# ---- file_copy ---------------------------------------------------------------------------------------------------


class FileCopyParams(Slow):
    src: RemotePath = Field(description="File or folder to copy; `~` is the account's home.")
    dst: RemotePath = Field(description="What the copy is called, its own name included.")


class FileCopyResult(Result):
    status: Literal["copied"] = Field(default="copied", description="Always `copied`; a failure is an error.")
    source: str = Field(description="What was copied, with `~` expanded.")
    destination: str = Field(description="The copy, with `~` expanded.")
    count: int = Field(description="Files, links and others that were copied, folders not counted.")


@tool(Risk.CHANGE, room="file", audit="copied {src} to {dst}")
async def copy(host: Session, params: FileCopyParams, call: Call) -> FileCopyResult:
    """Copy a file or a folder on the machine itself.

    Permissions, times, links and, for root, owners are kept. A folder is copied into one that is there already, where
    other files stay; a file replaces a file.
    """
    if not host.has_shell:
        raise sftp.no_shell("copying on the machine itself")
    answer = await _ask(host, params, ask_copy(params.src, params.dst, secrets.token_hex(8)))
    count, destination = parse_count(answer)
    return FileCopyResult(status="copied", source=answer.path, destination=destination, count=count)


# ---- file_move ---------------------------------------------------------------------------------------------------


class FileMoveParams(Slow):
    src: RemotePath = Field(description="File or folder to move; `~` is the account's home.")
    dst: RemotePath = Field(description="What it is called afterwards, its own name included.")
    overwrite: bool = Field(default=False, description="Replace a file that is there; a folder never is.")


class FileMoveResult(Result):
    status: Literal["moved"] = Field(default="moved", description="Always `moved`; a failure is an error.")
    source: str = Field(description="What it was called, with `~` expanded.")
    destination: str = Field(description="What it is called now, with `~` expanded.")


@tool(Risk.CHANGE, room="file", audit="moved {src} to {dst}")
async def move(host: Session, params: FileMoveParams, call: Call) -> FileMoveResult:
    """Move or rename a file or folder on the machine.

    On another file system it is copied beside its destination, put in place whole, and then removed from its source.
    Nothing that is there already is replaced unless `overwrite` is set. Folders that file_rmdir refuses stay.
    """
    if not host.has_shell:
        source, destination = await sftp.move(host, params.src, params.dst, overwrite=params.overwrite)
        return FileMoveResult(status="moved", source=source, destination=destination)
    asked = ask_move(params.src, params.dst, secrets.token_hex(8), overwrite=params.overwrite)
    answer = await _ask(host, params, asked)
    return FileMoveResult(status="moved", source=answer.path, destination=parse_count(answer)[1])


async def _ask(host: Session, params: BecomeParams, asked: PathQuery) -> ScriptAnswer:
    said = await host.run(asked.command, timeout_s=params.time_limit_s() - CLOSING_S)
    return asked.answer(said.stdout, said.stderr)
