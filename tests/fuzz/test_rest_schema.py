"""Generated requests to every documented operation, valid and invalid, against the real server."""

import os
import re
from collections import Counter
from collections.abc import Generator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.machine import SOAK
from tests.support.recording_host import PASSWORD, USER, RecordingHost, recording_host
from tests.support.servers import TOKEN, blocking_serve

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance, negative_data_rejection]
REMOTE_FAILURES = {"connect_failed", "remote_failed", "timed_out"}
HEADERS = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, RecordingHost, str]]:
    """The real server with one session, to a host that records."""
    home = tmp_path_factory.mktemp("home")
    (home / "config.json").write_text('{"ssh": {"timeout": 2}, "security": {"host_keys": "accept-new"}}')
    os.environ.setdefault("HOME", str(home))
    with recording_host() as host, blocking_serve(home) as url:
        login = {"host": "127.0.0.1", "port": host.port, "username": USER, "password": PASSWORD}
        answer = httpx2.post(f"{url}/session/connect", json=login, headers=HEADERS)
        assert answer.status_code == 200, answer.text
        yield url, host, answer.json()["session_id"]


@pytest.mark.requirement("http.fuzz")
def test_no_request_gets_an_undocumented_answer(server: tuple[str, RecordingHost, str]) -> None:
    url, host, session_id = server
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    statuses: Counter[tuple[str, int]] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.label == "POST /session/disconnect/{session_id}":
            continue  # it would end the one session; tests/hosts/test_sessions.py has it
        statuses.update({(operation.label, status): 1 for status in _answers(operation, host, session_id)})
    labels = {label for label, _ in statuses}
    assert len(labels) >= 14
    # Every operation that runs something got through to the host at least once.
    for label in ("POST /command/exec", "GET /command/run", "POST /session/connect"):
        assert statuses[label, 200], str(sorted(statuses))
    assert len(host.commands) > 20


def _answers(operation: Any, host: RecordingHost, session_id: str) -> set[int]:
    seen: set[int] = set()

    @settings(
        max_examples=100 if SOAK else 15, deadline=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck), database=None,
    )  # fmt: skip
    @given(case=operation.as_strategy(), sensible=st.booleans())
    def requests(case: Any, sensible: bool) -> None:
        if sensible:
            _make_sensible(case, host, session_id)
        response = case.call(headers=HEADERS, timeout=30)
        assume(_was_meant(operation.path, response.request.url))
        case.validate_response(
            response, checks=[each for each in CHECKS if not sensible or each is not negative_data_rejection]
        )
        seen.add(response.status_code)
        if response.status_code >= 500:
            assert response.json()["code"] in REMOTE_FAILURES, response.text

    requests()
    return seen


def _was_meant(template: str, url: str) -> bool:
    """Whether a request went to the operation: clients make another address of a part that is empty, a dot, ? or #."""
    pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
    return re.fullmatch(pattern, urlsplit(url).path) is not None


def _make_sensible(case: Any, host: RecordingHost, session_id: str) -> None:
    """Have the request mean the machine that is there."""
    if "session_id" in (case.query or {}):
        case.query["session_id"] = session_id
    if case.operation.label == "POST /session/connect":
        case.body = {"host": "127.0.0.1", "port": host.port, "username": USER, "password": PASSWORD}
