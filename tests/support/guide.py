"""What the guide of SSH~Api asks for, request by request, and the keys that its answers have.

As documented, but for what only the caller knows: host, account, and the ids that answers gave (`{session_id}`).
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request of the guide; `keys` are in its answer, and what `saves` names is kept for later requests."""

    request: str
    keys: str
    body: Any = None
    saves: str = ""


HTML = "/var/www/index.html"
INI = "[server]\nport=8080\n"
DUAL = "backend ipv4 ipv6 success"

BEFORE = """
mkdir -p /etc/my-app /var/www/html /var/www/old-release /var/www/current /tmp/old-build /srv/deploy &&
id deploy 2>/dev/null || useradd -m deploy 2>/dev/null || adduser -D deploy
touch /var/www/old.txt /var/www/current/file; echo page >/var/www/html/page; echo error: none >/var/log/app.log
cp /var/log/app.log /var/log/messages
printf '[Service]\\nExecStart=/bin/sleep 600000\\n' >/etc/systemd/system/nginx.service; systemctl daemon-reload || true
"""
"""What the guide takes for granted on the machine."""

AFTER = """
systemctl stop nginx; rm -rf /etc/systemd/system/nginx.service /var/www /etc/my-app /var/restored /tmp/backup.tar.gz
for each in iptables ip6tables; do $each -P INPUT ACCEPT; $each -F; done; rm -f /etc/iptables/rules.v?
rm -f /var/log/app.log; crontab -r; sed -i /MY_VAR/d ~/.bashrc ~/.profile; true
"""

GUIDE = (
    Asked("GET /", "service version status docs openapi"),
    Asked("GET /session/list", "sessions"),
    Asked("GET /session/status/{session_id}", "session_id connected host username"),
    Asked(
        "POST /command/exec",
        "status command stdout stderr exit_code duration_ms",
        {"command": "ls -la /var/www", "timeout": 30.0, "get_exit_code": True},
    ),
    Asked(
        "GET /command/run?cmd=ls%20-la%20/var/www&timeout=30",
        "status command stdout stderr exit_code duration_ms",
    ),
    Asked(
        "POST /command/shell",
        "status command",
        {"command": "ls -la /var/www", "timeout": 30.0, "get_exit_code": True},
    ),
    Asked("GET /command/read", "output lines"),
    Asked("POST /command/key", "status key", {"key": "ctrl+c"}),
    Asked("POST /command/background", "task_id status", {"command": "echo done"}, "task_id"),
    Asked("GET /command/task/{task_id}", "task_id command status start_time output error"),
    Asked(
        "POST /file/upload",
        "status path size content",
        {"remote_path": HTML, "local_path": "{local}/index.html", "permissions": 644},
    ),
    Asked("POST /file/upload", "status path size", {"remote_path": "/etc/my-app/config.ini", "raw_content": INI}),
    Asked("POST /file/upload", "status path size", {"remote_path": "/var/www/b", "content": "YWJj"}),
    Asked(
        "POST /file/download",
        "status path size",
        {"remote_path": "/var/log/app.log", "local_path": "{local}/app.log", "return_content": False},
    ),
    Asked("POST /file/download", "status path size content", {"remote_path": HTML, "return_content": True}),
    Asked("GET /file/list?path=/var/www", "path items count"),
    Asked("POST /file/mkdir?path=/var/www/releases", "status path"),
    Asked("DELETE /file/remove?path=/var/www/old.txt", "status path"),
    Asked("GET /file/stat?path=/var/www/index.html", "size mode uid gid atime mtime"),
    Asked("GET /file/read?path=/etc/hosts", "path content"),
    Asked("POST /file/copy?src=/var/www/current&dst=/var/www/backup", "status source destination count"),
    Asked("DELETE /file/rmdir?path=/var/www/old-release", "status path count"),
    Asked(
        "POST /file/write",
        "status path size mode",
        {"path": "/etc/my-app/config.ini", "content": "new text", "mode": "overwrite"},
    ),
    Asked(
        "POST /tunnel/local",
        "tunnel_id status type",
        {"local_port": 8080, "remote_host": "127.0.0.1", "remote_port": 80, "bind_address": "127.0.0.1"},
        "tunnel_id",
    ),
    Asked(
        "POST /tunnel/remote",
        "tunnel_id status type",
        {"remote_port": 8080, "local_host": "127.0.0.1", "local_port": 3000, "bind_address": "0.0.0.0"},
    ),
    Asked("GET /tunnel/list", "tunnels count"),
    Asked("DELETE /tunnel/{tunnel_id}", "status tunnel_id"),
    Asked("DELETE /tunnel/", "status count"),
    Asked("GET /system/platform", "platform"),
    Asked("GET /system/processes?user=deploy", "processes count"),
    Asked("POST /command/exec", "stdout", {"command": "sleep 600 >/dev/null 2>&1 & printf %s $!"}, "stdout"),
    Asked("POST /system/kill", "status pid signal error", {"pid": "{stdout}", "signal": "TERM"}),
    Asked("GET /system/disk", "disks"),
    Asked("GET /system/memory", "memory"),
    Asked("GET /system/cpu", "cpu"),
    Asked("GET /system/network", "interfaces"),
    Asked("POST /system/service", "service action success output error", {"service": "nginx", "action": "restart"}),
    Asked(
        "POST /system/grep",
        "matches count",
        {"pattern": "error", "path": "/var/log", "recursive": True, "ignore_case": True, "max_results": 100},
    ),
    Asked(
        "POST /system/find",
        "files count",
        {"path": "/var/www", "name": "*.log", "type": "f", "max_depth": 5, "max_results": 100},
    ),
    Asked(
        "POST /system/archive",
        "success archive error",
        {"source": "/var/www/html", "destination": "/tmp/backup.tar.gz", "format": "tar.gz"},
    ),
    Asked(
        "POST /system/extract",
        "success destination error",
        {"archive": "/tmp/backup.tar.gz", "destination": "/var/restored"},
    ),
    Asked("GET /system/env/PATH", "name value"),
    Asked("POST /system/env", "success name value", {"name": "MY_VAR", "value": "my_value", "persist": True}),
    Asked("GET /system/cron", "jobs count"),
    Asked("POST /system/cron", "success entry", {"schedule": "0 * * * *", "command": "/usr/local/bin/backup.sh"}),
    Asked("GET /system/users", "users count"),
    Asked("POST /system/chmod?path=/var/www&mode=755&recursive=true", "success path mode"),
    Asked("POST /system/chown?path=/var/www&owner=deploy&group=deploy&recursive=true", "success path owner"),
    Asked("GET /system/tail?path=/var/log/messages&lines=100", "path content"),
    Asked("GET /system/head?path=/etc/hosts&lines=20", "path content"),
    Asked("GET /system/uptime", "uptime seconds"),
    Asked("DELETE /system/rmrf?path=/tmp/old-build", "success path error"),
    Asked("GET /setup/platform", "platform"),
    Asked(
        "POST /setup/requirements",
        "status installed failed output package_manager platform resolved_packages",
        {"packages": ["nginx", "docker.io"], "update_first": True},
    ),
    Asked("GET /firewall/backend", "firewall"),
    Asked("GET /firewall/rules", DUAL),
    Asked("GET /firewall/rules/raw", "backend ipv4 ipv6"),
    Asked(
        "POST /firewall/rule",
        DUAL,
        {
            "chain": "INPUT",
            "protocol": "tcp",
            "port": 443,
            "source": "192.168.1.0/24",
            "destination": None,
            "target": "ACCEPT",
            "ip_version": "both",
            "comment": "Allow HTTPS from LAN",
        },
    ),
    Asked(
        "POST /firewall/rule/port-range",
        DUAL,
        {
            "chain": "INPUT",
            "protocol": "tcp",
            "port_start": 8000,
            "port_end": 9000,
            "source": None,
            "target": "ACCEPT",
            "ip_version": "both",
        },
    ),
    Asked("POST /firewall/allow/port?port=80&protocol=tcp&ip_version=both", DUAL),
    Asked("POST /firewall/block/port?port=3306&protocol=tcp&ip_version=both", DUAL),
    Asked("POST /firewall/block/ip?ip=10.0.0.5&ip_version=both", DUAL),
    Asked("POST /firewall/allow/ip?ip=192.168.1.100&ip_version=both", DUAL),
    Asked("POST /firewall/allow/ip?ip=10.77.0.0/24&ip_version=both", DUAL),
    Asked("POST /firewall/allow/port?port=22", DUAL),
    Asked("POST /firewall/policy?chain=INPUT&target=DROP&ip_version=both", DUAL),
    Asked("POST /firewall/save", "backend success output error"),
    Asked("POST /firewall/restore", "backend success output error"),
    Asked("POST /firewall/policy?chain=INPUT&target=ACCEPT&ip_version=both", DUAL),
    Asked("DELETE /firewall/rule?chain=INPUT&rule_num=1&ip_version=ipv4", DUAL),
    Asked("POST /firewall/flush?chain=INPUT&ip_version=both", DUAL),
    Asked("POST /firewall/save", "backend success output error"),
    Asked("GET /config/", "config"),
    Asked("GET /config/ssh.timeout", "key value"),
    Asked("PUT /config/", "status key value", {"key": "ssh.timeout", "value": 60}),
    Asked("POST /config/reload", "status"),
    Asked("POST /session/disconnect/{session_id}", "status session_id"),
)
