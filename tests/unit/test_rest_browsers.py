"""Where no token protects a server, programs reach it and pages of other sites do not.

The headers of Chromium 156 are those that it sent to a server on loopback; the older browsers send no Sec-Fetch-Site.
"""

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_ssh.tools import REGISTRY
from rest_bridge.families.registry import FAMILIES
from tests.support.rest_kit import Rest, rest_server

pytestmark = pytest.mark.requirement("fault.S4")

ACTS = "/session/act?text=a"
READS = "/session/say?text=a"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
CHROMIUM = {
    "sec-ch-ua-platform": '"Linux"',
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0",
    "sec-ch-ua": '"Not:A-Brand";v="8", "Chromium";v="156"',
    "sec-ch-ua-mobile": "?0",
    "Accept-Language": "en-US,en;q=0.9",
}
PAGE = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
OTHER_SITE = {
    "an image": {**CHROMIUM, "Accept": "image/webp,*/*;q=0.8", "Sec-Fetch-Site": "cross-site",
                 "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image", "Sec-Fetch-Storage-Access": "none"},
    "a script on another port": {**CHROMIUM, "Accept": "*/*", "Sec-Fetch-Site": "same-site",
                                 "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"},
    "a link": {**CHROMIUM, "Accept": PAGE, "Upgrade-Insecure-Requests": "1", "Sec-Fetch-Site": "cross-site",
               "Sec-Fetch-Mode": "navigate", "Sec-Fetch-User": "?1", "Sec-Fetch-Dest": "document"},
}  # fmt: skip
TYPED = {**OTHER_SITE["a link"], "Sec-Fetch-Site": "none"}
OWN_PAGE = {**CHROMIUM, "Accept": "*/*", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors",
            "Sec-Fetch-Dest": "empty", "Referer": "http://127.0.0.1:8754/docs"}  # fmt: skip
OLD_BROWSERS = {
    "Firefox 60": {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:60.0) Gecko/20100101 Firefox/60.0",
                   "Accept": "*/*", "Accept-Language": "en-US,en;q=0.5"},
    "Internet Explorer 11": {"User-Agent": "Mozilla/5.0 (Windows NT 10.0; WOW64; Trident/7.0; rv:11.0) like Gecko",
                             "Accept": "image/png, */*;q=0.5", "Accept-Language": "en-US"},
    "Chromium at a name that is not loopback": {
        "User-Agent": CHROMIUM["User-Agent"], "Accept": "image/webp,*/*;q=0.8", "Accept-Language": "en-US,en;q=0.9"
    },
    "one whose name is hidden": {"User-Agent": "", "Accept": "*/*", "Accept-Language": "de"},
    "one without languages": {"User-Agent": "Opera/9.80 (X11; Linux) Presto/2.12 Version/12.16", "Accept": "*/*"},
    "one that names its page": {"User-Agent": "Custom", "Accept": "*/*", "Referer": "http://evil.example/"},
}  # fmt: skip
PROGRAMS = {
    "curl": {"User-Agent": "curl/8.5.0", "Accept": "*/*"},
    "wget": {"User-Agent": "Wget/1.21.3", "Accept": "*/*", "Accept-Encoding": "identity"},
    "fetch of Node": {"User-Agent": "node", "Accept": "*/*", "Accept-Language": "*", "Sec-Fetch-Mode": "cors"},
    "Go": {"User-Agent": "Go-http-client/1.1"},
    "requests": {"User-Agent": "python-requests/2.32.3", "Accept": "*/*"},
}


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def rest(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Rest]:
    async with rest_server(tmp_path_factory.mktemp("home"), auth_mode="none") as server:
        yield server


async def asked(rest: Rest, method: str, path: str, headers: Mapping[str, str], **options: Any) -> httpx2.Response:
    async with rest.client(None) as client:
        # The client's own headers would name a program.
        client.headers.clear()
        return await client.request(method, path, headers=dict(headers), **options)


def by_name(headers: Mapping[str, Mapping[str, str]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("headers", headers.values(), ids=headers)


@by_name(OTHER_SITE)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", ACTS), ("GET", READS), ("GET", "/"), ("GET", "/docs"), ("GET", "/mcp"),
                         ("POST", "/session/change"), ("POST", "/mcp"), ("GET", "/nowhere")],
)  # fmt: skip
async def test_another_site_reaches_nothing(rest: Rest, method: str, path: str, headers: dict[str, str]) -> None:
    before = len(await rest.app.store.history.list(100))
    answer = await asked(rest, method, path, headers)
    assert answer.status_code == 403, answer.text
    assert len(await rest.app.store.history.list(100)) == before


@by_name(OTHER_SITE)
async def test_another_site_reaches_nothing_with_a_token_either(tmp_path: Path, headers: dict[str, str]) -> None:
    async with rest_server(tmp_path) as rest:
        answer = await asked(rest, "GET", READS, {**headers, "Authorization": f"Bearer {rest.admin}"})
        own = await asked(rest, "GET", READS, {**OWN_PAGE, "Authorization": f"Bearer {rest.admin}"})
    assert (answer.status_code, own.status_code) == (403, 200)


@by_name({**OLD_BROWSERS, "a typed address": TYPED, "a page of this server": OWN_PAGE})
async def test_a_get_that_acts_is_not_for_browsers(rest: Rest, headers: dict[str, str]) -> None:
    answer = await asked(rest, "GET", ACTS, headers)
    assert answer.status_code == 403, answer.text
    assert "not for browsers" in answer.json()["detail"]
    assert "curl" in answer.json()["hint"]


@by_name(PROGRAMS)
@pytest.mark.parametrize("path", [ACTS, READS])
async def test_a_program_gets_what_is_documented(rest: Rest, headers: dict[str, str], path: str) -> None:
    answer = await asked(rest, "GET", path, headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["caller"] == "local"


@by_name(PROGRAMS)
async def test_a_program_posts_without_a_body(rest: Rest, headers: dict[str, str]) -> None:
    answer = await asked(rest, "POST", "/session/hang?text=a", headers)
    assert answer.status_code == 400, "it comes as far as the arguments"


@by_name({"a typed address": TYPED, "a page of this server": OWN_PAGE})
async def test_reading_is_for_the_servers_own_pages_and_for_typed_addresses(
    rest: Rest, headers: dict[str, str]
) -> None:
    assert (await asked(rest, "GET", READS, headers)).status_code == 200


@by_name(OLD_BROWSERS)
async def test_a_browser_that_does_not_say_which_page_asks_reads_nothing(rest: Rest, headers: dict[str, str]) -> None:
    assert (await asked(rest, "GET", READS, headers)).status_code == 403
    assert (await asked(rest, "GET", "/", headers)).status_code == 200


@by_name({**OLD_BROWSERS, "nothing": {}})
@pytest.mark.parametrize("kind", [FORM, {"Content-Type": "text/plain"}, {"Content-Type": "multipart/form-data"}, {}])
async def test_a_form_changes_nothing(rest: Rest, headers: dict[str, str], kind: dict[str, str]) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = await asked(rest, method, "/session/change", {**headers, **kind}, content=b'{"text": "a"}')
        assert answer.status_code == 403, answer.text
        assert "application/json" in answer.json()["hint"]


@pytest.mark.parametrize("headers", [JSON, {**OWN_PAGE, **JSON, "Origin": "http://127.0.0.1:8754"}])
async def test_json_may_change_something(rest: Rest, headers: dict[str, str]) -> None:
    answer = await asked(rest, "POST", "/session/change", headers, content=b'{"text": "a"}')
    assert answer.status_code == 200, answer.text


async def test_a_header_that_no_form_sets_will_do(rest: Rest) -> None:
    answer = await asked(rest, "POST", "/session/hang?text=a", {"X-Requested-With": "x"})
    assert answer.status_code == 400, "it comes as far as the arguments"


async def test_a_page_of_a_configured_origin_is_answered(tmp_path: Path) -> None:
    page = {**OTHER_SITE["a script on another port"], **JSON, "Origin": "https://ops.example.org"}
    async with rest_server(tmp_path, auth_mode="none", allowed_origins=["https://ops.example.org"]) as rest:
        let_in = await asked(rest, "POST", "/session/change", page, content=b'{"text": "a"}')
        # A request that names no page is not known to come from there.
        image = await asked(rest, "GET", READS, OTHER_SITE["an image"])
    assert (let_in.status_code, image.status_code) == (200, 403)


async def test_the_documented_command_runs_for_curl_and_for_no_page(tmp_path: Path) -> None:
    async with rest_server(tmp_path, REGISTRY, FAMILIES, auth_mode="none") as rest:
        curl = await asked(rest, "GET", "/command/run?cmd=id", PROGRAMS["curl"])
        pages = [
            await asked(rest, "GET", "/command/run?cmd=id", headers)
            for headers in (*OTHER_SITE.values(), *OLD_BROWSERS.values(), TYPED, OWN_PAGE)
        ]
    assert curl.status_code == 404, "it comes as far as the session, of which there is none"
    assert {each.status_code for each in pages} == {403}


async def test_negative_control_with_a_token_a_browser_may_send_a_get_that_acts(tmp_path: Path) -> None:
    """No page has the token, so nothing needs to be told by the marks of a browser."""
    async with rest_server(tmp_path) as rest:
        answer = await asked(rest, "GET", ACTS, {**OWN_PAGE, "Authorization": f"Bearer {rest.admin}"})
    assert answer.status_code == 200
