"""What the list of processes says of those whose names are made to hide them."""

import pytest

from mcp_ssh.linux.system.processes import parse_processes

NUMBERS = " ".join(["1"] * 48)
STATUS = "".join(f"/proc/{pid}/status:Uid:\t0\t0\t0\t0\n" for pid in (7, 8, 9, 10))


@pytest.mark.requirement("fault.R1")
@pytest.mark.parametrize("name", ["two\nlines", "\n9 (fake) S 1 1", ") S 1 1 1 1 1", "(\n)\n("])
def test_no_name_hides_a_process_or_makes_one_up(name: str) -> None:
    texts = {7: f"7 (first) S 1 {NUMBERS}", 8: f"8 ({name}) R 7 {NUMBERS}", 10: f"10 (last) S 8 {NUMBERS}"}
    stat = "".join(f"/proc/{pid}/stat:{line}\n" for pid, text in texts.items() for line in text.split("\n"))
    parts = {"uptime": "100.0 1.0", "ticks": "100", "memory": "MemTotal: 1000 kB", "stat": stat, "status": STATUS}
    found = parse_processes({**parts, "commands": "", "accounts": "", "passwd": ""}).rows
    assert [(each.pid, each.ppid, each.state) for each in found] == [(7, 1, "S"), (8, 7, "R"), (10, 8, "S")]
    assert "\n" not in found[1].command
