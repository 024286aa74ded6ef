"""What the blob tests share: callers, a clock, and a look at the folder."""

from pathlib import Path

from mcp_ssh.store import Blobs
from mcp_ssh.tool import Caller, Role

ANNA = Caller("anna", Role.OPERATOR)
BERT = Caller("bert", Role.OPERATOR)
ADMIN = Caller("root", Role.ADMIN)
KIB = 1024


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def files(folder: Path) -> list[Path]:
    return [each for each in (folder / "blobs").rglob("*") if each.is_file() and each.name != "lock"]


def open_files() -> int:
    """How many descriptors this process holds; `/dev/fd` is there on Linux and macOS."""
    return len(list(Path("/dev/fd").iterdir()))


async def make(blobs: Blobs, content: bytes, owner: Caller = ANNA) -> str:
    writer = blobs.writer(owner.id)
    await writer.write(content)
    return (await writer.finish()).id
