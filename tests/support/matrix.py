"""A call of every tool for machines, to be made on a host of every distribution family, in this order.

`make matrix` has the tests write what they saw.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("matrix.json")
ROOMS = ("system", "setup", "firewall", "tunnel", "shell")


@dataclass(frozen=True)
class Step:
    """A call, and what its result has; `{name}` stands for what an earlier result was `kept` as."""

    tool: str
    given: Mapping[str, Any] = field(default_factory=dict)
    has: Mapping[str, Any] = field(default_factory=dict)
    kept: str = ""


OK = {"success": True}
FOLDER = "/root/matrix"

STEPS = (
    *(Step(f"system_{name}") for name in ("platform", "cpu", "disk", "memory", "network", "uptime", "users")),
    Step("system_processes", {"user": "root"}),
    Step("system_head", {"path": f"{FOLDER}/words", "lines": 1}, {"content": "one\n"}),
    Step("system_tail", {"path": f"{FOLDER}/words", "lines": 1}, {"content": "three\n"}),
    Step("system_grep", {"pattern": "tw+o", "path": FOLDER}, {"count": 1}),
    Step("system_find", {"path": FOLDER, "name": "w*"}, {"files": [f"{FOLDER}/words"]}),
    Step("system_chmod", {"path": f"{FOLDER}/words", "mode": "640"}, OK),
    Step("system_chown", {"path": f"{FOLDER}/words", "owner": "dev"}, OK),
    Step("system_env_set", {"name": "MATRIX", "value": "a b", "persist": True}, OK),
    Step("system_env_get", {"name": "MATRIX"}, {"value": "a b"}),
    Step("system_cron_add", {"schedule": "@yearly", "command": "true"}, OK),
    Step("system_cron_list", {}, {"jobs": ["@yearly true"]}),
    Step("system_cron_remove", {"entry": "@yearly true"}, OK),
    Step("system_service", {"service": "pinger", "action": "restart"}, OK | {"active": True}),
    Step("system_service", {"service": "pinger", "action": "stop"}, OK | {"active": False}),
    Step("system_kill", {"pid": "{sleeper}"}, {"status": "sent"}),
    Step("system_rmrf", {"path": f"{FOLDER}/gone"}, OK),
    Step("system_archive", {"source": f"{FOLDER}/words", "destination": f"{FOLDER}/words.tar.gz"}, OK),
    Step("system_extract", {"archive": f"{FOLDER}/words.tar.gz", "destination": f"{FOLDER}/out"}, OK | {"count": 1}),
    Step("setup_check", {"action": "install", "packages": ["hello-fleet"]}),
    Step("setup_search", {"query": "hello-fleet"}),
    Step("setup_requirements", {"packages": ["hello-fleet"]}, {"status": "completed", "installed": ["hello-fleet"]}),
    Step("setup_upgradable"),
    Step("setup_remove", {"packages": ["hello-fleet"]}, {"status": "completed"}),
    Step("setup_update", {"index_only": True}, {"status": "completed"}),
    Step("firewall_backend"),
    Step("firewall_allow_ip", {"ip": "192.0.2.7"}, OK),
    Step("firewall_allow_port", {"port": 7001}, OK),
    Step("firewall_block_port", {"port": 7002}, OK),
    Step("firewall_block_ip", {"ip": "192.0.2.8"}, OK),
    Step("firewall_rule_add", {"port": 7003, "target": "DROP"}, OK),
    Step("firewall_rule_add_range", {"port_start": 7004, "port_end": 7009, "target": "REJECT"}, OK),
    Step("firewall_rules", {}, OK),
    Step("firewall_raw"),
    Step("firewall_rule_delete", {"chain": "INPUT", "rule_num": 1, "ip_version": "ipv4"}, OK),
    Step("firewall_policy", {"chain": "INPUT", "target": "ACCEPT"}, OK),
    Step("firewall_save", {}, OK),
    Step("firewall_restore", {}, OK),
    Step("firewall_flush", {"chain": "INPUT"}, OK),
    Step("firewall_save", {}, OK),
    Step("tunnel_local", {"local_port": 0, "remote_host": "127.0.0.1", "remote_port": 22}, kept="tunnel_id"),
    Step("tunnel_remote", {"remote_port": 0, "local_port": 9}),
    Step("tunnel_list", {}, {"count": 2}),
    Step("tunnel_close", {"tunnel_id": "{tunnel_id}"}, {"status": "closed"}),
    Step("tunnel_close_all", {}, {"count": 1}),
    Step("shell_open", {"columns": 100}, {"status": "open"}),
    Step("shell_exec", {"command": "cd /srv && pwd"}, {"status": "completed", "output": "/srv\n", "exit_code": 0}),
    Step("shell_send", {"command": "stty -echo; printf 'Password: '; read given; stty echo"}),
    Step("shell_secret", {"secret": "of the matrix"}, {"status": "sent"}),
    Step("shell_key", {"key": "enter"}, {"status": "sent"}),
    Step("shell_read", {"wait_s": 5}, {"status": "open"}),
    Step("shell_screen", {}, {"columns": 100}),
    Step("shell_resize", {"columns": 120, "rows": 30}, {"columns": 120}),
    Step("shell_list", {}, {"count": 1}),
    Step("shell_close", {}, {"stopped": True}),
)

BEFORE = f"""
rm -rf {FOLDER}; mkdir -p {FOLDER}/gone; printf 'one\\ntwo\\nthree\\n' >{FOLDER}/words; crontab -r
sleep 600 >/dev/null 2>&1 & printf %s $!
"""
AFTER = f"""
rm -rf {FOLDER}; sed -i /MATRIX/d /root/.profile /root/.bashrc /root/.bash_profile
for each in iptables ip6tables; do $each -F; done; firewall-cmd --reload
"""


def table() -> str:
    """What `make matrix` has seen, for docs/compatibility.md."""
    seen: dict[str, dict[str, str]] = json.loads(RESULTS.read_text("utf-8"))
    hosts = list(dict.fromkeys(host for cells in seen.values() for host in cells))
    lines = [f"| Tool | {' | '.join(hosts)} |", f"| --- |{' --- |' * len(hosts)}"]
    for tool, cells in seen.items():
        lines.append(f"| `{tool}` | {' | '.join(cells.get(host, 'not run') for host in hosts)} |")
    return "\n".join(lines) + "\n"
