"""The Live sessions of a server, by id: sockets at the side, and the end of a session over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from duologue.server.openai_live.connection import LiveConnection
from duologue.server.openai_live.events import error_event
from duologue.server.realtime.carrier import Mail, Pace
from duologue.server.realtime.events import ClientError, Event
from duologue.server.realtime.limits import RealtimeLimits

PATH = "/v1/live/sessions"
GONE = (WebSocketDisconnect, RuntimeError, asyncio.TimeoutError)  # how a WebSocket says that nobody is there
_ABSENT = ("accept", "refer", "reject", "fork")
_WATCHERS = 4  # of a session


class Sessions:
    """Those that run. A session is found by whose key began it, and by nobody else."""

    def __init__(self, limits: RealtimeLimits):
        self._limits = limits
        self._running: dict[str, tuple[LiveConnection, str]] = {}

    def add(self, session: LiveConnection, who: str) -> None:
        self._running[session.id] = session, who

    def remove(self, session: LiveConnection) -> None:
        self._running.pop(session.id, None)

    def routes(self) -> list[BaseRoute]:
        return [
            WebSocketRoute(f"{PATH}/{{id}}/attach", self._attach),
            Route(f"{PATH}/{{id}}/hangup", self._hang_up, methods=["POST"]),
            *(
                Route(f"{PATH}/{{id}}/{name}", _absent, methods=["POST"])
                for name in ("accept", "refer", "reject", "fork")
            ),
            Route(f"{PATH}/{{id}}/content", _absent, methods=["GET"]),
        ]

    def _find(self, scope: Any) -> LiveConnection:
        session, who = self._running.get(scope["path_params"]["id"], (None, ""))
        if session is None or session.over or who != scope.get("state", {}).get("who", ""):
            raise ClientError("There is no such session.", code="session_not_found", param="session_id")
        return session

    async def _hang_up(self, request: Request) -> Response:
        try:
            self._find(request.scope).hang_up()
        except ClientError as error:
            return failure(error, 404)
        return Response(status_code=200)

    async def _attach(self, websocket: WebSocket) -> None:
        """A socket at the side: sees everything, and may do everything but speak."""
        await websocket.accept(subprotocol=subprotocol(websocket))
        mail = Mail(websocket.send_text, self._limits)

        def emit(event: Event) -> None:
            mail.put(json.dumps(event))

        try:
            session = self._find(websocket.scope)
            if len(session.watchers) >= _WATCHERS:
                raise ClientError(
                    f"A session has at most {_WATCHERS} connections at its side.", code="too_many_connections"
                )
        except ClientError as error:
            emit(error_event(error))
            with contextlib.suppress(*GONE):
                await mail.flush()
                await websocket.close(1008)
            return
        mail.name = session.id[-8:]
        session.watchers.append(emit)

        async def until_over() -> None:
            while not session.over and not mail.slow:
                await asyncio.sleep(0.1)

        try:
            aside = partial(session.receive_aside, emit=emit)
            await talk(websocket, mail, aside, until_over(), limits=self._limits)
        finally:
            session.watchers.remove(emit)
            await goodbye(websocket, mail)


async def talk(
    websocket: WebSocket,
    mail: Mail,
    receive: Callable[[str | bytes], None],
    over: Awaitable[None],
    *,
    limits: RealtimeLimits,
) -> None:
    """Reads and writes until one of them ends, or it is over."""

    async def read() -> None:
        pace = Pace(limits)
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            receive(message.get("text") or message.get("bytes") or "")
            await pace.keep()

    tasks = [asyncio.ensure_future(each) for each in (read(), mail.run(), over)]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            with contextlib.suppress(*GONE):
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def goodbye(websocket: WebSocket, mail: Mail, code: int = 1000) -> None:
    """Sends what waits, and closes."""
    with contextlib.suppress(*GONE):
        if not mail.slow:
            await mail.flush()
        await websocket.close(1008 if mail.slow else code)


def subprotocol(websocket: WebSocket) -> str | None:
    """What a browser is answered that names its key as a sub-protocol."""
    return "realtime" if "realtime" in websocket.scope.get("subprotocols", []) else None


async def _absent(request: Request) -> Response:
    message = (
        "This server has no calls by telephone, and keeps no sessions: they cannot be accepted, forked or downloaded."
    )
    return failure(ClientError(message, code="not_supported"), 501)


def failure(error: ClientError, status: int) -> JSONResponse:
    about = {"message": str(error), "type": error.kind, "code": error.code, "param": error.param}
    return JSONResponse({"error": about}, status)
