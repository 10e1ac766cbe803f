"""Requests for a WebSocket whose head is too large for the WebSocket library are handled as plain HTTP, to be refused
there. The library itself would leave them without an answer, and their sockets open."""

from __future__ import annotations

from collections.abc import Iterable

from uvicorn.protocols.http.h11_impl import H11Protocol

LONGEST = 8_192 - 2  # bytes of the first line, and of a header, that `websockets` reads
MOST = 128  # headers


def too_large(path: bytes, query: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the head of a request is more than may ask for a WebSocket."""
    lines = [len(name) + len(value) + 2 for name, value in headers]
    return len(lines) > MOST or max([*lines, len(path) + len(query) + len(b"GET ? HTTP/1.1")]) > LONGEST


class Http(H11Protocol):
    """uvicorn's, which asks here before it hands a connection over."""

    def _should_upgrade(self) -> bool:
        scope = self.scope
        return super()._should_upgrade() and not too_large(scope["raw_path"], scope["query_string"], self.headers)
