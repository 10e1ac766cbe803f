"""What uvicorn leaves open: heads that no WebSocket can begin with, clients that do not go on, text that is none. Every
connection gets an answer or an end, and no stranger a traceback in the log.

Requests for a WebSocket whose head is too large for the WebSocket library, or that are none, are handled as plain HTTP,
to be refused there. The library itself would leave them without an answer, and their sockets open.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

LONGEST = 8_192 - 2  # bytes of the first line, and of a header, that `websockets` reads
MOST = 128  # headers
SLOWEST = 20.0  # seconds that the head of a request may take
_NO_TEXT = 1007  # why a WebSocket is closed


def too_large(path: bytes, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the head of a request is more than may ask for a WebSocket."""
    lines = [len(name) + len(value) + 2 for name, value in headers]
    return len(lines) > MOST or max([*lines, len(path) + len(query) + len(b"GET ? HTTP/1.1")]) > LONGEST


class Http(H11Protocol):
    """uvicorn's, which asks here before it hands a connection over, and waits for no head for ever."""

    slowest = SLOWEST
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_head()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and self.cycle.response_complete:  # else the next request is here already
            self._wait_for_head()

    def handle_events(self) -> None:
        cycle = self.cycle
        super().handle_events()
        if self.cycle is not cycle:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._stop_waiting()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:  # the endpoint is at work on what has gone wrong
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started:
                return self.transport.close()
        super().send_400_response(msg)

    def _wait_for_head(self) -> None:
        self._stop_waiting()
        self._late = self.loop.call_later(self.slowest, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _should_upgrade(self) -> bool:
        scope = self.scope
        good = scope["method"] == "GET" and scope["http_version"] == "1.1"
        return (
            good and super()._should_upgrade() and not too_large(scope["raw_path"], scope["query_string"], self.headers)
        )


class WebSocket(WebSocketsSansIOProtocol):
    """uvicorn's, which drops who is gone at once (it would wait until all is sent, to who takes nothing any more), and
    does not complain of strangers in the log."""

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self.transport.abort()

    async def send(self, message: Any) -> None:
        if message["type"] == "websocket.send" and self.transport.is_closing():
            raise ClientDisconnected  # at once: what is written after a reset costs a line of the log each
        await super().send(message)
        if self.initial_response is not None and self.close_sent:  # refused, with a whole answer: nothing is amiss
            self.handshake_complete = True

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text":
            self.frames = [b"".join(self.frames)]
            try:
                self.frames[0].decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(_NO_TEXT, "text needs to be UTF-8")
                return self.handle_parser_exception()
        super().send_receive_event_to_app()
