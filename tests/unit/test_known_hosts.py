import base64
import re
import subprocess
import tempfile
from pathlib import Path

import asyncssh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_ssh.errors import Refused
from mcp_ssh.ssh.hostkeys import known_hosts
from mcp_ssh.ssh.hostkeys.known_hosts import Trust, fingerprint, lookup_name, parse, rewrite, rows, with_key, without
from tests.support.hostkeys import KEYS, needs_ssh_keygen


def trust_of(text: str | bytes) -> Trust:
    data = text.encode() if isinstance(text, str) else text
    return Trust(parse(data, "the file", managed=True))


def lines_for(text: str | bytes, host: str, port: int = 22) -> list[int]:
    return [entry.line for entry in trust_of(text).find(lookup_name(host, port))]


def test_plain_hashed_ported_and_wildcard_names_are_found_with_their_lines() -> None:
    hashed = base64.b64encode(b"\1" * 20).decode()
    text = (
        f"# comment\n"
        f"\n"
        f"web1,10.0.0.7 {KEYS[0]} root@web1\r\n"
        f"[web1]:2222\t{KEYS[1]}\n"
        f"|1|{hashed}|{hashed} {KEYS[2]}\n"
        f"  *.example.org,!bad.example.org   {KEYS[3]}\n"
        f"fe80::1%eth0,[2001:db8::1]:2222 {KEYS[0]}"
    )
    assert lines_for(text, "WEB1") == [3]
    assert lines_for(text, "10.0.0.7") == [3]
    assert lines_for(text, "web1", 2222) == [4]
    assert lines_for(text, "db.Example.org") == [6]
    assert lines_for(text, "bad.example.org") == []
    assert lines_for(text, "fe80::1%eth0") == [7]
    assert lines_for(text, "2001:DB8::1", 2222) == [7]
    assert lines_for(text, "2001:db8::1") == []
    assert lines_for(text, "nobody") == []


@pytest.mark.parametrize(
    "line",
    [
        b"web1",
        b"web1 ssh-ed25519",
        b"web1 ssh-ed25519 not/base64!",
        b"web1 ssh-ed25519 AAAA",
        b"web1 ssh-rsa " + KEYS[0].split()[1].encode(),  # the text says another type than the key
        b"@unknown-marker web1 " + KEYS[0].encode(),
        b"@revoked web1",
        b"web1 \xff\xfe " + KEYS[0].encode(),
        b"web1\0 " + KEYS[0].encode(),
        b"|1|broken " + KEYS[0].encode(),
        b"|2|AAAA|AAAA " + KEYS[0].encode(),
        b"#web1 " + KEYS[0].encode(),
    ],
)
def test_a_malformed_line_is_passed_over_and_kept_when_the_file_is_rewritten(line: bytes) -> None:
    text = line + b"\n" + f"web1 {KEYS[1]}\n".encode()
    assert lines_for(text, "web1") == [2]
    after = with_key(text, "web1", *KEYS[2].split())
    assert after == line + b"\n" + f"web1 {KEYS[2]}\n".encode()


def test_a_stray_carriage_return_starts_no_new_entry() -> None:
    text = f"# note\rweb1 {KEYS[0]}\nweb2 {KEYS[1]}\n"
    assert lines_for(text, "web1") == []
    assert lines_for(text, "web2") == [2]


def test_a_new_key_goes_to_the_end_and_every_other_byte_stays() -> None:
    before = (
        f"# mine\r\n\n web2,web1 {KEYS[0]} note\r\n@revoked web1 {KEYS[3]}\n*.org {KEYS[1]}\nlast {KEYS[2]}".encode()
    )
    after = with_key(before, "web1", *KEYS[1].split())
    kept = f"# mine\r\n\n web2 {KEYS[0]} note\r\n@revoked web1 {KEYS[3]}\n*.org {KEYS[1]}\nlast {KEYS[2]}\n"
    assert after.decode() == f"{kept}web1 {KEYS[1]}\n"


def test_removing_a_name_leaves_other_names_types_markers_patterns_and_negations() -> None:
    other_type = "ssh-rsa " + base64.b64encode(b"\0\0\0\x07ssh-rsa" + b"\0\0\0\x01\x03" * 2).decode()
    before = (
        f"web1 {KEYS[0]}\nweb1 {other_type}\n@cert-authority web1 {KEYS[0]}\n@revoked web1 {KEYS[0]}\n"
        f"web* {KEYS[0]}\n!web1,web? {KEYS[0]}\nweb2,WEB1,web3 {KEYS[0]}\nweb1,!web9 {KEYS[0]}\n"
    )
    assert without(before.encode(), {"web1"}, "ssh-ed25519").decode() == (
        f"web1 {other_type}\n@cert-authority web1 {KEYS[0]}\n@revoked web1 {KEYS[0]}\n"
        f"web* {KEYS[0]}\n!web1,web? {KEYS[0]}\nweb2,web3 {KEYS[0]}\n"
    )


def test_rows_show_one_name_each_and_neither_negations_nor_marked_lines() -> None:
    text = (
        f"gpu,[gpu]:2222,!not {KEYS[0]} me@home\n@revoked gpu {KEYS[1]}\n@cert-authority * {KEYS[2]}\n"
        f"|1|AAAA|BBBB {KEYS[3]}\n[gpu]:99999 {KEYS[3]}\n"
    )
    shown = [(row.host, row.port, row.known_hosts_host) for row in rows(parse(text.encode(), "", managed=True))]
    assert shown == [
        ("gpu", 22, "gpu"),
        ("gpu", 2222, "[gpu]:2222"),
        ("|1|AAAA|BBBB", 22, "|1|AAAA|BBBB"),
        ("[gpu]:99999", 22, "[gpu]:99999"),
    ]


def test_the_bare_name_can_trust_a_key_of_another_port_but_never_make_it_changed() -> None:
    trust = trust_of(f"web1 {KEYS[0]}\n@revoked web1 {KEYS[3]}\n").about("web1", 2222)
    blobs = [base64.b64decode(key.split()[1]) for key in KEYS]
    assert trust.judge("ssh-ed25519", blobs[0])[0] == "trusted"
    assert trust.judge("ssh-ed25519", blobs[1]) == ("unknown", [])
    assert trust.judge("ssh-ed25519", blobs[3])[0] == "revoked"


def test_revocation_outweighs_trust_and_any_equal_key_outweighs_a_different_one() -> None:
    blobs = [base64.b64decode(key.split()[1]) for key in KEYS]
    trust = trust_of(f"web1 {KEYS[0]}\nweb1 {KEYS[1]}\n@revoked * {KEYS[1]}\n").about("web1", 22)
    assert trust.judge("ssh-ed25519", blobs[0])[0] == "trusted"
    verdict, evidence = trust.judge("ssh-ed25519", blobs[1])
    assert (verdict, [entry.line for entry in evidence]) == ("revoked", [3])
    verdict, evidence = trust.judge("ssh-ed25519", blobs[2])
    assert (verdict, [entry.line for entry in evidence]) == ("changed", [1, 2])


def test_a_pattern_of_many_stars_is_matched_without_running_away() -> None:
    assert not known_hosts.pattern_matches("*a" * 200 + "b", "a" * 255)
    assert known_hosts.pattern_matches("*a" * 200 + "*", "a" * 255)


NAMES = ["web1", "web2", "db.example.org", "a.b.example.org", "10.0.0.7", "2001:db8::1", "x"]
PATTERNS = [
    *NAMES,
    "*",
    "*.example.org",
    "web?",
    "10.0.0.*",
    "WEB1",
    "Db.Example.Org",
    "10.0.0.0/8",
    "*:2222",
    "[*]:2222",
]
PORTS = [22, 2222, 443]

name_tokens = st.builds(
    lambda negated, name, port: ("!" if negated else "") + (name if port == 22 else f"[{name}]:{port}"),
    st.sampled_from([False, False, False, True]),
    st.sampled_from(PATTERNS),
    st.sampled_from(PORTS),
)
entry_lines = st.builds(
    lambda marker, names, gap, key, comment, end: f"{marker}{','.join(names)}{gap}{key}{comment}{end}",
    st.sampled_from(["", "", "", "@revoked ", "@cert-authority "]),
    st.lists(name_tokens, min_size=1, max_size=3),
    st.sampled_from([" ", "\t", "  "]),
    st.sampled_from(KEYS),
    st.sampled_from(["", " me@home", " # note"]),
    st.sampled_from(["\n", "\n", "\r\n"]),
)
# No line with a key that is none: `ssh-keygen -F` looks at names alone, and shows it.
junk_lines = st.sampled_from(["\n", "# web1\n", "web1\n", f"@other web1 {KEYS[0]}\n", "   \n"])
files = st.lists(st.one_of(entry_lines, entry_lines, entry_lines, junk_lines), max_size=6).map("".join)


@needs_ssh_keygen
@settings(max_examples=120, deadline=None)
@given(text=files, host=st.sampled_from(NAMES), port=st.sampled_from(PORTS), hashed=st.booleans())
def test_ssh_keygen_finds_the_same_lines(text: str, host: str, port: int, *, hashed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "known_hosts")
        path.write_bytes(text.encode())
        if hashed:
            subprocess.run(["ssh-keygen", "-H", "-f", path], capture_output=True, check=False)
        name = lookup_name(host, port)
        found = subprocess.run(["ssh-keygen", "-F", name, "-f", path], capture_output=True, text=True, check=False)
        theirs = [int(line) for line in re.findall(r"^# Host .* found: line (\d+)", found.stdout, re.MULTILINE)]
        assert lines_for(path.read_bytes(), host, port) == theirs


literal_lines = st.builds(
    lambda marker, name, port, key: f"{marker}{name if port == 22 else f'[{name}]:{port}'} {key}\n",
    st.sampled_from(["", "", "", "@revoked ", "@cert-authority "]),
    st.sampled_from(NAMES),
    st.sampled_from(PORTS),
    st.sampled_from(KEYS),
)


@needs_ssh_keygen
@settings(max_examples=60, deadline=None)
@given(
    text=st.lists(literal_lines, min_size=1, max_size=6).map("".join),
    host=st.sampled_from(NAMES),
    port=st.sampled_from(PORTS),
    hashed=st.booleans(),
)
def test_ssh_keygen_removes_the_same_lines(text: str, host: str, port: int, *, hashed: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "known_hosts")
        path.write_bytes(text.encode())
        if hashed:
            subprocess.run(["ssh-keygen", "-H", "-f", path], capture_output=True, check=False)
        before = path.read_bytes()
        name = lookup_name(host, port)
        subprocess.run(["ssh-keygen", "-R", name, "-f", path], capture_output=True, check=False)

        def left(data: bytes) -> list[tuple[str, str, str]]:
            return [(entry.marker, entry.names, entry.key_base64) for entry in parse(data, "", managed=True)]

        assert left(without(before, {name}, "ssh-ed25519")) == left(path.read_bytes())


# What asyncssh reads otherwise than OpenSSH is left out: upper case, networks, and lines that are no entries.
SHARED = [name for name in PATTERNS if name.islower() or not any(map(str.isalpha, name))]
shared_lines = st.builds(
    lambda marker, names, key: f"{marker}{','.join(names)} {key}\n",
    st.sampled_from(["", "", "@revoked ", "@cert-authority "]),
    st.lists(
        st.builds(
            lambda negated, name, port: ("!" if negated else "") + (name if port == 22 else f"[{name}]:{port}"),
            st.sampled_from([False, False, True]),
            st.sampled_from([name for name in SHARED if "/" not in name]),
            st.sampled_from(PORTS),
        ),
        min_size=1,
        max_size=3,
    ),
    st.sampled_from(KEYS),
)


@given(text=st.lists(shared_lines, max_size=6).map("".join), host=st.sampled_from(NAMES), port=st.sampled_from(PORTS))
def test_asyncssh_reads_the_same_keys_out_of_a_file(text: str, host: str, port: int) -> None:
    name = lookup_name(host, port)
    # Given as a host, the name is looked up as it is: without the second look at the bare name, which is our own.
    theirs = asyncssh.import_known_hosts(text).match(name, "", None)[:3]
    ours = [
        {entry.blob for entry in trust_of(text).find(name) if entry.marker == marker}
        for marker in ("", "@cert-authority", "@revoked")
    ]
    assert ours == [{key.public_data for key in keys} for keys in theirs]


@given(data=st.binary(max_size=200), host=st.sampled_from(NAMES))
def test_any_bytes_are_read_and_kept(data: bytes, host: str) -> None:
    trust_of(data).find(host)
    list(rows(parse(data, "", managed=True)))
    assert with_key(data, host, *KEYS[0].split()).startswith(data)
    assert without(data, {host}, "ssh-ed25519") == data


@needs_ssh_keygen
def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    path = tmp_path / "key.pub"
    path.write_text(KEYS[0] + "\n")
    shown = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout.split()[1]
    assert fingerprint(base64.b64decode(KEYS[0].split()[1])) == shown


def test_a_file_is_written_with_its_folder_private_and_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "known_hosts"
    assert rewrite(path, "it", lambda data: data + b"one\n")
    assert (path.read_bytes(), path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (
        b"one\n",
        0o600,
        0o700,
    )
    path.chmod(0o644)
    assert rewrite(path, "it", lambda data: data + b"two\n")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"one\ntwo\n", 0o600)
    assert sorted(each.name for each in path.parent.iterdir()) == ["known_hosts", "known_hosts.lock"]


def test_what_a_crashed_writer_left_behind_is_overwritten_and_lends_no_rights(tmp_path: Path) -> None:
    path, left = tmp_path / "known_hosts", tmp_path / "known_hosts.new"
    left.write_bytes(b"half of something longer\n")
    left.chmod(0o666)
    rewrite(path, "it", lambda data: data + b"one\n")
    assert (path.read_bytes(), path.stat().st_mode & 0o777, left.exists()) == (b"one\n", 0o600, False)


def test_a_change_that_fails_leaves_the_file_and_the_lock_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(b"one\n")

    def failing(data: bytes) -> bytes:
        raise KeyError(data)

    with pytest.raises(KeyError):
        rewrite(path, "it", failing)
    assert not rewrite(path, "it", lambda data: data)
    assert path.read_bytes() == b"one\n"


def test_a_symbolic_link_is_followed_and_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles", tmp_path / "known_hosts"
    real.write_bytes(b"one\n")
    link.symlink_to(real)
    rewrite(link, "it", lambda data: data + b"two\n")
    assert link.is_symlink()
    assert real.read_bytes() == b"one\ntwo\n"


def test_a_device_is_an_empty_file_and_a_folder_or_a_giant_is_none(tmp_path: Path) -> None:
    assert known_hosts.read(Path("/dev/null"), "it") == b""
    assert known_hosts.read(tmp_path / "missing", "it") == b""
    giant = tmp_path / "giant"
    with giant.open("wb") as file:
        file.truncate(known_hosts.MAX_FILE_BYTES + 1)
    with pytest.raises(Refused, match="larger than 16 MiB"):
        known_hosts.read(giant, "it")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(Refused, match="it cannot be read"):
        known_hosts.read(loop, "it")
