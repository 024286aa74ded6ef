"""What machines say of themselves, however odd: dead mounts, hidden processes, aliases, other crons, patterns."""

import base64
from shlex import quote

import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import session, system
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault, Way
from tests.support.machine import login, outside, trust


async def opened(way: Way, app: App, host: Host, user: str = "dev") -> dict[str, str]:
    await trust(app, host)
    return {"session_id": (await way.call(session.connect, login(host, user)))["session_id"]}


async def stand_in(host: Host, program: str, text: str) -> None:
    """Put a program of ours before the machine's own."""
    encoded = base64.b64encode(text.encode()).decode()
    path = f"/usr/local/bin/{program}"
    await outside(host, f"mkdir -p /usr/local/bin; echo {encoded} | base64 -d >{path}; chmod 755 {path}")


SILENT = """#!/bin/sh
for last; do :; done
case $last in
    /srv/small) exec sleep 600 ;;
    /*) exec {real} "$@" ;;
    *) exec sleep 600 ;;
esac
"""


@pytest.mark.requirement("fault.R8")
async def test_a_file_system_that_does_not_answer_is_named_and_the_others_are_told(app: App, every: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, every)
    real = (await outside(every, "command -v df")).strip()
    await stand_in(every, "df", SILENT.format(real=real))
    try:
        found = await way.call(system.disk, on)
        assert found["unanswered"] == ["/srv/small"]
        assert "/" in {each["mount"] for each in found["disks"]}
        left = await outside(every, "grep -l -a '^sleep.600' /proc/[0-9]*/cmdline 2>/dev/null; true")
        assert not left.strip()
    finally:
        await outside(every, "rm -f /usr/local/bin/df")
    assert not {"unanswered", "errors", "truncated"} & (await way.call(system.disk, on)).keys()


@pytest.mark.requirement("fault.R8")
async def test_what_df_complains_of_is_in_the_result(app: App, host: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, host)
    real = (await outside(host, "command -v df")).strip()
    complaint = "df: /mnt/dead: Stale file handle"
    await stand_in(host, "df", f'#!/bin/sh\necho "{complaint}" >&2\n{real} "$@"\nexit 1\n')
    try:
        found = await way.call(system.disk, on)
        assert found["errors"] == [complaint]
        assert "/" in {each["mount"] for each in found["disks"]}
    finally:
        await outside(host, "rm -f /usr/local/bin/df")


@pytest.mark.requirement("fault.R1")
async def test_a_process_whose_name_holds_a_newline_is_listed(app: App, every: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, every)
    # A shell that gives itself the name, and then waits for a line that does not come.
    # BusyBox's printf writes line by line, and each write is a new name.
    odd = "name=$(printf 'x\\n1 (b) R'); echo \"$name\" >/proc/$$/comm; echo $$ >/tmp/odd; read line </tmp/hold"
    await outside(every, f"rm -f /tmp/hold /tmp/odd; mkfifo /tmp/hold; sh -c {quote(odd)} >/dev/null 2>&1 &")
    try:
        pid = int(await outside(every, "until [ -s /tmp/odd ]; do sleep 0.05; done; cat /tmp/odd"))
        assert "(x\n1 (b) R" in await outside(every, f"cat /proc/{pid}/stat")
        found = {each["pid"]: each for each in (await way.call(system.processes, on))["processes"]}
        assert "read line" in found[pid]["command"]
        assert found[pid]["user"] == "root"
        assert found[1]["ppid"] == 0
    finally:
        await outside(every, "kill $(cat /tmp/odd); rm -f /tmp/hold /tmp/odd")


@pytest.mark.requirement("fault.R14")
async def test_an_address_with_a_peer_is_told_with_its_prefix(app: App, host: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, host)
    await outside(
        host, "ip link add peered0 type veth peer name peered1; ip addr add 10.98.0.1 peer 10.98.0.2/24 dev peered0"
    )
    try:
        found = {each["name"]: each for each in (await way.call(system.network, on))["interfaces"]}
        assert found["peered0"]["addresses"] == ["10.98.0.1/24"]
    finally:
        await outside(host, "ip link del peered0")


@pytest.mark.requirement("fault.R14")
async def test_without_ip_and_ifconfig_addresses_come_from_the_kernel(app: App, host: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, host, "root")
    folders = "for folder in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin"
    each = f"{folders}; do for name in ip ifconfig; do file=$folder/$name"
    await outside(host, f"{each}; [ ! -e $file ] || mv $file $file.away; done; done")
    try:
        told = await way.call(system.network, on)
    finally:
        await outside(host, f"{each}; [ ! -e $file.away ] || mv $file.away $file; done; done")
    found = {each["name"]: each for each in told["interfaces"]}
    assert {f"{host.ip}/24", f"{host.ip6}/64"} <= set(found["eth0"]["addresses"])
    assert "neither ip nor ifconfig" in told["note"]


@pytest.mark.requirement("fault.R15")
async def test_schedules_that_the_machines_cron_takes_are_installed(app: App, host: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, host)
    try:
        for schedule in ("0~59 3 * * *", "0 0 * * sat-sun"):
            added = await way.call(system.cron_add, {**on, "schedule": schedule, "command": "true"})
            assert added["changed"]
            assert f"{schedule} true" in await outside(host, "crontab -l -u dev")
    finally:
        await outside(host, "crontab -r -u dev")


HEADED = r"""#!/bin/sh
table=/tmp/headed.$(id -un)
case $1 in
    -l) [ ! -f "$table" ] || cat "$table" ;;
    -) { printf '# DO NOT EDIT THIS FILE - edit the master and reinstall.\n# (/tmp/crontab.1 installed on Mon)\n'
         printf '# (Cronie version 4.2)\n'; cat; } >"$table.new"; mv "$table.new" "$table" ;;
esac
"""


@pytest.mark.requirement("fault.R15")
async def test_the_head_that_a_cron_prints_is_not_written_once_more_at_each_change(app: App, host: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, host)
    await stand_in(host, "crontab", HEADED)
    try:
        for job in ("one", "two", "three"):
            await way.call(system.cron_add, {**on, "schedule": "@daily", "command": job})
        table = await outside(host, "cat /tmp/headed.dev")
        assert table.count("DO NOT EDIT") == 1
        assert [line for line in table.splitlines() if not line.startswith("#")] == [
            "@daily one", "@daily two", "@daily three",
        ]  # fmt: skip
        assert len(table.splitlines()) == 6
    finally:
        await outside(host, "rm -f /usr/local/bin/crontab /tmp/headed.dev")


@pytest.mark.requirement("fault.R9a")
async def test_a_pattern_of_perl_finds_the_same_on_every_machine(app: App, every: Host) -> None:
    way = Direct(app)
    on = await opened(way, app, every)
    await outside(every, "printf '2024 error one\\nfoo\\tbar\\nddd\\n' >/tmp/patterns; chmod 644 /tmp/patterns")
    try:
        for pattern, lines in (
            (r"\d+", ["2024 error one"]),
            (r"^\w+\t\w+$", ["foo\tbar"]),
            (r"[\d]", ["2024 error one"]),
        ):
            found = await way.call(system.grep, {**on, "path": "/tmp/patterns", "pattern": pattern})
            assert [each["content"] for each in found["matches"]] == lines, pattern
        with pytest.raises(Fault, match="every grep"):
            await way.call(system.grep, {**on, "path": "/tmp/patterns", "pattern": r"(d)\1"})
    finally:
        await outside(every, "rm -f /tmp/patterns")


@pytest.mark.requirement("fault.R18.fifo")
@pytest.mark.parametrize("kind", ["zip", "tar"])
async def test_what_an_archive_leaves_out_is_said(app: App, deb: Host, kind: str) -> None:
    way, host = Direct(app), deb
    on = await opened(way, app, host)
    await outside(
        host, "mkdir -p /tmp/left/in; echo x >/tmp/left/in/file; mkfifo /tmp/left/in/pipe; chown -R dev /tmp/left"
    )
    try:
        made = await way.call(
            system.archive, {**on, "source": "/tmp/left/in", "destination": f"/tmp/left/out.{kind}", "format": kind}
        )
        assert made["success"], made["error"]
        if kind == "zip":
            assert "/tmp/left/in/pipe" in made["warning"]
        else:
            assert "warning" not in made
            assert "in/pipe" in await outside(host, "tar -tf /tmp/left/out.tar")
    finally:
        await outside(host, "rm -rf /tmp/left")
