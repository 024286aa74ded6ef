"""Read the target and the framing of a request as RFC 9112 has them, before anything is decided by them."""

import re
from collections.abc import Iterable
from urllib.parse import unquote, unquote_to_bytes

from starlette.types import Scope

from rest_bridge.errors import BadFraming, Malformed

_ABSOLUTE = re.compile(rb"https?://", re.IGNORECASE)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def settle_target(scope: Scope, slashless: frozenset[str]) -> None:
    """Bring the target of a request into one form: a path, without a final slash where it makes no difference.

    Args:
        scope: The request; its path, raw path and Host header are changed in place.
        slashless: The paths that are the same with a final slash.

    Raises:
        Malformed: A target in absolute form has no host, or an account.
    """
    if _ABSOLUTE.match(scope["raw_path"]):
        _take_authority(scope)
    path = scope["path"]
    if path.endswith("/") and path[:-1] in slashless:
        scope["path"], scope["raw_path"] = path[:-1], path[:-1].encode()


def _take_authority(scope: Scope) -> None:
    """Read a target in absolute form (RFC 9112, section 3.2.2): its host counts, and not the Host header."""
    _, _, rest = scope["raw_path"].partition(b"://")
    authority, slash, path = rest.partition(b"/")
    if not authority or b"@" in authority:
        raise Malformed("the target of the request has no host, or an account", hint="send http://HOST:PORT/PATH")
    scope["raw_path"] = slash + path or b"/"
    scope["path"] = unquote(scope["raw_path"].decode("ascii"))
    others: Iterable[tuple[bytes, bytes]] = (each for each in scope["headers"] if each[0] != b"host")
    scope["headers"] = [(b"host", authority), *others]


def check_encoding(scope: Scope) -> None:
    """Refuse a path or a query that can be decoded in more than one way.

    Raises:
        Malformed: A percent sign begins no escape, or what the escapes stand for is not UTF-8.
    """
    for part, text in (("path", scope["raw_path"]), ("query", scope["query_string"])):
        if b"%" in text and not _is_well_encoded(text):
            raise Malformed(
                f"the {part} is not well encoded",
                hint="percent-encode UTF-8, and write a percent sign as %25",
            )


def _is_well_encoded(text: bytes) -> bool:
    if _BAD_ESCAPE.search(text):
        return False
    try:
        unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def check_framing(scope: Scope) -> None:
    """Refuse a request whose body a server in front of this one may end elsewhere (RFC 9112, section 6.1).

    Raises:
        BadFraming: It has both a length and a transfer coding, or is HTTP/1.0 with a transfer coding.
    """
    names = [name for name, _ in scope["headers"]]
    if b"transfer-encoding" in names and (b"content-length" in names or scope["http_version"] == "1.0"):
        raise BadFraming(
            "the request has both Content-Length and Transfer-Encoding, or Transfer-Encoding in HTTP/1.0",
            hint="send one of the two, and Transfer-Encoding in HTTP/1.1 only",
        )
