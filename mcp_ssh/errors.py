"""Every failure a caller can meet, as one tree.

    ToolError
    ├── InvalidInput         the request itself is wrong; nothing was changed
    ├── Unauthenticated      no token, or a wrong one
    ├── Refused              understood, and not allowed: role, read-only, a guarded path, a confirmation missing
    ├── PermissionDenied     the account on the remote machine may not do this
    ├── NotFound             no such session, file, tool, blob
    ├── Conflict             the state is not what the caller expected
    │   └── HostKeyUnconfirmed   the machine's host key is unknown or changed
    ├── TooLarge             more than a configured bound
    ├── TooMany              a limit on calls or sessions is reached
    ├── Unsupported          this host, or this server, cannot do it
    ├── ConnectFailed        the machine could not be reached, or the link was lost
    │   └── AuthFailed       the machine refused the login
    ├── RemoteFailed         the remote side failed after the work began
    ├── TimedOut             the deadline passed
    ├── ShuttingDown         this server is stopping
    ├── OutOfDescriptors     this server has no file descriptor left
    └── Internal             a fault of this server; the log has it under the reference

Caller's fault: `InvalidInput`. Input fine, but the world says no: one of the others. A command that exits non-zero is a
result, never an error.
"""

import errno
import os
from typing import Any, ClassVar


class ToolError(Exception):
    """Root of the tree; never raised itself.

    Attributes:
        code: Stable word for programs.
        message: One sentence for people: what is wrong, naming the field or thing.
        hint: What to do next, naming a tool, an argument or a valid value.
        details: Facts a program may use. Never secrets, never paths of this server.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str | None = None, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details or {}

    def __str__(self) -> str:
        """The message as it is now: it may have been made more precise since the error was raised."""
        return self.message

    def payload(self) -> dict[str, Any]:
        """The error as every transport shows it: `code`, `message`, and where there are any `hint` and `details`."""
        shown: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            shown["hint"] = self.hint
        if self.details:
            shown["details"] = self.details
        return shown


class InvalidInput(ToolError):
    """The request breaks a rule; `details["errors"]` lists field and rule. Nothing was changed."""

    code = "invalid_input"


class Unauthenticated(ToolError):
    """No token, or one this server does not know."""

    code = "unauthenticated"


class Refused(ToolError):
    """Understood and not allowed, by role, read-only mode, guard or missing confirmation."""

    code = "refused"


class PermissionDenied(ToolError):
    """The remote account lacks permission."""

    code = "permission_denied"


class NotFound(ToolError):
    """No such session, remote path, tool or blob."""

    code = "not_found"


class Conflict(ToolError):
    """The state is not the one the caller expected."""

    code = "conflict"


class HostKeyUnconfirmed(Conflict):
    """The host key is unknown or changed; the key that was offered comes with the error."""

    code = "host_key_unconfirmed"


class TooLarge(ToolError):
    """More than a configured bound allows."""

    code = "too_large"


class TooMany(ToolError):
    """A limit on calls or sessions is reached."""

    code = "too_many"


class Unsupported(ToolError):
    """This host, or this server, cannot do it; the message says which part is missing."""

    code = "unsupported"


class ConnectFailed(ToolError):
    """The machine could not be reached, or the link to it was lost."""

    code = "connect_failed"


class AuthFailed(ConnectFailed):
    """The machine refused the login."""

    code = "auth_failed"


class RemoteFailed(ToolError):
    """The remote side failed after the work began; `details` say with what."""

    code = "remote_failed"


class TimedOut(ToolError):
    """The deadline passed."""

    code = "timed_out"


class ShuttingDown(ToolError):
    """This server is stopping and takes no new calls."""

    code = "shutting_down"


class OutOfDescriptors(ToolError):
    """This process, or its machine, has too many open files and connections."""

    code = "out_of_descriptors"

    @classmethod
    def behind(cls, error: BaseException) -> "OutOfDescriptors | None":
        """The lack of descriptors that led to an error, whatever the error says; `None` where there was none."""
        if not (_names_the_lack(error) or (not isinstance(error, ToolError) and _is_lacking_now())):
            return None
        details = error.details if isinstance(error, ToolError) else {}
        return cls(
            "too many open files: this server has no file descriptor left",
            hint="try again in a moment; the server's owner can raise the limit (ulimit -n, LimitNOFILE)",
            details={**details, "retry_after_s": 5},
        )


_LACKS = frozenset({errno.EMFILE, errno.ENFILE})
_CHAIN = 16
"""How many errors behind an error are looked at."""


def _names_the_lack(error: BaseException) -> bool:
    seen: BaseException | None = error
    for _ in range(_CHAIN):
        if isinstance(seen, OSError) and seen.errno in _LACKS:
            return True
        seen = seen and (seen.__cause__ or seen.__context__)
    return False


def _is_lacking_now() -> bool:
    """Whether no file can be opened: what the C library looks up then is "not found"."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno in _LACKS
    return False


class Internal(ToolError):
    """A fault of this server; its log has the traceback under `details["reference"]`."""

    code = "internal"
