"""Requests become arguments, results become answers, errors become bodies."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_ssh import errors
from mcp_ssh.errors import ToolError
from rest_bridge.api.route import Family, Route, Shape
from rest_bridge.families.ssh_api.family import SSH_API
from tests.support import rest_kit
from tests.support.rest_kit import Rest, rest_server


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncGenerator[Rest]:
    async with rest_server(tmp_path) as server:
        yield server


async def test_a_body_reaches_the_tool_and_its_result_comes_back(rest: Rest) -> None:
    async with rest.client() as client:
        answer = await client.post("/session/say", json={"text": "hi", "count": 2, "names": {"a": "b"}})
    assert answer.status_code == 200
    said = answer.json()
    assert said["arguments"] == {
        "session_id": None, "text": "hi", "count": 2, "ratio": None, "loud": False, "tags": [], "names": {"a": "b"},
    }  # fmt: skip
    assert (said["door"], said["confirms"]) == ("rest", False)
    assert answer.headers["content-type"] == "application/json"
    assert b'": ' not in answer.content


async def test_the_tool_sees_the_tokens_id_as_caller(rest: Rest) -> None:
    token = next(each for each in await rest.app.store.tokens.list() if each.name == "a-viewer")
    async with rest.client("viewer") as client:
        answer = await client.post("/session/say", json={"text": "hi"})
    assert answer.json()["caller"] == token.id


async def test_a_query_makes_numbers_truths_and_lists(rest: Rest) -> None:
    async with rest.client() as client:
        answer = await client.get("/session/say?text=a%20b+c%C3%BC&count=3&loud=true&ratio=0.5&tags=x&tags=y")
    assert answer.status_code == 200, answer.text
    arguments = answer.json()["arguments"]
    assert (arguments["text"], arguments["count"], arguments["loud"], arguments["ratio"], arguments["tags"]) == (
        "a b cü", 3, True, 0.5, ["x", "y"],
    )  # fmt: skip


async def test_a_path_carries_an_argument(rest: Rest) -> None:
    async with rest.client() as client:
        answer = await client.get("/session/heard/a%40b%3A22?count=2")
    assert answer.json()["arguments"]["text"] == "a@b:22"


async def test_a_session_is_named_in_the_query_of_a_post(rest: Rest) -> None:
    async with rest.client() as client:
        right = await client.post("/session/say?session_id=abc", json={"text": "hi"})
        wrong = await client.post("/session/say", json={"text": "hi", "session_id": "abc"})
    assert right.json()["arguments"]["session_id"] == "abc"
    assert wrong.status_code == 400
    assert "session_id (query)" in wrong.json()["hint"]


async def test_documented_names_are_used_in_requests_and_in_errors(rest: Rest) -> None:
    async with rest.client() as client:
        right = await client.get("/session/run?cmd=ls&times=2")
        missing = await client.get("/session/run")
        wrong = await client.get("/session/run?cmd=ls&times=many")
        tools_name = await client.get("/session/run?cmd=ls&text=ls")
    assert right.json()["arguments"]["text"] == "ls"
    assert missing.json()["detail"] == "cmd: is required"
    assert wrong.json()["details"]["errors"][0]["field"] == "times"
    assert tools_name.status_code == 400
    assert tools_name.json()["hint"] == "GET /session/run takes cmd (query), times (query)"


async def test_an_address_may_imply_arguments_and_shape_the_answer(rest: Rest) -> None:
    async with rest.client() as client:
        answer = await client.post("/session/fixed")
        named = await client.post("/session/fixed", json={"text": "other"})
    assert answer.json() == {"said": "always"}
    assert named.status_code == 400


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("/session/say?text=a&wat=1", "wat: is not a query parameter here"),
        ("/session/say?text=a&txet=1", "did you mean text?"),
        ("/session/say?text=a&text=b", "text: is given more than once"),
        ("/session/say?text=%ff", "the query is not well encoded"),
        ("/session/say?" + "&".join(f"tags={n}" for n in range(200)), "the query is not well encoded"),
        ("/session/say", "text: is required"),
        ("/session/say?text=a&count=", "count: "),
        ("/session/heard/x?text=a", "text: is not a query parameter here"),
    ],
)
async def test_a_wrong_query_is_refused_by_name(rest: Rest, address: str, says: str) -> None:
    async with rest.client() as client:
        answer = await client.get(address)
    assert answer.status_code == 400
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"{", 400, "the body is not valid JSON: line 1, column 2"),
        (b"[]", 400, "the body must be a JSON object"),
        (b"null", 400, "the body must be a JSON object"),
        (b'{"text": "a", "text": "b"}', 400, "'text' is given twice"),
        (b'{"text": "a", "ratio": NaN}', 400, "NaN is not a JSON number"),
        (b'{"text": "a", "ratio": -Infinity}', 400, "-Infinity is not a JSON number"),
        (b'{"text": "a", "ratio": 1e999}', 400, "a number is too large"),
        (b'{"text": "a", "count": ' + b"9" * 5000 + b"}", 400, "the body is not valid JSON"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "nested"),
        (b'{"text": ' + b"[" * 65 + b"]" * 65 + b"}", 400, "nested deeper than 64 levels"),
        (b'{"text": "\\ud800"}', 400, "lone surrogate"),
        (b'{"\\ud800": 1}', 400, "lone surrogate"),
        (b'{"text": "\xff"}', 400, "is not UTF-8"),
        (b'{"text": "a", "wat": 1}', 400, "wat: is not a field of the body here"),
        (b'{"text": "a", "count": -1}', 400, "count: "),
        (b'{"text": 5}', 400, "text: "),
        (b"{}", 400, "text: is required"),
        (b"", 400, "text: is required"),
    ],
)
async def test_a_wrong_body_is_refused_and_says_why(rest: Rest, body: bytes, status: int, says: str) -> None:
    async with rest.client() as client:
        answer = await client.post("/session/say", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert says in answer.json()["detail"]


async def test_many_fields_with_one_twice_are_refused_at_once(rest: Rest) -> None:
    body = "{" + "".join(f'"k{n}":1,' for n in range(200_000)) + '"k199999":1}'
    async with rest.client() as client:
        with anyio.fail_after(20):
            answer = await client.post("/session/say", content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["detail"].endswith("'k199999' is given twice")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
async def test_only_plain_json_bodies_are_taken(rest: Rest, headers: dict[str, str]) -> None:
    async with rest.client() as client:
        answer = await client.post("/session/say", content=b'{"text": "a"}', headers=headers)
    assert answer.status_code == 415
    assert answer.json()["code"] == "unsupported_media_type"


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", 'Application/JSON; charset="UTF-8"'])
async def test_json_may_say_that_it_is_utf_8(rest: Rest, kind: str) -> None:
    async with rest.client() as client:
        answer = await client.post("/session/say", content='{"text": "ü"}'.encode(), headers={"Content-Type": kind})
    assert answer.json()["arguments"]["text"] == "ü"


async def test_a_get_with_a_body_is_refused_so_that_no_field_is_lost(rest: Rest) -> None:
    async with rest.client() as client:
        answer = await client.request("GET", "/session/say?text=a", json={"session_id": "b"})
    assert answer.status_code == 400
    assert "session_id: is not a field of the body here" in answer.json()["detail"]


async def test_the_viewer_family_says_422_for_fields_and_400_for_what_is_no_json(rest: Rest) -> None:
    async with rest.client() as client:
        fields = await client.post("/api/remote/say", json={})
        unknown = await client.post("/api/remote/say", json={"text": "a", "wat": 1})
        malformed = await client.post("/api/remote/say", content=b"{", headers={"Content-Type": "application/json"})
        by_the_tool = await client.post("/api/remote/fail", json={"kind": "judged"})
    assert [each.status_code for each in (fields, unknown, malformed, by_the_tool)] == [422, 422, 400, 400]
    assert by_the_tool.json()["detail"] == "kind must be another"
    assert fields.json()["detail"] == "text: is required"


STATUSES = {
    "InvalidInput": 400, "Unauthenticated": 401, "Refused": 403, "PermissionDenied": 403, "NotFound": 404,
    "Conflict": 409, "HostKeyUnconfirmed": 409, "TooLarge": 413, "TooMany": 429, "Unsupported": 400,
    "ConnectFailed": 502, "AuthFailed": 401, "RemoteFailed": 500, "TimedOut": 504, "ShuttingDown": 503,
    "OutOfDescriptors": 503, "Internal": 500,
}  # fmt: skip


def test_every_error_of_the_tree_has_its_status_checked_here() -> None:
    declared = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, ToolError)}
    assert declared - {"ToolError"} == set(STATUSES)


@pytest.mark.parametrize("path", ["/session/fail", "/api/remote/fail"])
@pytest.mark.parametrize("kind", sorted(STATUSES))
async def test_each_error_has_its_status_and_body(rest: Rest, path: str, kind: str) -> None:
    async with rest.client() as client:
        answer = await client.post(path, json={"kind": kind})
    code = getattr(errors, kind).code
    assert answer.status_code == STATUSES[kind]
    assert answer.json()["code"] == code
    if kind == "HostKeyUnconfirmed":
        assert answer.json() == {
            "detail": {
                "code": "HOST_KEY_CONFIRMATION_REQUIRED",
                "message": "Host key verification failed",
                "host_key": {"host": "web1", "port": 22, "reason": "unknown"},
            },
            "code": code,
            "hint": "compare it, then accept it",
        }
    else:
        assert answer.json() == {
            "detail": "it went wrong", "code": code, "hint": "do it otherwise", "details": {"fact": 1},
        }  # fmt: skip


async def test_a_login_the_machine_refused_asks_for_no_token_of_ours(rest: Rest) -> None:
    async with rest.client() as client:
        answer = await client.post("/session/fail", json={"kind": "AuthFailed"})
    assert answer.status_code == 401
    assert "www-authenticate" not in answer.headers


async def test_a_fault_of_ours_shows_nothing_of_the_inside(rest: Rest) -> None:
    async with rest.client() as client:
        answer = await client.post("/session/fail", json={"kind": "crash"})
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


async def test_an_answer_that_cannot_be_shaped_is_a_fault_of_ours(tmp_path: Path) -> None:
    broken = Shape(rest_kit.Short, lambda result: {"said": result["no such field"]})
    families = (Family(SSH_API, (Route("POST", "/session/say", rest_kit.say, shape=broken),)),)
    async with rest_server(tmp_path, families=families) as rest, rest.client() as client:
        answer = await client.post("/session/say", json={"text": "a"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "no such field" not in answer.text


async def test_text_that_is_not_unicode_is_escaped(rest: Rest) -> None:
    async with rest.client() as client:
        answer = await client.get("/session/odd")
    assert answer.content == b'{"text":"caf\\udce9 \\u00fc"}'


async def test_an_unknown_path_is_404_and_names_near_ones(rest: Rest) -> None:
    async with rest.client() as client:
        answer = await client.get("/session/sya")
        slash = await client.get("/session/say/")
    assert answer.status_code == 404
    assert answer.json() == {
        "detail": "there is no such path",
        "code": "not_found",
        "hint": "did you mean /session/say?",
    }
    assert slash.status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/session/say", "POST, GET"),
        ("HEAD", "/session/say", "POST, GET"),
        ("OPTIONS", "/session/say", "POST, GET"),
        ("GET", "/session/change", "POST"),
        ("POST", "/", "GET, HEAD"),
        ("PUT", "/docs", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_and_says_which_is_right(rest: Rest, method: str, path: str, allowed: str) -> None:
    async with rest.client() as client:
        answer = await client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert method == "HEAD" or answer.json()["code"] == "method_not_allowed"


async def test_configured_confirmation_is_an_argument_of_the_route(tmp_path: Path) -> None:
    security: dict[str, Any] = {"confirm_tools": ["rest_kit_say"]}
    async with rest_server(tmp_path, security=security) as rest, rest.client() as client:
        without = await client.post("/session/say", json={"text": "a"})
        given = await client.post("/session/say", json={"text": "a", "confirm": True})
        in_query = await client.get("/session/say?text=a&confirm=true")
        wrong = await client.get("/session/say?text=a&confirm=perhaps")
        document = (await client.get("/openapi.json")).json()
    assert without.status_code == 403
    assert "confirm: true" in without.json()["hint"]
    assert (given.status_code, in_query.status_code, wrong.status_code) == (200, 200, 400)
    assert "confirm" in [each["name"] for each in document["paths"]["/session/say"]["get"]["parameters"]]


async def test_confirm_is_unknown_where_nothing_is_confirmed(rest: Rest) -> None:
    async with rest.client() as client:
        answer = await client.post("/session/say", json={"text": "a", "confirm": True})
    assert answer.status_code == 400


async def test_calls_are_on_record_with_their_door(rest: Rest) -> None:
    async with rest.client() as client:
        await client.post("/session/say", json={"text": "hi"})
        await client.post("/session/fail", json={"kind": "Conflict"})
    await rest.app.store.history.flush()
    rows = await rest.app.store.history.list(10)
    assert [(each.door, each.tool, each.outcome) for each in rows] == [
        ("rest", "rest_kit_fail", "conflict"),
        ("rest", "rest_kit_say", "ok"),
    ]
