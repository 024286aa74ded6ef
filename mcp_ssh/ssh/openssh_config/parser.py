"""The syntax of ~/.ssh/config: lines into words, blocks that apply, and the first value of each option.

asyncssh has a reader too (`asyncssh.config`). It cannot be used: it expands tokens of an included file before the rest
is read, lets ProxyCommand and ProxyJump stand side by side, takes unknown options in silence, runs `Match exec` without
tokens or a deadline, and splits words as a shell does. This one gives what `ssh -G` gives; a test compares the two.
"""

import glob
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mcp_ssh.errors import InvalidInput, Unsupported
from mcp_ssh.host_patterns import pattern_matches
from mcp_ssh.ssh.hostkeys.known_hosts import list_matches
from mcp_ssh.ssh.local_read import read_file

DEEPEST = 16
LARGEST = 4 * 1024 * 1024

_FIRST = """
    hostname port user identitiesonly identityagent hostkeyalias connecttimeout serveraliveinterval
    addressfamily serveralivecountmax bindaddress stricthostkeychecking pubkeyauthentication
    passwordauthentication kbdinteractiveauthentication
"""
_TIMES = frozenset({"connecttimeout", "serveraliveinterval"})
_EACH = frozenset({"identityfile", "certificatefile"})
_WORDS = frozenset({"userknownhostsfile", "globalknownhostsfile"})
_PROXY = frozenset({"proxycommand", "proxyjump"})

# Neither where a connection leads nor whom it trusts depends on these. Some would only weaken us: they are passed over.
_HARMLESS = """
    addkeystoagent applemultipath batchmode canonicaldomains canonicalizefallbacklocal canonicalizemaxdots
    canonicalizepermittedcnames casignaturealgorithms challengeresponseauthentication channeltimeout checkhostip
    clearallforwardings compression compressionlevel connectionattempts controlmaster controlpath
    controlpersist dynamicforward enableescapecommandline enablesshkeysign escapechar exitonforwardfailure
    fingerprinthash forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted
    gatewayports gssapiauthentication gssapiclientidentity gssapidelegatecredentials gssapikexalgorithms
    gssapikeyexchange gssapirenewalforcesrekey gssapiserveridentity gssapitrustdns hashknownhosts
    hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes ignoreunknown ipqos
    kbdinteractivedevices keepalive localcommand localforward loglevel logverbose
    nohostauthenticationforlocalhost numberofpasswordprompts obscurekeystroketiming permitlocalcommand
    permitremoteopen pkcs11provider preferredauthentications protocol
    rekeylimit remotecommand remoteforward requesttty requiredrsasize
    rhostsrsaauthentication rsaauthentication securitykeyprovider sendenv sessiontype setenv skeyauthentication
    smartcarddevice stdinnull streamlocalbindmask streamlocalbindunlink syslogfacility tcpkeepalive tunnel
    tunneldevice updatehostkeys useblacklistedkeys usekeychain useprivilegedport useroaming verifyhostkeydns
    versionaddendum visualhostkey warnweakcrypto xauthlocation
"""
ALGORITHM_OPTIONS = ("kexalgorithms", "hostkeyalgorithms", "ciphers", "macs", "pubkeyacceptedalgorithms")
_FIRST_OPTIONS, _HARMLESS_OPTIONS = frozenset((*_FIRST.split(), *ALGORITHM_OPTIONS)), frozenset(_HARMLESS.split())
_RENAMED = {"pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms"}
_BLOCKS = frozenset({"host", "match"})
_OFF = frozenset({"no", "none", "false", "off"})
_LINE = re.compile(r"[ \t\r\n\f]*(?P<keyword>[^ \t\r\n=\"]+)[ \t\r\n]*=?[ \t\r\n]*(?P<rest>.*)", re.S)
_CRITERION = re.compile(r'"(?P<quoted>[^"]*)"|(?P<plain>[^ \t"=]+)')
_QUOTES = frozenset("'\"")
_ESCAPE = re.compile(r"\\([\"'\\])")
_PIECE = re.compile(
    r"""
    (?P<blank> [ \t]+ )
    | \\ (?P<escaped> ["'\\ ] )
    | (?P<quoted> " (?: \\["'\\] | [^"] )*+ " | ' (?: \\["'\\] | [^'] )*+ ' )
    | (?P<sign> . )
    """,
    re.X | re.S,
)


@dataclass(frozen=True)
class MatchTarget:
    """Whose options are wanted.

    Attributes:
        host: The name as it was given.
        target: The name that `Host` lines are compared with; in the final pass that is HostName.
        local_user: The account this server runs as.
        final: Whether this is the pass in which `Match final` holds.
        run: Says whether a command of `Match exec` succeeded, given the options found so far and HostName.
    """

    host: str
    target: str
    local_user: str
    final: bool
    run: Callable[[str, "ParsedOptions", str], bool]


@dataclass
class ParsedOptions:
    """What the lines that apply say; the first word on an option counts.

    Attributes:
        first: Options with one value, as they stand.
        each: IdentityFile and CertificateFile, of which every line counts.
        words: Options whose first line is a list.
        named: A `Host` or `Match` line that is not for everybody names this host.
        wants_final: There is a `Match final`.
    """

    first: dict[str, str] = field(default_factory=dict[str, str])
    each: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    words: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    ignored: str = ""
    named: bool = False
    wants_final: bool = False


class Reader:
    """Reads files in order into one `ParsedOptions`."""

    def __init__(self, question: MatchTarget, found: ParsedOptions) -> None:
        self._question = question
        self._found = found
        self._place = ""

    def read(self, path: Path, *, user: bool, depth: int = 0, live: bool = True, checked: bool = True) -> None:
        """Take over what a file says; one that does not exist says nothing.

        Args:
            path: The file.
            user: It is the user's own, so that relative names of Include are looked for in ~/.ssh.
            depth: How many files include it.
            live: Whether the block that includes it applies.
            checked: Whether others must not be able to write it.

        Raises:
            InvalidInput: It cannot be read, others may write it, or a line makes no sense.
            Unsupported: It has an option on which target or trust depend and that this server does not know.
        """
        if depth > DEEPEST:
            raise self._wrong("files that Include each other in a circle")
        active = live
        for number, line in enumerate(_text(path, checked=checked).split("\n"), 1):
            self._place = f"{display_name(path)}, line {number}"
            taken = _LINE.fullmatch(line.rstrip(" \t\r\n\f"))
            if not taken or taken["keyword"].startswith("#"):
                continue
            keyword, rest = taken["keyword"].lower(), taken["rest"]
            keyword = _RENAMED.get(keyword, keyword)
            if keyword in _BLOCKS:
                active = self._block(keyword, rest, live=live)
            elif keyword == "include":
                self._include(rest, user=user, depth=depth, live=active)
            elif active:
                self._option(keyword, rest)

    def _block(self, keyword: str, rest: str, *, live: bool) -> bool:
        if live:
            return self._host(self._words(rest)) if keyword == "host" else self._match(rest)
        # Even a file whose Include does not apply can call for a final pass, and in that pass it may apply.
        final = keyword == "match" and any(each.lower() in {"final", "!final"} for each in self._criteria(rest))
        self._found.wants_final |= final
        return False

    def _include(self, rest: str, *, user: bool, depth: int, live: bool) -> None:
        place = self._place
        folder = Path.home() / ".ssh" if user else Path("/etc/ssh")
        for pattern in self._words(rest):
            if pattern.startswith("~") and not user:
                raise self._wrong(f"Include cannot name {pattern}")
            for name in sorted(glob.glob(str(folder / Path(pattern).expanduser()))):  # noqa: PTH207 absolute patterns
                self.read(Path(name), user=user, depth=depth + 1, live=live)
                self._place = place

    def _host(self, patterns: list[str]) -> bool:
        active = named = False
        for pattern in patterns:
            if not pattern_matches(pattern.removeprefix("!"), self._question.target):
                continue
            if pattern.startswith("!"):
                return False
            active = True
            named |= _names(pattern)
        self._found.named |= named
        return active

    def _match(self, text: str) -> bool:
        words = self._criteria(text)
        holds, any_word, named, unknown = True, False, False, ""
        for word in words:
            any_word = True
            negated, attribute = word.startswith("!"), word.removeprefix("!").lower()
            if attribute == "all":
                return self._applies(holds and not negated, unknown)
            if attribute in {"canonical", "final"}:
                self._found.wants_final |= attribute == "final"
                result: bool | None = self._question.final
            elif (value := next(words, None)) is None:
                raise self._wrong(f"Match {attribute} needs a value")
            else:
                result = self._criterion(attribute, value, unknown=bool(unknown)) if holds else False
                named |= attribute in {"host", "originalhost"} and bool(result) and not negated and _names(value)
            if result is None:
                unknown = unknown or attribute
            else:
                holds = holds and result is not negated
        if not any_word:
            raise self._wrong("Match needs a condition")
        holds = self._applies(holds, unknown)
        self._found.named |= holds and named
        return holds

    def _applies(self, holds: bool, unknown: str) -> bool:  # noqa: FBT001
        """Whether a block applies; one whose other conditions do not hold needs no answer to an unknown one.

        Raises:
            Unsupported: It depends on a condition that this server does not know.
        """
        if holds and unknown:
            raise Unsupported(
                f"{self._place}: Match {unknown} is not supported", hint="use Match host, user or final instead"
            )
        return holds

    def _criterion(self, attribute: str, value: str, *, unknown: bool) -> bool | None:
        """Whether a condition holds; `None` for one that this server does not know.

        Behind such a one no command is run, for ssh might not run it either.
        """
        first, question = self._found.first, self._question
        if attribute == "host":
            return list_matches(value.lower(), self._hostname().lower())
        if attribute == "originalhost":
            return list_matches(value.lower(), question.host.lower())
        if attribute == "user":
            return list_matches(value, first.get("user", question.local_user))
        if attribute == "localuser":
            return list_matches(value, question.local_user)
        if attribute == "exec" and not unknown:
            return question.run(value, self._found, self._hostname())
        return None

    def _hostname(self) -> str:
        """The machine's name as far as it is known by now."""
        target, named = self._question.target, self._found.first.get("hostname")
        return target if named is None or self._question.final else expand(named, {"h": target, "%": "%"})

    def _criteria(self, text: str) -> Iterator[str]:
        at = 0
        while at < len(text):
            if text[at] in " \t=":
                at += 1
                continue
            taken = _CRITERION.match(text, at)
            if not taken:
                raise self._wrong("a quote is not closed")
            if taken[0].startswith("#"):
                return
            at = taken.end()
            yield taken["plain"] if taken["quoted"] is None else taken["quoted"]

    def _option(self, keyword: str, rest: str) -> None:
        found = self._found
        if keyword in _PROXY:
            self._proxy(keyword, rest)
        elif keyword in _FIRST_OPTIONS:
            value = self._one(keyword, rest)
            said = {keyword: value} if keyword not in _TIMES or value != "none" else {}
            found.first = said | found.first  # of a time, `none` is as if nothing were said
        elif keyword in _EACH:
            values = found.each.setdefault(keyword, [])
            if (value := self._one(keyword, rest)) not in values:
                values.append(value)
        elif keyword in _WORDS:
            found.words.setdefault(keyword, self._words(rest))
        elif keyword == "ignoreunknown":
            found.ignored = found.ignored or self._one(keyword, rest)
        elif keyword not in _HARMLESS_OPTIONS and not list_matches(found.ignored.lower(), keyword):
            self._refuse(keyword, self._words(rest))

    def _proxy(self, keyword: str, rest: str) -> None:
        """ProxyJump and ProxyCommand are one choice; the first of either counts, and text is taken as it stands.

        `ProxyJump none` decides about jumping alone, so that a ProxyCommand after it counts (OpenSSH 10.3).
        """
        said = self._found.first
        jump = said.get("proxyjump")
        if "proxycommand" in said or (jump is not None and (keyword == "proxyjump" or jump.lower() != "none")):
            return
        text = rest.partition("#")[0].rstrip() if keyword == "proxyjump" else rest
        self._found.first[keyword] = text

    def _refuse(self, keyword: str, words: list[str]) -> None:
        if words and words[0].lower() in _OFF:
            return
        raise Unsupported(
            f"{self._place}: {keyword} is not supported, and where the connection leads or whom it trusts may depend on"
            " it",
            hint="give `host`, `username` and a way to log in with `use_config: false`, or take the option out of this"
            " block",
            details={"option": keyword},
        )

    def _one(self, keyword: str, rest: str) -> str:
        words = self._words(rest)
        if len(words) != 1 or not words[0]:
            raise self._wrong(f"{keyword} takes one value")
        return words[0]

    def _words(self, text: str) -> list[str]:
        try:
            words = split(text)
        except ValueError as error:
            raise self._wrong(str(error)) from error
        if not words:
            raise self._wrong("a value is missing")
        return words

    def _wrong(self, what: str) -> InvalidInput:
        return InvalidInput(f"{self._place}: {what}", hint="`ssh -G HOST` shows what ssh makes of the file")


def _names(pattern: str) -> bool:
    """Whether a pattern speaks of some machines and not of all."""
    return any(sign.isalnum() for sign in pattern)


def _text(path: Path, *, checked: bool) -> str:
    if path == Path(os.devnull):
        return ""
    try:
        text, state = read_file(path, LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except OSError as error:
        raise InvalidInput(
            f"{display_name(path)} cannot be read: {error.strerror}", hint="correct its permissions"
        ) from error
    if checked and (state.st_uid not in {0, os.getuid()} or state.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise InvalidInput(
            f"{display_name(path)} can be written by others, so it is not obeyed", hint="chmod 600 the file"
        )
    return text.decode("utf-8", "surrogateescape")


def display_name(path: Path) -> str:
    """What people call a file; messages never carry other paths of this server."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path) if path.is_relative_to("/etc/ssh") else path.name


def split(text: str) -> list[str]:
    r"""The words of a value: quotes of both kinds group, a backslash takes a quote, itself or a blank, `#` ends all.

    Raises:
        ValueError: A quote is not closed.
    """
    words: list[str] = []
    word: str | None = None
    for piece in _PIECE.finditer(text):
        if piece.lastgroup == "blank":
            words += [] if word is None else [word]
            word = None
        elif word is None and piece[0] == "#":
            break
        elif piece[0] in _QUOTES:
            raise ValueError("a quote is not closed")
        elif piece.lastgroup == "quoted":
            word = (word or "") + _ESCAPE.sub(r"\1", piece[0][1:-1])
        else:
            word = (word or "") + (piece["escaped"] or piece[0])
    return words if word is None else [*words, word]


def expand(text: str, tokens: dict[str, str]) -> str:
    """Text with its %-tokens replaced.

    Raises:
        InvalidInput: A token has no meaning here.
    """

    def value(taken: re.Match[str]) -> str:
        if taken[1] in tokens:
            return tokens[taken[1]]
        raise InvalidInput(f"~/.ssh/config: %{taken[1]} has no meaning in {text!r}", hint="see TOKENS in ssh_config(5)")

    return re.sub(r"%(.?)", value, text, flags=re.S) if "%" in text else text


def port_number(text: str) -> int:
    """A port by number or by name of service.

    Raises:
        InvalidInput: It is neither.
    """
    try:
        number = int(text) if text.isascii() and text.isdigit() else socket.getservbyname(text)
    except OSError:
        number = 0
    if not 0 < number < 2**16:
        raise InvalidInput(f"~/.ssh/config: {text!r} is not a port", hint="give a number from 1 to 65535")
    return number
