"""The server as one application: every protocol on one port, one engine behind them all.

Every request passes the door (`_Door`) first: another site's page, a missing key, or one conversation too many for a
key are turned away there, whatever the protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket as WebSocketConnection

from duologue.audio.vad import VoiceActivity
from duologue.engine import Engine
from duologue.errors import ServerError
from duologue.pipeline import Pipeline
from duologue.server import moshi_ws, openai_live, realtime, web
from duologue.server.assistant import Assistant, Library
from duologue.server.bodies import patient
from duologue.server.http_api import HttpApi, HttpLimits, failure
from duologue.server.metrics import Metrics
from duologue.server.moshi_ws import MoshiConfig
from duologue.server.openai_live import RemoteTextModel, TextModelConfig
from duologue.server.realtime import CallLimits, RealtimeLimits, SecretStore
from duologue.server.recordings import Recordings
from duologue.server.security import Keys, same_site
from duologue.server.session_log import SessionLog
from duologue.server.tracing import Tracing
from duologue.server.upgrades import LONGEST, MOST, Http, WebSocket, too_large
from duologue.server.witness import Several, Witness
from duologue.skills.router import Router
from duologue.streaming.turns import OverlapConfig

_OPEN = ("/healthz", "/readyz", *web.files())  # what anybody may see: there is nothing in it
_LARGEST_FRAME = 21 * 2**20  # bytes of a WebSocket message: 15 MiB of audio in base64, and its JSON


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """What a server allows."""

    max_sessions: int = 8
    per_key: int = 8  # conversations of one key at once
    slowest: float = 20.0  # seconds until the next piece of a request
    origins: tuple[str, ...] = ()  # of pages on other sites that may use the server
    overlap: OverlapConfig | None = field(default_factory=OverlapConfig)  # None: any speech stops an answer
    echo: bool = True  # answers are taken out of what microphones hear; what is played over a loudspeaker stops none
    skills: bool = True  # whether offline skills answer what they can
    log_text: bool = False  # whether what is said goes to the log
    http: HttpLimits = field(default_factory=HttpLimits)
    realtime: RealtimeLimits = field(default_factory=RealtimeLimits)
    calls: CallLimits = field(default_factory=CallLimits)
    text_model: TextModelConfig = field(default_factory=TextModelConfig)  # what Live sessions delegate to
    moshi: MoshiConfig = field(default_factory=MoshiConfig)

    def __post_init__(self):
        if self.max_sessions < 1 or self.per_key < 1:
            raise ServerError(f"serve: need room for at least one conversation, got {self.max_sessions}")


class _Door:
    """Turns away who may not come in, before any endpoint sees them."""

    def __init__(self, app: ASGIApp, *, keys: Keys, config: ServeConfig):
        self.app, self.keys, self.config = app, keys, config
        self._inside: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        connection = HTTPConnection(scope)
        upgrades = scope["type"] == "http" and connection.headers.get("upgrade", "").lower() == "websocket"
        if upgrades and too_large(scope["raw_path"], scope["query_string"], scope["headers"]):
            message = f"to ask for a WebSocket a request may have {LONGEST} bytes in a line, and {MOST} headers"
            return await self._refuse(scope, receive, send, message, 431)
        if not same_site(connection, self.config.origins):
            return await self._refuse(scope, receive, send, "pages of other sites may not use this server", 403)
        if scope["path"] in _OPEN:
            return await self.app(scope, receive, send)
        who = self.keys.who(connection)
        if who is None:
            return await self._refuse(scope, receive, send, "need a valid key: Authorization: Bearer ...", 401)
        full = self._inside[who] >= self.config.per_key and not scope["path"].endswith("/hangup")
        if full and self.keys.needed:
            return await self._refuse(scope, receive, send, "too many conversations with this key at once", 429)
        scope.setdefault("state", {}).update(who=who, inside=self._inside)  # a call over WebRTC outlives its request
        self._inside[who] += 1
        if scope["type"] == "http":
            receive = patient(receive, self.config.slowest)
        try:
            await self.app(scope, receive, send)
        finally:
            self._inside[who] -= 1

    @staticmethod
    async def _refuse(scope: Scope, receive: Receive, send: Send, message: str, status: int) -> None:
        if scope["type"] == "http":
            return await failure(message, status=status, code="invalid_api_key" if status == 401 else None)(
                scope, receive, send
            )
        # A WebSocket that is not accepted: say it with a status where the server can, else close it.
        if "websocket.http.response" in scope.get("extensions", {}):
            response = failure(message, status=status, code="invalid_api_key" if status == 401 else None)
            return await response(scope, receive, send)
        await send({"type": "websocket.close", "code": 1008, "reason": message})


class Server:
    """An engine and what is served from it."""

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        config: ServeConfig | None = None,
        keys: Keys | None = None,
        library: Library | None = None,
        recordings: Recordings | None = None,
        tracing: Tracing | None = None,
    ):
        self.pipeline, self.config, self.keys = pipeline, config or ServeConfig(), keys or Keys()
        self.metrics, self._library, self._router = Metrics(), library or Library(), Router()
        self._recordings, self._tracing = recordings, tracing
        self._text_model = RemoteTextModel(self.config.text_model) if self.config.text_model.url else None
        self.engine = Engine(
            pipeline.model, slots=self.config.max_sessions, voice=VoiceActivity.load(), watch=self.metrics
        )

    def app(self, more: Sequence[BaseRoute] = ()) -> ASGIApp:
        """The application. The engine runs while it does."""

        @contextlib.asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            self.engine.start()
            if self._recordings:
                self._recordings.start()
            yield
            await calls.close()
            await live.close()
            self.engine.close()
            for each in (self._recordings, self._tracing):
                if each:
                    await asyncio.to_thread(each.close)

        secrets = SecretStore(
            issue=lambda seconds, by: self.keys.issue(seconds, by=by),
            settings=realtime.Settings(model=self.pipeline.name),
            limits=self.config.realtime,
        )
        calls = realtime.Calls(
            self.engine, self.config.realtime, bounds=self.config.calls, options=self.options, secrets=secrets
        )
        live = openai_live.Live(self.engine, self.config.realtime, bounds=self.config.calls, options=self.live_options)
        http = HttpApi(self.engine, name=self.pipeline.name, limits=self.config.http, witnesses=self._witness)
        models, *plain = http.routes()
        turns: list[Route | WebSocketRoute] = [
            realtime.route(self.engine, self.config.realtime, options=self.options, secrets=secrets),
            *calls.routes(),
            *plain,
        ]
        if self.engine.runner.spec.duplex:
            turns = [_without_turns(route) for route in turns]
        routes = [
            *more,
            Route("/healthz", self._health),
            Route("/readyz", self._ready),
            Route("/metrics", self._metrics),
            *web.routes(),
            *turns,
            *live.routes(),
            secrets.route(),
            moshi_ws.route(self.engine, replace(self.config.moshi, echo=self.config.echo), witnesses=self._witness),
            models,
        ]
        handlers: dict[Any, Any] = {HTTPException: _refused, ClientDisconnect: _gone}
        return _Door(
            Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers), keys=self.keys, config=self.config
        )

    def options(self) -> realtime.Options:
        """What a conversation over the Realtime API begins with; its assistant is its own."""
        assistant = Assistant(self._library, self._router, offline=self.config.skills)
        return realtime.Options(
            settings=realtime.Settings(model=self.pipeline.name),
            router=assistant.call,
            reply=assistant.reply,
            alarms=assistant,
            overlap=self.config.overlap,
            echo=self.config.echo,
            witnesses=self._witness,
        )

    def live_options(self) -> openai_live.LiveOptions:
        """What a conversation over the Live API begins with."""
        return openai_live.LiveOptions(base=self.options(), text_model=self._text_model)

    def _witness(self, kind: str, name: str) -> Witness:
        """Who is told what happens in a conversation."""
        found: list[Witness] = [SessionLog(kind, name, texts=self.config.log_text)]
        model, spec = self.pipeline.name, self.engine.runner.spec
        if self._tracing:
            both = (spec.input_rate, spec.output_rate) if spec.duplex else None
            found.append(self._tracing.open(kind, name, model=model, rates=both))
        if self._recordings and kind != "http":
            rates = {"rate_in": spec.input_rate, "rate": spec.output_rate}
            found.append(self._recordings.open(kind, name, model=model, duplex=spec.duplex, **rates))
        return Several(found)

    async def _health(self, request: Request) -> Response:
        alive = self.engine.alive
        return JSONResponse({"alive": alive}, status_code=200 if alive else 503)

    async def _ready(self, request: Request) -> Response:
        free = self.engine.free if self.engine.alive else 0
        about = {"model": self.pipeline.name, "places": self.config.max_sessions, "free": free}
        return JSONResponse(about, status_code=200 if self.engine.alive else 503)

    async def _metrics(self, request: Request) -> Response:
        return PlainTextResponse(self.metrics.text(self.engine), media_type="text/plain; version=0.0.4")


_NO_TURNS = "this model listens and speaks at once, and has no turns: use /v1/live/sessions or /api/chat"


def _without_turns(route: Route | WebSocketRoute) -> Route | WebSocketRoute:
    """Says where else to go, at an endpoint that needs a model with turns."""

    async def refuse(request: Request) -> Response:
        return failure(_NO_TURNS, status=501)

    async def refuse_socket(websocket: WebSocketConnection) -> None:
        await websocket.accept()
        error = realtime.ClientError(_NO_TURNS, code="unsupported_model")
        await websocket.send_json(realtime.error_event(error))
        await websocket.close(1008)

    if isinstance(route, WebSocketRoute):
        return WebSocketRoute(route.path, refuse_socket)
    return Route(route.path, refuse, methods=list(route.methods or ["GET"]))


async def _refused(request: Request, error: HTTPException) -> Response:
    """No such place, another method."""
    return failure(error.detail, status=error.status_code)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    """For a client that is there still."""
    return failure("the request did not come to its end in time", status=408)


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
    server: Server,
    listener: socket.socket,
    *,
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
        server.app(),
        http=Http,
        ws=WebSocket,
        log_level="warning",
        ws_max_size=_LARGEST_FRAME,
        ws_max_queue=8,
        ws_ping_interval=1.5,  # a client that is gone without a word gives its place back within five seconds
        ws_ping_timeout=2.5,
        ws_per_message_deflate=False,  # sound does not get smaller, and every connection would pay for it
        timeout_keep_alive=20,
        h11_max_incomplete_event_size=2**16,
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
