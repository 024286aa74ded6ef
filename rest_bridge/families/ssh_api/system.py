"""The ssh_api family's /system and /setup, with the texts that its document has where the tools have numbers."""

from typing import Any

from pydantic import BaseModel, Field

from mcp_ssh.tools import system
from rest_bridge.api.route import Route, Shape, streams


class ProcessText(BaseModel):
    """A process as documented: everything is text."""

    user: str = Field(description="Account it runs as.")
    pid: str = Field(description="Process id.")
    cpu: str = Field(description="Percent of one processor.")
    mem: str = Field(description="Percent of memory.")
    command: str = Field(description="Command line.")


class ProcessTexts(BaseModel):
    """The documented body of /system/processes."""

    processes: list[ProcessText] = Field(description="Processes.")
    count: int = Field(description="How many fit.")


def _processes(result: dict[str, Any]) -> dict[str, Any]:
    texts = [
        {
            "user": each["user"],
            "pid": str(each["pid"]),
            "cpu": f"{each['cpu_percent']:.1f}",
            "mem": f"{each['memory_percent']:.1f}",
            "command": each["command"],
        }
        for each in result["processes"]
    ]
    return {"processes": texts, "count": result["count"]}


class DiskText(BaseModel):
    """A file system as documented: sizes for people."""

    filesystem: str = Field(description="Device or source.")
    size: str = Field(description="Size, such as `40G`.")
    used: str = Field(description="In use.")
    available: str = Field(description="Left.")
    use_percent: str = Field(description="Used, such as `24%`.")
    mount: str = Field(description="Where it is mounted.")


class DiskTexts(BaseModel):
    """The documented body of /system/disk."""

    disks: list[DiskText] = Field(description="Mounted file systems.")


def _disks(result: dict[str, Any]) -> dict[str, Any]:
    texts = [
        {
            "filesystem": each["filesystem"],
            "size": human(each["size_bytes"]),
            "used": human(each["used_bytes"]),
            "available": human(each["available_bytes"]),
            "use_percent": f"{each['use_percent']:.0f}%",
            "mount": each["mount"],
        }
        for each in result["disks"]
    ]
    return {"disks": texts}


def human(count: int) -> str:
    """Bytes as `df -h` writes them: powers of 1024, rounded up, one decimal below ten."""
    units = iter("BKMGTPE")
    unit, scale = next(units), 1
    while count > scale * 1023 and unit != "E":
        unit, scale = next(units), scale * 1024
    if unit == "B":
        return str(count) if count > 0 else "0"
    tenths = -(-count * 10 // scale)
    return f"{tenths / 10:.1f}{unit}" if tenths < 100 else f"{-(-count // scale)}{unit}"


class KilledText(BaseModel):
    """The documented body of /system/kill: the process id is text."""

    status: str = Field(description="sent or failed.")
    pid: str = Field(description="The process.")
    signal: str = Field(description="The signal.")
    error: str | None = Field(description="Why it failed, else null.")


def _kill_text(result: dict[str, Any]) -> dict[str, Any]:
    return {**result, "pid": str(result["pid"])}


ROUTES = (
    Route("GET", "/system/platform", system.platform),
    Route("GET", "/setup/platform", system.platform),
    Route("GET", "/system/processes", system.processes, shape=Shape(ProcessTexts, _processes)),
    Route("GET", "/system/disk", system.disk, shape=Shape(DiskTexts, _disks)),
    Route("GET", "/system/memory", system.memory),
    Route("GET", "/system/cpu", system.cpu),
    Route("GET", "/system/network", system.network),
    Route("GET", "/system/users", system.users),
    Route("GET", "/system/uptime", system.uptime),
    Route("POST", "/system/kill", system.kill, shape=Shape(KilledText, _kill_text)),
    Route("POST", "/system/service", system.service),
    Route("POST", "/system/grep", system.grep),
    Route("POST", "/system/find", system.find),
    Route("GET", "/system/env/{name}", system.env_get),
    Route("POST", "/system/env", system.env_set),
    Route("GET", "/system/cron", system.cron_list),
    Route("POST", "/system/cron", system.cron_add),
    # Not documented: the way back.
    Route("POST", "/system/cron/remove", system.cron_remove),
    Route("POST", "/system/chmod", system.chmod, query=("session_id", "path", "mode", "recursive")),
    Route("POST", "/system/chown", system.chown, query=("session_id", "path", "owner", "group", "recursive")),
    Route("DELETE", "/system/rmrf", system.rmrf),
    Route("POST", "/system/archive", system.archive),
    Route("POST", "/system/extract", system.extract),
    Route("GET", "/system/tail", system.tail),
    # Not documented: the same without an end, as server-sent events.
    streams("/system/tail/stream", system.follow),
    Route("GET", "/system/head", system.head),
)
