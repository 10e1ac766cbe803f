"""The page: plain files, sent with headers that let it load nothing but itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import BaseRoute, Route

_FOLDER = Path(__file__).parent
_KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "permissions-policy": "microphone=(self)",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


def files() -> dict[str, Path]:
    """The page at / and its files under /web/. Anybody may see them, key or no key: there is nothing in them."""
    found = (file for file in sorted(_FOLDER.iterdir()) if file.suffix in _KINDS)
    return {"/" if file.name == "index.html" else f"/web/{file.name}": file for file in found}


def routes() -> list[BaseRoute]:
    """What serves them."""
    return [Route(path, _sender(file)) for path, file in files().items()]


def _sender(file: Path) -> Callable[[Request], Awaitable[Response]]:
    async def send(request: Request) -> Response:
        return FileResponse(file, media_type=_KINDS[file.suffix], headers=_HEADERS)

    return send
