"""Every command line and every tool that a prompt names works on Debian and on Alpine, as the prompt has it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx2
import pytest

from mcp_ssh import prompts
from mcp_ssh.app import App
from mcp_ssh.tools import REGISTRY, command, file
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault
from tests.support.machine import login, opened, outside, trust
from tests.support.prompt_lines import Job, filled, programs, steps
from tests.support.servers import TOKEN, blocking_serve

DATE = "20260102"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ3b0bKz5nJ0m9sYvG8g4aYz0m2m3mJ2o5v4mQ6bq7Yx someone"
NOT_HERE = {"session_connect", "hostkey_accept", "hostkey_remove"}
"""Tools that the sessions of these tests have called already, or that would take their host keys away."""
COMMON: dict[str, list[dict[str, Any]]] = {
    "command_exec": [{"command": "true"}],
    "blob_read": [],
    "file_list": [{"path": "/etc"}],
    "file_read": [{"path": "/etc/passwd"}],
    "file_rmdir": [],
    "system_processes": [{"sort": "memory", "limit": 15}],
    "system_service": [{"service": "pinger", "action": "status"}, {"service": "pinger", "action": "restart"}],
}
SITE = "/srv/www/example"
WEB = r"""
rm -rf /srv/www/example; mkdir -p /srv/www/example
if command -v perl; then
    program='$s = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1) or die;
        while ($c = $s->accept) { while (<$c>) { last if /^\r?\n$/ } print $c "HTTP/1.0 200 OK\r\n\r\nhi"; close $c }'
    perl -MIO::Socket::INET -e "$program" </dev/null >/dev/null 2>&1 &
else
    echo '#!/bin/sh
        while read -r line && [ ${#line} -gt 1 ]; do :; done
        printf "HTTP/1.0 200 OK\r\n\r\nhi"' >/srv/answer
    chmod 755 /srv/answer
    (while :; do nc -l -p 80 -e /srv/answer; done) </dev/null >/dev/null 2>&1 &
fi
echo $! >/tmp/web
for each in $(seq 50); do grep -q ":0050 0*:0000 0A" /proc/net/tcp /proc/net/tcp6 && break; sleep 0.2; done
"""
FIRST_RULE = "-A INPUT -p tcp -m tcp --dport 444 -j ACCEPT"
RELOAD = 'reload() { kill -HUP "$(pgrep -o -x sshd)"; }'
"""What Alpine's own script of sshd has, and that of the fleet's host lacks."""
TIMER = "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n"
SERVICE = "[Service]\nType=oneshot\nTimeoutStartSec=60\nExecStart=/usr/local/bin/nightly\n"


def jobs(host: Host, local: Path) -> dict[str, Job]:
    """What each prompt is run with on a host; the arguments of its tools come from its own text."""
    alpine = host.name == "alpine"
    units = "/srv" if alpine else "/etc/systemd/system"
    return {
        "add-user": Job(
            {"user": "ann", "public_key": KEY},
            {"NAME": "ann", "SHELL": "/bin/sh", "HOME": "/home/ann"},
            after="userdel -r ann || deluser --remove-home ann; rm -f /etc/sudoers.d/ann /root/sudoers.new",
            tools={
                "file_mkdir": [{"path": "/home/ann/.ssh"}],
                "file_write": [
                    {"path": "/home/ann/.ssh/authorized_keys", "content": KEY + "\n", "permissions": "600"},
                    {"path": "/root/sudoers.new", "content": "ann ALL=(root) /bin/true\n", "permissions": "440"},
                ],
                "file_stat": [{"path": "/home/ann/.ssh/authorized_keys"}],
            },
        ),
        "back-up-folder": Job(
            {"folder": "/srv/data/site"},
            {"FOLDER": "/srv/data/site", "PARENT": "/srv/data", "NAME": "site", "DATE": DATE},
            before=f"rm -rf /srv/data /var/tmp/backup-{DATE}; mkdir -p /srv/data/site/sub; cd /srv/data/site;"
            "echo a >sub/f; ln -s sub/f link",
            after=f"rm -rf /srv/data /var/tmp/backup-{DATE}",
            tools={
                "file_stat": [{"path": "/srv/data/site"}],
                "file_download": [
                    {
                        "remote_path": f"/var/tmp/backup-{DATE}/site-{DATE}.tar.gz",
                        "local_path": str(local / "got.tar.gz"),
                    }
                ],
                "file_remove": [{"path": f"/var/tmp/backup-{DATE}/site-{DATE}.tar.gz"}],
                "file_rmdir": [{"path": f"/var/tmp/backup-{DATE}/test", "confirm": True}],
            },
            cwd=f"/var/tmp/backup-{DATE}",
        ),
        "deploy-site": Job(
            {"source": str(local), "domain": "www.example.org", "folder": SITE},
            {"RELEASE": "releases/1"},
            before=WEB,
            after="kill $(cat /tmp/web); rm -rf /srv/www /root/site.conf*; pkill -f '[n]c -l -p 80'",
            tools={
                "file_mkdir": [{"path": f"{SITE}/releases", "parents": True}],
                "file_upload": [{"local_path": str(local), "remote_path": f"{SITE}/releases/1"}],
                "file_copy": [{"src": "/etc/hosts", "dst": "/root/site.conf.old"}],
                "file_write": [{"path": "/root/site.conf", "content": "server\n"}],
            },
            cwd=SITE,
        ),
        "disk-full": Job(
            {},
            {"PATH": "/srv", "PID": "1", "NUMBER": "0", "FILE": "/tmp/full.log"},
            tools={
                "file_download": [{"remote_path": "/etc/hosts", "local_path": str(local / "hosts")}],
                "file_stat": [{"path": "/tmp/full.log"}],
                "file_remove": [{"path": "/tmp/full.log"}],
            },
        ),
        "failing-service": Job(
            {"service": "pinger"},
            {"NAME": "pinger", "UNIT": "pinger"},
            before="rc-service pinger start || systemctl start pinger",
            after="rc-service pinger stop || systemctl stop pinger; rm -f /tmp/hosts*",
            tools={
                "file_copy": [{"src": "/etc/hosts", "dst": f"/tmp/hosts.before-{DATE}"}],
                "file_write": [{"path": "/tmp/hosts", "content": "x\n"}],
            },
        ),
        "firewall": Job(
            {"change": "allow HTTPS from anywhere"},
            {"FILE": f"/root/rules-{DATE}", "UNDO": "true"},
            after="iptables -F; ip6tables -F; rm -rf /root/ufw /etc/iptables; pkill -f '[s]leep 180'",
            tools={
                "firewall_allow_port": [{"port": 443}],
                "firewall_block_port": [{"port": 7100}],
                "firewall_allow_ip": [{"ip": "203.0.113.5"}],
                "firewall_block_ip": [{"ip": "203.0.113.6"}],
                "firewall_rule_add": [{"port": 444}],
                "firewall_policy": [{"chain": "FORWARD", "target": "DROP"}, {"chain": "FORWARD", "target": "ACCEPT"}],
                "file_copy": [{"src": "/etc/hosts", "dst": "/root/ufw"}],
                "firewall_rule_delete": [
                    {"chain": "INPUT", "rule_num": 1, "ip_version": "ipv4", "expected_rule": FIRST_RULE}
                ],
            },
        ),
        "first-look": Job(tools={"file_list": [{"path": "/etc"}]}),
        "harden-ssh": Job(
            {},
            {"NAME": "dev", "ADDRESS": "10.77.0.1", "UNDO": "true"},
            before=f"cp /etc/init.d/sshd /srv/sshd.script; echo '{RELOAD}' >>/etc/init.d/sshd"
            if alpine
            else "mkdir -p /etc/ssh/sshd_config.d",
            after="rm -rf /root/sshd-before-* /etc/ssh/sshd_config.d; systemctl stop sshd-undo.timer;"
            "mv /srv/sshd.script /etc/init.d/sshd; pkill -f '[s]leep 600'",
            tools={
                "file_read": [{"path": "/etc/ssh/sshd_config"}],
                "file_mkdir": [{"path": f"/root/sshd-before-{DATE}"}],
                "file_copy": [{"src": "/etc/ssh/sshd_config", "dst": f"/root/sshd-before-{DATE}/sshd_config"}],
                "file_write": []
                if alpine
                else [{"path": "/etc/ssh/sshd_config.d/10-hardening.conf", "content": "LoginGraceTime 30\n"}],
                "system_service": [{"service": "sshd" if alpine else "ssh", "action": "reload"}],
            },
        ),
        "high-load": Job(),
        "schedule-job": Job(
            {"job": "tidy", "times": "every night at 3"},
            {"NAME": "nightly", "SCRIPT": "/usr/local/bin/nightly", "COMMAND": "true", "CALENDAR": "'*-*-* 03:00'"},
            before="logger -t nightly begins; sleep 0.2",
            after="systemctl disable --now nightly.timer; rm -f /etc/systemd/system/nightly.* /usr/local/bin/nightly"
            " /srv/nightly.*; systemctl daemon-reload",
            tools={
                "file_write": [
                    {"path": "/usr/local/bin/nightly", "content": "#!/bin/sh\nset -eu\n:\n", "permissions": "755"},
                    [
                        {"path": f"{units}/nightly.service", "content": SERVICE},
                        {"path": f"{units}/nightly.timer", "content": TIMER},
                    ],
                    {"path": "/srv/nightly.cron", "content": "0 3 * * * root /usr/local/bin/nightly\n"},
                ],
                "system_cron_add": [{"schedule": "0 3 * * *", "command": "/usr/local/bin/nightly"}],
                "system_cron_remove": [{"entry": "0 3 * * * /usr/local/bin/nightly"}],
            },
        ),
    }


@pytest.mark.requirement("fault.N14")
@pytest.mark.parametrize("name", sorted(prompts.load().keys() - {"hand-over-api", "set-up-ssh-steward"}))
async def test_each_line_of_a_prompt_works_as_it_stands(app: App, host: Host, tmp_path: Path, name: str) -> None:
    (tmp_path / "index.html").write_text("hello\n")
    job = jobs(host, tmp_path)[name]
    way, on = Direct(app), await opened(Direct(app), app, host, "root")
    arguments = {**dict.fromkeys(prompts.load()[name].arguments, "x"), **job.arguments}
    there = set(
        (
            await outside(
                host, f"for each in {' '.join(_optional(name, arguments, host))}; do command -v $each; done; :"
            )
        ).split()
    )
    there = {path.rpartition("/")[2] for path in there}
    given = {tool: iter(each) for tool, each in {**COMMON, **job.tools}.items()}
    await outside(host, f"{job.before}\ntrue")
    failed, ran = list[str](), 0
    try:
        for step in steps(name, arguments, host.name):
            if step.kind == "line" and programs(step.text) <= there:
                line = filled(step.text, job.values)
                folder = {} if job.cwd is None or not await _is_there(way, on, job.cwd) else {"cwd": job.cwd}
                done = await way.call(command.run_command, {**on, "command": line, **folder, "timeout": 30})
                ran += 1
                if done["exit_code"] != 0:
                    failed.append(f"{line!r}: {done['exit_code']}, {done['stdout'][-200:]}, {done['stderr'][-300:]}")
            elif step.kind == "tool" and step.text not in NOT_HERE:
                failed += await _call(way, host, on, step.text, given)
                ran += 1
    finally:
        await outside(host, f"({job.after}) >/dev/null 2>&1; true")
    assert not failed, "\n".join(failed)
    assert ran > 5


def _optional(name: str, arguments: dict[str, str], host: Host) -> set[str]:
    return {each for step in steps(name, arguments, host.name) for each in programs(step.text)} | {"true"}


async def _call(way: Direct, host: Host, on: dict[str, str], name: str, given: dict[str, Iterator[Any]]) -> list[str]:
    """Call a tool that a prompt names with its next arguments, and say what was wrong."""
    tool = REGISTRY[name]
    more: Any = next(given[name], None) if name in given else {}
    if name == "hostkey_scan":
        more = {"host": host.ip, "port": host.port}
    session = on if "session_id" in tool.params.model_fields else {}
    wrong: list[str] = []
    calls: list[dict[str, Any]] = [more] if isinstance(more, dict) else more or []
    for each in calls:
        try:
            told = await way.call(tool, {**session, **each})
        except Fault as fault:
            wrong.append(f"{name} {each}: {fault}")
        else:
            wrong += [f"{name} {each}: {told}"] if told.get("success") is False else []
    return wrong


async def _is_there(way: Direct, on: dict[str, str], folder: str) -> bool:
    try:
        await way.call(file.stat, {**on, "path": folder})
    except Fault:
        return False
    return True


@pytest.mark.requirement("fault.N14")
async def test_a_line_that_does_not_work_is_seen(app: App, host: Host) -> None:
    """The negative control: what the old prompts said fails in the runner."""
    way, on = Direct(app), await opened(Direct(app), app, host, "root")
    for line in ("no-such-program -x", "getent -s no-such-option passwd NAME", "ls /no/such"):
        assert (await way.call(command.run_command, {**on, "command": filled(line, {"NAME": "ann"})}))["exit_code"] != 0
    assert await _call(way, host, on, "file_read", {"file_read": iter([{"path": "/no/such"}])})


@pytest.mark.requirement("fault.N14")
async def test_the_requests_of_the_hand_over_work_as_they_stand(app: App, host: Host, tmp_path: Path) -> None:
    await trust(app, host)
    await anyio.to_thread.run_sync(_hand_over, app, host)


def _hand_over(app: App, host: Host) -> None:
    home = app.home
    with blocking_serve(home) as url, httpx2.Client(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}) as http:
        opened = http.post("/session/connect", json={**login(host, "root"), "host": host.ip}).json()
        text = prompts.load()["hand-over-api"].fill({"url": url, "machine": opened["session_id"], "task": "look"})
        (address,) = re.findall(r'curl -sS -H @token.txt "(\S+)"', text)
        assert http.get(address).json()["path"] == "/etc/os-release"
        for page in re.findall(rf"{url}(/\w+(?:\.\w+)?)[;\s]", text):
            assert httpx2.get(f"{url}{page}").status_code == 200 or page.startswith("/session")
        query = {"session_id": opened["session_id"]}
        body = {"command": "true", "timeout": 60}
        assert http.post("/command/exec", params=query, json=body).json()["exit_code"] == 0
        for method, path, more in (
            ("GET", "/session/list", {}),
            ("GET", "/file/read", {"path": "/etc/hosts"}),
            ("GET", "/file/list", {"path": "/etc"}),
        ):
            assert path in text
            params = {**query, **more} if more else {}
            assert http.request(method, path, params=params).status_code == 200
        become = {**body, "command": "id -u", "become": {"user": "root"}}
        root = http.post("/command/exec", params=query, json=become).json()
        assert root["stdout"].strip() == "0"
        assert http.post(f"/session/disconnect/{opened['session_id']}").status_code == 200


@pytest.mark.requirement("fault.N14")
async def test_the_lines_of_the_set_up_work_as_they_stand(host: Host, tmp_path: Path) -> None:
    await anyio.to_thread.run_sync(_set_up, host, tmp_path)


ELSEWHERE = {"make run", "ssh-steward serve"}
"""Lines of the set-up that other tests run: they install, or go on until they are ended."""


def _set_up(host: Host, home: Path) -> None:
    ssh = home / "dot-ssh"
    ssh.mkdir()
    environment = {"MCP_SSH_HOME": str(home), "HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin"}
    new = {"name": "web1", **login(host, "root")}
    given = {"connection_add": json.dumps(new), "hostkey_scan": json.dumps({"host": host.ip, "port": host.port})}
    failed: list[str] = []

    def run(words: list[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, input=stdin, env=environment, text=True, capture_output=True, timeout=60, check=False
        )

    product = [sys.executable, "-m", "mcp_ssh"]
    scanned = json.loads(run([*product, "call", "hostkey_scan", given["hostkey_scan"]]).stdout)
    shown = {each: scanned["keys"][0][each] for each in ("key_type", "public_key", "fingerprint_sha256")}
    done = run(
        [
            *product,
            "call",
            "hostkey_accept",
            json.dumps({**json.loads(given["hostkey_scan"]), **shown, "confirm": True}),
        ]
    )
    assert done.returncode == 0, done.stderr
    client = {"client": "claude-desktop", "machine": "root@web1"}
    for step in steps("set-up-ssh-steward", client, "deb"):
        line = filled(step.text, {"NAME": "web1", "CLIENT": "claude-desktop"})
        if step.kind == "tool" or line in ELSEWHERE:
            continue
        words = line.split()
        if words[0] == "ssh-steward":
            words = [*product, *words[1:]]
        if words[0] == "ssh-keygen":
            assert host.console(words).returncode == 0
            continue
        done = run(words, given["connection_add"] if words[-1] == "-" else "")
        if done.returncode != 0:
            failed.append(f"{line}: {done.returncode}, {done.stdout[-300:]}, {done.stderr[-300:]}")
    assert not failed, "\n".join(failed)
