"""Acting as another account of the machine: through sudo, su or doas, the password on standard input and nowhere else.

The login shell replaces itself by the program, and the program starts a `sh` as the other account. That `sh` prints a
mark on both streams, then discards standard input up to a line we send when we have seen the mark, and only then starts
the command. So the password, which is sent once and only when the program asks for it, can never become input of the
command, whether or not the program read it; none of the caller's own input goes to the program; and what the program
says beforehand (prompt, lecture) stays out of the command's output. Where our line
does not come, since the call was cancelled while the program was busy with the password, no command is ever started.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from pydantic import SecretStr

from mcp_ssh.errors import InvalidInput, NotFound, PermissionDenied, TimedOut, ToolError, Unsupported
from mcp_ssh.messages.printable import said_details
from mcp_ssh.params import Become, Method
from mcp_ssh.shell_command import quote

if TYPE_CHECKING:
    from mcp_ssh.ssh.connection.channel import Channel

TALK_LIMIT = 16 * 1024
"""Bytes kept of what each stream holds before the command begins: lectures and rc files are shorter."""

SURE = 8
"""So many bytes of a mark are not there by chance."""

ENTRY_LIMIT_S = 20.0
"""How long the program may take: it says no after a few seconds, and may wait for ever for what nobody gives it."""

# sudo asks with the words we give it; su, and some PAM modules under sudo, in their own.
_ASKED_FOR = (b"assword", b"assphrase")
_PROMPT_LIMIT = 1024
"""Bytes of the last line in which a question is looked for."""


def asks_for_password(said: bytes) -> bool:
    """Whether what was said ends in a question for a password."""
    line = said[-_PROMPT_LIMIT:].rpartition(b"\n")[2].removesuffix(b" ")
    return line.endswith(b":") and any(word in line for word in _ASKED_FOR)


@dataclass(frozen=True)
class BecomeTarget:
    """The account to act as, the program that makes it so, and the password that program may ask for."""

    user: str
    method: Method
    password: SecretStr | None = None

    def program(self, cookie: str) -> list[str]:
        """The program and its options, up to the command."""
        if self.method == "doas":
            return ["doas", "-n", "-u", self.user, "--", "sh", "-c"]
        if self.method == "su":
            return ["su", "-s", "/bin/sh", "-c"]
        # -k: the password is asked for whatever sudo remembers, and sudo does not remember it for others afterwards.
        asking = ["-k", "-S", "-p", prompt(cookie)] if self.password else ["-n"]
        return ["sudo", *asking, "-H", "-u", self.user, "--", "sh", "-c"]


def acting_as(become: Become, login_password: SecretStr | None, kept: SecretStr | None = None) -> BecomeTarget:
    """What a caller asked for, with the password it means; where it means none, the one that was kept.

    Raises:
        InvalidInput: The session has no login password to use.
    """
    password = become.password
    if password is None and become.use_login_password:
        if login_password is None:
            raise InvalidInput(
                "become.use_login_password: this session was not opened with a password",
                hint="give `become.password`, or open the session with a password",
            )
        password = login_password
    elif password is None:
        password = kept
    return BecomeTarget(become.user, become.method, password)


def prompt(cookie: str) -> str:
    """The prompt that sudo shows for us: nothing else on the machine prints it."""
    return f"{cookie[len(cookie) // 2 :]}:"


# What runs as the other account. $1: the cookie. $2, $3: whether LC_ALL was set, and to what. $4: the account.
# $5: the command. Between the halves come the steps that every command has; no variable of these may be left behind.
_BEGIN = r"""echo "$1 begin"; echo "$1 begin" >&2
MCP_SSH_CALL=$1; export MCP_SSH_CALL
if [ -n "$2" ]; then LC_ALL=$3; export LC_ALL; else unset LC_ALL; fi
(until [ "$line" = "$1" ]; do IFS= read -r line || exit 1; done) || exit 1
"""
_FIND_SHELL = r"""set -- "$@" "$(while IFS=: read -r name _ _ _ _ _ shell; do
    [ "$name" != "$4" ] || { echo "${shell:-/bin/sh}"; break; }
done </etc/passwd)"
SHELL=${6:-${SHELL:-/bin/sh}}
case ${SHELL##*/} in nologin | false) SHELL=/bin/sh ;; esac
export SHELL
set -- "$1" "$2" "$3" "$4" "$5" "$SHELL"
"""
_THEIRS = 'exec "$6" -c "$5"\n'
_OURS = 'exec sh -c "$5"\n'


def entering(acting: BecomeTarget, cookie: str, steps: Sequence[str], command: str, *, ours: bool) -> str:
    """The end of the preamble for a POSIX login shell: it becomes the program, and that the command.

    Args:
        acting: Whom to become, and how.
        cookie: The call's cookie, exported as `MCP_SSH_CALL` already.
        steps: What is done as the other account before the command: its environment, its folder.
        command: What is to run.
        ours: A command of our own is for `sh`; a caller's is for the shell of the account, as it would be over SSH.
    """
    program = acting.program(cookie)
    prepare = "".join(f"{step}\n" for step in steps)
    inner = _BEGIN + (prepare + _OURS if ours else _FIND_SHELL + prepare + _THEIRS)
    operands = [quote("--"), quote(acting.user)] if acting.method == "su" else []
    words = [*map(quote, program), quote(inner), *operands, "sh", '"$MCP_SSH_CALL"', '"${LC_ALL+x}" "${LC_ALL-}"']
    known = f'command -v {program[0]} >/dev/null || {{ echo "$MCP_SSH_CALL no such program" >&2; exit 127; }}'
    # The messages are read, so they have to be English; the command gets its own language back.
    return f"{known}; exec env LC_ALL=C {' '.join(words)} {quote(acting.user)} {quote(command)}"


class BecomeHandshake:
    """One command's way into the other account: holds the streams back until it began, and answers the one question.

    A command that stays with the login account (`acting` is None) has begun from the start.
    """

    def __init__(self, acting: BecomeTarget | None, cookie: str) -> None:
        self._acting = acting
        self._cookie = cookie
        self._mark = f"{cookie} begin\n".encode()
        self._prompt = prompt(cookie).encode()
        self._talk = {"out": bytearray(), "err": bytearray()}
        self._passing = set[str]() if acting else {"out", "err"}
        self._behind = bytearray()
        self._awaits_other = acting is not None
        self._answered = False
        self._refused = False
        self._over = False
        self._news = anyio.Event()

    @property
    def began(self) -> bool:
        """Whether the other account's shell runs."""
        return bool(self._passing)

    def out(self, chunk: bytes) -> bytes:
        """What of these bytes of standard output is the command's."""
        return self._feed("out", chunk)

    def err(self, chunk: bytes) -> bytes:
        """What of these bytes of standard error is the command's."""
        return self._feed("err", chunk)

    def _feed(self, stream: str, chunk: bytes) -> bytes:
        if stream in self._passing:
            return self._without_other(chunk) if stream == "out" and self._awaits_other else chunk
        talk = self._talk[stream]
        talk += chunk
        self._news.set()
        start = talk.find(self._mark)
        if start >= 0:
            passed = bytes(talk[start + len(self._mark) :])
            del talk[start:]
            self._passing.add(stream)
            return self._without_other(passed) if stream == "out" else passed
        del talk[:-TALK_LIMIT]
        return b""

    def _without_other(self, chunk: bytes) -> bytes:
        """Standard output behind its mark, without that of standard error: an rc file may have sent that there."""
        self._behind += chunk
        if not self._behind or (SURE <= len(self._behind) < len(self._mark) and self._mark.startswith(self._behind)):
            return b""
        self._awaits_other = False
        return self.rest_out().removeprefix(self._mark)

    def rest_out(self) -> bytes:
        """What of standard output is still held at the end of the stream."""
        held = bytes(self._behind)
        self._behind.clear()
        return held

    def end(self) -> None:
        """The streams are at their end."""
        self._over = True
        self._news.set()

    async def wait_ready(self, channel: "Channel") -> bool:
        """Wait until the command may have its input; answer the program's question on the way.

        The password is tried once. Where the program asks again, or for something that nobody gives it, its input is
        closed, which ends it.
        """
        if self._acting is None:
            return True
        with anyio.move_on_after(ENTRY_LIMIT_S):
            return await self._let_in(channel, self._acting)
        channel.write_eof()
        return False

    async def _let_in(self, channel: "Channel", acting: BecomeTarget) -> bool:
        while not self.began:
            if self._over:
                return False
            if self._asks():
                if self._answered or acting.password is None:
                    self._refused = True
                    channel.write_eof()
                    return False
                await self._answer(channel, acting.password)
            else:
                self._news = anyio.Event()
                await self._news.wait()
        await channel.write(f"{self._cookie}\n".encode())
        return True

    async def _answer(self, channel: "Channel", password: SecretStr) -> None:
        self._answered = True
        for talk in self._talk.values():
            talk.clear()
        await channel.write(password.get_secret_value().encode() + b"\n")

    def _asks(self) -> bool:
        return any(self._prompt in talk or asks_for_password(bytes(talk)) for talk in self._talk.values())

    def refusal(self) -> ToolError:
        """Why the command never began, of what the program said."""
        acting = self._acting
        assert acting is not None  # noqa: S101 without it everything begins
        if self._refused:
            return _wrong_password(acting)
        said = self._last_words(acting)
        for words, make in _REFUSALS:
            if any(each in said.lower() for each in words):
                return make(acting)
        return PermissionDenied(
            f"{acting.method} did not let the command run as {acting.user}",
            hint=f"try it by hand on the machine; {acting.method}'s own log says more",
            details=said_details(said.rpartition("\n")[2]),
        )

    def too_late(self, limit_s: float, stopped: object) -> TimedOut:
        """The error of a command that had not begun at its deadline."""
        program = self._acting.method if self._acting else "the shell"
        return TimedOut(
            f"{program} did not let the command begin within {limit_s:g} s; the command did not run",
            hint="it may ask for something else than a password, or be slow to refuse a wrong one; raise the `timeout`",
            details={"stopped": stopped},
        )

    def _last_words(self, acting: BecomeTarget) -> str:
        talk = (self._talk["out"] + self._talk["err"]).decode("utf-8", "replace").replace(self._cookie, "")
        if acting.password is not None:
            talk = talk.replace(acting.password.get_secret_value(), "***")
        return talk.strip()


def _wrong_password(acting: BecomeTarget) -> ToolError:
    whose = f"{acting.user}'s" if acting.method == "su" else "the login account's"
    if acting.password is None:
        return PermissionDenied(
            f"{acting.method} asks for a password, and none was given",
            hint=f"give {whose} password in `become.password`",
            details={"wants": "become.password"},
        )
    return PermissionDenied(
        f"{acting.method} refused the password",
        hint=f"{acting.method} wants {whose} own password; it was tried once and is not tried again",
    )


def _needs_password(acting: BecomeTarget) -> ToolError:
    return PermissionDenied(
        f"becoming {acting.user} with {acting.method} needs a password here: `sudo -n` was tried and refused",
        hint="give `become.password`, or have an administrator allow it without one (NOPASSWD in sudoers)",
        details={"wants": "become.password"},
    )


def _refusal(kind: type[ToolError], message: str, hint: str) -> Callable[[BecomeTarget], ToolError]:
    """An error about an account and the way to it, which both texts may name."""

    def said(acting: BecomeTarget) -> ToolError:
        others = " or ".join(each for each in ("sudo", "su", "doas") if each != acting.method)
        words = {"user": acting.user, "method": acting.method, "others": others}
        return kind(message.format(**words), hint=hint.format(**words))

    return said


_REFUSALS: tuple[tuple[tuple[str, ...], Callable[[BecomeTarget], ToolError]], ...] = (
    (
        ("no such program",),
        _refusal(Unsupported, "{method} is not installed on this machine", "use become.method {others}"),
    ),
    (
        ("doas: auth",),
        _refusal(
            Unsupported,
            "doas needs a password to become {user}, and reads one from a terminal only",
            "use become.method sudo or su, or have an administrator add `nopass` to the rule in doas.conf",
        ),
    ),
    (
        ("not in the sudoers", "may not run sudo", "doas: operation not permitted"),
        _refusal(
            PermissionDenied,
            "the login account may not use {method} to become {user} on this machine",
            "log in with an account that may, or have an administrator allow it (sudoers, doas.conf)",
        ),
    ),
    (
        ("not allowed to execute", "not allowed to run"),
        _refusal(
            PermissionDenied,
            "the login account may run only certain commands as {user}",
            "run the allowed one with command_exec, written out as `sudo -n …`, without become",
        ),
    ),
    (
        ("must have a tty", "must be run from a terminal", "a terminal is required"),
        _refusal(
            Unsupported,
            "{method} here wants a terminal, and commands have none",
            "use another become.method, or have an administrator turn it off (Defaults !requiretty in sudoers)",
        ),
    ),
    (("password is required", "interactive authentication is required"), _needs_password),
    (
        ("unknown user", "does not exist"),
        _refusal(NotFound, "the machine has no account {user}", "check become.user"),
    ),
    (
        ("no new privileges", "must be owned by uid 0", "must be suid", "must be setuid", "effective uid"),
        _refusal(
            Unsupported,
            "{method} cannot change the account on this machine: it lacks the rights of root itself",
            "log in as root, or have an administrator repair the set-uid bit, or the container's no_new_privs",
        ),
    ),
    (
        ("account is currently not available", "account is not available"),
        _refusal(Unsupported, "{user} has no shell that su could start", "use become.method sudo"),
    ),
    (("incorrect password", "authentication failure", "no password was provided"), _wrong_password),
)
