"""A family is added as a folder: its error bodies are its own in every kind of error, and shared code knows none."""

from pathlib import Path
from typing import Any

import pytest

from mcp_ssh.errors import ToolError
from rest_bridge.api.route import Family, Route
from rest_bridge.errors import ErrorFormat
from tests.support import rest_kit


def _body(error: ToolError) -> dict[str, Any]:
    return {"error": {"message": error.message}}


MADE_UP = Family(
    ErrorFormat(
        name="made_up",
        title="Made up",
        about="For this test.",
        prefixes=("/made",),
        body=_body,
        schema={"type": "object", "required": ["error"], "properties": {"error": {"type": "object"}}},
        invalid_fields=422,
    ),
    (Route("POST", "/made/say", rest_kit.say), Route("POST", "/made/change", rest_kit.change)),
)

JSON = {"Content-Type": "application/json"}
ERRORS: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "no such path": ("POST", "/made/nothing", 404, {}),
    "wrong method": ("GET", "/made/say", 405, {}),
    "no token": ("POST", "/made/say", 401, {"token": None}),
    "role": ("POST", "/made/change", 403, {"token": "viewer", "content": b'{"text": "x"}', "headers": JSON}),
    "fields": ("POST", "/made/say", 422, {"content": b'{"nothing": 1}', "headers": JSON}),
    "not json": ("POST", "/made/say", 400, {"content": b"{", "headers": JSON}),
    "media type": ("POST", "/made/say", 415, {"content": b"{}", "headers": {"Content-Type": "text/plain"}}),
    "host": ("POST", "/made/say", 421, {"headers": {"Host": "elsewhere.example"}}),
}


@pytest.mark.parametrize("kind", list(ERRORS))
async def test_each_kind_of_error_has_the_familys_body(tmp_path: Path, kind: str) -> None:
    method, path, status, given = ERRORS[kind]
    sent = {name: value for name, value in given.items() if name != "token"}
    families = (*rest_kit.FAMILIES, MADE_UP)
    async with (
        rest_kit.rest_server(tmp_path / "home", families=families) as rest,
        rest.client(given.get("token", "admin")) as client,
    ):
        answer = await client.request(method, path, **sent)
        # The negative control: the same on a path of another family has another body.
        other = await client.request(method, path.replace("/made", "/session"), **sent)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert "detail" in other.json()


async def test_the_familys_answers_and_its_part_of_the_document_are_its_own(tmp_path: Path) -> None:
    families = (*rest_kit.FAMILIES, MADE_UP)
    async with rest_kit.rest_server(tmp_path / "home", families=families) as rest, rest.client() as client:
        said = await client.post("/made/say", json={"text": "hello"})
        document = (await client.get("/openapi.json")).json()
    assert said.status_code == 200
    operation = document["paths"]["/made/say"]["post"]
    assert operation["tags"] == ["Made up"]
    assert operation["responses"]["422"]["$ref"].endswith("/MadeUp422")
    assert document["components"]["schemas"]["MadeUpError"]["required"] == ["error"]
