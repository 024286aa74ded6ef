"""Files of machines and the list of sessions as MCP resources, and what completes their addresses.

`ssh://web1/etc/hosts` is /etc/hosts on web1, `ssh://web1/~/notes` a file below the account's home. Reading goes through
dispatch, as the tools that read the same: session, policy, deadline and history are theirs.
"""

import base64
import contextlib
import json
import mimetypes
import posixpath
from collections.abc import Generator, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

import anyio
import anyio.to_thread
from mcp import MCPError, types

from mcp_ssh.app import App
from mcp_ssh.dispatch import dispatch, internal
from mcp_ssh.errors import InvalidInput, NotFound, TooLarge, ToolError
from mcp_ssh.host_patterns import Machine
from mcp_ssh.mcp_server.elicitation import McpCall
from mcp_ssh.policy import may_use_identities
from mcp_ssh.ssh.openssh_config.aliases import alias_names
from mcp_ssh.tool import Caller, InputRequired, Registry
from mcp_ssh.toolsets import NonInteractiveCall

SCHEME = "ssh://"
SESSIONS = "ssh-steward://sessions"
LARGEST = 256 * 1024
"""Bytes of a file that is read as a resource: a model gets all of it at once."""

MOST_VALUES = 100
"""As many completions as the protocol lets a server answer."""

COMPLETE_LIMIT_S = 5.0
"""How long a machine may take to list a folder for somebody who types."""

MOST_ENTRIES = 1000

_MACHINES = frozenset({"session", "session_id", "host", "connection", "machine", "server"})
_PATHS = frozenset({"path", "folder", "file"})


class Resources:
    """What one endpoint offers to read: no more than its tools do."""

    def __init__(self, app: App, tools: Registry) -> None:
        self._app = app
        self._tools = tools

    def list_fixed(self) -> list[types.Resource]:
        """The resources with a fixed address."""
        if "session_list" not in self._tools:
            return []
        return [
            types.Resource(
                uri=SESSIONS,
                name="sessions",
                title="Open sessions",
                description="Your open SSH sessions, as session_list shows them.",
                mime_type="application/json",
            )
        ]

    def templates(self) -> list[types.ResourceTemplate]:
        """The addresses of files."""
        if "file_read" not in self._tools:
            return []
        return [
            types.ResourceTemplate(
                uri_template=f"{SCHEME}{{session}}/{{+path}}",
                name="remote-file",
                title="File on a machine",
                description="A file: session id or name of a machine, then the path from its root, or from ~.",
            )
        ]

    async def read(self, uri: str, call: McpCall) -> types.TextResourceContents | types.BlobResourceContents:
        """The contents of one.

        Raises:
            ToolError: As the tools that read it.
        """
        if uri == SESSIONS and self.list_fixed():
            found = await dispatch(self._app, self._tools["session_list"], {}, call)
            text = json.dumps(found.model_dump(mode="json", exclude_unset=True), ensure_ascii=False)
            return types.TextResourceContents(uri=uri, mime_type="application/json", text=text)
        if not (uri.startswith(SCHEME) and self.templates()):
            raise NotFound("there is no such resource", hint=f"there are {SESSIONS} and {SCHEME}SESSION/PATH")
        session, path = place(uri)
        wanted = {"session_id": session, "path": path, "length": LARGEST, "encoding": "base64"}
        found = await dispatch(self._app, self._tools["file_read"], wanted, call)
        content = found.model_dump()
        if content["next_offset"] is not None:
            raise TooLarge(f"the file has more than {LARGEST} bytes", hint="read it in parts with file_read")
        return _contents(uri, path, content["content"])

    async def complete(self, params: types.CompleteRequestParams, call: McpCall) -> types.Completion:
        """What an argument of an address, or of a prompt, may go on as. Nothing is connected to for that."""
        await self._app.live.refresh()
        name, typed = params.argument.name, params.argument.value
        if name in _MACHINES:
            return _completion(await self._machines(call.caller), typed)
        if name in _PATHS:
            given = (params.context.arguments if params.context else None) or {}
            rooted = isinstance(params.ref, types.ResourceTemplateReference)
            return _completion(await self._paths(given, typed, call, rooted=rooted), typed)
        return types.Completion(values=[])

    async def _machines(self, caller: Caller) -> list[str]:
        own = [each for one in self._app.sessions.own(caller) for each in (one.alias, one.name)]
        live = [*own, *(one.id for one in self._app.sessions.seen_by(caller))]
        saved = await self._app.store.connections.own_names(caller)
        aliases = [
            each
            for each in await anyio.to_thread.run_sync(alias_names)
            if may_use_identities(caller, Machine.of([each]), self._app.config.security) and caller.reaches(each)
        ]
        return [*dict.fromkeys(each for each in (*live, *saved, *aliases) if each)]

    async def _paths(self, given: Mapping[str, str], typed: str, call: McpCall, *, rooted: bool) -> list[str]:
        """Entries of the folder that was typed so far, folders with a slash behind them."""
        machine = next((given[each] for each in sorted(_MACHINES & given.keys())), None)
        folder, slash, _ = typed.rpartition("/")
        start = f"{folder}{slash}"
        at_root = rooted and not folder.startswith(("~", "/"))
        try:
            session = self._app.sessions.find(call.caller, machine)
            where = {"session_id": session.id, "path": f"/{start}" if at_root else start or ".", "limit": MOST_ENTRIES}
            with anyio.fail_after(COMPLETE_LIMIT_S):
                # Who types is asked for no consent at each letter.
                found = await dispatch(self._app, self._tools["file_list"], where, NonInteractiveCall(call))
        except (ToolError, TimeoutError, KeyError):
            return []
        items: list[dict[str, Any]] = found.model_dump()["items"]
        return [f"{start}{each['name']}{'/' if each['is_dir'] else ''}" for each in items]


def place(uri: str) -> tuple[str, str]:
    """The session and the path that an address names.

    Raises:
        InvalidInput: It names none, or goes up by `..`: what an address seems to name is what is read.
    """
    session, _, rest = uri.removeprefix(SCHEME).partition("/")
    try:
        session, path = unquote(session, errors="strict"), unquote(rest, errors="strict")
    except UnicodeDecodeError:
        raise InvalidInput("uri: percent-encoded bytes must be UTF-8", hint="read the file with file_read") from None
    if not session or not path.strip("/"):
        raise InvalidInput("uri: must name a session and a file", hint=f"such as {SCHEME}web1/etc/hosts")
    if ".." in path.split("/"):
        raise InvalidInput("uri: must not contain `..`", hint="name the path itself")
    if path.startswith("~"):
        return session, posixpath.normpath(path)
    return session, posixpath.normpath("/" + path.lstrip("/"))


@contextlib.contextmanager
def protocol_errors(what: str, uri: str | None = None) -> Generator[None]:
    """Errors as the protocol has them: these requests have no results that are errors. Nothing of the inside leaks."""
    try:
        yield
    except (MCPError, InputRequired):
        raise
    except ToolError as error:
        raise _failure(error, uri) from None
    except Exception as error:
        raise _failure(internal(error, what), uri) from error


def _failure(error: ToolError, uri: str | None) -> MCPError:
    said = f"{error.message} ({error.hint})" if error.hint else error.message
    data = error.payload() | ({} if uri is None else {"uri": uri})
    return MCPError(code=types.INVALID_PARAMS, message=said, data=data)


def _contents(uri: str, path: str, encoded: str) -> types.TextResourceContents | types.BlobResourceContents:
    data = base64.b64decode(encoded)
    kind = mimetypes.guess_type(path)[0]
    try:
        return types.TextResourceContents(uri=uri, mime_type=kind or "text/plain", text=data.decode("utf-8"))
    except UnicodeDecodeError:
        return types.BlobResourceContents(uri=uri, mime_type=kind or "application/octet-stream", blob=encoded)


def _completion(values: Iterable[str], typed: str) -> types.Completion:
    fitting = [each for each in values if each.startswith(typed)]
    shown = fitting[:MOST_VALUES]
    return types.Completion(values=shown, total=len(fitting), has_more=len(fitting) > len(shown))
