"""Services and signals: starting, stopping, and ending what runs."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from mcp_ssh.audit import always
from mcp_ssh.errors import NotFound, PermissionDenied
from mcp_ssh.linux.system.services import ServiceCommand, ServiceState, choose, find_problem
from mcp_ssh.messages.validation import word_pattern
from mcp_ssh.params import BecomeParams, Result
from mcp_ssh.sessions.query import parts_of
from mcp_ssh.sessions.session import Output, Session
from mcp_ssh.shell_command import script
from mcp_ssh.tool import Call, Risk, tool

SERVICE_BYTES = 1024 * 1024
"""The most that a service manager may say; the start of a service can be talkative."""

# ---- system_service ----------------------------------------------------------------------------------------------


class SystemServiceParams(BecomeParams):
    service: str = Field(
        pattern=word_pattern(
            r"^[A-Za-z0-9_@:.\\][A-Za-z0-9_@:.\\+-]*$",
            "must be letters, digits and _ @ : . + - \\, and begin with none of + -, such as nginx",
        ),
        max_length=255,
        description="Service, such as nginx; on systemd also a unit with its suffix.",
    )
    action: ServiceCommand = Field(description="What to do. reload: read its config again without stopping.")

    def time_limit_s(self) -> float:
        """Services may take their time to stop."""
        return 150.0


class SystemServiceResult(Result):
    service: str = Field(description="The service.")
    action: str = Field(description="What was done.")
    success: bool = Field(description="Whether the service is now as the action asks; of `status`, always true.")
    output: str = Field(description="What the service manager said.")
    error: str | None = Field(description="Why it is not, with the last lines of its log, else null.")
    active: bool | None = Field(
        description="Whether it runs; false while it restarts in a loop, null where its init script cannot tell."
    )
    enabled: bool | None = Field(description="Whether it starts with the machine; null where that cannot be told.")
    state: str = Field(description="The service manager's own word for its state.")
    restarts: int | None = Field(
        default=None, description="How often its manager restarted it by itself; omitted: never, or not counted."
    )


@tool(
    Risk.CHANGE,
    room="system",
    audit=(
        (lambda params, _: params.action == "status", None),
        (always, "asked for {action} of the service {service}"),
    ),
)
async def service(host: Session, params: SystemServiceParams, call: Call) -> SystemServiceResult:
    """Start, stop, restart, reload, enable or disable a service, or look at its status.

    Works with systemd, OpenRC and System V init. After a start it looks again a second later: a service that dies or
    restarts in a loop fails. A stopped service is a result of status, not an error. Other actions need root: without
    become, sudo -n is tried.
    """
    manager = choose(await host.platform())
    acting = host if params.action == "status" else await host.as_root()
    asked = manager.ask(params.service, params.action)
    state = await parts_of(acting, asked, manager.parse, timeout_s=140.0, limit=SERVICE_BYTES)
    if not state.exists:
        raise NotFound(
            f"service: {manager.name} knows no {params.service!r}",
            hint="list services with command_exec: systemctl list-unit-files, rc-service -l, or ls /etc/init.d",
        )
    problem = find_problem(params.action, state)
    result = SystemServiceResult(
        service=params.service,
        action=params.action,
        success=problem is None,
        output=state.output,
        error=None if problem is None else _explain(params, state, problem),
        active=state.active,
        enabled=state.enabled,
        state=state.detail,
    )
    return result.model_copy(update={"restarts": state.restarts}) if state.restarts else result


def _explain(params: SystemServiceParams, state: ServiceState, problem: str) -> str:
    """What the manager said, what was seen, and the end of the service's log."""
    lines = [state.output, f"{params.service}: {problem}", state.log and f"Its log ends with:\n{state.log}"]
    return "\n".join(line for line in lines if line)


# ---- system_kill -------------------------------------------------------------------------------------------------


def _from_text(given: object) -> object:
    return int(given) if isinstance(given, str) and given.isascii() and given.isdigit() else given


Pid = Annotated[
    int, Field(gt=1, le=4_194_304, description="Process id; 1 and less is refused."), BeforeValidator(_from_text)
]


class SystemKillParams(BecomeParams):
    pid: Pid
    signal: Literal["TERM", "KILL", "HUP", "INT", "QUIT", "USR1", "USR2", "STOP", "CONT"] = Field(
        default="TERM", description="TERM asks it to end, KILL ends it, HUP often reloads."
    )


class SystemKillResult(Result):
    status: Literal["sent", "failed"] = Field(description="Whether the signal was sent.")
    pid: int = Field(description="The process.")
    signal: str = Field(description="The signal.")
    error: str | None = Field(description="Why it failed, else null.")


@tool(Risk.DESTROY, room="system", audit="sent {signal} to the process {pid}")
async def kill(host: Session, params: SystemKillParams, call: Call) -> SystemKillResult:
    """Send a signal to a process of the machine, such as TERM to end it.

    A process of another account needs root: without become, sudo -n is tried.
    """
    output = await _signal(host, params)
    if _forbidden(output):
        output = await _signal(await host.as_root(), params)
        if _forbidden(output):
            raise PermissionDenied(
                f"process {params.pid} belongs to another account", hint="give `become`, or log in as that account"
            )
    failed = output.exit_code != 0
    return SystemKillResult(
        status="failed" if failed else "sent",
        pid=params.pid,
        signal=params.signal,
        error=(output.error_text.rpartition(": ")[2] or "it failed") if failed else None,
    )


async def _signal(host: Session, params: SystemKillParams) -> Output:
    return await host.run(script('LC_ALL=C kill -s "$1" "$2"', [params.signal, str(params.pid)]))


def _forbidden(output: Output) -> bool:
    return output.exit_code != 0 and "not permitted" in output.error_text
