"""The documented routes that are built: method, path, `?` before what stands in the query, `*` behind what is required.

So that a checkout alone shows that no documented name was lost; types, statuses and media types are compared by
`test_contract.py` where the documents are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

_ROWS = """
GET /
POST /session/connect host port username password key_path key_passphrase key_content use_agent keepalive retries
  retry_delay
POST /session/disconnect/{session_id}
GET /session/status/{session_id}
GET /session/list
POST /command/exec ?session_id command* timeout get_exit_code
GET /command/run ?cmd* ?timeout ?session_id
POST /file/upload ?session_id remote_path* local_path raw_content permissions content
POST /file/download ?session_id remote_path* local_path return_content
GET /file/list ?path ?session_id
POST /file/mkdir ?path* ?session_id
DELETE /file/remove ?path* ?session_id
GET /file/stat ?path* ?session_id
GET /file/read ?path* ?session_id
POST /file/write ?session_id path* content* mode
POST /file/copy ?src* ?dst* ?session_id
DELETE /file/rmdir ?path* ?session_id
POST /command/background ?session_id command* task_name
GET /command/task/{task_id} ?session_id
POST /tunnel/local ?session_id local_port* remote_host* remote_port* bind_address
POST /tunnel/remote ?session_id remote_port* local_host local_port* bind_address
GET /tunnel/list ?session_id
DELETE /tunnel/{tunnel_id} ?session_id
DELETE /tunnel/ ?session_id
GET /system/platform ?session_id
GET /system/processes ?user ?session_id
POST /system/kill ?session_id pid* signal
GET /system/disk ?session_id
GET /system/memory ?session_id
GET /system/cpu ?session_id
GET /system/network ?session_id
POST /system/service ?session_id service* action*
POST /system/grep ?session_id pattern* path recursive ignore_case max_results
POST /system/find ?session_id path name type max_depth max_results size mtime
GET /system/env/{name} ?session_id
POST /system/env ?session_id name* value persist
GET /system/cron ?user ?session_id
POST /system/cron ?session_id schedule* command* user
GET /system/users ?session_id
POST /system/chmod ?path* ?mode* ?recursive ?session_id
POST /system/chown ?path* ?owner* ?group ?recursive ?session_id
GET /system/tail ?path* ?lines ?session_id
GET /system/head ?path* ?lines ?session_id
GET /system/uptime ?session_id
DELETE /system/rmrf ?path* ?session_id
GET /setup/platform ?session_id
POST /setup/requirements ?session_id packages update_first
GET /firewall/backend ?session_id
GET /firewall/rules ?chain ?ip_version ?session_id
GET /firewall/rules/raw ?ip_version ?session_id
POST /firewall/allow/ip ?ip* ?ip_version ?session_id
GET /config/
GET /config/{key}
PUT /config/ key* value*
POST /config/reload
POST /command/shell ?session_id command* timeout get_exit_code
GET /command/read ?timeout ?session_id
POST /command/key ?session_id key*
POST /firewall/rule ?session_id chain protocol port source destination target ip_version comment
DELETE /firewall/rule ?chain* ?rule_num* ?ip_version ?session_id
POST /firewall/rule/port-range ?session_id chain protocol port_start* port_end* source target ip_version
POST /firewall/flush ?chain ?ip_version ?session_id
POST /firewall/save ?session_id
POST /firewall/restore ?session_id
POST /firewall/policy ?chain* ?target* ?ip_version ?session_id
POST /firewall/allow/port ?port* ?protocol ?ip_version ?source ?session_id
POST /firewall/block/port ?port* ?protocol ?ip_version ?session_id
POST /firewall/block/ip ?ip* ?ip_version ?session_id
POST /system/archive ?session_id source* destination* format
POST /system/extract ?session_id archive* destination
POST /api/remote/known-hosts/accept host* port* key_type* public_key* fingerprint_sha256*
GET /api/remote/known-hosts/list
POST /api/remote/known-hosts/remove host* port* key_type*
"""


@dataclass(frozen=True)
class Documented:
    """A route as it is documented: which names it takes, and whether they are required."""

    method: str
    path: str
    query: dict[str, bool]
    body: dict[str, bool]


def documented() -> Iterator[Documented]:
    """All of them; a line that is indented goes on with the one before."""
    for row in _ROWS.strip().replace("\n  ", " ").splitlines():
        method, path, *names = row.split()
        query = [each[1:] for each in names if each.startswith("?")]
        body = [each for each in names if not each.startswith("?")]
        yield Documented(
            method, path, *({each.rstrip("*"): each.endswith("*") for each in part} for part in (query, body))
        )
