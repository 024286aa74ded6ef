"""Files over SFTP, for accounts that have it and no shell: the same facts and promises as far as the protocol goes.

What SFTP (draft-ietf-secsh-filexfer-02, as OpenSSH speaks it) cannot tell is left out: names of owners, ACLs. Answers
of the server are few: "failure" is all it says of a full disk.
"""

import asyncio
import contextlib
import functools
import hashlib
import posixpath
import secrets
import stat
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio

from mcp_ssh.errors import Conflict, InvalidInput, NotFound, RemoteFailed, TooLarge, ToolError, Unsupported
from mcp_ssh.linux.files.protected_paths import is_protected, may_hold, refusal
from mcp_ssh.linux.files.stat import DirectoryEntry, FileFacts, FilePage
from mcp_ssh.linux.files.write import WriteOutcome
from mcp_ssh.linux.framing import permission_denied, quote_path
from mcp_ssh.messages.printable import said_details
from mcp_ssh.sessions.session import Session
from mcp_ssh.ssh.connection.connection import FULL, LONG_WAIT_S, Connection
from mcp_ssh.ssh.errors import connection_lost

if TYPE_CHECKING:
    import asyncssh

CLOSE_LIMIT_S = 2.0
WHOLE_LIMIT = 16 * 1024 * 1024
"""Largest file that is read to be written again: SFTP has no way to put something before what is there."""


@contextlib.contextmanager
def sftp_errors(path: str) -> Generator[None]:
    """Failures of the server about a path, in our words."""
    import asyncssh

    try:
        yield
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
        raise NotFound(
            f"{quote_path(path)} does not exist", hint="list its folder with file_list", details={"path": path}
        ) from error
    except asyncssh.SFTPPermissionDenied as error:
        raise permission_denied(path) from error
    except (asyncssh.SFTPNoConnection, asyncssh.SFTPConnectionLost, asyncssh.ConnectionLost) as error:
        raise connection_lost() from error
    except asyncssh.SFTPError as error:
        raise RemoteFailed(
            f"{quote_path(path)}: the SFTP server refused",
            hint="the disk may be full, or something else be there already; file_stat and file_list show what is there",
            details=said_details(error.reason, path=path),
        ) from error


class Sftp:
    """An SFTP client on a channel of its own. Paths are as callers give them; `~` is where the server starts."""

    def __init__(self, client: "asyncssh.SFTPClient", protected: Sequence[str] = ()) -> None:
        self.protected = protected
        self.client: Any = client

    async def real(self, path: str) -> bytes:
        """Where a path leads at the end of all links; its last part need not exist."""
        return await self.client.realpath(wire_path(path))

    async def facts(self, path: bytes, *, follow: bool = True) -> "asyncssh.SFTPAttrs | None":
        """What is at a path, if anything is."""
        import asyncssh

        try:
            return await (self.client.stat(path) if follow else self.client.lstat(path))
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath):
            return None

    def spare(self, real: bytes, path: str) -> None:
        """Leave alone what is protected on this machine.

        Raises:
            Refused: It is.
        """
        if is_protected(real, self.protected):
            raise refusal(path)

    async def spare_name(self, path: str) -> bytes:
        """Where a name really is, a link not followed; it must be free to be changed."""
        slim = wire_path(path).rstrip(b"/") or b"/"
        folder = await self.client.realpath(posixpath.dirname(slim) or b".")
        real = posixpath.join(folder, posixpath.basename(slim))
        self.spare(real, path)
        return real

    async def spare_new(self, path: str) -> None:
        """A name at which missing folders are made: they come below the last one that is there, so none is a link."""
        there, rest = wire_path(path).rstrip(b"/") or b"/", b""
        while there not in {b"/", b"."} and await self.facts(there, follow=False) is None:
            above, last = posixpath.split(there)
            there, rest = above or b".", posixpath.join(b"/", last) + rest
        self.spare(posixpath.normpath(await self.client.realpath(there) + rest), path)

    async def display_path(self, path: str) -> str:
        """The path with `~` expanded."""
        if path == "~" or path.startswith("~/"):
            home = (await self.client.realpath(b".")).decode("utf-8", "replace")
            return posixpath.join(home, path[2:]) if len(path) > 1 else home
        return path


def wire_path(path: str) -> bytes:
    """A path as the server gets it: relative ones start where it starts, which is the home."""
    if path == "~":
        return b"."
    return (path.removeprefix("~/") or ".").encode() if path.startswith("~/") else path.encode()


@contextlib.asynccontextmanager
async def open_sftp(host: Session) -> AsyncGenerator[Sftp]:
    """Speak SFTP with the machine.

    Raises:
        Unsupported: Another account was to be acted as, which takes a shell.
    """
    if host.acting is not None:
        raise Unsupported("this account has no shell, so it cannot act as another", hint="leave `become` out")
    if not host.connected:
        raise connection_lost()
    async with host.link.place():
        client = await _start_client(host.link)
        try:
            yield Sftp(client, host.rules.protected)
        finally:
            client.exit()
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_LIMIT_S):
                await client.wait_closed()


async def _start_client(link: Connection) -> "asyncssh.SFTPClient":
    """A client, as soon as the machine gives a channel for it; the caller's call has a deadline."""
    wait_s = 0.01
    while (client := await _if_room(link)) is None:
        link.spares.leave(0)
        await anyio.sleep(wait_s)
        wait_s = min(wait_s * 2, LONG_WAIT_S)
    return client


async def _if_room(link: Connection) -> "asyncssh.SFTPClient | None":
    import asyncssh

    starting = asyncio.ensure_future(link.connection.start_sftp_client(path_encoding=None))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_exit)
        raise
    except (asyncssh.Error, OSError) as error:
        if not link.alive:
            raise connection_lost() from error
        if isinstance(error, asyncssh.ChannelOpenError) and error.code in FULL:
            return None
        raise Unsupported(
            "this account has neither a shell nor SFTP", hint="log in with an account that has one of them"
        ) from error


def _exit(starting: "asyncio.Future[asyncssh.SFTPClient]") -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().exit()


# ---- looking -----------------------------------------------------------------------------------------------------


async def entries(host: Session, path: str) -> tuple[str, list[DirectoryEntry]]:
    """What is in a folder, by name."""
    async with open_sftp(host) as sftp:
        with sftp_errors(path):
            facts = await sftp.client.stat(wire_path(path))
            if not stat.S_ISDIR(facts.permissions or 0):
                raise InvalidInput(f"{quote_path(path)} is not a folder", hint="read it with file_read")
            found = [entry(each) async for each in sftp.client.scandir(wire_path(path))]
            shown = await sftp.display_path(path)
    return shown, sorted((each for each in found if each.name not in {b".", b".."}), key=lambda each: each.name)


def entry(name: "asyncssh.SFTPName") -> DirectoryEntry:
    """One name of a folder."""
    attrs: Any = name.attrs
    raw = name.filename if isinstance(name.filename, bytes) else name.filename.encode()
    return DirectoryEntry(
        raw, attrs.permissions or 0, attrs.size or 0, attrs.mtime or 0, attrs.uid or 0, attrs.gid or 0
    )


async def facts(host: Session, path: str) -> tuple[str, FileFacts]:
    """What is at a path, links followed."""
    async with open_sftp(host) as sftp:
        with sftp_errors(path):
            attrs: Any = await sftp.client.stat(wire_path(path))
            own: Any = await sftp.client.lstat(wire_path(path))
            link = None
            if stat.S_ISLNK(own.permissions or 0):
                link = (await sftp.client.readlink(wire_path(path))).decode("utf-8", "replace")
            shown = await sftp.display_path(path)
    numbers = (attrs.permissions, attrs.size, attrs.uid, attrs.gid, attrs.atime, attrs.mtime)
    mode, size, uid, gid, atime, mtime = (each or 0 for each in numbers)
    return shown, FileFacts(mode, size, uid, gid, atime, mtime, None, None, link)


def regular(path: str, attrs: Any) -> None:
    """Refuse what is not a regular file."""
    mode = attrs.permissions or stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise InvalidInput(f"{quote_path(path)} is a folder, not a file", hint="list it with file_list")
    if not stat.S_ISREG(mode):
        raise InvalidInput(f"{quote_path(path)} is a device, pipe or socket, not a regular file")


async def page(host: Session, path: str, offset: int, length: int) -> tuple[str, FilePage]:
    """Some bytes of a file."""
    async with open_sftp(host) as sftp:
        with sftp_errors(path):
            attrs: Any = await sftp.client.stat(wire_path(path))
            regular(path, attrs)
            async with sftp.client.open(wire_path(path), "rb") as file:
                content = await file.read(length, offset)
            return await sftp.display_path(path), FilePage(content, attrs.size or 0)


# ---- changing ----------------------------------------------------------------------------------------------------


class SftpTarget:
    """A file to be written: where it really is, and what it was before."""

    def __init__(self, sftp: Sftp, path: str, real: bytes, old: Any) -> None:
        self.sftp, self.path, self.real, self.old = sftp, path, real, old

    @classmethod
    async def at(cls, sftp: Sftp, path: str) -> "SftpTarget":
        """Look before writing.

        Raises:
            NotFound: Its folder does not exist.
            InvalidInput: It is not a regular file.
        """
        real = await sftp.real(path)
        old = await sftp.facts(real)
        if old is not None:
            regular(path, old)
        elif path.endswith("/"):
            raise InvalidInput(f"{quote_path(path)} ends in a slash, so it names a folder", hint="leave the slash out")
        elif await sftp.facts(posixpath.dirname(real)) is None:
            raise NotFound(
                f"the folder of {quote_path(path)} does not exist",
                hint="make it first, with file_mkdir(parents: true)",
                details={"path": path},
            )
        sftp.spare(real, path)
        return cls(sftp, path, real, old)

    def beside(self, name: str) -> bytes:
        """Our file in the same folder."""
        return posixpath.join(posixpath.dirname(self.real), f".mcp-ssh-{name}.part".encode())

    async def put(self, part: bytes, permissions: str | None, usual: int | None) -> WriteOutcome:
        """Make the part the file, by one rename where that keeps the owner."""
        client = self.sftp.client
        atomic = True
        made: Any = await client.stat(part)
        if self.old is not None and (made.uid, made.gid) != (self.old.uid, self.old.gid):
            atomic = await self._give_attributes(part)
        mode = int(permissions, 8) if permissions else None
        if mode is None and self.old is not None:
            mode = stat.S_IMODE(self.old.permissions)
        elif mode is None and usual is not None:
            mode = usual & ~0o022
        if not atomic:
            await self._overwrite(part, made.size)
            part = self.real
        if mode is not None:
            await client.chmod(part, mode)
        if atomic:
            await client.posix_rename(part, self.real)
        now: Any = await client.stat(self.real)
        return WriteOutcome(atomic, now.size or 0, f"{stat.S_IMODE(now.permissions or 0):04o}", None)

    async def _give_attributes(self, part: bytes) -> bool:
        import asyncssh

        try:
            await self.sftp.client.chown(part, self.old.uid, self.old.gid)
        except asyncssh.SFTPError:
            return False
        return True

    async def _overwrite(self, part: bytes, size: int) -> None:
        """Into the file itself: a rename would give it another owner."""
        client = self.sftp.client
        async with client.open(part, "rb") as source, client.open(self.real, "r+b") as target:
            offset = 0
            while chunk := await source.read(1024 * 1024, offset):
                await target.write(chunk, offset)
                offset += len(chunk)
            await target.truncate(size)
            await sync_file(target)
        await client.remove(part)


async def sync_file(file: Any) -> None:
    """Have a file reach the disk, where the server can."""
    import asyncssh

    with contextlib.suppress(asyncssh.SFTPOpUnsupported):
        await file.fsync()


async def write(
    host: Session,
    path: str,
    content: bytes,
    mode: str,
    *,
    maximum: int,
    permissions: str | None = None,
    expected: str | None = None,
) -> tuple[str, WriteOutcome]:
    """Write a file; the arguments are those of `ask_write`."""
    async with open_sftp(host) as sftp:
        with sftp_errors(path):
            target = await SftpTarget.at(sftp, path)
            shown = await sftp.display_path(path)
            old = b""
            if target.old is not None and (mode != "overwrite" or expected is not None):
                if (target.old.size or 0) > WHOLE_LIMIT:
                    raise TooLarge(f"{quote_path(path)} is too large to be changed over SFTP", hint="use file_upload")
                async with sftp.client.open(target.real, "rb") as file:
                    old = await file.read(WHOLE_LIMIT)
            _expect(target, old, expected)
            whole = {"append": old + content, "prepend": content + old}.get(mode, content)
            if len(whole) > maximum:
                raise TooLarge(f"{quote_path(path)} would grow to {len(whole)} bytes, more than this server may write")
            part = target.beside(secrets.token_hex(12))
            async with removed_on_failure(sftp, part):
                async with sftp.client.open(part, "xb") as file:
                    await file.write(whole)
                    await sync_file(file)
                outcome = await target.put(part, permissions, None)
    return shown, replace(outcome, sha256=hashlib.sha256(whole).hexdigest() if mode != "overwrite" else None)


def _expect(target: SftpTarget, old: bytes, expected: str | None) -> None:
    if expected is None:
        return
    actual = hashlib.sha256(old).hexdigest() if target.old is not None else ""
    if actual != expected:
        raise Conflict(
            f"{quote_path(target.path)} has another content than expected; nothing was changed",
            hint="read it again with file_read, and decide again",
            details={"path": target.path, "actual_sha256": actual},
        )


@contextlib.asynccontextmanager
async def removed_on_failure(sftp: Sftp, part: bytes) -> AsyncGenerator[None]:
    """Leave no file of this server behind."""
    import asyncssh

    try:
        yield
    except BaseException:
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_LIMIT_S), contextlib.suppress(asyncssh.Error):
            await sftp.client.remove(part)
        raise


async def mkdir(host: Session, path: str, *, parents: bool) -> tuple[str, str]:
    """Make a folder; the path and its permissions."""
    async with open_sftp(host) as sftp:
        with sftp_errors(path):
            shown, real = await sftp.display_path(path), wire_path(path)
            old: Any = await sftp.facts(real)
            if old is not None and not (parents and stat.S_ISDIR(old.permissions or 0)):
                raise Conflict(f"{quote_path(path)} exists already", hint="look at it with file_stat")
            await sftp.spare_new(path)
            if parents:
                await sftp.client.makedirs(real, exist_ok=True)
            else:
                await sftp.client.mkdir(real)
            made: Any = await sftp.client.stat(real)
    return shown, f"{stat.S_IMODE(made.permissions or 0):04o}"


async def remove(host: Session, path: str) -> str:
    """Remove a file or link."""
    async with open_sftp(host) as sftp:
        with sftp_errors(path):
            own: Any = await sftp.client.lstat(wire_path(path))
            if stat.S_ISDIR(own.permissions or 0) or path.endswith("/"):
                raise InvalidInput(f"{quote_path(path)} is a folder, not a file", hint="use file_rmdir")
            await sftp.spare_name(path)
            await sftp.client.remove(wire_path(path))
            return await sftp.display_path(path)


async def rmdir(host: Session, path: str) -> tuple[str, int]:
    """Remove a folder and all it holds, unless it is one of those that stay; how many files it held."""
    async with open_sftp(host) as sftp:
        with sftp_errors(path):
            shown, slim = await sftp.display_path(path), wire_path(path).rstrip(b"/") or b"/"
            own: Any = await sftp.client.lstat(slim)
            if stat.S_ISLNK(own.permissions or 0):
                raise InvalidInput(f"{quote_path(path)} is a link; nothing was changed", hint="use file_remove")
            if not stat.S_ISDIR(own.permissions or 0):
                raise InvalidInput(f"{quote_path(path)} is not a folder", hint="use file_remove")
            real = await sftp.client.realpath(slim)
            home = await sftp.client.realpath(b".")
            if why := _protection_reason(slim, real, home):
                raise InvalidInput(f"{quote_path(path)} is protected: it is {why}; nothing was changed")
            sftp.spare(real, path)
            folders, files = await _list_tree(sftp, real)
            for each in (*folders, *files):
                sftp.spare(each, path)
            for each in files:
                await sftp.client.remove(each)
            for each in reversed(folders):
                await sftp.client.rmdir(each)
    return shown, len(files)


def _protection_reason(asked: bytes, real: bytes, home: bytes) -> str:
    if posixpath.basename(asked) in {b".", b".."}:
        return "named by its dots"
    if real.strip(b"/").count(b"/") == 0:
        return "a folder of the system"
    if (home + b"/").startswith(real + b"/") or (real.startswith(b"/home/") and real.count(b"/") == 2):
        return "a home folder, or holds one"
    return ""


async def _list_tree(sftp: Sftp, root: bytes) -> tuple[list[bytes], list[bytes]]:
    """All folders, outer ones first, and all else; a mount point among them is refused."""
    folders, files, todo = list[bytes](), list[bytes](), [root]
    system = await _file_system(sftp, posixpath.dirname(root))
    while todo:
        folder = todo.pop()
        if await _file_system(sftp, folder) != system:
            raise InvalidInput(f"{quote_path(folder.decode('utf-8', 'replace'))} is a mount point; nothing was changed")
        folders.append(folder)
        async for each in sftp.client.scandir(folder):
            found = entry(each)
            if found.name in {b".", b".."}:
                continue
            (todo if stat.S_ISDIR(found.mode) else files).append(posixpath.join(folder, found.name))
    return sorted(folders), files


async def _file_system(sftp: Sftp, path: bytes) -> int | None:
    import asyncssh

    try:
        return (await sftp.client.statvfs(path)).fsid
    except asyncssh.SFTPOpUnsupported:
        return None


async def move(host: Session, source: str, goal: str, *, overwrite: bool) -> tuple[str, str]:
    """Rename a file or folder."""
    async with open_sftp(host) as sftp:
        with sftp_errors(source):
            own: Any = await sftp.client.lstat(wire_path(source))
        with sftp_errors(goal):
            there: Any = await sftp.facts(wire_path(goal), follow=False)
            folder = stat.S_ISDIR(own.permissions or 0)
            if there is not None and (not overwrite or folder or stat.S_ISDIR(there.permissions or 0)):
                raise Conflict(f"{quote_path(goal)} is there already, and is not replaced", hint="choose another name")
            if folder:
                real, home = await sftp.real(source), await sftp.client.realpath(b".")
                if why := _protection_reason(wire_path(source).rstrip(b"/"), real, home):
                    raise InvalidInput(f"{quote_path(source)} is protected: it is {why}; nothing was changed")
            for end in (source, goal):
                real = await sftp.spare_name(end)
                if folder and may_hold(real, sftp.protected):
                    raise refusal(end)
            rename = functools.partial(sftp.client.posix_rename if overwrite else sftp.client.rename)
            await rename(wire_path(source), wire_path(goal))
        return await sftp.display_path(source), await sftp.display_path(goal)


def no_shell(what: str) -> ToolError:
    """The error of what takes a shell."""
    return Unsupported(
        f"{what} takes a shell on the machine, and this account has SFTP only", hint="use another account"
    )
