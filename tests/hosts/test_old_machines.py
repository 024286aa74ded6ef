"""Machines that have old algorithms only: refused by default, reached where the owner names them, and told why."""

import contextlib
from collections.abc import AsyncGenerator

import anyio
import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.config.models import Config
from mcp_ssh.dispatch import dispatch
from mcp_ssh.errors import ConnectFailed, HostKeyUnconfirmed, Unsupported
from mcp_ssh.tools import hostkey
from tests.fleet.hosts import Host
from tests.support.ssh_home import OWNER, config, key, know, opened, said

PORT = 2299


@contextlib.asynccontextmanager
async def sshd(host: Host, *options: str) -> AsyncGenerator[None]:
    """A second sshd on the host, that has these algorithms only."""
    given = " ".join(f"-o {each}" for each in options)
    start = (
        "test -f /root/old_rsa || ssh-keygen -q -t rsa -b 2048 -N '' -f /root/old_rsa\n"
        f"/usr/sbin/sshd -o PidFile=/run/old.pid -o Port={PORT} {given}\n"
        "for _ in $(seq 50); do\n"
        f"bash -c 'exec 3<>/dev/tcp/127.0.0.1/{PORT}' 2>/dev/null && exit; sleep 0.1\ndone; exit 1"
    )
    started = await anyio.to_thread.run_sync(lambda: host.console(["sh", "-c", start]))
    assert started.returncode == 0, started.stderr
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: host.console(["sh", "-c", "kill $(cat /run/old.pid)"]))


@pytest.mark.requirement("fault.S13.sha1")
async def test_a_machine_that_signs_with_sha1_alone_is_reached_only_where_the_config_names_it(
    app: App, auth: Host
) -> None:
    where = {"host": auth.ip, "port": PORT, "username": "ops", "key_path": str(key(auth)), "retries": 1}
    async with sshd(auth, "HostKey=/root/old_rsa", "HostKeyAlgorithms=ssh-rsa"):
        with pytest.raises(ConnectFailed, match=r"no host key in common .* ssh-rsa") as refused:
            await opened(app, **where)
        assert "security.sha1_hosts" in str(refused.value.hint)
        shown = await dispatch(app, hostkey.scan, {"host": auth.ip, "port": PORT}, OWNER)
        assert [each.key_type for each in shown.keys] == ["ssh-rsa"]  # looking trusts nothing
        config(f"Host {auth.ip}\n HostKeyAlgorithms +ssh-rsa\n")
        with pytest.raises(ConnectFailed, match="also names ssh-rsa, which this server's policy does not allow"):
            await opened(app, **where)
        app.live.config = Config.model_validate({"security": {"sha1_hosts": [auth.ip]}})
        with pytest.raises(HostKeyUnconfirmed) as unknown:
            await opened(app, **where)
        names = ("host", "port", "key_type", "public_key", "fingerprint_sha256")
        await app.hostkeys.accept(*(unknown.value.details["host_key"][each] for each in names))
        session = await opened(app, **where)
        assert await said(app, session.session_id, "id -un") == "ops\n"


@pytest.mark.requirement("fault.S13.sha1")
async def test_what_the_owners_ssh_config_names_is_offered_if_the_policy_allows_it(app: App, auth: Host) -> None:
    know(auth)
    where = {"host": "old", "use_config": True, "retries": 1}
    base = (
        f"Host old\n HostName {auth.ip}\n Port {PORT}\n User ops\n IdentityFile {key(auth)}\n HostKeyAlias {auth.ip}\n"
    )
    async with sshd(auth, "Ciphers=aes256-cbc", "KexAlgorithms=ecdh-sha2-nistp521"):
        config(base)
        with pytest.raises(ConnectFailed, match=r"no cipher in common .* aes256-cbc"):
            await opened(app, **where)
        config(base + " Ciphers +3des-cbc,aes256-cbc\n KexAlgorithms ecdh-sha2-nistp384\n")
        with pytest.raises(ConnectFailed, match=r"no key exchange in common .* also names 3des-cbc"):
            await opened(app, **where)
        config(base + " Ciphers +aes256-cbc\n KexAlgorithms ^ecdh-sha2-nistp521\n")
        assert await said(app, (await opened(app, **where)).session_id, "id -un") == "ops\n"
        config(base + " Ciphers 3des-cbc\n")
        with pytest.raises(Unsupported, match="Ciphers 3des-cbc leaves nothing"):
            await opened(app, **where)
