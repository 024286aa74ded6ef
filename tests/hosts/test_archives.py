"""Archives made and unpacked on real hosts, and hostile ones that stay out, read back by the system's own ssh."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import anyio.to_thread
import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import system
from tests.doors import Direct, Way
from tests.fleet.hosts import Host
from tests.hosts.machine import outside
from tests.hosts.test_system_changing import refused
from tests.hosts.test_system_reading import opened
from tests.hosts.test_system_searching import FOLDER, made

# A name that is no UTF-8, and one of two lines, among others.
HARD = r"""mkdir -p 'in -put/-sub' && cd 'in -put'
echo 1 >-x; echo 2 >"new
line"; echo 3 >"$(printf 'byte\377')"; echo 4 >'qu"o'"'"'te $(touch hit)'; echo 5 >'[a]*?'; echo 6 >-sub/čé
ln -s ../-x -sub/link; ln -s /nowhere away; : >empty; chmod 750 -sub; chmod 600 empty"""
_LISTED = "cd {0} && find . ! -type d -print0 | sort -z | xargs -0 -n 1 stat -c '%n %a %s' -- | od -c; cat ./*/-x"


async def listed(host: Host, folder: str) -> str:
    return await outside(host, _LISTED.format(folder))


async def left(host: Host, *more: str) -> list[str]:
    """What lies about that only we could have made, and names that escapes would have."""
    return (await outside(host, f"find {FOLDER} -name '.mcp-ssh*'; ls -d {' '.join(more)} 2>/dev/null || true")).split()


@pytest.mark.requirement("system.archive", "system.extract", "system.dry_run")
async def test_what_is_packed_comes_out_the_same_through_every_door(way: Way, app: App, host: Host) -> None:
    await made(host, HARD)
    on = await opened(way, app, host)
    kinds = ["tar", "tar.gz", "tar.bz2"] + (["tar.xz", "tar.zst", "zip"] if host.name == "deb" else [])
    want = await listed(host, FOLDER)
    for kind in kinds:
        packed = f"{FOLDER}/out.{kind}"
        given = {**on, "source": f"{FOLDER}/in -put", "destination": packed, "format": kind}
        shown = await way.call(system.archive, {**given, "dry_run": True})
        assert len(shown["commands"]) == 1
        assert packed in shown["commands"][0]
        assert await left(host, packed) == []
        done = await way.call(system.archive, given)
        assert (done["success"], done["archive"], done["error"]) == (True, packed, None)
        assert done["size_bytes"] == int(await outside(host, f"stat -c %s {packed}"))
        where = {**on, "archive": packed, "destination": f"{FOLDER}/a/b/{kind}"}
        looked = await way.call(system.extract, {**where, "dry_run": True})
        assert "in -put/-x" in looked["entries"]
        assert await left(host, f"{FOLDER}/a/b/{kind}", f"{FOLDER}/a/b/.mcp*") == []
        out = await way.call(system.extract, where)
        assert (out["success"], out["error"], out["count"]) == (True, None, 9)
        assert await listed(host, f"{FOLDER}/a/b/{kind}") == want
        await outside(host, f"mv {packed} /tmp/archives.{kind}; rm -rf {FOLDER}/a")
        # Once more, into a folder that is there with some of it.
        await outside(host, f"mkdir -p '{FOLDER}/a/in -put'; echo old >'{FOLDER}/a/in -put/-x'; chown -R dev {FOLDER}/a")
        await way.call(system.extract, {**on, "archive": f"/tmp/archives.{kind}", "destination": f"{FOLDER}/a"})
        assert await listed(host, f"{FOLDER}/a") == want
        await outside(host, f"rm -rf {FOLDER}/a /tmp/archives.{kind}")
    assert await left(host, f"{FOLDER}/hit", "hit") == []
