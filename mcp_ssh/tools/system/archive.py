"""Archives of files and folders."""

import contextlib
import secrets

import anyio
from pydantic import Field

from mcp_ssh.errors import TimedOut, ToolError
from mcp_ssh.linux.files.archives import PRESSES, ArchiveFailed, Format, ask_archive, ask_clear, ask_extract, parse_list
from mcp_ssh.linux.files.write import parse_write
from mcp_ssh.linux.framing import PathQuery, ScriptAnswer
from mcp_ssh.params import DryRunParams, RemotePath, Result
from mcp_ssh.sessions.session import Session
from mcp_ssh.shell_command import command
from mcp_ssh.tool import Call, Risk, tool
from mcp_ssh.tools.heartbeat import elapsing

CLEAR_S = 60.0
LIST_BYTES = 512 * 1024
"""The most that programs may say of an archive, and the list of its names."""


class _Long(DryRunParams):
    timeout: float = Field(default=600, ge=1, le=7200, description="Seconds it may take.")

    def time_limit_s(self) -> float:
        """The work, and what is left behind removed."""
        return self.timeout + CLEAR_S + 10


class SystemArchiveParams(_Long):
    source: RemotePath = Field(description="File or folder that goes in, under its own name.")
    destination: RemotePath = Field(description="The archive; one that is there is replaced.")
    format: Format = Field(default="tar.gz", description="What it becomes, whatever its name.")


class SystemArchiveResult(Result):
    success: bool = Field(description="Whether it was made.")
    archive: str = Field(description="The archive, with `~` expanded.")
    error: str | None = Field(description="What tar or zip said where it failed, else null; then nothing was changed.")
    size_bytes: int | None = Field(default=None, description="Its size.")
    warning: str | None = Field(
        default=None,
        description="Files that changed while they were read, and what was left out: pipes, sockets, devices.",
    )
    commands: list[str] | None = Field(default=None, description="With dry_run: what would run.")


@tool(Risk.CHANGE, room="system", idempotent=True, audit="packed {source} into {destination}")
async def archive(host: Session, params: SystemArchiveParams, call: Call) -> SystemArchiveResult:
    """Pack a file or folder of the machine into a tar or zip archive there.

    Links within stay links. An unreadable file fails it.
    """
    asked = ask_archive(params.destination, params.source, params.format, look=params.dry_run)
    result = SystemArchiveResult(success=True, archive=params.destination, error=None)
    try:
        answer = await _ask(host, params, call, asked, f"packing {params.source}")
    except ArchiveFailed as error:
        return result.model_copy(update={"success": False, "error": error.message})
    result.archive = answer.path
    if params.dry_run:
        above, _, name = answer.text.partition("\n")
        result.commands = [_packing(params.format, above, name, answer.path)]
        return result
    result.size_bytes = parse_write(answer.body).size
    if answer.trailer:
        result.warning = answer.trailer.decode("utf-8", "replace").strip()
    return result


def _packing(kind: Format, above: str, name: str, destination: str) -> str:
    into = f">{command(destination).line()}"
    if kind == "zip":
        return f"cd {command(above).line()} && {command('zip', '-q', '-r', '-y', '-', f'./{name}').line()} {into}"
    packing = command("tar", "-c", "-f", "-", "-C", above, "--", name).line()
    return f"{packing} {into}" if kind == "tar" else f"{packing} | {PRESSES[kind]} -c {into}"


class SystemExtractParams(_Long):
    archive: RemotePath = Field(description="tar, plain or compressed, or zip; its content says which.")
    destination: RemotePath = Field(default=".", description="Folder it goes into; made if missing.")


class SystemExtractResult(Result):
    success: bool = Field(description="Whether it was unpacked.")
    destination: str = Field(description="The folder, with `~` expanded.")
    error: str | None = Field(
        description="What tar or unzip said where it failed, else null. Nothing was changed then."
    )
    count: int | None = Field(default=None, description="Files and links that it had.")
    entries: list[str] | None = Field(default=None, description="With dry_run: names in it, up to 64 KiB.")
    commands: list[str] | None = Field(default=None, description="With dry_run: what would run.")


@tool(Risk.CHANGE, room="system", idempotent=True, audit="unpacked {archive} into {destination}")
async def extract(host: Session, params: SystemExtractParams, call: Call) -> SystemExtractResult:
    """Unpack a tar or zip archive of the machine into a folder there, replacing files of the same name.

    Refused where an entry would get out of the folder, or is a device. All is unpacked and checked before any file is
    put in place.
    """
    name = secrets.token_hex(8)
    asked = ask_extract(params.destination, params.archive, name, look=params.dry_run)
    result = SystemExtractResult(success=True, destination=params.destination, error=None)
    try:
        answer = await _ask(host, params, call, asked, f"unpacking {params.archive}")
    except ArchiveFailed as error:
        return result.model_copy(update={"success": False, "error": error.message})
    except (TimedOut, anyio.get_cancelled_exc_class()):
        await _clear(host, params.destination, name)
        raise
    result.destination = answer.path
    if params.dry_run:
        opens, result.entries = parse_list(answer)
        result.commands = _unpacking(opens, answer.trailer.decode("utf-8", "replace"), answer.path)
        return result
    result.count = int(answer.text)
    return result


def _unpacking(opens: str, archive: str, destination: str) -> list[str]:
    stage = f"{destination.rstrip('/')}/.mcp-ssh.tree"
    if opens == "unzip":
        unpacking = command("unzip", "-q", "-o", archive, "-d", stage).line()
    else:
        inflating = "cat" if opens == "cat" else f"{opens} -c"
        unpacking = f"{inflating} <{command(archive).line()} | {command('tar', '-x', '-f', '-', '-C', stage).line()}"
    return [unpacking, f"mv -f {command(stage).line()}/* {command(destination).line()}"]


async def _ask(host: Session, params: _Long, call: Call, asked: PathQuery, step: str) -> ScriptAnswer:
    async with elapsing(call, lambda: step):
        said = await host.run(asked.command, timeout_s=params.timeout, limit=LIST_BYTES)
    return asked.answer(said.stdout, said.stderr)


async def _clear(host: Session, destination: str, name: str) -> None:
    """What was ended in the middle may have had no time to remove what it had unpacked."""
    with anyio.CancelScope(shield=True), anyio.move_on_after(CLEAR_S), contextlib.suppress(ToolError):
        await host.run(ask_clear(destination, name).command, timeout_s=CLEAR_S)
