"""firewalld on a machine: what it has, how it is emptied, and a port behind it that a connection may reach."""

import functools

import anyio
import anyio.to_thread

from tests.fleet.hosts import Host
from tests.support.firewall import console, patience

LISTED = "firewall-cmd --list-all-zones; firewall-cmd --direct --get-all-rules"
LISTENS = """
begin() { systemctl is-active -q listens || systemd-run -q --unit listens python3 -m http.server 8080; }
until begin; do sleep 0.1; done
timeout 20 bash -c 'until (: </dev/tcp/127.0.0.1/8080) 2>/dev/null; do sleep 0.05; done'
"""
CLEAN = """
cd /etc/firewalld && rm -rf zones/*.xml policies/*.xml direct.xml
until firewall-cmd --reload; do sleep 0.1; done
"""


async def connects(host: Host, expected: bool = True) -> bool:
    """Whether a connection gets in. Where one is expected it is tried for a while, and what is in its way printed."""
    why: OSError | None = None
    with anyio.move_on_after(patience(expected)):
        while expected or why is None:
            try:
                await (await anyio.connect_tcp(host.ip, 8080)).aclose()
            except OSError as error:
                why = error
            else:
                return True
            await anyio.sleep(0.1)
    if expected:
        print(repr(why), await console(host, f"{LISTED}; ss -ltn; systemctl status listens || true; nft list ruleset"))
    return False


async def done(host: Host, text: str) -> None:
    """Have the machine do this, all of it."""
    ran = await anyio.to_thread.run_sync(functools.partial(host.console, ["sh", "-ec", text], timeout=60))
    assert ran.returncode == 0, ran.stderr
