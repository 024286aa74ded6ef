"""Permissions, owners, variables, jobs and removal on real hosts, read back by the system's own ssh."""

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import command, system
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Way, refused
from tests.support.folder import FOLDER, made
from tests.support.machine import opened, outside


@pytest.mark.requirement("system.chmod", "system.dry_run")
async def test_permissions_and_owners_change_through_every_door(way: Way, app: App, host: Host) -> None:
    await made(host, "mkdir d; : >d/a; : >d/-R; chmod 600 d/a; ln -s d/a link")
    on = await opened(way, app, host, "dev")
    changed = await way.call(system.chmod, {**on, "path": f"{FOLDER}/link", "mode": "640"})
    assert (changed["success"], changed["mode"], changed["permissions"]) == (True, "640", "0640")
    assert (await outside(host, f"stat -c %a {FOLDER}/d/a")).strip() == "640"
    await way.call(system.chmod, {**on, "path": f"{FOLDER}/d", "mode": "u=rwX,g=,o=", "recursive": True})
    assert (await outside(host, f"stat -c %a {FOLDER}/d {FOLDER}/d/a {FOLDER}/d/-R")).split() == ["700", "600", "600"]
    shown = await way.call(
        system.chmod, {**on, "path": f"{FOLDER}/d", "mode": "777", "dry_run": True, "recursive": True}
    )
    assert shown["commands"] == [f"chmod -R -- 777 {FOLDER}/d"]
    assert (await outside(host, f"stat -c %a {FOLDER}/d")).strip() == "700"
    root = await opened(way, app, host, "nopass")
    owned = await way.call(
        system.chown, {**root, "path": f"{FOLDER}/d", "owner": "ops", "group": "dash", "recursive": True}
    )
    assert (owned["owner"], owned["success"]) == ("ops:dash", True)
    assert (await outside(host, f"stat -c %U:%G {FOLDER}/d/a")).strip() == "ops:dash"
    for tool, wrong, word in (
        (system.chmod, {"path": f"{FOLDER}/d", "mode": "999"}, "mode"),
        (system.chmod, {"path": f"{FOLDER}/d", "mode": "--reference=/etc/shadow"}, "mode"),
        (system.chmod, {"path": f"{FOLDER}/none", "mode": "644"}, "none"),
        (system.chmod, {"path": "/etc", "mode": "777", "recursive": True}, "system"),
        (system.chown, {"path": f"{FOLDER}/d", "owner": "no-such-user"}, "no-such-user"),
        (system.chown, {"path": f"{FOLDER}/d", "owner": "a b"}, "owner"),
        (system.chmod, {"path": "/etc/shadow", "mode": "644"}, "protected"),
    ):
        assert word in str(await refused(way, tool, {**root, **wrong}))


@pytest.mark.requirement("system.dry_run")
async def test_a_dry_run_of_permissions_fails_where_the_change_would(app: App, host: Host) -> None:
    await made(host, "mkdir d; : >d/a; chmod 600 d/a; ln -s /etc/shadow link")
    way = Direct(app)
    root = await opened(way, app, host, "root")
    shadow = await outside(host, "stat -c '%a %U:%G' /etc/shadow")
    mode, owner = {"mode": "644"}, {"owner": "dev"}
    for tool, wrong in (
        (system.chmod, {**mode, "path": "/etc/shadow"}),
        (system.chmod, {**mode, "path": f"{FOLDER}/link"}),
        (system.chmod, {**mode, "path": f"{FOLDER}/none"}),
        (system.chmod, {**mode, "path": "/etc", "recursive": True}),
        (system.chown, {**owner, "path": "/etc/shadow"}),
        (system.chown, {**owner, "path": f"{FOLDER}/none"}),
        (system.chown, {"path": f"{FOLDER}/d", "owner": "no-such-user"}),
        (system.chown, {"path": f"{FOLDER}/d", "owner": "dev", "group": "no-such-group"}),
    ):
        shown = await refused(way, tool, {**root, **wrong, "dry_run": True})
        done = await refused(way, tool, {**root, **wrong})
        assert (shown.code, str(shown)) == (done.code, str(done))
    looked = await way.call(system.chmod, {**root, **mode, "path": f"{FOLDER}/d/a", "dry_run": True})
    assert (looked["permissions"], looked["commands"]) == ("0600", [f"chmod -- 644 {FOLDER}/d/a"])
    looked = await way.call(system.chown, {**root, "owner": "ops:dash", "path": f"{FOLDER}/d/a", "dry_run": True})
    has = (await outside(host, f"stat -c '%a %U:%G' {FOLDER}/d/a")).strip()
    assert has == f"600 {looked['owner']}" != "600 ops:dash"
    assert looked["commands"] == [f"chown -- ops:dash {FOLDER}/d/a"]
    assert await outside(host, "stat -c '%a %U:%G' /etc/shadow") == shadow
    dev = await opened(way, app, host, "dev")
    fault = await refused(way, system.chown, {**dev, **owner, "path": f"{FOLDER}/d/a", "dry_run": True})
    assert fault.code == "permission_denied"


@pytest.mark.requirement("system.rights")
async def test_what_is_another_accounts_is_not_changed_without_rights(app: App, host: Host) -> None:
    await made(host, "mkdir d; : >d/a; : >d/b; chmod 600 d/a d/b")
    await outside(host, f"chown root {FOLDER}/d/b")
    way = Direct(app)
    dev = await opened(way, app, host, "dev")
    change = {"path": f"{FOLDER}/d", "mode": "a+r", "recursive": True}
    fault = await refused(way, system.chmod, {**dev, **change})
    assert (fault.code, bool(fault.payload["hint"])) == ("permission_denied", True)
    assert (await outside(host, f"stat -c %a {FOLDER}/d/a {FOLDER}/d/b")).split() == ["600", "600"]
    ops = await opened(way, app, host, "ops")
    assert (await refused(way, system.chmod, {**ops, **change})).code == "permission_denied"
    await way.call(system.chmod, {**ops, **change, "become": {"password": host.password}})
    assert (await outside(host, f"stat -c %a {FOLDER}/d/a {FOLDER}/d/b")).split() == ["644", "644"]
    fault = await refused(way, system.cron_add, {**dev, "schedule": "@daily", "command": "true", "user": "ops"})
    assert fault.code == "permission_denied"
    assert "true" not in await outside(host, "crontab -l -u ops 2>/dev/null || true")


@pytest.mark.requirement("system.env", "system.dry_run")
async def test_variables_are_set_for_the_session_and_saved_once(way: Way, app: App, host: Host) -> None:
    await outside(
        host,
        "printf '# mine\\nexport MINE=1\\n' >~/.profile; rm -f ~/.bashrc;"
        "echo 'case $- in *i*) ;; *) return;; esac' >~/.bashrc",
        "dev",
    )
    on = await opened(way, app, host, "dev")
    hard = "a 'b' \"c\" $(touch /tmp/hit) `id` \\ *"
    assert (await way.call(system.env_get, {**on, "name": "OURS"}))["value"] is None
    assert await way.call(system.env_set, {**on, "name": "OURS", "value": hard})
    assert (await way.call(system.env_get, {**on, "name": "OURS"}))["value"] == hard
    seen = await way.call(command.run_command, {**on, "command": 'printf %s "$OURS"'})
    assert seen["stdout"] == hard
    own = await way.call(command.run_command, {**on, "command": 'printf %s "$OURS"', "env": {"OURS": "own"}})
    assert own["stdout"] == "own"
    assert await outside(host, 'printf %s "$OURS"', "dev") == ""
    for value in ("first", hard):
        saved = await way.call(system.env_set, {**on, "name": "OURS", "value": value, "persist": True})
        assert saved["files"][0].endswith("/.profile")
    profile = await outside(host, "cat ~/.profile", "dev")
    assert (profile.count("export OURS="), profile.count("# mine"), profile.count(">>>")) == (1, 1, 2)
    login = "sh -lc 'printf %s \"$OURS\"'"
    assert await outside(host, login, "dev") == hard
    if host.shell_of("dev") == "/bin/bash":
        assert await outside(host, 'printf %s "$OURS"', "dev") == hard
    shown = await way.call(system.env_set, {**on, "name": "OTHER", "value": "x", "persist": True, "dry_run": True})
    assert shown["commands"]
    assert "OTHER" not in await outside(host, "cat ~/.profile", "dev")
    assert "saved" not in await way.call(system.env_get, {**on, "name": "MINE"})
    await way.call(system.env_set, {**on, "name": "OURS", "value": None, "persist": True})
    assert await outside(host, "cat ~/.profile", "dev") == "# mine\nexport MINE=1\n"
    assert (await way.call(system.env_get, {**on, "name": "OURS"}))["value"] is None
    for wrong in ({"name": "A-B", "value": "x"}, {"name": "X", "value": "a\nb", "persist": True}):
        assert (await refused(way, system.env_set, {**on, **wrong})).status in {None, 400}
    assert (await outside(host, "ls /tmp/hit 2>&1 || true")).count("No such") == 1


@pytest.mark.requirement("system.env")
async def test_variables_that_our_scripts_need_are_told_as_commands_have_them(app: App, host: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, host, "dev")
    for name in ("PATH", "LC_ALL", "LANG", "HOME", "mark"):
        seen = await way.call(command.run_command, {**on, "command": f'printf %s "${{{name}-unset}}"'})
        told = (await way.call(system.env_get, {**on, "name": name}))["value"]
        assert ("unset" if told is None else told) == seen["stdout"], name


@pytest.mark.requirement("system.env")
async def test_a_full_disk_leaves_the_rc_files_and_is_told(app: App, deb: Host) -> None:
    home = "/srv/small/home"
    full = "dd if=/dev/zero of=/srv/small/fill bs=1k 2>/dev/null"
    await outside(
        deb,
        f"mkdir {home}; cp -a /home/dash/.ssh {home}; chown -R dash {home}; {full};"
        f"sed -i s#:/home/dash:#:{home}:# /etc/passwd",
    )
    try:
        way = Direct(app)
        on = {**await opened(way, app, deb, "dash"), "name": "OURS", "value": "x" * 3000, "persist": True}
        fault = await refused(way, system.env_set, on)
        assert "disk full" in str(fault)
        assert (await outside(deb, f"ls -A {home}")).split() == [".ssh"]
        await outside(
            deb, f"rm /srv/small/fill; echo '# mine' >{home}/.profile; chown dash {home}/.profile; {full}; true"
        )
        assert "disk full" in str(await refused(way, system.env_set, on))
        assert (await outside(deb, f"ls -A {home}; cat {home}/.profile")).split() == [".profile", ".ssh", "#", "mine"]
    finally:
        await outside(deb, f"sed -i s#:{home}:#:/home/dash:# /etc/passwd && rm -rf /srv/small/*")


async def spool(host: Host, text: str) -> None:
    """Put dev's table there as it is, past crontab."""
    folder = "/var/spool/cron/crontabs"
    await outside(host, f"printf '{text}' >{folder}/dev; chown dev {folder}/dev; chmod 600 {folder}/dev")


@pytest.mark.requirement("system.cron")
async def test_a_table_that_was_written_by_hand_keeps_all_its_jobs(app: App, host: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, host, "dev")
    try:
        await spool(host, "1 2 * * * /a\\n\\t3 4 * * * /b \\n5 6 * * * /c")
        await way.call(system.cron_add, {**on, "schedule": "@daily", "command": "true"})
        jobs = ["1 2 * * * /a", "3 4 * * * /b", "5 6 * * * /c", "@daily true"]
        assert (await way.call(system.cron_list, on))["jobs"] == jobs
        assert [each.strip() for each in (await outside(host, "crontab -l", "dev")).splitlines()] == jobs
        for line in jobs[1::2]:
            assert (await way.call(system.cron_remove, {**on, "entry": line}))["changed"] is True
        await spool(host, "1 2 * * * /a\\n5 6 * * * /c")
        assert (await way.call(system.cron_remove, {**on, "entry": jobs[0]}))["changed"] is True
        assert (await outside(host, "crontab -l", "dev")).splitlines() == [jobs[2]]
    finally:
        await outside(host, "crontab -r", "dev")


@pytest.mark.requirement("system.cron")
async def test_jobs_that_are_added_at_once_are_all_there(app: App, host: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, host, "dev")
    try:
        async with anyio.create_task_group() as group:
            for each in range(8):
                job = {**on, "schedule": "@daily", "command": f"job {each}"}
                group.start_soon(way.call, system.cron_add, job)
        assert sorted((await outside(host, "crontab -l", "dev")).splitlines()) == [f"@daily job {n}" for n in range(8)]
    finally:
        await outside(host, "crontab -r", "dev")


@pytest.mark.requirement("system.cron")
async def test_a_table_that_may_not_be_read_is_not_told_as_empty(app: App, deb: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, deb, "dev")
    assert (await way.call(system.cron_list, on))["jobs"] == []
    await spool(deb, "1 2 * * * /a\\n")
    await outside(deb, "echo dev >/etc/cron.deny")
    try:
        for tool, more in ((system.cron_list, {}), (system.cron_remove, {"entry": "1 2 * * * /a"})):
            fault = await refused(way, tool, {**on, **more})
            assert (fault.code, "cron.deny" in fault.payload["hint"]) == ("permission_denied", True)
    finally:
        await outside(deb, "rm /etc/cron.deny; crontab -u dev -r")


@pytest.mark.requirement("system.chmod")
async def test_a_change_that_ends_half_way_says_so(app: App, host: Host) -> None:
    await made(host, "mkdir -p d/e; : >d/e/f")
    way = Direct(app)
    on = {**await opened(way, app, host, "dev"), "path": f"{FOLDER}/d"}
    fault = await refused(way, system.chmod, {**on, "mode": "a-x", "recursive": True})
    assert "may have been changed" in str(fault)
    assert (await outside(host, f"stat -c %a {FOLDER}/d")).strip() == "644"
    fault = await refused(way, system.chown, {**on, "owner": "dev:dev", "group": "ops"})
    assert (fault.code, "group" in str(fault)) == ("invalid_input", True)
    root = {**on, **await opened(way, app, host, "root")}
    assert (await refused(way, system.chown, {**root, "owner": "dev", "group": "no-such"})).code == "invalid_input"


@pytest.mark.requirement("system.cron", "system.dry_run")
async def test_jobs_are_added_once_and_removed(way: Way, app: App, host: Host) -> None:
    await outside(host, "crontab -r 2>/dev/null; printf '# kept\\n5 4 * * * /bin/true\\n' | crontab -", "dev")
    on = await opened(way, app, host, "dev")
    job = {"schedule": "*/10  2-4 * jan,mar mon-fri", "command": "echo 'a \"b\"' >/dev/null # $(id)"}
    line = "*/10 2-4 * jan,mar mon-fri echo 'a \"b\"' >/dev/null # $(id)"
    assert (await way.call(system.cron_add, {**on, **job, "dry_run": True}))["commands"] == [f"crontab: add {line}"]
    absent = await way.call(system.cron_remove, {**on, "entry": line, "dry_run": True})
    assert (absent["changed"], absent["commands"]) == (False, [])
    added = await way.call(system.cron_add, {**on, **job})
    assert (added["success"], added["entry"], added["changed"]) == (True, line, True)
    assert (await way.call(system.cron_add, {**on, **job}))["changed"] is False
    assert (await way.call(system.cron_add, {**on, **job, "dry_run": True}))["commands"] == []
    going = await way.call(system.cron_remove, {**on, "entry": line, "dry_run": True})
    assert (going["changed"], going["commands"]) == (False, [f"crontab: remove {line}"])
    await way.call(system.cron_add, {**on, "schedule": "@daily", "command": "true"})
    assert (await outside(host, "crontab -l", "dev")).splitlines() == [
        "# kept", "5 4 * * * /bin/true", line, "@daily true",
    ]  # fmt: skip
    assert (await way.call(system.cron_list, on))["jobs"] == ["5 4 * * * /bin/true", line, "@daily true"]
    assert (await way.call(system.cron_remove, {**on, "entry": line}))["changed"] is True
    assert (await way.call(system.cron_remove, {**on, "entry": line}))["changed"] is False
    root = await opened(way, app, host, "nopass")
    theirs = await way.call(system.cron_list, {**root, "user": "dev"})
    assert theirs["jobs"] == ["5 4 * * * /bin/true", "@daily true"]
    for wrong, word in (
        ({"schedule": "61 * * * *"}, "minute"),
        ({"schedule": "* * *"}, "five fields"),
        ({"schedule": "@never"}, "@daily"),
        ({"schedule": "0 0 * * *", "command": "a\nb"}, "command"),
        ({"schedule": "0 0 * * *", "user": "nobody-here"}, "nobody-here"),
    ):
        for look in (False, True):
            given = {**on, "command": "true", **wrong, "dry_run": look}
            assert word in str(await refused(way, system.cron_add, given))
    await outside(host, "crontab -r", "dev")


@pytest.mark.requirement("system.rmrf", "system.dry_run")
async def test_what_is_there_goes_and_what_must_stay_is_refused(way: Way, app: App, host: Host) -> None:
    await made(
        host,
        "mkdir -p d/e ./-rf; : >d/a; : >d/e/b; : >file; ln -s /etc link; ln -s / d/root; ln -s d inner",
        ": >'$(touch hit)'",
    )
    on = await opened(way, app, host, "root")
    looked = await way.call(system.rmrf, {**on, "path": f"{FOLDER}/d", "dry_run": True})
    assert (looked["count"], sorted(looked["paths"])) == (
        3,
        sorted(f"{FOLDER}/{name}" for name in ("d", "d/a", "d/e", "d/e/b", "d/root")),
    )
    assert (await outside(host, f"ls {FOLDER}/d")).split() == ["a", "e", "root"]
    protected = [
        "/", "//", "/.", "/*", "/etc", "/etc/", "//etc", "/home", "/home/dev", "/root", "~", "~/", "~/..", "/tmp/..",
        "/tmp", "/usr/bin", "/srv/small", f"{FOLDER}/link", f"{FOLDER}/d/root", f"{FOLDER}/..", "/etc/shadow",
        "/etc/sudoers.d",
    ]  # fmt: skip
    for path in protected:
        if path == "/*":
            continue
        fault = await refused(way, system.rmrf, {**on, "path": path})
        assert fault.status in {None, 400, 403}, path
    for name in ("d", "-rf", "file", "inner", "$(touch hit)", "not there"):
        done = await way.call(system.rmrf, {**on, "path": f"{FOLDER}/{name}"})
        assert done["success"] is True
    assert (await outside(host, f"ls -A {FOLDER}; ls -d /etc /home/dev /usr/bin /etc/shadow")).split() == [
        "link", "/etc", "/etc/shadow", "/home/dev", "/usr/bin",
    ]  # fmt: skip
