"""Draw the documents' pictures of a terminal: real runs of `ssh-steward` on a terminal, against the demo host.

`python scripts/pictures.py` writes docs/check.svg, docs/upload.svg and docs/session.svg. What a run says is drawn as it
was said; only the folder of this checkout is written `~/mcp_ssh`.
"""

import contextlib
import fcntl
import io
import json
import os
import pty
import random
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import anyio
import anyio.to_thread
from rich.console import Console
from rich.text import Text

from mcp_ssh.shell_command import quote
from mcp_ssh.ssh.demo.host import DemoHost, demo_host

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 112
SIZE = 48 * 1024 * 1024
NAME = "web1"

PICTURES: dict[str, list[list[str]]] = {
    "check": [["check", NAME, "ops@localhost:2222"]],
    "upload": [["upload", NAME, "backup.tar"], ["download", NAME, "backup.tar", "again.tar"]],
    "session": [
        ["call", "connection_query"],
        ["exec", NAME, "--", "uname -s; echo 'to standard error' >&2; exit 3"],
        ["call", "file_write", json.dumps({"session_id": NAME, "path": "notes.txt", "content": "Kept.\n"})],
        ["call", "command_exec", json.dumps({"session_id": NAME, "command": "cat notes.txt; ls /nowhere"})],
    ],
}


def main() -> None:
    """Run everything, and write the pictures."""
    anyio.run(_main)


async def _main() -> None:
    (ROOT / "docs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        async with demo_host() as host:
            await anyio.to_thread.run_sync(_prepare, host, Path(home))
            for name, runs in PICTURES.items():
                await anyio.to_thread.run_sync(_draw, name, runs, Path(home))


def _prepare(host: DemoHost, home: Path) -> None:
    """Save the host, and have its key known."""
    (home / "backup.tar").write_bytes(random.Random(1).randbytes(SIZE))  # noqa: S311 any bytes will do
    (home / ".ssh").mkdir()
    (home / ".ssh/known_hosts").write_text(f"[{host.host}]:{host.port} {host.public_key}\n")
    login = {"host": host.host, "port": host.port, "username": host.username, "password": host.password}
    given = json.dumps({"name": NAME, "category": "demo", **login})
    words = [*_program(), "call", "connection_add", "-"]
    subprocess.run(words, input=given.encode(), env=_environment(home), check=True, stdout=subprocess.DEVNULL)


def _program() -> list[str]:
    return [sys.executable, "-m", "mcp_ssh"]


def _environment(home: Path) -> dict[str, str]:
    """Nothing of the person who runs this."""
    return {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(home), "TERM": "xterm-256color",
        "COLORTERM": "truecolor", "COLUMNS": str(COLUMNS), "LANG": "C.UTF-8",
    }  # fmt: skip


def _draw(name: str, runs: list[list[str]], home: Path) -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for words in runs:
        line = " ".join(quote(word) for word in words)
        console.print(Text.assemble(("$ ", "bold green"), (f"ssh-steward {line}", "bold")), soft_wrap=False)
        said = _on_terminal([*_program(), *words], home).replace(str(ROOT), "~/mcp_ssh")
        console.print(Text.from_ansi(said))
    svg = console.export_svg(title="SSH Steward", unique_id=name)
    # The fonts of the reader's machine do; nothing is fetched from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S).replace("Fira Code", "ui-monospace, Menlo, Consolas")
    svg = re.sub(r"\s*<!--.*?-->", "", svg, flags=re.S)
    lines = (line.rstrip() for line in svg.splitlines())
    (ROOT / "docs" / f"{name}.svg").write_text("\n".join(lines) + "\n", "utf-8")


def _on_terminal(words: list[str], home: Path) -> str:
    """What a command says on a terminal; of a line that was drawn over, the last state."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    process = subprocess.Popen(words, stdin=theirs, stdout=theirs, stderr=theirs, cwd=home, env=_environment(home))
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # what Linux says when the other side of a terminal has closed
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    process.wait()
    text = shown.decode().replace("\r\n", "\n")
    text = re.sub(r"\x1b\[\?25[lh]|\x1b\[2?K|\x1b\[1A", "", text)
    return "\n".join(line.rpartition("\r")[2] for line in text.rstrip("\n").split("\n"))


if __name__ == "__main__":
    main()
