"""The documentation pages. Everything they load comes from this server: no CDN, no inline script."""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

_SWAGGER = "star_openapi_swagger", "templates/swagger"
_REDOC = "star_openapi_redoc", "templates/redoc"

_EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""The digest of nothing: Redoc makes empty style elements, and fills them by script."""

_POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {_EMPTY_STYLE}; img-src 'self' data:; font-src data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SSH Steward: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/init.js"></script>
</body>
</html>
"""

_DOCS_INIT = """\
// Without validatorUrl the page would show a badge from another server.
window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#ui",
  deepLinking: true,
  validatorUrl: null,
  tryItOutEnabled: false,
  persistAuthorization: false,
});
"""

_REDOC_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>SSH Steward: API reference</title>
<link rel="icon" href="data:,">
</head>
<body>
<div id="ui"></div>
<script type="module" src="/redoc/init.js"></script>
</body>
</html>
"""

_REDOC_INIT = """\
// Redoc reports to its makers unless told not to; the page's policy would stop it too.
import { init } from "/redoc/redoc.standalone.js";
init("/openapi.json", { disableTelemetry: true }, document.getElementById("ui"));
"""


def page_routes() -> list[Route]:
    """The pages, their start-up scripts, and the files of the installed packages that they need."""
    return [
        _page("/docs", _DOCS),
        _script("/docs/init.js", _DOCS_INIT),
        _file("/docs/swagger-ui.css", _SWAGGER, "css/swagger-ui.css", "text/css"),
        _file("/docs/swagger-ui-bundle.js", _SWAGGER, "js/swagger-ui-bundle.js", "text/javascript"),
        _page("/redoc", _REDOC_PAGE),
        _script("/redoc/init.js", _REDOC_INIT),
        _file("/redoc/redoc.standalone.js", _REDOC, "js/redoc.standalone.js", "text/javascript"),
    ]


def text_routes(pages: Mapping[str, Callable[[], str]]) -> list[Route]:
    """Pages of Markdown by their paths, each made when it is first asked for, in a thread."""
    return [_text(path, cache(make)) for path, make in pages.items()]


def _text(path: str, made: Callable[[], str]) -> Route:
    media_type = "text/plain" if path.endswith(".txt") else "text/markdown"

    def answer(_: Request) -> Response:
        return Response(made(), media_type=media_type)

    return Route(path, answer)


def _page(path: str, html: str) -> Route:
    async def answer(_: Request) -> Response:
        return HTMLResponse(html, headers={"Content-Security-Policy": _POLICY})

    return Route(path, answer)


def _script(path: str, text: str) -> Route:
    async def answer(_: Request) -> Response:
        return Response(text, media_type="text/javascript")

    return Route(path, answer)


def _file(path: str, package: tuple[str, str], name: str, media_type: str) -> Route:
    module, folder = package
    file = Path(str(files(module))) / folder / name

    async def answer(_: Request) -> Response:
        return FileResponse(file, media_type=media_type)

    return Route(path, answer)
