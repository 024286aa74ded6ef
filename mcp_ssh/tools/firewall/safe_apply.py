"""Making a change of the packet filter that cannot shut us out: it stays only if a new connection got in after it."""

import contextlib
from collections.abc import Mapping

import anyio

from mcp_ssh.errors import AuthFailed, ConnectFailed, RemoteFailed, ToolError
from mcp_ssh.linux.firewall.backend import FirewallChange
from mcp_ssh.linux.parts import PartsAsked
from mcp_ssh.sessions.session import Session

MARGIN_S = 60.0
"""How long the machine may take beside the time it was given, before the connection it speaks on is cut anyway."""
BEGIN_S = 30.0
"""How long the machine may take to begin before the change is called off."""
BACK_S = 30.0
"""How long the machine is waited for once its old rules must be back."""
LOOK_S = 5.0
PAUSE_S = 0.3

ReportFields = Mapping[str, str]
"""What the machine said of a change, in the words of `FirewallChange.ask`."""
UNDER_WAY = frozenset({"starting", "armed"})
"""Of these words, those that are not the last."""


async def apply_safely(acting: Session, change: FirewallChange) -> ReportFields:
    """Make the change. What can shut us out is made over a connection of its own, and proved by another one.

    A session that was open before proves nothing: packet filters let what is established pass. Where the call is
    cancelled on the way the old rules come back, too.

    Raises:
        ConnectFailed: No new connection can be made, and nothing was changed; or the machine is not reached again.
        RemoteFailed: The machine began so late that its old rules are not back yet.
    """
    if not change.rollback_s:
        asked = change.ask()
        return asked.parts((await acting.run(asked.command)).stdout)
    began, until = await _begin(acting, change)
    if began is not None and not began.keys() & UNDER_WAY:
        return began
    said = await _prove(acting, change, until, whole=began is not None and "result" in began)
    return said if said is not None else await _await_end(acting, change, until)


async def _begin(acting: Session, change: FirewallChange) -> tuple[ReportFields | None, float]:
    """What the machine said, None where its answer did not come, and when its old rules come back."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            own = await _new(stack, acting, change.rollback_s)
        except ToolError as error:
            raise ConnectFailed(
                f"nothing was changed, for no new connection could be made to prove the way in: {error.message}",
                hint="see that session_connect works, then repeat",
            ) from error
        until = anyio.current_time() + change.rollback_s
        asked = change.ask()
        try:
            output = await own.run(asked.command, timeout_s=change.rollback_s + MARGIN_S)
        except ConnectFailed:
            return None, until
        return asked.parts(output.stdout), until


async def _prove(acting: Session, change: FirewallChange, until: float, *, whole: bool) -> ReportFields | None:
    """Have the change stay, over a connection that was made after it was whole; None where none came in time."""
    while (left_s := until - anyio.current_time()) > 0:
        asked = change.ask_disarm() if whole else change.ask_end()
        with contextlib.suppress(ToolError):
            try:
                async with contextlib.AsyncExitStack() as stack:
                    new = await _new(stack, acting, left_s)
                    said = asked.parts((await new.run(asked.command, timeout_s=left_s + MARGIN_S)).stdout)
            except AuthFailed:  # another try could lock the account
                await anyio.sleep_until(until)
                return None
            if not said.keys() & UNDER_WAY:
                return said
            whole = "result" in said
        await anyio.sleep(min(PAUSE_S, max(0.0, until - anyio.current_time())))
    return None


async def _await_end(acting: Session, change: FirewallChange, until: float) -> ReportFields:
    """What became of it in the end. What has not begun in time is called off."""
    said: ReportFields = {}
    begin_by, refused = until - change.rollback_s + BEGIN_S, False
    with anyio.move_on_after(BACK_S) as wait:
        while True:
            late, said = anyio.current_time() >= begin_by, {}
            asked = change.ask_end(late=late)
            with contextlib.suppress(ToolError):
                try:
                    said = await _look(acting, asked, reconnect=not refused)
                except AuthFailed:  # another try could lock the account; to look, what is open already will do
                    refused = True
                    continue
                if not said.keys() & UNDER_WAY:
                    return said
            if "starting" in said and not late:
                wait.deadline = anyio.current_time() + change.rollback_s + BACK_S
            await anyio.sleep(PAUSE_S)
    if said:
        raise RemoteFailed(
            "the machine was slow to make the change, and its old rules were not back when it was last asked; it puts"
            f" them back by itself within {change.rollback_s} s",
            hint="wait that long, then look with firewall_rules",
            details={"rolled_back": "unknown"},
        )
    raise ConnectFailed(
        "the machine could not be reached any more after the change; it puts its old rules back by itself, but nobody"
        " could see whether it did",
        hint="connect again and look with firewall_rules",
        details={"rolled_back": "unknown"},
    )


async def _look(acting: Session, asked: PartsAsked, *, reconnect: bool) -> ReportFields:
    async with contextlib.AsyncExitStack() as stack:
        by = await _new(stack, acting, LOOK_S) if reconnect else acting
        return asked.parts((await by.run(asked.command, timeout_s=LOOK_S + MARGIN_S)).stdout)


async def _new(stack: contextlib.AsyncExitStack, acting: Session, limit_s: float) -> Session:
    try:
        return await stack.enter_async_context(acting.on_new_connection(limit_s))
    except AuthFailed:
        # What takes a person's answer each time cannot be repeated; that the machine asks for it shows the way in.
        if acting.link.asks_nobody:
            raise
        return acting
