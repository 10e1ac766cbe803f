"""The Realtime API over a WebSocket: text frames in, text frames out, and the clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from duologue.engine import Engine
from duologue.errors import BusyError
from duologue.server.realtime import beta
from duologue.server.realtime.carrier import Mail, Pace, begin_with, connect, watch
from duologue.server.realtime.connection import Connection
from duologue.server.realtime.events import ClientError, Event, error_event, read
from duologue.server.realtime.limits import RealtimeLimits
from duologue.server.realtime.options import Options
from duologue.server.realtime.secrets import SecretStore
from duologue.server.session_log import short

_BUSY, _TOO_SLOW = 1013, 1008  # why a WebSocket is closed


def route(
    engine: Engine,
    limits: RealtimeLimits | None = None,
    *,
    options: Options | Callable[[], Options] | None = None,
    secrets: SecretStore | None = None,
    path: str = "/v1/realtime",
) -> WebSocketRoute:
    """The endpoint. Who may come in is decided before.

    Args:
        options: of every session, or what makes a session's own.
        secrets: knows what settings the sessions of a secret begin with.
    """
    limits, given = limits or RealtimeLimits(), options or Options()

    async def endpoint(websocket: WebSocket) -> None:
        own = given if isinstance(given, Options) else given()
        await _Carrier(websocket, engine, limits, begin_with(websocket, own, secrets)).carry()

    return WebSocketRoute(path, endpoint)


class _Carrier:
    """One WebSocket, from its handshake to its end."""

    def __init__(self, websocket: WebSocket, engine: Engine, limits: RealtimeLimits, options: Options):
        self._websocket, self._engine, self._limits, self._options = websocket, engine, limits, options
        self._old = "realtime=v1" in websocket.headers.get("openai-beta", "")
        self._mail = Mail(websocket.send_text, limits)

    async def carry(self) -> None:
        offered = self._websocket.scope.get("subprotocols", [])
        await self._websocket.accept(subprotocol="realtime" if "realtime" in offered else None)
        try:
            connection = connect(self._engine, self._emit, limits=self._limits, options=self._options)
        except BusyError as error:
            self._emit(error_event(ClientError(f"{error}.", code="server_busy", kind="server_error")))
            with contextlib.suppress(WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
                await self._mail.flush()
                await self._websocket.close(_BUSY)
            return
        self._mail.name = short(connection.id)
        try:
            connection.begin()
            await self._talk(connection)
        finally:
            connection.close()

    async def _talk(self, connection: Connection) -> None:
        """Reads, writes and watches the clock, until one of them is over."""
        work = (self._read(connection), self._mail.run(), watch(connection, self._mail))
        tasks = [asyncio.create_task(each) for each in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                with contextlib.suppress(WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
                    task.result()
        finally:
            connection.close()  # before what may take long: saying goodbye
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
            if not self._mail.slow:
                await self._mail.flush()
            await self._websocket.close(_TOO_SLOW if self._mail.slow else 1000)

    async def _read(self, connection: Connection) -> None:
        pace = Pace(self._limits)
        while not connection.over:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            self._receive(connection, message.get("text") or message.get("bytes") or "")
            await pace.keep()

    def _receive(self, connection: Connection, raw: str | bytes) -> None:
        if not self._old:
            return connection.receive(raw)
        event: Event | None = None
        try:
            event = beta.incoming(read(raw, longest=self._limits.event))
            connection.take(event)
        except ClientError as error:
            connection.refuse(error, event)

    def _emit(self, event: Event) -> None:
        shown = beta.outgoing(event) if self._old else event
        if shown is not None:
            self._mail.put(json.dumps(shown))
