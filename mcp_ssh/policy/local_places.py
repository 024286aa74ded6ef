"""Which files of the server's own machine a caller may read and write."""

import errno
import hashlib
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from mcp_ssh.errors import InvalidInput, Refused
from mcp_ssh.private_files import private_folder
from mcp_ssh.tool import Caller

TRANSFERS = "transfers"
MOST_DEEP = 200
"""How many folders may lie in each other in a caller's transfer folder, so that it can be walked through."""
_PLAIN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class LocalFolders:
    """The folders for callers other than the owner.

    Attributes:
        state: The state folder. Nothing in it is reachable except the caller's own folder `transfers/<caller>`.
        shared: Folders that the owner shares with every HTTP caller.
        quota_bytes: How many bytes each caller may keep in its own folder.
    """

    state: Path
    shared: tuple[Path, ...] = ()
    quota_bytes: int = 2**62

    def own(self, caller: Caller) -> Path:
        """The transfer folder of a caller."""
        return self.state / transfer_folder(caller)


@dataclass(frozen=True)
class LocalPlace:
    """A resolved path that the caller may use.

    Attributes:
        quota_folder: The caller's transfer folder, where the path lies in it and a quota applies.
    """

    path: Path
    quota_folder: Path | None = None


def transfer_folder(caller: Caller) -> str:
    """The path of a caller's transfer folder in the state folder."""
    name = caller.id
    if not _PLAIN_ID.fullmatch(name):
        name = f"caller-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"
    return f"{TRANSFERS}/{name}"


def local_place(caller: Caller, path: str, folders: LocalFolders) -> LocalPlace:
    """Resolve a path of this machine, links included, and check that the caller may use it. Blocks.

    Args:
        caller: The server's owner may use any path that the server's process can; others stay in their folders.
        path: As the caller gave it. A relative path starts in the caller's transfer folder, for the owner in the folder
            that the server was started in.
        folders: The folders for callers other than the owner.

    Raises:
        InvalidInput: More than `MOST_DEEP` folders would lie in each other.
        Refused: The path leads out of the caller's folders.
        RuntimeError: Links lead in a circle, or there is no such account as in `~account`.
    """
    if caller.owner:
        return LocalPlace(_resolve(Path(path).expanduser()))
    private_folder(folders.state / TRANSFERS, inner=True)
    private_folder(folders.own(caller), inner=True)
    own, state = folders.own(caller).resolve(), folders.state.resolve()
    place = _resolve(own / path)
    if place.is_relative_to(own):
        if len(place.relative_to(own).parts) > MOST_DEEP:
            raise InvalidInput(
                f"local_path: has more than {MOST_DEEP} folders in each other", hint="choose a shorter local path"
            )
        return LocalPlace(place, own)
    inside_state = any(place.is_relative_to(each) for each in (state, (state / TRANSFERS).resolve()))
    if inside_state or not any(place.is_relative_to(each.resolve()) for each in folders.shared):
        raise Refused(
            "local_path: leads out of the folders that you may use on this server's machine",
            hint="give a relative path: it starts in your own folder,"
            f" `{transfer_folder(caller)}` in the server's state folder; the owner can share other folders with"
            " sftp.local_folders",
        )
    return LocalPlace(place)


def _resolve(path: Path) -> Path:
    """Resolve all links of a path. Since 3.13 Python leaves links that lead in a circle as they are."""
    place = path.resolve()
    try:
        circles = stat.S_ISLNK(place.lstat().st_mode)
    except OSError as error:
        circles = error.errno == errno.ELOOP
    if circles:
        raise RuntimeError("links lead in a circle")
    return place
