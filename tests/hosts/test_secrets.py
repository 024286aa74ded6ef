"""A secret given to any tool is found nowhere: not in a process list, a log, the history, an answer or a `repr`."""

import contextlib
import gc
import json
import logging
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, get_args

import anyio
import pytest
from pydantic import BaseModel, SecretStr

from mcp_ssh.app import App, open_app
from mcp_ssh.config.models import Config
from mcp_ssh.ssh.wire.become import BecomeTarget
from mcp_ssh.store.redaction import HIDDEN, redact
from mcp_ssh.tool import AnyTool, Role
from mcp_ssh.tools import REGISTRY
from tests.fleet.hosts import Host
from tests.support.doors import Direct, Fault, Rest
from tests.support.machine import trust
from tests.support.secrets_kit import (
    Call,
    Kit,
    in_files,
    in_texts,
    kit,
    on_machine,
    sampled,
    save_secrets,
    use_every_secret,
)
from tests.support.servers import serve, stdio

Found = set[tuple[str, str]]


@contextlib.asynccontextmanager
async def over_stdio(home: Path, token: str) -> AsyncGenerator[Call]:
    del token
    async with stdio(home, "--toolsets", "all") as server:

        async def call(tool: AnyTool, arguments: Mapping[str, Any]) -> dict[str, Any]:
            given = {**arguments, "confirm": True} if tool.confirm else dict(arguments)
            answer = await server.answer(await server.send("tools/call", {"name": tool.name, "arguments": given}))
            if answer.get("isError"):
                raise Fault(json.loads(answer["content"][0]["text"]))
            return dict(answer["structuredContent"])

        yield call


@contextlib.asynccontextmanager
async def over_mcp(home: Path, token: str) -> AsyncGenerator[Call]:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async with (
        serve(home) as server,
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False) as http,
        Client(streamable_http_client(f"{server.url}/mcp/all", http_client=http)) as client,
    ):

        async def call(tool: AnyTool, arguments: Mapping[str, Any]) -> dict[str, Any]:
            given = {**arguments, "confirm": True} if tool.confirm else dict(arguments)
            answer = await client.call_tool(tool.name, given)
            if answer.is_error:
                raise Fault(json.loads(answer.content[0].model_dump()["text"]))
            return dict(answer.structured_content or {})

        yield call


@contextlib.asynccontextmanager
async def over_rest(home: Path, token: str) -> AsyncGenerator[Call]:
    import httpx2

    async with (
        serve(home) as server,
        httpx2.AsyncClient(base_url=server.url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as http,
    ):
        yield Rest(http).call


DOORS = {"stdio": over_stdio, "mcp": over_mcp, "rest": over_rest}


async def prepared(home: Path, host: Host) -> str:
    """A state folder whose servers know the host and log all they can; the secret of a token of theirs."""
    logs = {"logging": {"level": "DEBUG", "directory": str(home / "logs")}, "server": {"debug": True}}
    home.mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_text(json.dumps(logs))
    async with open_app(home, Config()) as app:
        await trust(app, host)
        return (await app.store.tokens.create("test-secrets", Role.ADMIN))[1]


def log_of(home: Path) -> list[str]:
    path = home.with_name(f"{home.name}.log")
    return [path.read_text()] if path.exists() else []


@pytest.mark.requirement("secrets.nowhere")
@pytest.mark.parametrize("door", list(DOORS))
async def test_a_secret_given_to_any_tool_is_found_nowhere(
    mcp_home: Path, tmp_path: Path, host: Host, door: str
) -> None:
    token = await prepared(mcp_home, host)
    report: dict[str, Any] = {}
    async with kit(host, tmp_path) as given:
        with sampled(given, {"token": token}, report):
            async with DOORS[door](mcp_home, token) as call:
                await use_every_secret(given, call)
                if door != "rest":
                    await save_secrets(given, call)
        needles = {**given.needles, "token": token}
        assert report["found"] == []
        assert report["seen"] == sorted(given.marks)
        assert in_files(mcp_home, needles) == set()
        assert in_texts([*given.heard, *log_of(mcp_home)], needles) == set()
        assert await on_machine(host, needles) == set()
    assert "its processes ended: True" in (mcp_home / "logs/mcp-ssh.log").read_text()


def ours() -> list[object]:
    """Every object of a class of ours that is alive."""
    return [
        each for each in gc.get_objects() if str(type(each).__module__).partition(".")[0] in {"mcp_ssh", "rest_bridge"}
    ]


def shown(objects: list[object]) -> list[str]:
    texts: list[str] = []
    for each in objects:
        # One that is still being made may have no text yet.
        with contextlib.suppress(AttributeError):
            texts.append(f"{type(each).__name__}: {each!r} {each!s}")
    return texts


@pytest.mark.requirement("secrets.nowhere")
async def test_no_object_of_ours_shows_a_secret(
    app: App, tmp_path: Path, deb: Host, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in list(logging.root.manager.loggerDict):
        caplog.set_level(logging.DEBUG, logger=name)
    await trust(app, deb)
    found: Found = set()
    kinds: set[str] = set()
    over = anyio.Event()

    async def look(given: Kit) -> None:
        while not over.is_set():
            objects = ours()
            kinds.update(type(each).__name__ for each in objects)
            found.update(in_texts(shown(objects), given.needles))
            with anyio.move_on_after(0.02):
                await over.wait()

    async with kit(deb, tmp_path) as given, anyio.create_task_group() as group:
        group.start_soon(look, given)
        await use_every_secret(given, Direct(app).call)
        await save_secrets(given, Direct(app).call)
        over.set()
    assert found == set()
    assert kinds >= {"Session", "Login", "CommandExecParams", "Become", "BecomeTarget", "CommandEnvelope", "Command"}
    assert in_texts([caplog.text], given.needles) == set()


@pytest.mark.parametrize("place", ["host", "host environment", "ours", "log", "answer", "state", "machine log", "repr"])
async def test_a_planted_secret_is_found(mcp_home: Path, tmp_path: Path, deb: Host, place: str) -> None:
    """The negative control: the search sees a leak in each of the places."""
    report: dict[str, Any] = {}
    mcp_home.mkdir(parents=True, exist_ok=True)
    async with kit(deb, tmp_path) as given:
        secret = given.values["login"]
        found: Found = set()
        with sampled(given, {}, report):
            if place == "host":
                await anyio.to_thread.run_sync(lambda: deb.console(["sh", "-c", "sleep 0.5; :", "leak", secret]))
            elif place == "host environment":
                await anyio.to_thread.run_sync(lambda: deb.console(["env", f"LEAK={secret}", "sleep", "0.5"]))
            elif place == "ours":
                await anyio.run_process(["sh", "-c", "sleep 0.5; :", "leak", secret])
        found |= {(label, where) for label, where in report["found"]}
        if place in {"log", "state"}:
            (mcp_home / ("mcp-ssh.log" if place == "log" else "state.db")).write_bytes(b"\0" + secret.encode())
            found |= in_files(mcp_home, given.needles)
        elif place == "answer":
            found |= in_texts([json.dumps({"message": f"no {secret}"})], given.needles)
        elif place == "machine log":
            await anyio.to_thread.run_sync(lambda: deb.console(["tee", "/var/log/leak"], secret))
            found |= await on_machine(deb, given.needles)
            await anyio.to_thread.run_sync(lambda: deb.console(["rm", "/var/log/leak"]))
        elif place == "repr":
            leak = BecomeTarget(secret, "su")
            found |= in_texts(shown(ours()), given.needles)
            del leak
        assert {label for label, _ in found} == {"login"}


GIVEN = {
    "session_connect": {"password", "interactive_answers", "key_passphrase", "key_content"},
    "connection_add": {"password", "key_passphrase", "key_content"},
    "command_exec": {"become.password", "stdin", "env"},
    "command_background": {"become.password", "stdin", "env"},
    "file_write": {"become.password", "content"},
    "file_upload": {"become.password", "content", "raw_content"},
    "shell_secret": {"secret"},
}
"""What is given above. What `become` is, is the same for every tool; content and raw_content travel alike."""


def secret_arguments(model: type[BaseModel], prefix: str = "") -> set[str]:
    found: set[str] = set()
    for name, field in model.model_fields.items():
        inner = [each for each in get_args(field.annotation) if isinstance(each, type) and issubclass(each, BaseModel)]
        if inner:
            found |= secret_arguments(inner[0], f"{name}.")
        elif SecretStr.__name__ in str(field.annotation) or redact({name: {"A": "x"}})[name] in (HIDDEN, {"A": HIDDEN}):
            found.add(prefix + name)
    return found


def test_every_secret_argument_is_among_those() -> None:
    missing: Found = set()
    for name, tool in REGISTRY.items():
        secret = secret_arguments(tool.params) - GIVEN.get(name, {"become.password"})
        # Whether to use the password, and which token, are no secrets.
        missing |= {(name, each) for each in secret if each != "become.use_login_password"}
    assert missing == set()
