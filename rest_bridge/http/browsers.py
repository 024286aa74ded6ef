"""Tell requests of web pages from requests of programs, and refuse what a page of another site sends.

Browsers say by `Sec-Fetch-*` which page asks (W3C Fetch Metadata). They send these headers to loopback addresses and
over HTTPS only, and older ones never do, so a request without them is judged by the headers that a page cannot change.
"""

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.routing import compile_path

from mcp_ssh.errors import Refused

_OTHER_SITES = frozenset({"cross-site", "same-site"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_BROWSER_NAMES = ("mozilla/", "opera/", "lynx/", "links ", "elinks/", "w3m/", "dillo/")
_BROWSER_HEADERS = ("sec-fetch-site", "sec-fetch-dest", "sec-fetch-user", "sec-ch-ua", "origin", "referer")
_BEYOND_FORMS = ("authorization", "x-requested-with", "mcp-session-id", "mcp-protocol-version")
"""Headers that a page adds to a request only after a preflight, which this server never grants."""


class ActingGets:
    """The documented addresses where a GET changes something or runs a command."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = [compile_path(each)[0] for each in paths]

    def __contains__(self, path: object) -> bool:
        return any(each.fullmatch(str(path)) for each in self._paths)


def refuse_other_sites(headers: Headers, origins: frozenset[str]) -> None:
    """Refuse a request that a browser makes for a page of another site, or for a link on one.

    Args:
        headers: The headers of the request.
        origins: Origins in lower case whose pages may call, by the config.

    Raises:
        Refused: Sec-Fetch-Site says that another site asks, and its Origin is not in the config.
    """
    sites = {each.strip().lower() for each in headers.getlist("sec-fetch-site")}
    if sites & _OTHER_SITES and headers.get("origin", "").lower() not in origins:
        raise Refused(
            "pages of other sites, and links on them, may not call this server",
            hint="type the address into the browser, or have the server's owner add the page's origin to"
            " server.allowed_origins",
        )


def refuse_pages_without_token(method: str, path: str, headers: Headers, acting: ActingGets) -> None:
    """Where no token protects a request, refuse what a web page may have sent.

    Args:
        method: The method of the request.
        path: The path of the request.
        headers: The headers of the request.
        acting: Where a GET acts.

    Raises:
        Refused: A browser sent a GET that acts, or the request has nothing that a foreign page cannot send, too.
    """
    if method not in _READING:
        if not (_is_json(headers) or _is_beyond_forms(headers) or _names_program(headers)):
            raise Refused(
                "without a token, a request that may change something must show that no form of a web page sent it",
                hint="send Content-Type: application/json, or the header X-Requested-With with any value",
            )
    elif path in acting:
        if is_from_browser(headers):
            raise Refused(
                "this GET acts, so without a token it is for programs and not for browsers",
                hint="send it with curl or another program, or use the POST form of it; /docs lists both",
            )
    elif is_from_browser(headers) and not (_is_own_page(headers) or _is_beyond_forms(headers)):
        raise Refused(
            "without a token, a browser must say by Sec-Fetch-Site which page asks",
            hint="use a browser of this decade at a loopback address, or another program, or set server.auth_mode to"
            ' "token"',
        )


def is_from_browser(headers: Headers) -> bool:
    """Whether a request has the marks of a browser, which the pages in it cannot take away.

    JavaScript run-times outside of browsers send `Sec-Fetch-Mode: cors` and `Accept-Language: *`, and no more of these.
    """
    if any(name in headers for name in _BROWSER_HEADERS):
        return True
    if headers.get("accept-language", "*").strip() != "*" or headers.get("sec-fetch-mode", "cors") != "cors":
        return True
    return headers.get("user-agent", "").lower().startswith(_BROWSER_NAMES)


def _names_program(headers: Headers) -> bool:
    """Whether the User-Agent names a program: a form is sent with the name of its browser."""
    return bool(headers.get("user-agent", "").strip()) and not is_from_browser(headers)


def _is_own_page(headers: Headers) -> bool:
    """Whether a page of this server asks, or the person who typed the address."""
    return headers.getlist("sec-fetch-site") in (["same-origin"], ["none"])


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _is_beyond_forms(headers: Headers) -> bool:
    return any(name in headers for name in _BEYOND_FORMS)
