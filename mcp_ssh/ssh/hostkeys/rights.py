"""Who accepted a host key: kept in the comment of its line, so that nobody replaces what another caller trusts."""

from collections.abc import Iterable

from mcp_ssh.errors import Conflict, InvalidInput, Refused, TooLarge, TooMany
from mcp_ssh.ssh.hostkeys.known_hosts import (
    ACCEPTED_BY,
    CALLER_ID,
    MAX_FILE_BYTES,
    HostTrust,
    KnownHostsEntry,
    fingerprint,
)
from mcp_ssh.tool import Caller

SHARE_BYTES = 1024 * 1024
"""The most that the lines of one caller may take; the server's owner has no such bound."""
RESERVED_BYTES = 4 * 1024 * 1024
"""How much of the file is left to the server's owner."""


def comment_of(caller: Caller | None) -> str:
    """The comment of a line that this caller has written; empty for the owner's own program."""
    return f"{ACCEPTED_BY}{caller.id}" if caller is not None and CALLER_ID.fullmatch(caller.id) else ""


def expect_rights(caller: Caller | None, entries: Iterable[KnownHostsEntry], what: str) -> None:
    """See that a caller may change what others trust.

    Args:
        caller: Who wants to; `None` for the owner's own program.
        entries: The lines that say what is trusted now.
        what: What the caller wants, for the message.

    Raises:
        Refused: One of the lines is another caller's, and this one is not an admin of all machines.
    """
    if caller is None or caller.owner or caller.oversees:
        return
    others = [each for each in entries if each.accepted_by != caller.id]
    if others:
        raise Refused(
            f"{what}, which another caller accepted ({others[0].place}), needs an admin",
            hint="ask the server's owner or an admin whether the machine's key was replaced, and have them do it",
        )


def expect_replacement(trust: HostTrust, name: str, blob: bytes, replaces: str | None, *, required: bool) -> None:
    """See that a caller who accepts a key for a machine that has another one knows the other.

    Args:
        trust: What is known of the machine.
        name: The machine, for messages.
        blob: The key that is to be accepted.
        replaces: The fingerprint of a known key, as the caller gave it.
        required: Whether the caller has to give it.

    Raises:
        InvalidInput: It has to be given.
        Conflict: The machine has no such key.
    """
    known = [fingerprint(each.blob) for each in trust.own_keys if each.blob != blob]
    if replaces is not None and replaces not in known:
        raise Conflict(
            f"replaces: no key of {name} with this fingerprint is known",
            hint=f"known are {', '.join(known)}" if known else "leave replaces out: no key of it is known",
        )
    if known and replaces is None and required:
        raise InvalidInput(
            f"replaces: is required, since {name} has another key: {known[0]}",
            hint="another machine may be answering; have the user ask the machine's owner whether its key was replaced,"
            " and only then give the old key's fingerprint",
            details={"errors": [{"field": "replaces", "rule": "is required where another key is known"}]},
        )


def expect_room(caller: Caller | None, entries: Iterable[KnownHostsEntry], data: bytes) -> None:
    """See that a changed file stays within its bounds, before it is written.

    Args:
        caller: Who changes it; `None` for the owner's own program.
        entries: Its lines after the change.
        data: All of it after the change.

    Raises:
        TooMany: The caller has as many keys as it may have.
        TooLarge: The file would be too large.
    """
    bounded = caller is not None and not caller.owner
    if caller is not None and bounded:
        own = sum(len(each.names) + len(each.key_base64) + 96 for each in entries if each.accepted_by == caller.id)
        if own > SHARE_BYTES:
            raise TooMany(
                f"your accepted host keys would take more than {SHARE_BYTES // 1024} KiB",
                hint="remove those of machines that are gone, with hostkey_remove; hostkey_list names them",
            )
    if len(data) > MAX_FILE_BYTES - (RESERVED_BYTES if bounded else 0):
        raise TooLarge(
            "the managed known_hosts has no room for one more key",
            hint="have the server's owner remove keys of machines that are gone, with hostkey_remove",
        )
