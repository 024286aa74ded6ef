"""What CI and the image install is pinned by hash, and the container may do no more than it needs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.cli_kit import ROOT

pytestmark = pytest.mark.requirement("fault.S13.pins")
PINNED = ("requirements.txt", "requirements-ci.txt")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def pins(name: str) -> dict[str, tuple[str, str]]:
    """Each package of a file by its name as pip compares it: version, and the text with its hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    entries = [each for each in text.splitlines() if each and not each.startswith("#")]
    found = [(*each.split(maxsplit=1)[0].split("==", 1), each) for each in entries]
    return {canonical(package): (version, entry) for package, version, entry in found}


def canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


@pytest.mark.parametrize("name", PINNED)
def test_every_package_has_hashes_and_the_version_of_the_constraints(name: str) -> None:
    constrained = pins("constraints.txt")
    for package, (version, entry) in pins(name).items():
        assert HASH.search(entry), package
        if package in constrained:
            assert constrained[package][0] == version, package


def test_what_is_tested_and_the_build_system_are_among_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["test"], *extras["lint"]]
    names = {canonical(re.split(r"[\[<>=;! ]", each)[0]) for each in wanted}
    assert names <= set(pins("requirements-ci.txt"))
    (backend,) = project["build-system"]["requires"]
    for name in PINNED:
        assert f"hatchling=={pins(name)['hatchling'][0]}" == backend


def test_no_file_names_a_registry() -> None:
    for name in (*PINNED, "constraints.txt", "pyproject.toml", "Dockerfile", "compose.yaml", "Makefile"):
        text = (ROOT / name).read_text()
        assert not re.search(r"https?://(?!127\.0\.0\.1)|(?<!no-emit)-index-url|find-links", text), name


def test_pip_refuses_a_package_whose_hash_is_another(tmp_path: Path) -> None:
    """The negative control: with the file's own hash the same package is taken."""
    wheel = tmp_path / "toy-1.0-py3-none-any.whl"
    build = (
        "import hashlib, sys, zipfile\n"
        "with zipfile.ZipFile(sys.argv[1], 'w') as made:\n"
        "    made.writestr('toy.py', '')\n"
        "    made.writestr('toy-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\\nName: toy\\nVersion: 1.0\\n')\n"
        "    made.writestr('toy-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\\nTag: py3-none-any\\n')\n"
        "    made.writestr('toy-1.0.dist-info/RECORD', '')\n"
        "print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())\n"
    )
    digest = subprocess.check_output([sys.executable, "-c", build, wheel], text=True).strip()
    for given, code in ((digest, 0), ("0" * 64, 1)):
        (tmp_path / "pins.txt").write_text(f"toy==1.0 --hash=sha256:{given}\n")
        words = [sys.executable, "-m", "pip", "--isolated", "download", "--quiet", "--no-index", "--no-deps",
                 "--require-hashes", "-r", "pins.txt", "--find-links", ".", "-d", f"out{code}"]  # fmt: skip
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
    assert "HASHES" in done.stderr.upper()


def test_the_image_and_ci_install_by_hash() -> None:
    docker = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"pip install (.*?)(?: &&|$)", docker, re.MULTILINE) == [
        "--no-cache-dir --require-hashes -r /src/requirements.txt",
        "--no-cache-dir --no-deps --no-build-isolation /src",
    ]
    planned = subprocess.check_output(
        ["make", "-n", "--always-make", ".venv/test"], cwd=ROOT, text=True, env={"CI": "true", "PATH": "/usr/bin:/bin"}
    )
    installed = [each for each in planned.splitlines() if "pip install" in each]
    assert installed
    assert all("--require-hashes -r requirements-ci.txt" in each for each in installed)


def test_the_container_may_do_no_more_than_it_needs() -> None:
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["ssh-steward"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["tmpfs"] == ["/tmp"]
    assert service["ports"] == ["127.0.0.1:8754:8754"]
    assert "USER mcp" in (ROOT / "Dockerfile").read_text()
