"""Sockets by hand: requests and WebSocket frames as no honest library sends them, and what comes back."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from duologue.errors import DataError

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10  # opcodes of frames
_LARGEST = 2**26  # bytes of an answer that are read


@dataclass(frozen=True)
class Answer:
    """What came back for a request; status 0: nothing but the end of the connection, -1: not even that in time."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def error(self) -> dict[str, Any] | None:
        """The error in it, in the shape that clients of OpenAI read."""
        found = self.json.get("error") if isinstance(self.json, dict) else None
        return found if isinstance(found, dict) and isinstance(found.get("message"), str) else None


@contextlib.asynccontextmanager
async def line(address: str, *, narrow: bool = False) -> AsyncIterator[tuple[asyncio.StreamReader, Line]]:
    """A connection. `narrow`: one in which little is on its way before it stands still."""
    host, _, port = address.rpartition(":")
    plain = socket.socket()
    plain.setblocking(False)
    if narrow:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    await asyncio.get_running_loop().sock_connect(plain, (host, int(port)))
    reader, writer = await asyncio.open_connection(sock=plain, limit=4_096 if narrow else 2**20)
    made = Line(writer)
    try:
        yield reader, made
    finally:
        await made.close()


class Line:
    """The sending end of a connection."""

    def __init__(self, writer: asyncio.StreamWriter):
        self._writer = writer

    async def send(self, *pieces: bytes) -> None:
        """Sends; that the other end has gone is not an error here."""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                self._writer.write(piece)
                await self._writer.drain()

    def end(self) -> None:
        """Nothing more comes from here."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def reset(self) -> None:
        """Hangs up as a process that was killed does, or a machine that fell off the network: by a TCP reset."""
        plain = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            await asyncio.wait_for(self._writer.wait_closed(), 1.0)


def request(
    method: str, path: str, body: bytes = b"", *, headers: Mapping[str, str] | None = None, host: str = "localhost"
) -> bytes:
    """A request as it should be, which ends its connection."""
    fields = {"Host": host, "Connection": "close", "Content-Length": str(len(body)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


async def ask(address: str, *pieces: bytes, within: float = 30.0, end: bool = False) -> Answer:
    """Sends the bytes of a request and reads what comes back.

    Args:
        end: nothing more comes after them, and the server is told.
    """
    async with line(address) as (reader, writer):
        sending = asyncio.create_task(_send(writer, pieces, end=end))  # the answer may come before all is sent
        try:
            return await asyncio.wait_for(read_answer(reader), within)
        except asyncio.TimeoutError:
            return Answer(-1)
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)


async def _send(writer: Line, pieces: tuple[bytes, ...], *, end: bool) -> None:
    await writer.send(*pieces)
    if end:
        writer.end()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """One answer: its head, and its body by its length or up to the end of the connection."""
    with contextlib.suppress(asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in head[1:] if row)}
        body = await _body(reader, headers)
        return Answer(int(head[0].split()[1]), headers, body)
    return Answer(0)


async def _body(reader: asyncio.StreamReader, headers: Mapping[str, str]) -> bytes:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        if "content-length" in headers:
            return await reader.readexactly(min(int(headers["content-length"]), _LARGEST))
        if headers.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(await reader.readline() or b"0", 16):
                pieces.append((await reader.readexactly(size + 2))[:-2])
            return b"".join(pieces)
        return await reader.read(_LARGEST)
    return b""


async def places(address: str) -> tuple[int, int]:
    """How many conversations there is room for, and how many places there are.

    Raises:
        DataError: the server does not answer as it should.
    """
    answer = await ask(address, request("GET", "/readyz"), within=20)
    if answer.status != 200:
        raise DataError(f"the server is not ready any more: /readyz answers {answer.status}")
    return answer.json["free"], answer.json["places"]


async def room(address: str, *, least: int = 4, within: float = 60.0) -> None:
    """Waits until there is room for so many: a place that is given back is free a little later.

    Raises:
        DataError: there is none.
    """
    end = time.monotonic() + within
    while (found := await places(address))[0] < least:
        if time.monotonic() > end:
            raise DataError(f"of {found[1]} places {found[0]} are free, and no more for {within:.0f} seconds")
        await asyncio.sleep(0.05)


def upgrade(
    path: str, headers: Mapping[str, str] | None = None, *, method: str = "GET", host: str = "localhost"
) -> bytes:
    """The request for a WebSocket."""
    fields = {
        "Host": host,
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        **(headers or {}),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1")


def frame(opcode: int, payload: bytes, *, final: bool = True, masked: bool = True, reserved: int = 0) -> bytes:
    """A frame of a WebSocket's client."""
    first, mask = final << 7 | reserved << 4 | opcode, masked << 7
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, mask | size)
    elif size < 2**16:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    return head + (bytes(4) if masked else b"") + payload  # a mask of zeros changes nothing


async def frames(reader: asyncio.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    """The frames that a server sends, up to the end of the connection."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            first, size = await reader.readexactly(2)
            if size == 126:
                (size,) = struct.unpack("!H", await reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await reader.readexactly(8))
            yield first & 15, await reader.readexactly(size)


async def closed(reader: asyncio.StreamReader, *, within: float = 20.0) -> int:
    """Reads until the server closes; gives its code, 1005 for none, 1006 for an end without a word, -1 for no end."""

    async def code() -> int:
        async for opcode, payload in frames(reader):
            if opcode == CLOSE:
                return struct.unpack("!H", payload[:2])[0] if len(payload) > 1 else 1005
        return 1006

    try:
        return await asyncio.wait_for(code(), within)
    except asyncio.TimeoutError:
        return -1
