"""One large file there and back: against OpenSSH's kept connection with cat, and its sftp."""

import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.measure import Seen, forget_peak, resident_kib
from benchmarks.report import Row, ratio_row
from benchmarks.scene import Scene

MIB = 1024 * 1024
THERE = "/dev/shm/mcp-ssh-bench"  # noqa: S108 in memory, on the machine
SENT = (
    "both ends share two cores, and it takes 3.6 s of CPU time where `cat` takes 1.6: asyncssh 1.1, sshd 0.7, writing"
    " on the machine 0.6, its reading back and SHA-256 0.7, reading and SHA-256 here 0.5"
)
CAME = (
    "both ends share two cores, and it takes 3.0 s of CPU time where `cat` takes 1.5: asyncssh 1.1, sshd 0.6, reading"
    " on the machine 0.3, its SHA-256 0.4, SHA-256 here 0.3, writing and the hand-over to its thread 0.3"
)


async def run(scene: Scene) -> list[Row]:
    """Both directions, and the memory that they take."""
    size = scene.size(512, 64) * MIB
    here = scene.folder / "file"
    _noise(here, size)
    back = scene.folder / "back"
    seen, most = Seen(), 0.0
    with scene.mux() as mux:
        async with scene.stdio() as server:
            connected = await server.call("session_connect", scene.login)
            session_id = connected["session_id"]

            async def call(tool: str, place: Path) -> None:
                arguments = {"session_id": session_id, "local_path": str(place), "remote_path": f"{THERE}.ours"}
                await server.call(tool, arguments)
                if place == back:
                    back.unlink()

            await server.call("command_exec", {"command": "true", "session_id": session_id})
            before = resident_kib(server.process.pid)
            forget_peak(server.process.pid)
            steps: dict[str, Callable[[], Awaitable[None]]] = {
                "cat up": lambda: mux.shell(f"$SSH 'cat > {THERE}.cat' < {here}"),
                "ours up": lambda: call("file_upload", here),
                "sftp up": lambda: mux.shell(f"echo 'put {here} {THERE}.sftp' | sftp -q -o ControlPath=$SOCK -b - x"),
                "cat down": lambda: mux.shell(f"$SSH 'cat {THERE}.cat' > {back}"),
                "ours down": lambda: call("file_download", back),
            }
            for _ in range(scene.size(5, 3)):
                for name, step in steps.items():
                    seen.add(name, await _rate(step, size))
                await mux.run(f"rm -f {THERE}.*")
            most = (resident_kib(server.process.pid, peak=True) - before) / 1024
    mib = size // MIB
    cat = "`ssh -S … cat`"
    return [
        ratio_row("bulk_up", f"Upload of {mib} MiB, with SHA-256, fsync and rename", cat,
                  seen.beside("ours up", "cat up"), 0.75, because=SENT, unit="MB/s", bound="≥"),
        ratio_row("bulk_down", f"Download of {mib} MiB, with SHA-256, fsync and rename", cat,
                  seen.beside("ours down", "cat down"), 0.9, because=CAME, unit="MB/s", bound="≥"),
        ratio_row("bulk_up_sftp", f"Upload of {mib} MiB, with SHA-256, fsync and rename", "`sftp` over `ssh -S`",
                  seen.beside("ours up", "sftp up"), 1.3, because=SENT, unit="MB/s", bound="≥"),
        Row("bulk_memory", f"Memory that {mib} MiB up and down take", most, "MiB", most, 32,
            "blocks are held on both sides of the hash", basis="memory"),
    ]  # fmt: skip


async def _rate(step: Callable[[], Awaitable[None]], size: int) -> float:
    began = time.perf_counter()
    await step()
    return size / 1e6 / (time.perf_counter() - began)


def _noise(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
