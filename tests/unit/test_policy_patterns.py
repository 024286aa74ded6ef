"""What patterns of hosts, commands and paths let pass: decided by rules, and shown against real shells."""

import json
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mcp_ssh.config.models import HostRule, SecurityConfig
from mcp_ssh.host_patterns import Machine, admits, matches, restricts
from mcp_ssh.linux.files.protected_paths import OPEN, add_protection, is_protected
from mcp_ssh.policy.commands import MAX_LINE, allows, denied_by, denied_program, plain_words
from mcp_ssh.policy.rules import rules_for
from mcp_ssh.shell_command import script

# ---- hosts -------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("policy.hosts")
@pytest.mark.parametrize(
    ("host", "patterns", "fits"),
    [
        ("web1.example.org", ["*.example.org"], True),
        ("WEB1.Example.ORG.", ["*.example.org"], True),
        ("example.org", ["*.example.org"], False),
        ("web1.example.org.evil.net", ["*.example.org"], False),
        ("evil-example.org", ["*.example.org"], False),
        ("web1", ["web?"], True),
        ("web10", ["web?"], False),
        ("web1", ["web[12]"], False),
        ("db1", ["*", "!db*"], False),
        ("web1", ["*", "!db*"], True),
        ("web1", ["!db*"], False),
        ("10.1.2.3", ["10.1.2.*"], True),
        ("[fd77:0:0:0::11]", ["fd77::11"], True),
        ("::ffff:10.1.2.3", ["10.1.2.3"], True),
        ("web1", [], False),
    ],
)
def test_a_host_fits_or_does_not(host: str, patterns: list[str], fits: bool) -> None:
    assert matches(host, patterns) is fits


@pytest.mark.requirement("policy.hosts")
def test_an_exception_counts_for_a_machine_by_any_of_its_names() -> None:
    for judge in (admits, restricts):
        assert judge(Machine.of(["web", "web1.example.org"]), ["*.example.org"])
        assert not judge(Machine.of(["web", "db.example.org"]), ["web", "!db*"])


# ---- allowed commands --------------------------------------------------------------------------------------------


@pytest.mark.requirement("policy.commands")
@pytest.mark.parametrize(
    ("line", "pattern", "passes"),
    [
        ("systemctl status nginx", "systemctl status *", True),
        ("systemctl status", "systemctl status *", True),
        ("systemctl  'status' nginx", "systemctl status *", True),
        ("systemctl status nginx; id", "systemctl status *", False),
        ("systemctl status nginx & id", "systemctl status *", False),
        ("systemctl status nginx\nid", "systemctl status *", False),
        ("systemctl status $(id)", "systemctl status *", False),
        ("systemctl status '`id`'", "systemctl status *", False),
        ("systemctl status > /etc/x", "systemctl status *", False),
        ("systemctl status \\; id", "systemctl status *", False),
        ("systemctl status\tnginx", "systemctl status *", False),
        ("PATH=/tmp systemctl status", "systemctl status *", False),
        ("systemctl start nginx", "systemctl status *", False),
        ("/tmp/systemctl status", "systemctl status *", False),
        ("restart # nginx", "restart * nginx", False),
        ("cat /var/log/syslog", "cat /var/log/*", True),
        ("cat /var/log/a /etc/shadow", "cat /var/log/*", False),
        ("cat /var/log/../../etc/shadow", "cat /var/log/*", False),
        ("cat /var/log/.?/x", "cat /var/log/*", False),
        ("cat /var/log/{.,}./x", "cat /var/log/*", False),
        ("'cat /var/log/x'", "cat /var/log/*", False),
        ("df -h | sort", "df -h | sort", True),
        ("df -h | sort ", "df -h | sort", False),
        ("df -h; sort", "df -h | sort", False),
        ("cd /srv && make", "cd /srv && make", True),
        ("", "*", False),
        ("echo 'open", "*", False),
        ("uptime", "*", True),
        ("uptime", "uptime now", False),
    ],
)
def test_a_line_is_on_the_list_or_is_not(line: str, pattern: str, passes: bool) -> None:
    assert allows(line, [pattern]) is passes


@pytest.mark.requirement("policy.commands")
@given(st.text(st.sampled_from(list("abx ;&|<>()$`\\\"'\n\t#*?[]{}!~=/.-")), max_size=24))
def test_what_counts_as_plain_means_to_a_real_shell_just_its_words(text: str) -> None:
    words = plain_words(f"w {text}")
    if words is None:
        return
    told = subprocess.run(
        ["/bin/sh", "-c", f"w() {{ printf '%s\\0' w \"$@\"; }}\nw {text}"], capture_output=True, check=True, cwd="/"
    )
    assert told.stdout.decode() == "".join(f"{each}\0" for each in words)


@pytest.mark.requirement("fault.S13.words")
@pytest.mark.parametrize("word", ["~", "~+", "~-", "~root", "a=~", "x:~", "=id", "'=id'", "^", "^a^b", "a^"])
def test_a_word_that_some_shell_expands_is_not_plain(word: str) -> None:
    line = f"cat {word}"
    assert plain_words(line) is None
    assert not allows(line, ["cat *"])
    assert allows(line, [line])  # letter by letter, the owner said so
    assert allows("cat a=id", ["cat *"])


@pytest.mark.requirement("policy.commands")
@given(st.lists(st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=6)))
def test_a_wildcard_never_stands_for_a_second_command(words: list[str]) -> None:
    line = "uptime " + " ".join(words)
    if allows(line, ["uptime *"]):
        assert not set(line) & set(";&|<>()$`\n\\")
        assert shlex.split(line)[0] == "uptime"


# ---- denied commands ---------------------------------------------------------------------------------------------


@pytest.mark.requirement("policy.commands")
@pytest.mark.parametrize(
    "line",
    [
        "rm -rf /srv",
        "rm",
        "  rm x",
        "/bin/rm x",
        "'rm' x",
        "true; rm x",
        "true && rm x",
        "true || rm x",
        "true | rm x",
        "true & rm x",
        "true\nrm x",
        "(rm x)",
        "{ rm x; }",
        "if true; then rm x; fi",
        "! rm x",
        "A=1 B=2 rm x",
        "</dev/null rm x",
        "$(rm x)",
        "`rm x`",
        'echo "$(rm x)"',
        "cat <(rm x)",
        "sudo rm x",
        "sudo -u root -- /usr/bin/rm x",
        "env A=1 nohup nice -n 5 rm x",
        "sh -c 'rm x'",
        "bash -ec \"cd / && bash -c 'rm x'\"",
        "eval 'true; rm x'",
        "su -c 'rm x' dev",
        "echo x | xargs rm",
        "find . -name x -exec rm {} +",
        "timeout 5 rm x",
        "cat <<E\nrm x\nE",
        "busybox rm x",
        "rm\\\n x",
        "echo 'an open quote; rm x",
    ],
)
def test_a_denied_command_is_found_in_plain_sight(line: str) -> None:
    assert denied_by(line, ["reboot", "rm *"]) == "rm *"


@pytest.mark.requirement("policy.commands")
@pytest.mark.parametrize("line", ["echo rm x", "grep rm file", "echo 'do not rm x'", "rmdir x", "ls /bin/rm"])
def test_what_only_names_a_denied_command_passes(line: str) -> None:
    assert denied_by(line, ["rm *"]) is None


@pytest.mark.requirement("policy.commands")
@pytest.mark.parametrize(
    "line", ["r''m x", "$(printf r)m x", "python3 -c 'import os'", "echo cm0geA== | base64 -d | sh"]
)
def test_a_deny_list_is_a_net_and_no_wall_as_the_documentation_says(line: str) -> None:
    found = denied_by(line, ["rm *"])
    assert found is None or line == "r''m x"  # quotes within a word are seen through; what is computed is not


@pytest.mark.requirement("policy.commands")
@pytest.mark.parametrize("line", ["echo [ab]", "echo  [ab]", 'sh -c "echo [ab]"'])
def test_brackets_in_a_pattern_stand_for_themselves_however_the_line_is_written(line: str) -> None:
    """The negative control: the same line with a letter that a set of letters would fit."""
    assert denied_by(line, ["echo [ab]"]) == "echo [ab]"
    assert denied_by(line.replace("[ab]", "a"), ["echo [ab]"]) is None


@pytest.mark.requirement("policy.commands")
def test_a_denied_pattern_may_name_the_whole_line() -> None:
    assert denied_by("curl http://x | sh", ["curl * | sh"]) == "curl * | sh"
    assert denied_by("mkfs.ext4 /dev/sda", ["mkfs*"]) == "mkfs*"


PAGE = Path(__file__).parents[2] / "docs/policy.md"


@pytest.mark.requirement("fault.N4")
@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("reboot", "reboot"),
        ("reboot -f", "reboot"),
        ("sudo -n /sbin/reboot --force", "reboot"),
        ("sh -c 'sleep 5; reboot -f'", "reboot"),
        ("mkfs.ext4 -F /dev/sda", "mkfs*"),
        ("reboot", 'reboot ""'),
        ("rm -rf /srv", "rm -rf *"),
        ("rm -fr /srv", "rm -rf *"),
        ("rm -r -f /srv", "rm -rf *"),
        ("rm -f -v -r /srv", "rm -rf *"),
        ("rm -rvf -- /srv", "rm -rf *"),
        ("rm /srv -rf", "rm -rf *"),
        ("sudo rm -fr --no-preserve-root /", "rm -rf /"),
        ("xargs rm -fr", "rm -rf *"),
        ("kill -9 1", "kill -9 *"),
        ("tar -zxf x.tar", "tar -x -f *"),
        ("find / -delete", "find * -delete"),
    ],
)
def test_a_deny_pattern_finds_the_program_and_its_options_however_they_are_written(line: str, pattern: str) -> None:
    assert denied_by(line, [pattern]) == pattern


@pytest.mark.requirement("fault.N4")
@pytest.mark.parametrize(
    ("line", "pattern"),
    [
        ("rm -r /srv", "rm -rf *"),
        ("rm -f /srv/file", "rm -rf *"),
        ("rm -- -rf", "rm -rf *"),
        ("rmdir -rf x", "rm -rf *"),
        ("rm -rf /srv/old", "rm -rf /"),
        ("echo reboot -f", "reboot"),
        ("rebootctl status", "reboot"),
        ("reboot -f", 'reboot ""'),
        ("kill -15 1", "kill -9 *"),
        ("systemctl status nginx", "systemctl stop *"),
    ],
)
def test_the_harmless_neighbour_of_a_denied_command_passes(line: str, pattern: str) -> None:
    assert denied_by(line, [pattern]) is None


@pytest.mark.requirement("fault.N4")
def test_options_that_are_words_are_no_set_of_letters() -> None:
    assert denied_program(["openssl", "genrsa", "-out", "x"], ["openssl * -to *"]) is None
    assert denied_program(["find", "/srv", "-executable"], ["find * -exec *"]) is None
    assert denied_program(["find", "/srv", "-exec", "rm"], ["find * -exec *"]) == "find * -exec *"


@pytest.mark.requirement("fault.N4")
def test_the_pattern_of_an_allow_list_still_allows_no_more_than_it_says() -> None:
    assert not allows("reboot -f", ["reboot"])
    assert not allows("rm -fr x", ["rm -rf *"])


@pytest.mark.requirement("fault.N4")
def test_the_example_of_the_readme_denies_what_it_means() -> None:
    [example] = re.findall(r'\{"security": \{"hosts": .*?\n  \]\}\}', PAGE.read_text("utf-8"), re.DOTALL)
    rules = rules_for(["web1"], SecurityConfig.model_validate(json.loads(example)["security"]))
    for line in ("reboot -f", "/sbin/reboot", "mkfs.xfs /dev/sdb", "rm -fr /", "rm -r -f /srv/data"):
        assert denied_by(line, rules.denied), line
    for line in ("rm -r /tmp/x", "systemctl status nginx", "last reboot"):
        assert denied_by(line, rules.denied) is None, line


@pytest.mark.requirement("fault.N4")
def test_the_work_for_a_line_of_many_words_does_not_grow_faster_than_before() -> None:
    """Every word behind `sudo` may begin a command, and each of these commands has options to look for."""
    took = list[float]()
    for pattern in ("rm *x*", "rm -rf *"):
        began = time.process_time()
        assert denied_by("sudo " + "rm " * ((MAX_LINE - 5) // 3), [pattern]) is None
        took.append(time.process_time() - began)
    assert took[1] < 10 * took[0] + 0.1


# ---- config ------------------------------------------------------------------------------------------------------


@pytest.mark.requirement("policy.commands")
def test_entries_add_up_and_take_away_only() -> None:
    security = SecurityConfig(
        hosts=[
            HostRule(hosts=["*"], deny_commands=["reboot"]),
            HostRule(hosts=["prod-*"], read_only=True, protected_paths=["/srv/data"]),
            HostRule(hosts=["10.0.0.*"], allow_commands=["uptime"]),
        ],
        protected_paths=["/etc/shadow"],
    )
    assert not rules_for(["lab"], security).read_only
    prod = rules_for(["web", "prod-1", "10.0.0.7"], security)
    assert (prod.read_only, prod.denied, prod.allow_lists) == (True, ("reboot",), (("uptime",),))
    assert prod.protected == ("/etc/shadow", "/srv/data")


@pytest.mark.parametrize(
    "wrong",
    [
        {"hosts": []},
        {"hosts": ["*"], "allow_commands": [""]},
        {"hosts": ["*"], "deny_commands": ["echo 'x"]},
        {"hosts": ["*"], "protected_paths": ["etc/shadow"]},
        {"hosts": ["*"], "protected_paths": ["/"]},
        {"hosts": ["*"], "protected_paths": ["/a\nb"]},
    ],
)
def test_a_pattern_that_can_mean_nothing_is_refused_at_start(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        HostRule.model_validate(wrong)


# ---- paths -------------------------------------------------------------------------------------------------------

SIGNS = st.text(st.sampled_from(list("ab/*?[]'\"$`;&|() .!#~-{}")), max_size=8)


@pytest.mark.requirement("policy.paths")
@given(st.lists(SIGNS.map(lambda text: f"/{text}x"), min_size=1, max_size=3), st.data())
def test_the_machine_and_we_judge_a_path_alike_and_no_pattern_is_code(patterns: list[str], data: st.DataObject) -> None:
    wild = data.draw(st.sampled_from(patterns))
    path = data.draw(st.sampled_from([wild, wild.replace("*", "q/r").replace("?", "s"), f"{wild}/in", "/other"]))
    command = add_protection(script(f'{OPEN}\nif protected "$1"; then echo yes; else echo no; fi', [path]), patterns)
    for shell in ("/bin/sh", "/bin/bash"):
        told = subprocess.run([shell, *command.argv[1:]], capture_output=True, check=True, cwd="/")
        assert told.stderr == b""
        assert told.stdout == (b"yes\n" if is_protected(path.encode(), patterns) else b"no\n")


@pytest.mark.requirement("policy.paths")
def test_what_is_in_a_folder_or_would_land_there_is_found(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "etc/.ssh").mkdir(parents=True)
    (source / "etc/shadow").touch()
    patterns = ["/etc/shadow", "*/.ssh/authorized_keys"]

    def says(question: str, *arguments: str) -> bool:
        command = add_protection(script(f"{OPEN}\n{question}", arguments), patterns)
        return subprocess.run(command.argv, check=False).returncode == 0

    assert says('covers "$1"', "/etc")
    assert says('covers "$1"', "/")
    assert not says('covers "$1"', "/etc/shadow")
    assert not says('covers "$1"', str(source))
    assert says('lands "$1" "$2"', str(source), "/")
    assert says('lands "$1" "$2"', str(source / "etc"), "/etc")
    assert not says('lands "$1" "$2"', str(source), "/srv")
    (source / "etc/.ssh/authorized_keys").touch()
    assert says('covers "$1"', str(source))
    assert says('lands "$1" "$2"', str(source), "/srv")
    assert not says('protected "$1"', "/etc/shadow-")
