"""Small package repositories, one a kind of package manager, so that hosts install, upgrade and fail without a network.

Each holds `hello-fleet` in two versions, `app-fleet` that needs `libfleet`, and `broken-fleet`, whose script fails at
its installation. They are made with the real tools of each family, at build time, into a layer of their own.
"""

import contextlib
import shutil
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

Run = Callable[..., str]
Overlay = Callable[[Path, Path, list[Path]], AbstractContextManager[Path]]

TOOLS = {  # command: the Debian package that has it, needed to build
    "rpmbuild": "rpm",
    "createrepo_c": "createrepo-c",
    "dpkg-scanpackages": "dpkg-dev",
    "bsdtar": "libarchive-tools",
}


@dataclass(frozen=True)
class Package:
    """One package: a program that prints its name and version."""

    name: str
    version: str
    needs: str = ""
    fails: bool = False


PACKAGES = (
    Package("hello-fleet", "1.0"),
    Package("hello-fleet", "2.0"),
    Package("libfleet", "1.0"),
    Package("app-fleet", "1.0", needs="libfleet"),
    Package("broken-fleet", "1.0", fails=True),
)
FAILING = "echo this package fails on purpose >&2; exit 1\n"


def payload(work: Path, package: Package) -> Path:
    """The files of a package, in a fresh folder."""
    root = work / "payload"
    shutil.rmtree(root, ignore_errors=True)
    program = root / "usr/bin" / package.name
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\necho {package.name} {package.version}\n")
    program.chmod(0o755)
    return root


def make_deb(target: Path, work: Path, run: Run) -> None:
    target.mkdir(parents=True)
    for package in PACKAGES:
        root = payload(work, package)
        control = root / "DEBIAN"
        control.mkdir()
        needs = f"Depends: {package.needs}\n" if package.needs else ""
        (control / "control").write_text(
            f"Package: {package.name}\nVersion: {package.version}-1\nArchitecture: all\n"
            f"Maintainer: fleet <fleet@localhost>\n{needs}Description: {package.name}, a package for tests\n"
        )
        if package.fails:
            (control / "postinst").write_text(f"#!/bin/sh\n{FAILING}")
            (control / "postinst").chmod(0o755)
        file = target / f"{package.name}_{package.version}-1_all.deb"
        run("dpkg-deb", "-Znone", "--root-owner-group", "--build", root, file)
    run("sh", "-c", "dpkg-scanpackages --multiversion . >Packages 2>/dev/null", cwd=target)


_SPEC = """Name: {name}
Version: {version}
Release: 1
Summary: {name}, a package for tests
License: MIT
BuildArch: noarch
AutoReqProv: no
{needs}
%description
{name}, a package for tests
%install
mkdir -p %{{buildroot}}; cp -a {root}/. %{{buildroot}}/
%files
/usr/bin/{name}
{script}
"""
# What the packages of a real release provide: dnf asks which release this is, and scripts need a shell.
_RELEASE_SPEC = """Name: rocky-release
Version: 9.4
Release: 1
Summary: what the base system provides
License: MIT
BuildArch: noarch
Provides: system-release = 9.4
Provides: system-release(releasever) = 9
Provides: redhat-release = 9.4
Provides: /bin/sh
%description
What the base system provides
%files
"""
RELEASE = "rocky-release-9.4-1.noarch.rpm"


def make_rpm(target: Path, work: Path, run: Run) -> None:
    target.mkdir(parents=True)
    specs = [("rocky-release", _RELEASE_SPEC)]
    for package in PACKAGES:
        root = work / "rpm-payloads" / f"{package.name}-{package.version}"
        root.parent.mkdir(exist_ok=True)
        payload(work, package).rename(root)
        needs = f"Requires: {package.needs}" if package.needs else ""
        script = f"%pre\n{FAILING}" if package.fails else ""
        text = _SPEC.format(name=package.name, version=package.version, needs=needs, root=root, script=script)
        specs.append((f"{package.name}-{package.version}", text))
    file_name = "_build_name_fmt %{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm"
    settings = (f"_topdir {work / 'rpm'}", f"_rpmdir {target}", file_name)
    defines = [word for setting in settings for word in ("--define", setting)]
    for name, text in specs:
        spec = work / f"{name}.spec"
        spec.write_text(text)
        run("rpmbuild", "-bb", "--quiet", *defines, spec)
    run("createrepo_c", "--quiet", target)


def make_arch(target: Path, work: Path, run: Run, overlay: Overlay, lower: list[Path]) -> None:
    """pacman knows one version of a package at a time: the newer; the older lies beside it as a file."""
    target.mkdir(parents=True)
    for package in PACKAGES:
        root = payload(work, package)
        needs = f"depend = {package.needs}\n" if package.needs else ""
        (root / ".PKGINFO").write_text(
            f"pkgname = {package.name}\npkgbase = {package.name}\npkgver = {package.version}-1\n"
            f"pkgdesc = {package.name}, a package for tests\nurl = http://localhost\nbuilddate = 1700000000\n"
            f"packager = fleet\nsize = 100\narch = any\n{needs}"
        )
        parts = [".PKGINFO", "usr"]
        if package.fails:
            (root / ".INSTALL").write_text(f"post_install() {{\n{FAILING.replace('exit', 'return')}}}\n")
            parts.insert(1, ".INSTALL")
        how = "--options=!all,use-set,type,uid,gid,mode,time,size,md5,sha256,link"
        run("bsdtar", "-czf", ".MTREE", "--format=mtree", how, *parts, cwd=root)
        file = target / f"{package.name}-{package.version}-1-any.pkg.tar.gz"
        run("bsdtar", "--uid", "0", "--gid", "0", "-czf", file, ".MTREE", *parts, cwd=root)
    newest = {package.name: f"{package.name}-{package.version}-1-any.pkg.tar.gz" for package in PACKAGES}
    with overlay(work, work / "arch-scratch", lower) as root:
        places = ((target, "srv/repo"), (Path("/dev"), "dev"), (Path("/proc"), "proc"))
        with contextlib.ExitStack() as stack:
            for source, place in places:
                stack.enter_context(mounted(run, source, root / place))
            words = " ".join(newest.values())
            run("chroot", root, "sh", "-c", f"cd /srv/repo && repo-add -q core.db.tar.gz {words}")


def make_apk(target: Path, work: Path, run: Run, overlay: Overlay, lower: list[Path]) -> Path:
    """The repository; returned is the public key that it is signed with."""
    target.mkdir(parents=True)
    key = work / "fleet.rsa"
    run("openssl", "genrsa", "-out", key, "2048")
    run("openssl", "rsa", "-in", key, "-pubout", "-out", work / "fleet.rsa.pub")
    with overlay(work, work / "apk-scratch", lower) as root, mounted(run, target, root / "srv/repo"):
        shutil.copy(key, root / "srv/fleet.rsa")
        shutil.copy(work / "fleet.rsa.pub", root / "etc/apk/keys/fleet.rsa.pub")
        (root / "srv/fails").write_text(f"#!/bin/sh\n{FAILING}")
        (root / "srv/fails").chmod(0o755)
        for package in PACKAGES:
            shutil.copytree(payload(work, package), root / "srv" / package.name, dirs_exist_ok=True)
            infos = [f"name:{package.name}", f"version:{package.version}-r0", "arch:noarch", "license:MIT"]
            infos += [f"origin:{package.name}", f"description:{package.name}, a package for tests"]
            infos += [f"depends:{package.needs}"] if package.needs else []
            words = [word for info in infos for word in ("--info", info)]
            words += ["--script", "post-install:/srv/fails"] if package.fails else []
            file = f"/srv/repo/{package.name}-{package.version}-r0.apk"
            apk = ("chroot", root, "apk", "--sign-key", "/srv/fleet.rsa")
            run(*apk, "mkpkg", *words, "--files", f"/srv/{package.name}", "--output", file)
        files = [f"/srv/repo/{path.name}" for path in sorted(target.glob("*.apk"))]
        run(*apk, "mkndx", "--output", "/srv/repo/Packages.adb", *files)
    return work / "fleet.rsa.pub"


@contextlib.contextmanager
def mounted(run: Run, source: Path, target: Path) -> Generator[None]:
    """A folder seen at another place for a while."""
    target.mkdir(parents=True, exist_ok=True)
    run("mount", "--bind", source, target)
    try:
        yield
    finally:
        run("umount", target)
