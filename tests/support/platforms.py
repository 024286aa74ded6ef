"""Platforms of made-up machines."""

from mcp_ssh.linux.system.platform import Platform, parse

MARK = "ab" * 8


def told(release: str = "", *, init: str = "init", running: str = "", has: str = "") -> Platform:
    """The platform of a made-up machine."""
    lines = [f"release {line}" for line in release.splitlines()]
    lines += ["kernel Linux 6.1.0 x86_64", f"init {init}", *(f"running {each}" for each in running.split())]
    lines += [*(f"has {each}" for each in has.split()), "uid 0", "home /root", "end ok"]
    return parse("".join(f"{MARK} {line}\n" for line in lines).encode(), MARK)
