"""A page to talk to a model: `/` is the page, `/talk` its WebSocket, `/health` says whether the seat is free."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from duologue.audio.vad import SAMPLE_RATE, VoiceActivity
from duologue.errors import ServerError
from duologue.pipeline import Pipeline
from duologue.server import messages
from duologue.server.talk import Talk, TalkConfig

_PAGE = Path(__file__).parent / "web" / "index.html"
_BUSY = "Somebody else is talking right now. You get the seat as soon as it is free."


class Seat:
    """One visitor at a time talks; one thread owns the model, so that the event loop is never held up."""

    def __init__(self, pipeline: Pipeline, config: TalkConfig):
        if pipeline.input_rate != SAMPLE_RATE:
            raise ServerError(f"serve: need a model that listens at {SAMPLE_RATE} Hz, got {pipeline.input_rate} Hz")
        self.pipeline, self.config = pipeline, config
        self.voice = VoiceActivity.load()
        self.taken = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def run(self, function: Any, *args: Any) -> Any:
        """Calls a function on the thread that owns the model."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, functools.partial(function, *args))

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def page(self, request: Request) -> Response:
        return FileResponse(_PAGE, headers={"cache-control": "no-cache", "x-content-type-options": "nosniff"})

    async def health(self, request: Request) -> Response:
        return JSONResponse({"model": self.pipeline.name, "free": not self.taken})

    async def talk(self, websocket: WebSocket) -> None:
        if not _same_site(websocket):
            await websocket.close(1008)  # refused before the handshake: the browser sees 403
            return
        await websocket.accept()
        if self.taken:
            await websocket.send_json({"type": "busy", "message": _BUSY})
            await websocket.close(1013)
            return
        self.taken = True
        try:
            ready = {"type": "ready", "model": self.pipeline.name, "rate": self.pipeline.output_rate}
            await websocket.send_json(ready)
            conversation = await self.run(self.pipeline.conversation)
            await Talk(websocket, conversation, voice=self.voice, run=self.run, config=self.config).converse()
        finally:
            self.taken = False


def create_app(pipeline: Pipeline, *, config: TalkConfig | None = None) -> Starlette:
    """The whole server as an ASGI application.

    Raises:
        ServerError: the model does not listen at 16 kHz.
    """
    seat = Seat(pipeline, config or TalkConfig())

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        seat.close()

    routes = [Route("/", seat.page), Route("/health", seat.health), WebSocketRoute("/talk", seat.talk)]
    return Starlette(routes=routes, lifespan=lifespan)


def bind(host: str, port: int) -> socket.socket:
    """Takes the port, so that a taken one is known before the model is loaded.

    Raises:
        ServerError: it cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        taken = socket.socket(family, kind, protocol)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(address)
        taken.listen(100)  # early visitors wait until the model is there
    except OSError as error:
        raise ServerError(
            f"cannot listen on {host}:{port} ({error.strerror or error}); choose another with --port or --host"
        ) from error
    return taken


def serve(
    pipeline: Pipeline,
    listener: socket.socket,
    *,
    config: TalkConfig | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
) -> None:
    """Serves until interrupted.

    Args:
        listener: a bound socket, from `bind`.
        certificate, key: PEM files, for https: a browser gives the microphone only to https or to localhost.
    Raises:
        ServerError: the certificate and its key cannot be used.
    """
    import uvicorn

    settings = uvicorn.Config(
        create_app(pipeline, config=config),
        log_level="warning",
        ws_max_size=messages.LONGEST_SOUND,
        ws_max_queue=8,
        timeout_graceful_shutdown=2,
        ssl_certfile=certificate,
        ssl_keyfile=str(key) if key else None,
    )
    try:
        settings.load()
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors
        raise ServerError(f"{certificate}: not a certificate with its key, in PEM ({error})") from error
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn has shut down in order before it passes this on
        uvicorn.Server(settings).run(sockets=[listener])


def _same_site(connection: HTTPConnection) -> bool:
    """No other website may use a visitor's browser to talk to this server, by its own name or by a rebound one."""
    host = connection.headers.get("host", "")
    origin = connection.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return False
    server = connection.scope.get("server")
    name = urlsplit(f"//{host}").hostname or ""
    return not (server and _is_loopback(server[0])) or name == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
