"""The text that the account's login shell gets to run, made of a caller's command.

sshd hands an exec request's text to the account's shell as `$SHELL -c TEXT` (RFC 4254, 6.5; sshd(8)). Ours starts with
a short preamble that exports a cookie, by which every process of the call can be found again; prints the shell's
process id on standard error, in a line the reader removes; and enters the working folder. The command follows on a line
of its own, unchanged, so that it means what `ssh host command` would mean.

Where a shell was started ahead of need (`connection/warm_shells.py`), the text is `waiting`'s instead, and the command
comes later, as one line on its standard input.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mcp_ssh.errors import InvalidInput, Unsupported
from mcp_ssh.shell_command import quote
from mcp_ssh.ssh.wire.become import BecomeTarget, entering

COOKIE_VARIABLE = "MCP_SSH_CALL"

LONGEST_LINE = 64 * 1024
"""The longest line a waiting shell is given, in bytes: it reads them one by one."""

LONGEST_TEXT = 128 * 1024 - 1
"""The longest text that sshd can hand to a shell: Linux takes no longer argument (MAX_ARG_STRLEN in execve(2)). From
256 KiB on it would not even answer, but hang up on all sessions of the connection."""

LONGEST_TEXT_FOR_DROPBEAR = 9000
"""The longest it takes, and it hangs up on all sessions of a connection that sends it more."""

POSIX_SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "ksh93", "mksh", "lksh", "zsh", "yash", "busybox"})

ShellKind = Literal["posix", "fish", "other", "restricted", "forced"]
"""What reads the text: a POSIX shell; fish; another shell (csh); a restricted POSIX shell (rbash), which gets the
command behind a mark and nothing else of ours; a forced command or menu, which gets it as it is."""

BARE_SHELLS = frozenset[ShellKind]({"restricted", "forced"})
"""What takes no working folder, no environment and no other account."""


@dataclass(frozen=True)
class CommandEnvelope:
    """One command, ready to be sent.

    Attributes:
        text: What the login shell runs.
        cookie: Value of `MCP_SSH_CALL` in every process of the call.
        stdin: What is written to standard input before the caller's own bytes: the environment, which must not appear
            in a process list.
        acting: The account it runs as, where that is not the login account; `BecomeHandshake` lets it in.
        line: What a waiting shell gets instead; None where the command needs a channel of its own.
        marked: Whether the processes of the call carry its cookie. Of one that has none nobody can say that it ended.
    """

    text: str
    cookie: str
    stdin: bytes = field(default=b"", repr=False)
    acting: BecomeTarget | None = None
    line: bytes | None = field(default=None, repr=False)
    marked: bool = True

    def handed_to(self, cookie: str) -> "CommandEnvelope":
        """The same command for the waiting shell with this cookie."""
        assert self.line is not None  # noqa: S101 without a line nobody looks for a waiting shell
        return replace(self, text="", cookie=cookie, stdin=self.line, line=None)

    @property
    def start_line(self) -> bytes:
        """Start of the line that says the command is about to run; the process id follows."""
        return start_mark(self.cookie)

    @property
    def no_folder(self) -> bytes:
        """The line that says the working folder could not be entered."""
        return f"{self.cookie} cwd".encode()


def build_envelope(
    command: str,
    *,
    shell: ShellKind,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    acting: BecomeTarget | None = None,
    ours: bool = False,
    exact: bool = False,
) -> CommandEnvelope:
    """The text to send for a command.

    Args:
        command: What the caller wants run, in the language of the account's shell.
        shell: What reads it. For shells that are not POSIX, a `sh` does the preamble and starts the account's shell for
            the command.
        cwd: Folder to run in; the login folder where it is omitted.
        env: Variables to add. Names must be shell names; the values travel on standard input.
        acting: The account to run it as, where that is not the login account.
        ours: A command of our own is for `sh`, where another account runs it or the account's shell is not POSIX; a
            caller's is for that account's shell.
        exact: No waiting shell may run it.

    Raises:
        Unsupported: `cwd`, `env` or `acting` for an account that has no shell.
    """
    cookie = secrets.token_hex(16)
    # The cookie is not spelled out where it is printed: a process list must hold it once, in the assignment.
    start = [f"{COOKIE_VARIABLE}={cookie}; export {COOKIE_VARIABLE}", f'echo "${COOKIE_VARIABLE} pid $$" >&2']
    if shell in BARE_SHELLS:
        if cwd is not None or env or acting:
            raise Unsupported(
                "this account has no shell, or a restricted one, so cwd, env and become cannot be",
                hint="leave them out",
            )
        if shell == "forced":
            return CommandEnvelope(command, cookie, marked=False)
        return CommandEnvelope(f"{'; '.join(start)}\n{command}", cookie)
    exports = [f"export {name}={quote(value)}" for name, value in (env or {}).items()]
    settings = "".join(f"{each}\n" for each in exports).encode()
    steps: list[str] = []
    if settings:
        steps.append(f'eval "$(dd bs=1 count={len(settings)} 2>/dev/null)"')
    missing = f'{{ echo "${COOKIE_VARIABLE} cwd" >&2; exit 1; }}'
    folder = [] if cwd is None else [f"{_enter(cwd)} || {missing}"]
    steps += folder
    if acting is not None:
        text = "; ".join([*start, entering(acting, cookie, steps, command, ours=ours)])
        return CommandEnvelope(text if shell == "posix" else _through_sh(text), cookie, settings, acting)
    preamble = "; ".join([*start, *steps])
    if shell == "posix":
        line = None if exact else _line([*exports, *folder], command)
        return CommandEnvelope(f"{preamble}\n{command}", cookie, settings, line=line)
    body = f"{preamble}\n{command}" if ours else f'{preamble}; exec "${{SHELL:-sh}}" -c {quote(command)}'
    return CommandEnvelope(_through_sh(body), cookie, settings)


def _enter(cwd: str) -> str:
    """A command that enters a folder by the shell's own `cd`, not by a function of the account with that name.

    zsh means a program by `command`, so there it is `builtin`.
    """
    folder = _folder(cwd)
    return (
        f'if [ -n "${{ZSH_VERSION-}}" ]; then CDPATH= builtin cd -- {folder}; else CDPATH= command cd -- {folder}; fi'
    )


def _folder(cwd: str) -> str:
    """A folder as a word of sh: `~` is the home, and `-`, by which cd means another folder, a name like others."""
    if cwd == "~" or cwd.startswith("~/"):
        return f'"${{HOME:-.}}"{quote(cwd[1:])}'
    return quote(cwd if cwd.startswith("/") else f"./{cwd}")


# What csh and fish leave alone between single quotes. csh would take a newline or `!` as its own, fish a backslash that
# stands before a quote or another backslash: neither `\n` nor `\0` is for any of them.
_PLAIN = frozenset(b'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-+=,.:;/@%$(){}[]<>|&*?~#"`^')
_ESCAPES = [chr(byte) if byte in _PLAIN else r"\n" if byte == 0x0A else f"\\0{byte:03o}" for byte in range(256)]
_WORD = 1000
"""Bytes of the script in one word: Debian's csh takes words of 8 KiB at most."""


def expect_fits(text: str, server: str) -> None:
    """Return where the server, by the version it told, can hand the text to a shell.

    Raises:
        InvalidInput: It is too long.
    """
    longest = LONGEST_TEXT_FOR_DROPBEAR if "dropbear" in server.lower() else LONGEST_TEXT
    if (over := len(text.encode()) - longest) > 0:
        raise InvalidInput(
            f"the command line is {over} bytes too long: this machine takes {longest}, quoted for the account's shell",
            hint="put the text into a file with file_write and run that, or give it as `stdin`",
        )


def _through_sh(script: str) -> str:
    """A line that has `sh` run the script, for a login shell whose quoting is not that of POSIX."""
    data = script.encode()
    words = ("".join(_ESCAPES[byte] for byte in data[at : at + _WORD]) for at in range(0, len(data), _WORD))
    return f"""exec sh -c 'eval "$(printf %b "$@")"' sh {" ".join(f"'{word}'" for word in words)}"""


def interactive(*, shell: ShellKind, cwd: str | None = None, env: Mapping[str, str] | None = None) -> CommandEnvelope:
    """The text that starts an interactive login shell on a terminal, with the same cookie and start line.

    The variables travel on standard input here, too; the terminal passes them on as they are, and does not echo them.

    Args:
        shell: What reads the text. A forced command or menu is started as it is, by a request for a shell.
        cwd: Folder to start in.
        env: Variables to add, which the shell's own rc files may change again.

    Raises:
        Unsupported: `cwd` or `env` for an account that has no shell.
    """
    prepared = build_envelope("", shell="forced" if shell in BARE_SHELLS else "posix", cwd=cwd, env=env, exact=True)
    if shell in BARE_SHELLS:
        return prepared
    begin, end = ("saved=$(stty -g); stty raw -echo; ", '; stty "$saved"; unset saved') if prepared.stdin else ("", "")
    text = f'{begin}{prepared.text.rstrip()}{end}; exec "${{SHELL:-sh}}" -l'
    return replace(prepared, text=text if shell == "posix" else _through_sh(text))


# A shell takes its input byte by byte up to the end of a line, and so leaves the rest to the command. One that may be
# restricted, or that does not wait for long (TMOUT), is not for this. All is one line, since what a shell says of a
# command names the line it stood in. $1 is a newline.
_WAITING = "; ".join(
    (
        "MCP_SSH_CALL=%s",
        "export MCP_SSH_CALL",
        "case $-/${TMOUT:-0} in *r*/*) exit 1 ;; */0) ;; *) exit 1 ;; esac",
        r"""set -- "$(printf '\n.')" """,
        'set -- "${1%%.}"',
        'echo "$MCP_SSH_CALL pid $$" >&2',
        "IFS= read -r MCP_SSH_LINE || exit 1",
        'echo "$MCP_SSH_CALL pid $$" >&2 || exit 1',
        'eval "$MCP_SSH_LINE"',
    )
)


def waiting(cookie: str) -> str:
    """What a POSIX login shell runs to wait for a command.

    It prints its start line, waits for one line on standard input, prints the start line again and only then begins
    with what it was told. Where its input ends before the line does, it ends and has run nothing.
    """
    return _WAITING % cookie


def _line(steps: Sequence[str], command: str) -> bytes | None:
    """The line for a waiting shell: evaluates the command with nothing of ours left over, and is one line for all."""
    text = "; ".join(["set --", "unset MCP_SSH_LINE", *steps, command])
    line = ("eval " + quote(text).replace("\n", "'\"$1\"'") + "\n").encode()
    return line if len(line) <= LONGEST_LINE else None


def start_mark(cookie: str) -> bytes:
    """Start of the line that says a call's shell is there; its process id follows."""
    return f"{cookie} pid ".encode()


class StartLine:
    """Removes the start line from a command's streams, and reads the process id in it.

    It comes on standard error, or where an rc file says `exec 2>&1` on standard output. Whatever an rc file printed
    before the line stays. Standard error is held back until the line has come; where it does not come within the first
    64 KiB of a stream (a menu instead of a shell), everything of that stream passes. Of standard output only what may
    be the line is held back.

    Args:
        mark: How the line starts.
        expected: Whether it is printed at all.
    """

    LIMIT = 64 * 1024
    _SURE = 8
    """So many bytes of the mark are taken for it wherever they stand in a line; fewer only at its beginning."""
    _LONGEST = 32
    """Bytes that may follow the mark: a process id and the line's end."""

    def __init__(self, mark: bytes, *, expected: bool = True) -> None:
        self._mark = mark
        self._found = not expected
        self._err_over = self._out_over = False
        self._err = bytearray()
        self._out = bytearray()
        self._out_passed = 0
        self.pid: int | None = None

    def feed(self, chunk: bytes) -> bytes:
        """What of standard error may pass on, now that these bytes came."""
        if self._found or self._err_over:
            return self.rest() + chunk if self._err else chunk
        self._err += chunk
        self._take_line(self._err)
        self._err_over = len(self._err) > self.LIMIT
        return self.rest() if self._found or self._err_over else b""

    def feed_out(self, chunk: bytes) -> bytes:
        """What of standard output may pass on, now that these bytes came."""
        if self._found or self._out_over:
            return self.rest_out() + chunk if self._out else chunk
        self._out += chunk
        self._take_line(self._out)
        keep = 0 if self._found else self._kept_back()
        passed = bytes(self._out[: len(self._out) - keep])
        del self._out[: len(passed)]
        self._out_passed += len(passed)
        self._out_over = self._out_passed > self.LIMIT
        return passed

    def _take_line(self, data: bytearray) -> None:
        """Remove the start line, where all of it is there, and note its process id."""
        start = data.find(self._mark)
        end = data.find(b"\n", start) if start >= 0 else -1
        if end < 0:
            return
        number = bytes(data[start + len(self._mark) : end]).rstrip(b"\r")  # a terminal's line end
        self.pid = int(number) if number.isdigit() else None
        del data[start : end + 1]
        self._found = True

    def _kept_back(self) -> int:
        """How many bytes at the end of standard output may be the beginning of the line."""
        start = self._out.rfind(self._mark)
        if start >= 0:
            after = len(self._out) - start
            return after if after <= len(self._mark) + self._LONGEST else 0
        for length in range(min(len(self._mark) - 1, len(self._out)), 0, -1):
            begins_line = length == len(self._out) or self._out[-length - 1] == 0x0A
            if (begins_line or length >= self._SURE) and self._out.endswith(self._mark[:length]):
                return length
        return 0

    def rest(self) -> bytes:
        """What of standard error is still held at the end of the stream."""
        held = bytes(self._err)
        self._err.clear()
        return held

    def rest_out(self) -> bytes:
        """What of standard output is still held at the end of the stream."""
        held = bytes(self._out)
        self._out.clear()
        return held
