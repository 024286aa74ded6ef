"""The part of `check` that goes to a machine: its name, its port, its host key, the login."""

import argparse
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread

from mcp_ssh.cli.commands.check.findings import Finding
from mcp_ssh.cli.local_call import TerminalCall, how_to_trust
from mcp_ssh.cli.target import connect_arguments
from mcp_ssh.errors import AuthFailed, ConnectFailed, HostKeyUnconfirmed, TimedOut, ToolError

if TYPE_CHECKING:
    from mcp_ssh.app import App

LIMIT_S = 15.0
"""For each of look-up, connecting and login."""


async def findings(app: "App", parsed: argparse.Namespace, word: str) -> list[Finding]:
    """Every step on the way in to one machine, up to the first that fails."""
    call = TerminalCall()
    arguments = await connect_arguments(app, call, parsed, word)
    host, port, through = await anyio.to_thread.run_sync(_target, arguments, app.config.ssh.default_port)
    if through is not None:
        found = [Finding("ok", word, f"reached through {through}, as ~/.ssh/config says")]
    else:
        found = await _way(word, host, port)
    if found[-1].verdict == "fail":
        return found
    return [*found, *await _login(app, call, word, arguments)]


def _target(arguments: Mapping[str, Any], default_port: int) -> tuple[str, int, str | None]:
    """Where the connection goes, and what it goes through."""
    from mcp_ssh.ssh.openssh_config.resolve import settings

    known = settings(arguments["host"], username=arguments.get("username"), port=arguments.get("port"))
    port = int(arguments.get("port") or known.port or default_port)
    if known.jumps:
        return known.hostname, port, ", ".join(map(str, known.jumps))
    return known.hostname, port, "a ProxyCommand" if known.raw_proxy_command else None


async def _way(word: str, host: str, port: int) -> list[Finding]:
    try:
        with anyio.fail_after(LIMIT_S):
            addresses = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, TimeoutError, UnicodeError):
        step = "check the spelling, /etc/hosts and the name server"
        return [Finding("fail", f"{word}: name", f"{host} is not known", step)]
    shown = ", ".join(dict.fromkeys(str(each[4][0]) for each in addresses))
    named = [] if shown == host else [Finding("ok", f"{word}: name", f"{host} is {shown}")]
    return [*named, await _port(word, host, port)]


async def _port(word: str, host: str, port: int) -> Finding:
    what, began = f"{word}: port", time.monotonic()
    try:
        with anyio.fail_after(LIMIT_S):
            stream = await anyio.connect_tcp(host, port)
    except TimeoutError:
        step = "is the machine up, and does a firewall on the way drop packets?"
        return Finding("fail", what, f"{host} port {port} does not answer within {LIMIT_S:g} s", step)
    except OSError as error:
        step = "is the machine up, does sshd listen on this port, and does a firewall let this machine in?"
        return Finding("fail", what, f"{host} port {port}: {_reason(error)}", step)
    took_ms = (time.monotonic() - began) * 1000
    await stream.aclose()
    return Finding("ok", what, f"{host} port {port} answers in {took_ms:.0f} ms")


def _reason(error: BaseException) -> str:
    """What the system says; anyio wraps it once, or once for each address that was tried."""
    if isinstance(error, BaseExceptionGroup):
        return _reason(cast("BaseExceptionGroup[BaseException]", error).exceptions[0])
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return _reason(error.__cause__) if error.__cause__ else "cannot be reached"


async def _login(app: "App", call: TerminalCall, word: str, arguments: Mapping[str, Any]) -> list[Finding]:
    """The host key and the login: a machine that lets us in has shown a trusted key."""
    from mcp_ssh.dispatch import dispatch
    from mcp_ssh.tools import REGISTRY

    key, login, began = f"{word}: host key", f"{word}: login", time.monotonic()
    trusted = Finding("ok", key, "known and unchanged")
    try:
        given = {"timeout": LIMIT_S, "retries": 1, **arguments}
        opened = (await dispatch(app, REGISTRY["session_connect"], given, call)).model_dump()
    except HostKeyUnconfirmed as refusal:
        shown = how_to_trust(refusal)
        return [Finding("fail", key, shown.message, shown.hint)]
    except AuthFailed as error:
        return [trusted, Finding("fail", login, error.message, error.hint)]
    except (ConnectFailed, TimedOut) as error:
        return [Finding("fail", f"{word}: SSH", error.message, error.hint)]
    except ToolError as error:
        return [Finding("fail", login, error.message, error.hint)]
    took_s = time.monotonic() - began
    await dispatch(app, REGISTRY["session_disconnect"], {"session_id": opened["session_id"]}, call)
    features = ", ".join(opened["features"]) or "nothing"
    return [trusted, Finding("ok", login, f"as {opened['username']} in {took_s:.2f} s; may use {features}")]
