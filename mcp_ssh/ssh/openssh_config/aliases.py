"""The names that ~/.ssh/config gives machines, for a person who completes a word. Nothing is matched or run."""

import glob
from pathlib import Path

from mcp_ssh.ssh.local_read import read_file

DEEPEST_INCLUDE = 4
LARGEST_CONFIG = 1024 * 1024


def alias_names() -> list[str]:
    """The names that `Host` lines of the owner's config and of the files it includes give, without patterns."""
    return sorted(_aliases(Path.home() / ".ssh/config", DEEPEST_INCLUDE))


def _aliases(path: Path, deepest: int) -> set[str]:
    """Those of one file; a file that cannot be read has none."""
    found: set[str] = set()
    try:
        text = read_file(path, LARGEST_CONFIG)[0].decode("utf-8", "replace")
    except OSError:
        return found
    for line in text.splitlines():
        keyword, *words = line.replace("=", " ", 1).replace('"', " ").split() or [""]
        if keyword.lower() == "host":
            found |= {word for word in words if not set(word) & set("*?!")}
        elif keyword.lower() == "include" and deepest:
            for word in words:
                pattern = Path.home() / ".ssh" / Path(word).expanduser()
                for each in glob.glob(str(pattern)):  # noqa: PTH207 the pattern is absolute
                    found |= _aliases(Path(each), deepest - 1)
    return found
