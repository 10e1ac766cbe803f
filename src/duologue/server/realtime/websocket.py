"""The Realtime API over a WebSocket: text frames in, text frames out, and the clock."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from duologue.engine import Engine
from duologue.errors import BusyError
from duologue.server.realtime import beta
from duologue.server.realtime.connection import Connection, Options
from duologue.server.realtime.events import ClientError, Event, error_event, read
from duologue.server.realtime.limits import RealtimeLimits
from duologue.server.realtime.secrets import SecretStore

logger = logging.getLogger(__name__)

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
        await _Carrier(websocket, engine, limits, _begin_with(websocket, own, secrets)).carry()

    return WebSocketRoute(path, endpoint)


def _begin_with(websocket: WebSocket, options: Options, secrets: SecretStore | None) -> Options:
    """What this client's session begins with."""
    settings = (secrets.settings(websocket) if secrets else None) or options.settings
    model = websocket.query_params.get("model", "")[:200]
    if websocket.query_params.get("intent") == "transcription":
        settings = replace(settings, type="transcription")
    beyond = websocket.query_params.get("duologue") == "1"
    return replace(options, settings=replace(settings, model=model or settings.model), beyond=beyond)


class _Carrier:
    """One WebSocket, from its handshake to its end."""

    def __init__(self, websocket: WebSocket, engine: Engine, limits: RealtimeLimits, options: Options):
        self._websocket, self._engine, self._limits, self._options = websocket, engine, limits, options
        self._old = "realtime=v1" in websocket.headers.get("openai-beta", "")
        self._waiting: deque[str] = deque()
        self._size = 0  # characters that wait
        self._more = asyncio.Event()
        self._slow = False

    async def carry(self) -> None:
        offered = self._websocket.scope.get("subprotocols", [])
        await self._websocket.accept(subprotocol="realtime" if "realtime" in offered else None)
        loop = asyncio.get_running_loop()
        try:
            connection = Connection(
                self._engine,
                emit=self._emit,
                soon=loop.call_soon_threadsafe,
                clock=loop.time,
                wall=time.time,
                limits=self._limits,
                options=self._options,
            )
        except BusyError as error:
            self._emit(error_event(ClientError(f"{error}.", code="server_busy", kind="server_error")))
            with contextlib.suppress(WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
                await self._flush()
                await self._websocket.close(_BUSY)
            return
        try:
            connection.begin()
            await self._talk(connection)
        finally:
            connection.close()

    async def _talk(self, connection: Connection) -> None:
        """Reads, writes and watches the clock, until one of them is over."""
        tasks = [asyncio.create_task(each) for each in (self._read(connection), self._write(), self._watch(connection))]
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
            if not self._slow:
                await self._flush()
            await self._websocket.close(_TOO_SLOW if self._slow else 1000)

    async def _read(self, connection: Connection) -> None:
        while not connection.over:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            self._receive(connection, message.get("text") or message.get("bytes") or "")
            await asyncio.sleep(0)  # a client that sends much does not keep the others waiting

    def _receive(self, connection: Connection, raw: str | bytes) -> None:
        if not self._old:
            return connection.receive(raw)
        event: Event | None = None
        try:
            event = beta.incoming(read(raw, longest=self._limits.event))
            connection.take(event)
        except ClientError as error:
            connection.refuse(error, event)

    async def _watch(self, connection: Connection) -> None:
        while not connection.over and not self._slow:
            await asyncio.sleep(min(1.0, connection.poll()))

    async def _write(self) -> None:
        while True:
            await self._more.wait()
            await self._flush()

    async def _flush(self) -> None:
        self._more.clear()
        while self._waiting:
            text = self._waiting.popleft()
            self._size -= len(text)
            await asyncio.wait_for(self._websocket.send_text(text), self._limits.slowest)

    def _emit(self, event: Event) -> None:
        """Queues an event; a client that does not take what it is sent loses its session."""
        shown = beta.outgoing(event) if self._old else event
        if shown is None or self._slow:
            return
        text = json.dumps(shown)
        self._waiting.append(text)
        self._size += len(text)
        self._more.set()
        if len(self._waiting) > self._limits.waiting or self._size > self._limits.waiting_size:
            logger.warning("a client does not take what it is sent; its session is over")
            self._slow = True
            self._waiting.clear()
