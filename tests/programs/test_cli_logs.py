"""Log lines are one line each, and the file is private, bounded, and shared."""

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_ssh.cli import log_file, logging_setup
from mcp_ssh.config.models import Config


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger, without pytest's handlers meanwhile, which `set_up` would close."""
    logger = logging.getLogger()
    before, level = logger.handlers[:], logger.level
    quiet = {name: logging.getLogger(name).level for name in logging_setup.QUIET}
    logger.handlers.clear()
    yield logger
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.level = before, level
    for name, was in quiet.items():
        logging.getLogger(name).setLevel(was)


def configured(level: str = "INFO", *, debug: bool = False, directory: str = "") -> Config:
    return Config.model_validate({"server": {"debug": debug}, "logging": {"level": level, "directory": directory}})


@pytest.mark.parametrize(
    ("config", "verbose", "level"),
    [
        (configured("WARNING"), False, logging.WARNING),
        (configured("WARNING", debug=True), False, logging.DEBUG),
        (configured("ERROR"), True, logging.DEBUG),
    ],
)
def test_the_level_is_the_config_s_unless_debugging(config: Config, level: int, *, verbose: bool) -> None:
    logging_setup.set_up(config, verbose=verbose, as_json=False)
    assert logging.getLogger().level == level


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "ERROR"])
def test_libraries_that_tell_commands_stay_quiet(level: str, capsys: pytest.CaptureFixture[str]) -> None:
    logging_setup.set_up(configured(level), verbose=False, as_json=False)
    for name in ("asyncssh", "asyncssh.connection", "uvicorn.access", "httpx2"):
        logging.getLogger(name).info("Command: echo secret")
    logging.getLogger("x").error("the end")
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("x: the end")
    assert logging.getLogger("asyncssh").isEnabledFor(logging.WARNING) is (level != "ERROR")


def test_a_message_cannot_look_like_another_line(capsys: pytest.CaptureFixture[str]) -> None:
    logging_setup.set_up(configured(), verbose=False, as_json=False)
    logging.getLogger("x").info("host %s", "a\n2026-01-01T00:00:00Z INFO mcp_ssh: all is well\x1b[2J")
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(r"x: host a\x0a2026-01-01T00:00:00Z INFO mcp_ssh: all is well\x1b[2J")


def test_json_lines_hold_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    logging_setup.set_up(configured(), verbose=False, as_json=True)
    try:
        int("ü")
    except ValueError:
        logging.getLogger("x").exception("it\nfailed")
    [line] = capsys.readouterr().err.splitlines()
    shown = json.loads(line)
    assert (shown["level"], shown["logger"], shown["message"]) == ("ERROR", "x", "it\nfailed")
    assert shown["traceback"].startswith("Traceback")
    assert "'ü'" in shown["traceback"].splitlines()[-1]
    assert shown["time"].endswith("Z")


def test_the_file_is_private_even_when_it_was_not(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    path = folder / log_file.FILE_NAME
    path.touch(mode=0o644)
    logging_setup.set_up(configured(directory=str(folder)), verbose=False, as_json=False)
    logging.getLogger("x").info("here")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().endswith("x: here\n")


def test_a_link_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / log_file.FILE_NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Exception, match=r"logging\.directory"):
        log_file.log_file(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_two_processes_rotate_one_file_without_losing_a_line(tmp_path: Path) -> None:
    path = tmp_path / log_file.FILE_NAME
    two = [log_file.PrivateFile(path, maxBytes=1000, backupCount=500, encoding="utf-8") for _ in range(2)]
    for number in range(1000):
        two[number % 2].emit(logging.LogRecord("x", logging.INFO, "", 0, "%04d of a thousand", (number,), None))
    for each in two:
        each.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) > 5
    assert all(each.stat().st_size <= 1000 for each in files)
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in files)
    lines = [line for each in files for line in each.read_text().splitlines()]
    assert sorted(lines) == [f"{number:04d} of a thousand" for number in range(1000)]
