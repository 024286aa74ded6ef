"""Show the calls that were made, and prove that none of their records was changed."""

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mcp_ssh.cli import logging_setup
from mcp_ssh.cli.terminal import Failure, Parser, print_json, print_table, say, usage, visible
from mcp_ssh.cli.values import number

if TYPE_CHECKING:
    from mcp_ssh.store import ChainCheck, HistoryRow, Store

MAX_LISTED = 1000
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """What `ssh-steward history` takes."""
    parser.add_argument(
        "--limit",
        type=number(1, MAX_LISTED),
        default=50,
        metavar="N",
        help="the newest so many (default: 50, at most 1000)",
    )
    parser.add_argument("--caller", metavar="ID", help="of one caller: a token's id, cli, stdio or local")
    parser.add_argument("--tool", metavar="NAME", help="of one tool")
    parser.add_argument("--since", metavar="TIME", help="from a time on: 2026-11-25T08:00Z, or 30m, 6h or 7d ago")
    parser.add_argument("--until", metavar="TIME", help="before a time, given likewise")
    parser.add_argument(
        "--before", type=number(1, 2**53), metavar="NUMBER", help="older than the call with this number"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, numbers, arguments and details included")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", parser_class=Parser)
    verify = actions.add_parser("verify", help="find rows that were altered, removed, added or swapped")
    verify.add_argument("--json", action="store_true", dest="verify_json", help="as JSON")


def run(parsed: argparse.Namespace) -> int:
    """Do it, and return the exit code: 1 where the history was tampered with."""
    import anyio

    logging_setup.set_up_command(verbose=parsed.verbose, as_json=parsed.log_json)
    return anyio.run(_on_store, parsed)


async def _on_store(parsed: argparse.Namespace) -> int:
    import anyio

    from mcp_ssh.config.models import home
    from mcp_ssh.store import Store

    since, until = _time(parsed.since, "--since"), _time(parsed.until, "--until")
    store = await Store.open(home())
    try:
        if parsed.action == "verify":
            return _report_check(await store.history.verify(), as_json=parsed.verify_json or parsed.json)
        await _list(store, parsed, since, until)
        return 0
    finally:
        with anyio.CancelScope(shield=True):
            await store.close()


async def _list(store: "Store", parsed: argparse.Namespace, since: datetime | None, until: datetime | None) -> None:
    found = await store.history.page(
        parsed.limit, caller=parsed.caller, tool=parsed.tool, since=since, until=until, before=parsed.before
    )
    if parsed.json:
        print_json([{"number": number, **row.model_dump()} for number, row in found])
    elif found:
        columns = ["when", "caller", "door", "tool", "machine", "outcome", "ms", "done", "arguments"]
        print_table(columns, [_row_lines(row) for _, row in found])
        if len(found) == parsed.limit:
            say(f"older calls: --before {found[-1][0]}")
    else:
        say("no calls fit")


def _row_lines(row: "HistoryRow") -> list[str]:
    short = row.arguments if len(row.arguments) <= 80 else f"{row.arguments[:79]}…"
    took = f"{row.duration_ms:g}"
    done = row.detail or "-"
    cells = [row.at, row.caller, row.door, row.tool, row.target or "-", row.outcome, took, done, short]
    return [visible(each) for each in cells]


def _report_check(verdict: "ChainCheck", *, as_json: bool) -> int:
    if as_json:
        print_json({"ok": not verdict.problems, **vars(verdict)})
    else:
        for each in verdict.problems:
            say(f"! {each}")
        say(f"{verdict.checked} rows are as they were written")
        if verdict.unsealed:
            say(f"{verdict.unsealed} rows are from before there were seals, and cannot be checked")
        if verdict.behind:
            say(
                f"{verdict.behind} rows were written after the head, as when a server was killed; their seals are right"
            )
    return 1 if verdict.problems else 0


def _time(text: str | None, option: str) -> datetime | None:
    """A moment, or so long ago.

    Raises:
        Failure: It is neither.
    """
    if text is None:
        return None
    if found := re.fullmatch(r"(\d{1,9})([smhd])", text):
        try:
            return datetime.now(UTC) - timedelta(**{UNITS[found[2]]: int(found[1])})
        except OverflowError as error:
            raise _not_a_time(text, option) from error
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise _not_a_time(text, option) from error
    return moment if moment.tzinfo else moment.astimezone()


def _not_a_time(text: str, option: str) -> Failure:
    return usage(f"{option}: {text[:40]!r} is not a time", "give one such as 2026-11-25T08:00Z, or 30m, 6h or 7d")
