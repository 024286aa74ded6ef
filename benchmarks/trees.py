"""A folder of many small files there and back, against tar through OpenSSH's kept connection."""

import itertools
import os

from benchmarks.measure import Step, Turns, in_turns
from benchmarks.report import Row, ratio_row
from benchmarks.scene import Scene
from mcp_ssh.tools.file import transfer

SIZE = 4096
THERE = "/dev/shm/mcp-ssh-bench"  # noqa: S108 in memory, on the machine


SENT = (
    "half is the machine: tar 30 ms of CPU time, SHA-256 of what it wrote 30, the programs that look for what is"
    " protected, sweep and move 40; asyncssh and packing here take 70; `tar` alone takes 130 for all of it"
)
CAME = (
    "it takes 140 ms of CPU time where `tar` takes 130, 100 of them in one process: asyncssh and Python take turns, and"
    " every file is renamed into its place"
)


async def run(scene: Scene) -> list[Row]:
    """Both directions."""
    count = scene.size(2000, 300)
    here, back = scene.folder / "tree", scene.folder / "back"
    for index in range(count):
        folder = here / f"d{index % 20}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{index}").write_bytes(os.urandom(SIZE))
    with scene.mux() as mux:
        async with scene.api() as api:
            fresh = map(str, itertools.count())  # a place of its own for each time

            async def up() -> None:
                await api.call(transfer.upload, local_path=str(here), remote_path=f"{THERE}/ours{next(fresh)}")

            async def down() -> None:
                await api.call(transfer.download, remote_path=f"{THERE}/tree", local_path=str(back / next(fresh)))

            async def tar_up() -> None:
                there = f"{THERE}/tar{next(fresh)}"
                await mux.shell(f"tar -cf - -C {here} . | $SSH 'mkdir {there} && tar -xf - -C {there}'")

            async def tar_down() -> None:
                near = back / next(fresh)
                await mux.shell(f"mkdir {near} && $SSH 'tar -cf - -C {THERE}/tree .' | tar -xf - -C {near}")

            await mux.run(f"mkdir -p {THERE}")
            back.mkdir()
            await api.call(transfer.upload, local_path=str(here), remote_path=f"{THERE}/tree")
            steps: dict[str, Step] = {"tar up": tar_up, "ours up": up, "tar down": tar_down, "ours down": down}
            seen = await in_turns(steps, Turns(rounds=scene.size(7, 3), batch=1))
            await mux.run(f"rm -rf {THERE}")
    what, tar = f"of {count} files of 4 KiB", "`tar \\| ssh -S`"
    return [
        ratio_row("tree_up", f"Upload {what}", tar, seen.beside("ours up", "tar up"), 1.2, because=SENT),
        ratio_row("tree_down", f"Download {what}", tar, seen.beside("ours down", "tar down"), 1.0, because=CAME),
    ]
