"""`python -m tests.behaviour.client NAME HOME COMMAND MACHINE`: a client to be killed while a command runs."""

import json
import sys
from pathlib import Path

import anyio
from mcp import Client

from tests.behaviour.adapter import Machine
from tests.behaviour.adapters import ALL


async def main(name: str, home: str, command: str, machine: str) -> None:
    fields = json.loads(machine)
    where = Machine(**{**fields, "public_keys": tuple(fields["public_keys"])})
    adapter = ALL[name](where, Path(home))
    async with Client(adapter.server()) as client:
        await adapter.connect(client)
        await client.call_tool(*adapter.exec(command, 60))


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
