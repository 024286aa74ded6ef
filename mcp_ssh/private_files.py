"""Folders and files that only the owner of this server may read."""

import os
import stat
from pathlib import Path

from mcp_ssh.errors import InvalidInput

_OURS = ("state.db", "config.json")


def private_folder(folder: Path, *, inner: bool = False) -> None:
    """Make a folder 0700, or see that an existing one is the owner's alone. Blocks: run it in a thread.

    An existing folder that others may enter is closed to them only where it is plainly ours (empty, holding our files,
    or `inner`, one we made in our own): a mistyped setting such as `/var/lib` must not be locked away from the rest of
    the machine.

    Raises:
        InvalidInput: It cannot be made or written, is not a folder, or belongs to or is shared with somebody else.
    """
    # Inner folders are made during calls, and callers see no path of this server.
    named = "a folder in the state folder" if inner else f"the state folder {folder}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if found.st_uid != os.geteuid():
            raise InvalidInput(f"{named} belongs to another user", hint=_HINT)
        if found.st_mode & 0o077:
            _close_to_others(folder, found.st_mode, inner=inner)
    except OSError as error:
        raise InvalidInput(f"{named} cannot be used: {error.strerror}", hint=_HINT) from error
    if not is_usable(folder):
        raise InvalidInput(f"{named} cannot be written", hint=_HINT)


_HINT = "set MCP_SSH_HOME to a folder of your own, mode 0700"


def is_usable(path: Path) -> bool:
    """Whether this process may read and change a file, or make files in a folder. Blocks."""
    wanted = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
    return os.access(path, wanted, effective_ids=os.access in os.supports_effective_ids)


def _close_to_others(folder: Path, mode: int, *, inner: bool) -> None:
    names = {each.name for each in folder.iterdir()}
    if not inner and (mode & stat.S_ISVTX or (names and names.isdisjoint(_OURS))):
        raise InvalidInput("the state folder is open to other users and holds other things", hint=_HINT)
    folder.chmod(0o700)


def private_file(path: Path) -> None:
    """Create a file 0600 if there is none, before anything is written to it. Blocks: run it in a thread.

    Raises:
        InvalidInput: The file that is there cannot be changed.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            path.chmod(0o600)
        if not is_usable(path):
            raise InvalidInput(f"{path} cannot be written", hint=f"chmod 600 {path}, or {_HINT}") from None
