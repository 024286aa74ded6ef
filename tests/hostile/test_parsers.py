"""No parser of a machine's text takes time that grows faster than the text.

Every pattern and parser that sees such text is found in the source, and has worst cases here: text made of one part,
repeated. Each is tried at two sizes; a parser that compares all with all takes sixteen times as long for four times the
text. A new pattern or parser without a case fails the first test.
"""

import ast
import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_ssh import shell_command as commandline
from mcp_ssh.errors import ToolError
from mcp_ssh.linux import lines
from mcp_ssh.linux.files import archives
from mcp_ssh.linux.files import search as searching
from mcp_ssh.linux.files import stat as files
from mcp_ssh.linux.files import transfer as file_transfer
from mcp_ssh.linux.files import tree as file_tree
from mcp_ssh.linux.files import write as file_write
from mcp_ssh.linux.files.follow import FollowParser
from mcp_ssh.linux.firewall import firewalld_rules, iptables, iptables_persistence, nft_rules, placement
from mcp_ssh.linux.firewall.firewalld import Firewalld
from mcp_ssh.linux.firewall.iptables import Iptables
from mcp_ssh.linux.firewall.model import FilterRule, Table
from mcp_ssh.linux.framing import PathQuery, ScriptAnswer, failure
from mcp_ssh.linux.packages import MANAGERS
from mcp_ssh.linux.packages.base import ManagerOutput, PackageManager, inventory_of_lines, inventory_of_rpms, reason
from mcp_ssh.linux.parts import PartsAsked
from mcp_ssh.linux.system import addresses, cron, environment, facts, processes, services
from mcp_ssh.linux.system import platform as detect
from mcp_ssh.linux.tasks import requests as tasks
from mcp_ssh.sessions import open as connect
from mcp_ssh.ssh.auth import key_cost
from mcp_ssh.ssh.auth import responder as login_answers
from mcp_ssh.ssh.pty import terminal
from mcp_ssh.ssh.pty.screen import Screen
from mcp_ssh.ssh.wire import become
from mcp_ssh.tools.setup import runner as running

ROOT = Path(__file__).parents[2] / "mcp_ssh"
SMALL, LARGE = 4 * 1024, 16 * 1024
FASTER = 9.0
"""Four times the text takes about four times as long, and sixteen times if every part is compared with every other."""

MEASURABLE_S = 0.02

PUMPS = (
    " ", "\n", "a", "1", "-", "@", '"', "'", "\\", "\0", "\r", "\t", "a ", "1 ", "/\n", "a\n", "1:\n", "\0a\n", "a\0",
    "/a\0", "/a\0\n", " /", "1 1 1 1% ", "1 1 1 1% /\n", "1: a inet ", "1: a@", "a@a", "inet addr:", "|-- 1.1.1.1\n",
    "<a", "<to-a>", '<solvable a="', "Inst a [", "Inst a [1] (", "Remv a (", "(1/1) a a (a", "a-1", " a:\n", "a:\n ",
    "a/a a\n a\n", "a : a\n", "breaks dependency '", "Failed to obtain ", "assword", "Install", "  rich rules: \n\t",
    "rule a=", "-A INPUT ", '-A a -m "', "1+1 records in\n", "1 bytes copied", "* * * * * a\n", "#\n", "= a\n",
    "/proc/1/stat:1 (a) ", "/proc/1/stat:a\n", "/proc/1/status:Uid: 1\n", "\x1b[", "\x1b]", "\x1b[2J", "a\x0b", "y/n",
    "(y/", "password", "error ", "E: a:\n", "a=b\n", "'a'", "\\'", "x\u0301",
)  # fmt: skip

Run = Callable[[str], object]


class EveryPart(dict[str, str]):
    """An answer of which every part holds the same text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def __missing__(self, key: str) -> str:
        return self.text

    def get(self, key: str, default: Any = None) -> Any:
        return self.text


def _parts(parse: Callable[[Any], object]) -> Run:
    return lambda text: parse(EveryPart(text))


def _answer(parse: Callable[[ScriptAnswer], object]) -> Run:
    return lambda text: parse(ScriptAnswer("ok", text, text.encode(), text.encode()))


def _firewall_parts(firewall: Any) -> Run:
    return lambda text: firewall.table(EveryPart(f"a\n{text}"), "ipv4")


def _placed(text: str) -> object:
    rule = FilterRule("ipv4", "INPUT", 1, text, target="DROP", protocol="tcp", ports=text)
    return placement.place_of(
        FilterRule("ipv4", "INPUT", 0, "", target="ACCEPT", protocol="tcp", ports=text[:100]), Table(rules=(rule,))
    )


def _followed(text: str) -> object:
    return FollowParser(b"a").feed(b"a\n".join(text.encode().split(b"a")))


def _seen_task(text: str) -> object:
    return tasks.parse_look("name", ScriptAnswer("ok", text, text.encode(), b""))


def _drawn(text: str) -> object:
    screen = Screen(80, 24)
    screen.feed(text.encode())
    return screen.rows


def _login(text: str) -> object:
    return login_answers.AuthResponder(None, ()).reply(text, [(text, True), (text, False)])


def _of_managers() -> dict[str, Run]:
    found: dict[str, Run] = {}
    for name in ("apt-get", "dnf", "pacman", "zypper", "apk"):
        manager = MANAGERS[name]

        def dependents(text: str, manager: PackageManager = manager) -> object:
            return manager.dependents(f"not removed due to:\n{text}", ["a"])

        runs: dict[str, Run] = {
            "parse_plan": manager.parse_plan,
            "dependents": dependents,
            "inventory": manager.inventory,
            "newer": manager.newer,
            "parse_search": manager.parse_search,
            "is_locked": manager.is_locked,
        }
        module, kind = type(manager).__module__.removeprefix("mcp_ssh."), type(manager).__name__
        found |= {f"{module}:{kind}.{each}": run for each, run in runs.items()}
    return found


_NFT = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority 0; policy drop;\n"


def _cost(data: bytes) -> None:
    with contextlib.suppress(ToolError):
        key_cost.expect_bounded_work(data)


CASES: dict[str, Run] = {
    "shell_command:words": commandline.words,
    "shell_command:unquote": commandline.unquote,
    "shell_command:_PIECE": commandline.words,
    "shell_command:_ESCAPED": lambda text: commandline.words(f'"{text}"'),
    "linux.system.platform:parse": lambda text: detect.parse(f"m {text}\nm end ok\n".encode(), "m"),
    "linux.firewall.firewalld:Firewalld.table": _firewall_parts(Firewalld()),
    "linux.firewall.firewalld_rules:parse": lambda text: firewalld_rules.parse(
        "ipv4", f"a\na (active)\n{text}\n=\n{text}", text
    ),
    "linux.firewall.firewalld_rules:_PORTS": lambda text: firewalld_rules.parse(
        "ipv4", f"a\na (active)\n\trule port port={text}", ""
    ),
    "linux.firewall.firewalld_rules:_HEAD": lambda text: firewalld_rules.priority_of(
        FilterRule("ipv4", "INPUT", 1, text)
    ),
    "linux.firewall.iptables:parse": lambda text: iptables.parse("ipv4", text),
    "linux.firewall.iptables:Iptables.table": _firewall_parts(Iptables()),
    "linux.firewall.iptables:_WORD": lambda text: iptables.parse("ipv4", text),
    "linux.firewall.iptables:_ESCAPED": lambda text: iptables.parse("ipv4", f'-A a "{text}"'),
    "linux.firewall.iptables_persistence:parse_kept": _parts(iptables_persistence.parse_kept),
    "linux.firewall.placement:place_of": _placed,
    "linux.system.services:Systemd.parse": _parts(services.MANAGERS["systemd"].parse),
    "linux.system.services:InitScripts.parse": _parts(services.MANAGERS["openrc"].parse),
    "linux.packages.base:inventory_of_lines": inventory_of_lines,
    "linux.packages.base:reason": reason,
    "linux.packages.base:_TAG": lambda text: reason(f"<?xml\n{text}"),
    "linux.packages.apk:_PLANNED": MANAGERS["apk"].parse_plan,
    "linux.packages.apk:_UPGRADING": MANAGERS["apk"].newer,
    "linux.packages.apk:_FOUND": MANAGERS["apk"].parse_search,
    "linux.packages.apk:_COUNT": lambda text: MANAGERS["apk"].succeeded(ManagerOutput(1, text)),
    "linux.system.addresses:addresses": addresses.addresses,
    "linux.system.addresses:proc_addresses": _parts(addresses.proc_addresses),
    "linux.framing:failure": lambda text: failure("/", text.encode()),
    "linux.framing:PathQuery.answer": lambda text: (
        PathQuery("/", commandline.command("a"), b"a", {}).answer(text.encode())
    ),
    "linux.files.archives:parse_list": _answer(archives.parse_list),
    "linux.system.cron:parse_cron": _parts(lambda parts: cron.parse_cron(parts, None)),
    "linux.system.environment:parse_get": _parts(lambda parts: environment.parse_get(parts, "A")),
    "linux.files.transfer:parse_have": _answer(file_transfer.parse_have),
    "linux.files.transfer:parse_offer": _answer(file_transfer.parse_offer),
    "linux.files.transfer:parse_grown": _answer(file_transfer.parse_grown),
    "linux.files.tree:parse_rmrf": _answer(file_tree.parse_rmrf),
    "linux.files.tree:parse_count": _answer(file_tree.parse_count),
    "linux.files.write:parse_write": lambda text: file_write.parse_write(text.encode()),
    "linux.files.stat:parse_list": lambda text: files.parse_list(text.encode()),
    "linux.files.stat:parse_entry": lambda text: files.parse_entry(text.encode()),
    "linux.files.stat:parse_stat": _answer(files.parse_stat),
    "linux.files.stat:parse_read": _answer(files.parse_read),
    "linux.files.follow:FollowParser.feed": _followed,
    "linux.lines:lines_of": lambda text: list(lines.lines_of(text)),
    "linux.parts:PartsAsked.parts": lambda text: PartsAsked(commandline.command("a"), "a").parts(text.encode()),
    "linux.system.processes:parse_processes": _parts(processes.parse_processes),
    "linux.files.search:_NUMBER": _answer(searching.parse_grep),
    "linux.files.search:parse_grep": _answer(searching.parse_grep),
    "linux.files.search:parse_find": _answer(searching.parse_find),
    "ssh.pty.screen:Screen.feed": _drawn,
    "linux.tasks.requests:parse_start": _answer(tasks.parse_start),
    "linux.tasks.requests:parse_look": _seen_task,
    "linux.tasks.requests:parse_list": _answer(tasks.parse_list),
    "ssh.pty.terminal:plain": lambda text: terminal.plain(text.encode()),
    "ssh.pty.terminal:prompt": lambda text: terminal.prompt(text[: lines.LINE_LIMIT]),
    "ssh.pty.terminal:incomplete_tail": lambda text: terminal.incomplete_tail(text.encode()),
    "ssh.pty.terminal:_SEQUENCE": lambda text: terminal.plain(text.encode()),
    "ssh.pty.terminal:_OTHERS": lambda text: terminal.plain(text.encode()),
    "ssh.pty.terminal:_BEGUN": lambda text: terminal.incomplete_tail(text.encode()),
    "ssh.pty.terminal:_PROMPTS": lambda text: terminal.prompt(text[: lines.LINE_LIMIT]),
    "ssh.pty.terminal:_overwritten": lambda text: terminal.plain(text.encode()),
    "ssh.pty.terminal:with_exit_code": lambda text: terminal.with_exit_code("a", "0" * 16, fish=False).end.search(
        text.encode()
    ),
    "linux.system.facts:parse_memory": _parts(facts.parse_memory),
    "linux.system.facts:parse_cpu": _parts(facts.parse_cpu),
    "linux.system.facts:parse_disks": _parts(facts.parse_disks),
    "linux.system.facts:parse_network": _parts(facts.parse_network),
    "linux.system.facts:parse_uptime": _parts(facts.parse_uptime),
    "linux.system.facts:parse_accounts": _parts(facts.parse_accounts),
    "linux.system.facts:_OCTAL": lambda text: facts.parse_disks({"df": "", "mounts": f"a {text} b\n"}),
    "ssh.auth.responder:_CODE": _login,
    "ssh.auth.responder:_PASSWORD": _login,
    "ssh.auth.responder:_CHANGE": _login,
    "ssh.wire.become:asks_for_password": lambda text: become.asks_for_password(text.encode()),
    "sessions.open:_SAID": lambda text: connect._SAID.search(text.encode()),  # pyright: ignore[reportPrivateUsage]
    "sessions.open:_EXPIRED": lambda text: connect._EXPIRED.search(text.encode()),  # pyright: ignore[reportPrivateUsage]
    "tools.setup.runner:_NAMED": running._NAMED.search,  # pyright: ignore[reportPrivateUsage]
    "linux.firewall.nft_rules:parse_nft": lambda text: nft_rules.parse_nft(_NFT + text, "ipv4"),
    "linux.firewall.nft_rules:parse_rule": lambda text: nft_rules.parse_rule(text, "ipv4", "input", 1),
    "linux.firewall.nft_rules:_NETWORK": lambda text: nft_rules.parse_rule(f"ip saddr {text}", "ipv4", "input", 1),
    "linux.firewall.nft_rules:_PORTS": lambda text: nft_rules.parse_rule(f"tcp dport {text}", "ipv4", "input", 1),
    "linux.firewall.nft_rules:_QUOTED": lambda text: nft_rules.parse_rule(f'log prefix "{text}', "ipv4", "input", 1),
    "linux.packages.base:inventory_of_rpms": inventory_of_rpms,
    "linux.system.services:_UNMET": services._UNMET.search,  # pyright: ignore[reportPrivateUsage]
    "ssh.pty.terminal:_NO_SHELL": lambda text: terminal.prompt(text[-4096:]),
    "ssh.auth.key_cost:_BODY": lambda text: _cost(f"-----BEGIN OPENSSH PRIVATE KEY-----{text}".encode()),
    **_of_managers(),
}  # fmt: skip
"""What sees a machine's text, by module and name, and how it is given it."""

BOUNDED: dict[str, str] = {
    "linux.files.search:SIZE": "an argument of the caller, which its parameter bounds",
    "linux.files.protected_paths:_case": "patterns of the owner's config",
    "ssh.pty.terminal:_digits": "a command of the caller, which its parameter bounds",
    "sessions.shell_exec:_Watch._find_end": "a mark of ours, literally",
    "ssh.connection.warm_shells:_LOOKS": "a command of the caller, which its parameter bounds",
    "transfers.tar_stream:_PLAIN": "one header of 512 bytes",
    "tools.file.content:_octal": "an argument of the caller, which its parameter bounds",
    "tools.setup.runner:ManagerRun._run_followed": "splits at a class of characters",
    "tools.firewall.rules:heard_of": "looks for words",
    "linux.files.transfer:ChecksummedFile.feed": "takes the last line apart, which it bounds",
}
"""Patterns that need no worst case, and why."""

LOCAL = {
    "ssh/openssh_config/resolve.py", "ssh/openssh_config/parser.py", "ssh/openssh_config/aliases.py",
    "ssh/hostkeys/known_hosts.py",
    "ssh/hostkeys/store.py", "sessions/login_planner.py", "transfers/local_files.py",
}  # fmt: skip
"""Modules whose patterns see files of the owner and arguments of callers."""

FOLDERS = ("linux", "ssh", "sessions", "transfers", "tunnels", "tools", "shell_command.py")
PARSERS = re.compile(
    r"(?:.*\.)?(?:parse(?:_\w+)?|dependents|inventory\w*|newer|is_locked|table|reason|feed|answer|parts)"
)


def _sources() -> Iterator[tuple[str, Path]]:
    for folder in FOLDERS:
        place = ROOT / folder
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            if path.relative_to(ROOT).as_posix() not in LOCAL:
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path


class _Finder(ast.NodeVisitor):
    """Finds uses of `re`, by the name that a pattern is assigned to or the function that uses it."""

    def __init__(self) -> None:
        self.patterns: set[str] = set()
        self.functions: set[str] = set()
        self._within: list[str] = []
        self._protocol = False

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if not any(isinstance(base, ast.Name) and base.id == "Protocol" for base in node.bases):
            self._inside(node.name, node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.functions.add(".".join([*self._within, node.name]))
        self._inside(node.name, node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._inside(node.name, node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._assigned(node.targets[0], node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._assigned(node.target, node)

    def _assigned(self, target: ast.expr, node: ast.AST) -> None:
        if self._within or not isinstance(target, ast.Name):
            self.generic_visit(node)
        else:
            self._inside(target.id, node)

    def _inside(self, name: str, node: ast.AST) -> None:
        self._within.append(name)
        self.generic_visit(node)
        self._within.pop()

    def visit_Call(self, node: ast.Call) -> None:
        if (called := ast.unparse(node.func)).startswith("re.") and called != "re.escape":
            self.patterns.add(".".join(self._within))
        self.generic_visit(node)


def _uses() -> set[str]:
    found: set[str] = set()
    for module, path in _sources():
        finder = _Finder()
        finder.visit(ast.parse(path.read_text()))
        found |= {f"{module}:{name}" for name in finder.patterns}
        if module.startswith("linux"):
            found |= {f"{module}:{name}" for name in finder.functions if PARSERS.fullmatch(name)}
    return found


@pytest.mark.requirement("fault.S3.parsers")
def test_every_pattern_and_parser_of_a_machines_text_has_a_worst_case() -> None:
    missing = _uses() - CASES.keys() - BOUNDED.keys()
    assert not missing, f"add a worst case to CASES, or to BOUNDED with the reason: {sorted(missing)}"


def test_every_worst_case_is_of_something_that_is_there() -> None:
    uses = _uses()
    for key in [*CASES, *BOUNDED]:
        module, _, name = key.partition(":")
        source = ROOT.joinpath(*module.split(".")).with_suffix(".py").read_text()
        assert key in uses or re.search(rf"\b(?:def|class) {name.split('.')[-1]}\b", source), key


def _seconds(run: Run, text: str) -> float:
    began = time.thread_time()
    with contextlib.suppress(ToolError, ValueError, LookupError, ArithmeticError):
        run(text)
    return time.thread_time() - began


def growth(run: Run, pump: str, small: int = SMALL, large: int = LARGE) -> float:
    """By how much the time grows from one text to one of four times its length; 0 where it is too short to tell."""
    long = pump * (large // len(pump))
    if (last := _seconds(run, long)) < MEASURABLE_S:
        return 0.0
    short = pump * (small // len(pump))
    first = min(_seconds(run, short) for _ in range(3))
    last = min(last, *(_seconds(run, long) for _ in range(2)))
    return last / max(first, MEASURABLE_S / 100)


@pytest.mark.requirement("fault.S3.parsers")
@pytest.mark.parametrize("name", CASES)
def test_no_parser_takes_time_that_grows_faster_than_its_text(name: str) -> None:
    for pump in PUMPS:
        assert growth(CASES[name], pump) < FASTER, f"{name} on text made of {pump!r}"


@pytest.mark.parametrize(
    "pattern", [r"^(.+?)\s+(\d+)\s+(\d+)\s+(-?\d+)\s+(?:\d+%|-)\s+(/.*)$", r"^\d+: (\S+?)(?:@\S+)?\s+inet6? (\S+)"]
)
def test_the_measure_finds_patterns_that_backtrack(pattern: str) -> None:
    search = re.compile(pattern, re.MULTILINE).search
    assert max(growth(lambda text: search(f"1: {text}"), pump, 2048, 8192) for pump in (" ", "a@")) > FASTER
