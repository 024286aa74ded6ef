"""The OpenAPI document and the pages that show it."""

import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import anyio
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from mcp_ssh import __version__
from mcp_ssh.config.models import Config
from mcp_ssh.tools import REGISTRY
from mcp_ssh.toolsets import TOOLS
from rest_bridge.api.route import Route
from rest_bridge.docs.openapi import document
from rest_bridge.errors import ErrorFormats
from rest_bridge.families.registry import FAMILIES, NOT_ON_REST
from tests.contract.documented import Documented, documented
from tests.support import rest_kit
from tests.support.rest_kit import Rest, Served, rest_server, serving

DOCUMENTED = [
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    allow_header_conformance,
    unsupported_method,
]
ROUTES = [route for family in FAMILIES for route in family.routes]


@pytest.fixture
async def rest(tmp_path: Path) -> AsyncGenerator[Rest]:
    async with rest_server(tmp_path, REGISTRY, FAMILIES) as server:
        yield server


def test_every_tool_has_an_address_or_a_reason_to_have_none() -> None:
    addressed = {route.tool.name for route in ROUTES}
    assert addressed | set(NOT_ON_REST) == {*REGISTRY, *TOOLS}
    assert not addressed & set(NOT_ON_REST)
    assert all(NOT_ON_REST.values())


@pytest.mark.requirement("http.contract")
@pytest.mark.parametrize("route", list(documented()), ids=lambda route: f"{route.method} {route.path}")
def test_a_documented_route_takes_its_names_and_needs_no_other(route: Documented) -> None:
    operation = document(FAMILIES, Config())["paths"][route.path][route.method.lower()]
    query = {each["name"]: each["required"] for each in operation.get("parameters", []) if each["in"] == "query"}
    body = operation.get("requestBody", {"content": {"application/json": {"schema": {}}}})
    schema = body["content"]["application/json"]["schema"]
    assert set(route.query) <= set(query)
    assert {name for name, required in query.items() if required} <= {
        name for name, need in route.query.items() if need
    }
    assert set(route.body) <= set(schema.get("properties", {}))
    assert set(schema.get("required", ())) <= {name for name, need in route.body.items() if need}


def test_no_address_is_given_twice() -> None:
    addresses = [re.sub(r"\{\w+\}", "{}", route.address) for route in ROUTES]
    assert len(addresses) == len(set(addresses))


def test_every_path_is_answered_in_its_familys_error_format() -> None:
    formats = ErrorFormats([each.error_format for each in FAMILIES])
    for family in FAMILIES:
        assert {formats.of(route.path).name for route in family.routes} == {family.error_format.name}


@pytest.mark.parametrize("families", [FAMILIES, rest_kit.FAMILIES], ids=["real", "kit"])
def test_the_document_is_valid_openapi(families: Any) -> None:
    made = document(families, Config())
    assert list(OpenAPIV31SpecValidator(made).iter_errors()) == []
    ids = [each["operationId"] for path in made["paths"].values() for each in path.values()]
    assert len(ids) == len(set(ids))


def test_a_row_that_names_what_its_tool_does_not_take_is_refused() -> None:
    row = Route("GET", "/session/{wat}", rest_kit.say)
    with pytest.raises(TypeError, match=r"GET /session/\{wat\}: rest_kit_say does not take wat"):
        row.fields(confirm=False)


async def test_the_root_says_what_this_is(rest: Rest) -> None:
    async with rest.client(None) as client:
        answer = await client.get("/")
    assert answer.json() == {
        "service": "ssh-steward", "version": __version__, "status": "running", "docs": "/docs",
        "openapi": "/openapi.json",
        "guide": "/guide", "llms": "/llms.txt", "mcp": "/mcp",
    }  # fmt: skip


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
async def test_a_page_loads_only_files_of_this_server(rest: Rest, page: str) -> None:
    async with rest.client(None) as client:
        answer = await client.get(page)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "http://" not in answer.text
        assert "https://" not in answer.text
        wanted = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
        loaded = [await client.get(each) for each in wanted if each != "data:,"]
    assert loaded
    assert {each.status_code for each in loaded} == {200}
    assert re.findall(r"<script(?![^>]*\bsrc=)", answer.text) == []
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert "connect-src 'self'" in policy
    assert "http" not in policy


async def test_the_pages_files_have_their_types(rest: Rest) -> None:
    kinds = {
        "/docs/swagger-ui.css": "text/css",
        "/docs/swagger-ui-bundle.js": "text/javascript",
        "/redoc/redoc.standalone.js": "text/javascript",
        "/docs/init.js": "text/javascript",
    }
    async with rest.client(None) as client:
        for path, kind in kinds.items():
            assert (await client.get(path)).headers["content-type"].startswith(kind)


async def test_redoc_is_started_the_way_its_installed_build_is_made(rest: Rest) -> None:
    async with rest.client(None) as client:
        init, build = (await client.get("/redoc/init.js")).text, (await client.get("/redoc/redoc.standalone.js")).text
    imported = re.search(r'import \{ (\w+) \} from "/redoc/redoc.standalone.js"', init)
    assert imported
    exported = re.search(r"export\{([\w,]+)\};\s*$", build)
    assert exported
    assert imported[1] in exported[1].split(",")
    assert "disableTelemetry" in init
    assert "disableTelemetry" in build


def test_what_a_shape_makes_is_what_the_document_says() -> None:
    made = document(rest_kit.FAMILIES, Config())
    schema = made["components"]["schemas"]["PostSessionFixedResult"]
    assert list(schema["properties"]) == ["said"]


def fuzz(served: Served, path: str) -> int:
    """Throw requests at every method of a path, wrong ones too; what comes back must be documented."""
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    count = 0
    for found in schema.include(path=path).get_all_operations():
        operation = found.ok()

        @settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy() | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
        def throw(case: schemathesis.Case) -> None:
            nonlocal count
            case.call_and_validate(headers=served.headers, checks=DOCUMENTED)
            count += 1

        throw()
    return count


@pytest.mark.parametrize("path", ["/session/say", "/session/heard/{text}", "/session/fail", "/api/remote/say"])
async def test_nothing_undocumented_is_answered(tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as served:
        assert await anyio.to_thread.run_sync(fuzz, served, path) >= 25
