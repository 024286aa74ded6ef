"""tail, head, grep and find, the same on GNU and BusyBox, with whatever names and contents files have."""

import shlex

import anyio
import pytest

from mcp_ssh.app import App
from mcp_ssh.tools import system
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault, Way
from tests.support.folder import FOLDER, made
from tests.support.machine import number, opened, outside, processes, started

# Waits until somebody has read the log, as it is called now, up to there.
HELD = """
for turn in $(seq 200); do
    for each in /proc/[0-9]*/fd/3; do
        [ "$(readlink $each)" != {log} ] || ! grep -q "^pos:[[:space:]]*{pos}$" "${{each%/fd/3}}/fdinfo/3" || exit 0
    done
    sleep 0.05
done
exit 1
"""
HARD = ["-n", "a b", "new\nline", "$(touch hit)", "`touch hit`", "qu'o\"te", "x:12:y", "*"]


@pytest.mark.requirement("system.text")
async def test_the_ends_of_a_file_are_read_through_every_door(way: Way, app: App, host: Host) -> None:
    await made(host, "seq 1 1000 >numbers", r"printf 'x\377\n' >bytes", ": >empty", "mkdir folder", "seq 1 5 >-n")
    on = await opened(way, app, host)
    last = await way.call(system.tail, {**on, "path": f"{FOLDER}/numbers", "lines": 3})
    assert last == {"path": f"{FOLDER}/numbers", "content": "998\n999\n1000\n"}
    assert (await way.call(system.head, {**on, "path": f"{FOLDER}/numbers", "lines": 2}))["content"] == "1\n2\n"
    assert (await way.call(system.tail, {**on, "path": f"{FOLDER}/empty"}))["content"] == ""
    assert (await way.call(system.tail, {**on, "path": f"{FOLDER}/bytes"}))["content"] == "x\ufffd\n"
    few = await way.call(system.tail, {**on, "path": f"{FOLDER}/numbers", "lines": 1000, "max_bytes": 256})
    assert (few["truncated"], len(few["content"]), few["content"][-5:]) == (True, 256, "1000\n")
    with pytest.raises(Fault) as missing:
        await way.call(system.tail, {**on, "path": f"{FOLDER}/none"})
    assert missing.value.status in {None, 404}
    with pytest.raises(Fault) as folder:
        await way.call(system.head, {**on, "path": f"{FOLDER}/folder"})
    assert folder.value.status in {None, 400}
    for tool in (system.head, system.tail):
        with pytest.raises(Fault) as broken:
            await way.call(tool, {**on, "path": "/proc/self/mem"})
        assert "/proc/self/mem" in str(broken.value)


@pytest.mark.requirement("system.text")
async def test_a_log_is_followed_while_it_grows_is_moved_away_and_emptied(way: Way, app: App, host: Host) -> None:
    log = f"{FOLDER}/log-{number()}"
    await made(host, f"seq 1 9 >{log}")
    on = await opened(way, app, host)
    async with anyio.create_task_group() as group:

        async def written() -> None:
            await started(host, int(log.rpartition("-")[2]))
            await outside(host, f"echo ten >>{log}; printf elev >>{log}; printf 'en\\n' >>{log}", "dev")
            await outside(host, f"mv {log} {log}.1; echo of old >>{log}.1; echo twelve >{log}", "dev")
            await outside(host, HELD.format(log=log, pos="[1-9][0-9]*"))
            await outside(host, f"echo too late >>{log}.1; : >{log}", "dev")
            await outside(host, HELD.format(log=log, pos="0"))
            await outside(host, f"echo thirteen >>{log}", "dev")

        group.start_soon(written)
        seen = await way.call(system.tail, {**on, "path": log, "lines": 2, "follow_s": 8})
    assert seen["content"] == "8\n9\nten\neleven\nof old\ntwelve\nthirteen\n"
    with anyio.fail_after(10):
        while await processes(host, log):
            await anyio.sleep(0.05)
    await outside(host, f"seq 1 100000 >>{log}", "dev")
    few = await way.call(system.tail, {**on, "path": log, "max_bytes": 256, "follow_s": 1})
    assert (few["truncated"], len(few["content"])) == (True, 256)


@pytest.mark.requirement("system.grep")
async def test_files_are_searched_through_every_door(way: Way, app: App, host: Host) -> None:
    await made(
        host,
        "printf 'one\\ntwo (2)\\nTWO\\nthree\\n' >a; mkdir sub; printf 'two\\n' >sub/b",
        r"printf 'two\0two\n' >binary; echo two >secret; chmod 000 secret",
    )
    on = await opened(way, app, host)
    where = {**on, "path": FOLDER}
    found = await way.call(system.grep, {**where, "pattern": "^two"})
    assert sorted((each["file"], each["line"], each["content"]) for each in found["matches"]) == [
        (f"{FOLDER}/a", 2, "two (2)"),
        (f"{FOLDER}/sub/b", 1, "two"),
    ]
    assert (found["count"], found["binary_files"], found["unreadable"]) == (2, [f"{FOLDER}/binary"], 1)
    cased = await way.call(system.grep, {**where, "pattern": "t(w|h)", "ignore_case": True, "path": f"{FOLDER}/a"})
    assert [each["line"] for each in cased["matches"]] == [2, 3, 4]
    fixed = await way.call(system.grep, {**where, "pattern": "two (2)", "fixed": True})
    assert [each["line"] for each in fixed["matches"]] == [2]
    around = await way.call(system.grep, {**where, "path": f"{FOLDER}/a", "pattern": "TWO", "context": 1})
    assert [(each["line"], each.get("context", False)) for each in around["matches"]] == [
        (2, True), (3, False), (4, True),
    ]  # fmt: skip
    assert around["count"] == 1
    few = await way.call(system.grep, {**where, "path": f"{FOLDER}/a", "pattern": ".", "max_results": 2})
    assert (few["count"], few["truncated"]) == (2, True)
    assert (await way.call(system.grep, {**where, "pattern": "nowhere"}))["matches"] == []
    for wrong, field in (({"pattern": "("}, "pattern"), ({"pattern": "x", "recursive": False}, "folder")):
        with pytest.raises(Fault) as refused:
            await way.call(system.grep, {**where, **wrong})
        assert refused.value.code in {"invalid_input", "none"}
        assert field in str(refused.value)


@pytest.mark.requirement("system.find")
async def test_files_are_found_by_what_they_are(way: Way, app: App, host: Host) -> None:
    await made(
        host,
        "mkdir -p sub/deep; head -c 3000 /dev/zero >large.log; head -c 1024 /dev/zero >small.log; : >sub/empty.log",
        "ln -s large.log link; touch -d '2020-01-01 00:00:00' sub/empty.log; mkdir closed; chmod 000 closed",
    )
    on = await opened(way, app, host)

    async def found(**tests: object) -> list[str]:
        told = await way.call(system.find, {**on, "path": FOLDER, **tests})
        assert told["count"] == len(told["files"])
        return sorted(path.removeprefix(f"{FOLDER}/") for path in told["files"])

    assert await found(name="*.log") == ["large.log", "small.log", "sub/empty.log"]
    assert await found(type="d") == [FOLDER, "closed", "sub", "sub/deep"]
    assert await found(type="l") == ["link"]
    assert await found(type="f", max_depth=1) == ["large.log", "small.log"]
    assert await found(type="f", size="+1k") == ["large.log"]
    assert await found(type="f", size="1k") == ["small.log"]
    assert await found(type="f", size="-1k") == ["sub/empty.log"]
    assert await found(type="f", size="3000c") == ["large.log"]
    assert await found(type="f", mtime="+365") == ["sub/empty.log"]
    assert await found(type="f", mtime="-1") == ["large.log", "small.log"]
    few = await way.call(system.find, {**on, "path": FOLDER, "max_results": 1})
    assert (few["count"], few["truncated"]) == (1, True)
    assert (await way.call(system.find, {**on, "path": FOLDER}))["unreadable"] == 1
    for wrong in ({"size": "10X"}, {"mtime": "soon"}, {"type": "x"}, {"max_depth": 0}):
        with pytest.raises(Fault):
            await found(**wrong)


@pytest.mark.requirement("system.find")
async def test_a_relative_path_stands_once_before_what_is_found(app: App, host: Host) -> None:
    await outside(host, "mkdir -p once && echo mark-once >once/a", "dev")
    way = Direct(app)
    on = await opened(way, app, host)
    top = await way.call(system.find, {**on, "max_depth": 1, "max_results": 1000})
    assert {".", "./once"} <= {*top["files"]}
    assert not [path for path in top["files"] if path.startswith("././")]
    for path in ("once", "./once"):
        assert (await way.call(system.find, {**on, "path": path, "type": "f"}))["files"] == ["./once/a"]
        found = await way.call(system.grep, {**on, "path": path, "pattern": "mark-once"})
        assert [each["file"] for each in found["matches"]] == ["./once/a"]
    await outside(host, "rm -r once", "dev")


@pytest.mark.requirement("quoting.hosts")
async def test_no_name_and_no_pattern_does_anything_but_be_looked_for(app: App, host: Host) -> None:
    names = " ".join(shlex.quote(name) for name in HARD)
    await made(host, f'for name in {names}; do printf \'%s\\n\' "text of $name" >"./$name"; done')
    way = Direct(app)
    on = await opened(way, app, host)
    for name in HARD:
        path = f"{FOLDER}/{name}"
        assert (await way.call(system.tail, {**on, "path": path}))["content"] == f"text of {name}\n"
        found = await way.call(system.grep, {**on, "path": FOLDER, "pattern": name, "fixed": True})
        assert path in {each["file"] for each in found["matches"]}
        pattern = name.replace("*", "[*]")
        assert (await way.call(system.find, {**on, "path": FOLDER, "name": pattern}))["files"] == [path]
    assert (await outside(host, f"find {FOLDER} -type f -exec printf x ';'")) == "x" * len(HARD)


@pytest.mark.requirement("system.grep", "system.find")
async def test_what_cannot_be_read_neither_ends_a_search_nor_is_the_patterns_fault(app: App, host: Host) -> None:
    odd = "odd\nname"
    await made(
        host,
        "for each in $(seq 200); do mkdir closed-$each found-$each; echo needle >found-$each/file; done",
        f"chmod 000 closed-*; echo needle >'{odd}'; chmod 000 '{odd}'",
    )
    way = Direct(app)
    where = {**await opened(way, app, host), "path": FOLDER, "max_results": 1000}
    found = await way.call(system.grep, {**where, "pattern": "needle"})
    assert (found["count"], len({each["file"] for each in found["matches"]})) == (200, 200)
    assert found["unreadable"] >= 201
    assert (await way.call(system.grep, {**where, "pattern": "no such"}))["matches"] == []
    files = await way.call(system.find, {**where, "name": "file"})
    assert (files["count"], files["unreadable"]) == (200, 200)
