"""Removing whatever is at a path."""

from pydantic import Field

from mcp_ssh.linux.files.tree import ask_rmrf, parse_rmrf
from mcp_ssh.params import DryRunParams, RemotePath, Result
from mcp_ssh.sessions.query import ask
from mcp_ssh.sessions.session import Output, Session
from mcp_ssh.tool import Call, Risk, tool

CLOSING_S = 10.0
PATHS_BYTES = 512 * 1024


class SystemRmrfParams(DryRunParams):
    path: RemotePath

    def time_limit_s(self) -> float:
        """Time for many files."""
        return 600.0


class SystemRmrfResult(Result):
    success: bool = Field(description="Always true; a failure is an error.")
    path: str = Field(description="What was removed, with `~` expanded.")
    error: str | None = Field(description="Always null; kept for the documented shape.")
    count: int = Field(
        description="Files, links and others that were in it, or would be removed; 0 where nothing was there."
    )
    paths: list[str] | None = Field(default=None, description="With dry_run: what would be removed, up to 256 KiB.")


@tool(
    Risk.DESTROY, room="system", confirm=True, idempotent=True, audit="asked for the removal of {path} with all in it"
)
async def rmrf(host: Session, params: SystemRmrfParams, call: Call) -> SystemRmrfResult:
    """Remove a file, link or folder with everything in it, as `rm -rf` does. What is not there is no error.

    Refused, wherever links lead: `/` and what lies directly in it, homes, mount points, folders that hold one of these,
    and paths that end in `.` or `..`. dry_run lists what would go.
    """
    asked = ask_rmrf(params.path, look=params.dry_run)

    def parse(said: Output) -> tuple[str, int, list[str]]:
        answer = asked.answer(said.stdout, said.stderr)
        return answer.path, *parse_rmrf(answer)

    limit_s = params.time_limit_s() - CLOSING_S
    path, count, paths = await ask(host, asked.command, parse, timeout_s=limit_s, limit=PATHS_BYTES)
    result = SystemRmrfResult(success=True, path=path, error=None, count=count)
    if params.dry_run:
        result.paths = paths
    return result
