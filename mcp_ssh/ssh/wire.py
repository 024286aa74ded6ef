"""The text that the account's login shell gets to run, made of a caller's command.

sshd hands an exec request's text to the account's shell as `$SHELL -c TEXT` (RFC 4254, 6.5; sshd(8)). Ours starts with
a short preamble that exports a cookie, by which every process of the call can be found again; prints the shell's
process id on standard error, in a line the reader removes; and enters the working folder. The command follows on a line
of its own, unchanged, so that it means what `ssh host command` would mean.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mcp_ssh.commandline import quote
from mcp_ssh.errors import Unsupported
from mcp_ssh.ssh.become import Acting, entering

COOKIE_VARIABLE = "MCP_SSH_CALL"
POSIX_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh", "lksh", "zsh", "yash", "busybox"})

Shell = Literal["posix", "other", "forced"]
"""What reads the text: a POSIX shell; another shell (fish, csh); a forced command or menu, which gets it as it is."""


@dataclass(frozen=True)
class Wire:
    """One command, ready to be sent.

    Attributes:
        text: What the login shell runs.
        cookie: Value of `MCP_SSH_CALL` in every process of the call.
        stdin: What is written to standard input before the caller's own bytes: the environment, which must not appear
            in a process list.
        acting: The account it runs as, where that is not the login account; `Entry` lets it in.
    """

    text: str
    cookie: str
    stdin: bytes = field(default=b"", repr=False)
    acting: Acting | None = None

    @property
    def started(self) -> bytes:
        """Start of the line that says the command is about to run; the process id follows."""
        return f"{self.cookie} pid ".encode()

    @property
    def no_folder(self) -> bytes:
        """The line that says the working folder could not be entered."""
        return f"{self.cookie} cwd".encode()


def wire(
    command: str,
    *,
    shell: Shell,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    acting: Acting | None = None,
    ours: bool = False,
) -> Wire:
    """The text to send for a command.

    Args:
        command: What the caller wants run, in the language of the account's shell.
        shell: What reads it. For shells that are not POSIX, a `sh` does the preamble and starts the account's shell for
            the command.
        cwd: Folder to run in; the login folder where it is omitted.
        env: Variables to add. Names must be shell names; the values travel on standard input.
        acting: The account to run it as, where that is not the login account.
        ours: A command of our own is for `sh` where another account runs it; a caller's is for that account's shell.

    Raises:
        Unsupported: `cwd`, `env` or `acting` for an account that has no shell.
    """
    cookie = secrets.token_hex(16)
    if shell == "forced":
        if cwd is not None or env or acting:
            raise Unsupported("this account has no shell, so cwd, env and become cannot be", hint="leave them out")
        return Wire(command, cookie)
    settings = "".join(f"export {name}={quote(value)}\n" for name, value in (env or {}).items()).encode()
    # The cookie is not spelled out where it is printed: a process list must hold it once, in the assignment.
    start = [f"{COOKIE_VARIABLE}={cookie}; export {COOKIE_VARIABLE}", f'echo "${COOKIE_VARIABLE} pid $$" >&2']
    steps: list[str] = []
    if settings:
        steps.append(f'eval "$(dd bs=1 count={len(settings)} 2>/dev/null)"')
    if cwd is not None:
        steps.append(f'CDPATH= cd -- {quote(cwd)} || {{ echo "${COOKIE_VARIABLE} cwd" >&2; exit 1; }}')
    if acting is not None:
        text = "; ".join([*start, entering(acting, cookie, steps, command, ours=ours)])
        return Wire(text if shell == "posix" else f"exec sh -c {quote(text)}", cookie, settings, acting)
    preamble = "; ".join([*start, *steps])
    if shell == "posix":
        return Wire(f"{preamble}\n{command}", cookie, settings)
    inner = f'{preamble}; exec "${{SHELL:-sh}}" -c "$1"'
    return Wire(f"exec sh -c {quote(inner)} sh {quote(command)}", cookie, settings)


class StartLine:
    """Removes the start line from a stream of standard error, and reads the process id in it.

    Whatever an rc file printed before the line stays. Where the line does not come within the first 64 KiB (a forced
    command, a menu instead of a shell), everything passes.
    """

    LIMIT = 64 * 1024

    def __init__(self, mark: bytes) -> None:
        self._mark = mark
        self._held: bytearray | None = bytearray()
        self.pid: int | None = None

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that may pass on, now that these came."""
        if self._held is None:
            return chunk
        self._held += chunk
        start = self._held.find(self._mark)
        end = self._held.find(b"\n", start) if start >= 0 else -1
        if end >= 0:
            number = bytes(self._held[start + len(self._mark) : end])
            self.pid = int(number) if number.isdigit() else None
            passed = bytes(self._held[:start] + self._held[end + 1 :])
        elif len(self._held) > self.LIMIT:
            passed = bytes(self._held)
        else:
            return b""
        self._held = None
        return passed

    def rest(self) -> bytes:
        """What is still held at the end of the stream."""
        held, self._held = self._held, None
        return bytes(held or b"")
