"""The least server that answers: what the no-op calls are measured against."""

import sys
from typing import Any


def main() -> None:
    """Serve over stdio or HTTP."""
    if sys.argv[1] == "stdio":
        serve_stdio()
    else:
        serve_http()


def serve_stdio() -> None:
    """One tool on the SDK's low-level server."""
    import anyio
    from mcp import types
    from mcp.server import Server
    from mcp.server.stdio import stdio_server

    schema = {"type": "object", "properties": {}}
    listed = types.ListToolsResult(tools=[types.Tool(name="nothing", input_schema=schema)])

    async def on_list(_context: Any, _params: Any) -> types.ListToolsResult:
        return listed

    async def on_call(_context: Any, _params: Any) -> types.CallToolResult:
        content = types.TextContent(type="text", text='{"sessions":{}}')
        return types.CallToolResult(content=[content], structured_content={"sessions": {}})

    async def serve() -> None:
        server: Server[Any] = Server("bare", on_list_tools=on_list, on_call_tool=on_call)
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    anyio.run(serve)


def serve_http() -> None:
    """One route."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def nothing(_request: Request) -> JSONResponse:
        return JSONResponse({"sessions": {}})

    app = Starlette(routes=[Route("/nothing", nothing)])
    # Parser and loop are those that we serve with: what is measured is what we add to them.
    settings: dict[str, Any] = {"http": "h11", "loop": "asyncio", "ws": "none", "access_log": False}
    uvicorn.run(app, host="127.0.0.1", port=0, timeout_keep_alive=65, **settings)


if __name__ == "__main__":
    main()
