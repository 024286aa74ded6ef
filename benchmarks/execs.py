"""One short command on an open connection: through MCP, our API and REST, with and without a heavy rc file."""

import contextlib
from typing import Any

from benchmarks.measure import Seen, Step, Turns, in_turns
from benchmarks.report import Row, ratio_row
from benchmarks.scene import Api, Scene
from mcp_ssh.tools import command

BARE = "asyncssh run"
PAUSE_S = 0.03
MACHINE = (
    "asyncssh's packets, the loop and our layers take 1.6 ms of CPU after a pause, which leaves little to save beside"
    " the machine's shell"
)
DOOR = (
    "another process has to wake up and answer, which takes 0.6 ms after a pause even for a bare route and 2 ms for the"
    " SDK's bare server, on top of what our API takes by itself"
)
HEAVY = "for each in $(seq 100); do _heavy=$(printenv HOME); done # mcp-ssh bench"
"""Costs what `pyenv init` costs: a hundred programs."""


async def run(scene: Scene) -> list[Row]:
    """All rows about one command."""
    turns = Turns(rounds=scene.size(9, 5), batch=scene.size(25, 8), pause_s=PAUSE_S)
    async with contextlib.AsyncExitStack() as stack:
        bare = await stack.enter_async_context(scene.bare())
        api = await stack.enter_async_context(scene.api())
        server = await stack.enter_async_context(scene.stdio())
        rest = await stack.enter_async_context(scene.served())
        over_stdio = (await server.call("session_connect", scene.login))["session_id"]
        over_rest = (await rest.post("/session/connect", scene.login))["session_id"]

        async def mcp() -> Any:
            return await server.call("command_exec", {"command": "true", "session_id": over_stdio})

        async def posted() -> Any:
            return await rest.post(f"/command/exec?session_id={over_rest}", {"command": "true"})

        steps: dict[str, Step] = {
            BARE: lambda: bare.run("true"),
            "api": lambda: api.call(command.run_command, command="true"),
            "mcp": mcp,
            "rest": posted,
        }
        paced = await in_turns(steps, turns)
        close = await in_turns({name: steps[name] for name in (BARE, "api")}, Turns(turns.rounds, scene.size(100, 30)))
        heavy = await _heavy(scene, api, turns)
    return [
        _row("exec_mcp", "`true` through MCP stdio, with pauses", paced.beside("mcp", BARE), 0.75, DOOR),
        _row("exec_api", "`true` through our API, with pauses", paced.beside("api", BARE), 0.5, MACHINE),
        _row("exec_api_close", "`true` through our API, back to back", close.beside("api", BARE), 0.8, MACHINE),
        _row("exec_rest", "`true` through REST, with pauses", paced.beside("rest", BARE), 0.6, DOOR),
        _row(
            "exec_heavy_rc",
            "`true` for an account with a heavy rc file, with pauses",
            heavy.beside("api", BARE),
            0.05,
            MACHINE,
        ),
    ]


def _row(name: str, workload: str, measured: tuple[float, float, float], goal: float, because: str) -> Row:
    return ratio_row(name, workload, BARE, measured, goal, because=because)


async def _heavy(scene: Scene, api: Api, turns: Turns) -> Seen:
    """The same for an account whose rc file takes its time; spare channels run it ahead of need."""
    await scene.outside(f"cp ~/.bashrc ~/.bashrc.bench && echo '{HEAVY}' | cat - ~/.bashrc.bench > ~/.bashrc")
    try:
        async with scene.bare() as bare:
            fewer = Turns(turns.rounds, scene.size(8, 3), pause_s=0.5)
            await api.disconnect()
            await api.connect(scene.login)
            steps: dict[str, Step] = {
                BARE: lambda: bare.run("true"),
                "api": lambda: api.call(command.run_command, command="true"),
            }
            return await in_turns(steps, fewer)
    finally:
        await scene.outside("mv ~/.bashrc.bench ~/.bashrc")
