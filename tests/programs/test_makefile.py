"""`make` with a wrong Python says so in one sentence and leaves nothing; a broken virtual environment is made again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli_kit import ROOT

pytestmark = [
    pytest.mark.requirement("fault.N6"),
    pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here"),
]
OLD = """#!/bin/sh
exec "{python}" -c "import sys; sys.version_info = (3, 10, 13, 'final', 0)
$2"
"""
"""A Python that says that it is 3.10, for machines that have none."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(checkout: Path, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *words], cwd=checkout, env=kept, capture_output=True, text=True, timeout=300, check=False
    )


def old_pythons(folder: Path) -> list[Path]:
    made = folder / "python3.10"
    made.write_text(OLD.format(python=sys.executable))
    made.chmod(0o755)
    return [made, *sorted(Path.home().glob(".pyenv/versions/3.10.*/bin/python"))]


@pytest.mark.parametrize("target", ["run", "test", "lint"])
def test_an_old_python_is_told_in_one_sentence_and_leaves_nothing(checkout: Path, target: str) -> None:
    for python in old_pythons(checkout):
        done = make(checkout, target, f"PYTHON={python}")
        said = done.stderr.splitlines()
        assert done.returncode != 0
        assert said[0].startswith(f"ssh-steward needs Python 3.11 or later, and {python} is 3.")
        assert "make PYTHON=python3.13" in said[0]
        assert len([each for each in said if not each.startswith("make")]) == 1, done.stderr
        assert not (checkout / ".venv").exists()


def broken(checkout: Path) -> None:
    """A virtual environment of a Python that was removed, with all marks of one that is complete."""
    binaries = checkout / ".venv/bin"
    binaries.mkdir(parents=True)
    (binaries / "python").symlink_to("/no/such/python3.10")
    for name in ("bin/pip", "run", "test", "lint"):
        (checkout / ".venv" / name).touch()


def test_a_broken_environment_is_made_again(checkout: Path) -> None:
    broken(checkout)
    done = make(checkout, ".venv/bin/pip", f"PYTHON={sys.executable}")
    assert done.returncode == 0, done.stderr
    subprocess.run([checkout / ".venv/bin/python", "-m", "pip", "--version"], check=True, capture_output=True)
    assert not (checkout / ".venv/run").exists(), "what was installed into the old one is not there"
    kept = (checkout / ".venv/bin/python").lstat().st_ino
    again = make(checkout, "-n", "run")
    assert "-m venv" not in again.stdout
    assert (checkout / ".venv/bin/python").lstat().st_ino == kept, "a sound one stays"
