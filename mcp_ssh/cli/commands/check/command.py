"""Look whether everything is as it should be, here and on the way to machines, and name the next step."""

import argparse
import functools
from typing import TYPE_CHECKING

from mcp_ssh.cli import logging_setup
from mcp_ssh.cli.commands.check.findings import Finding, looked_at
from mcp_ssh.cli.target import HELP, login_arguments
from mcp_ssh.cli.terminal import Printer, print_json, usage, visible

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}
WIDTH = 14


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward check` takes."""
    parser.add_argument("machines", metavar="MACHINE", nargs="*", help=f"log in there, too: {HELP}")
    parser.add_argument("--all", action="store_true", help="log in to every saved connection")
    login_arguments(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(parsed: argparse.Namespace) -> int:
    """Look, report, and return the exit code: 1 where something fails."""
    from mcp_ssh.cli.run_async import run_async

    logging_setup.set_up_command(verbose=parsed.verbose, as_json=parsed.log_json)
    if parsed.all and parsed.machines:
        raise usage("--all means every saved connection", "give either names or --all")
    report = _Report(as_json=parsed.json)
    interrupted = run_async(_look, parsed, report)
    if interrupted:
        return interrupted
    report.end()
    return int(report.counts["fail"] > 0)


async def _look(parsed: argparse.Namespace, report: "_Report") -> None:
    async for finding in _findings(parsed):
        report.add(finding)


async def _findings(parsed: argparse.Namespace) -> "AsyncIterator[Finding]":
    from mcp_ssh.cli.commands.check import local as check_here
    from mcp_ssh.config.models import home

    failed = False
    for finding in await check_here.findings(home()):
        failed = failed or (finding.verdict == "fail" and finding.what in {"config", "state", "secrets"})
        yield finding
    if not (parsed.machines or parsed.all):
        return
    if failed:
        yield Finding(
            "warn", "machines", "not tried, since ssh-steward itself cannot start", "take the steps above first"
        )
        return
    async for finding in _of_machines(parsed):
        yield finding


async def _of_machines(parsed: argparse.Namespace) -> "AsyncIterator[Finding]":
    from mcp_ssh.app import open_app
    from mcp_ssh.cli.commands.check import machine as check_machine
    from mcp_ssh.cli.local_call import TerminalCall

    async with open_app() as app:
        words = parsed.machines
        if parsed.all:
            words = await app.store.connections.own_names(TerminalCall().caller)
        for word in words:
            for finding in await looked_at(word, functools.partial(check_machine.findings, app, parsed, word)):
                yield finding


class _Report:
    """Prints findings as they come."""

    def __init__(self, *, as_json: bool) -> None:
        self.counts = {"ok": 0, "warn": 0, "fail": 0}
        self._as_json = as_json
        self._page = Printer()
        self._shown: list[dict[str, str | None]] = []

    def add(self, finding: Finding) -> None:
        """One more."""
        self.counts[finding.verdict] += 1
        if self._as_json:
            self._shown.append(finding.as_json())
            return
        self._page.line((f"{finding.verdict:5}", STYLES[finding.verdict]), (f"{finding.what:{WIDTH}} ", "bold"),
                        (visible(finding.says), ""))  # fmt: skip
        if finding.next_step:
            self._page.line((" " * 5, ""), (f"→ {visible(finding.next_step)}", "cyan"))

    def end(self) -> None:
        """All of it was said."""
        if self._as_json:
            print_json(self._shown)
            return
        names = {"ok": "ok", "warn": "to look at", "fail": "failed"}
        self._page.line(
            *((f"{count} {names[verdict]}  ", STYLES[verdict]) for verdict, count in self.counts.items() if count)
        )
