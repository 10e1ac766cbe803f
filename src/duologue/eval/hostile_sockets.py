"""WebSockets as no library would speak them: handshakes that are none, and frames against RFC 6455.

Each handshake is refused with a status, each broken frame with the code of a close; nothing is left without an answer.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

from duologue.eval.hostile import Wrong
from duologue.eval.wire import BINARY, CLOSE, PING, PONG, TEXT, Answer, ask, closed, frame, frames, line, room, upgrade

PATHS = ("/v1/realtime", "/api/chat")
_BROKEN, _NO_TEXT, _TOO_BIG = 1002, 1007, 1009


@dataclass(frozen=True)
class Frames:
    """What is sent after a good handshake, and with which codes the server may close."""

    name: str
    raw: bytes
    codes: tuple[int, ...]


def some_frames(chance: random.Random) -> Frames:
    """One draw."""
    text = b'{"type": "response.cancel"}'
    code = chance.choice([0, 999, 1004, 1005, 1006, 1015, 2_999, 5_000, 65_535])
    size = chance.choice([2**40, 2**62, 22 * 2**20])
    found = [
        Frames("text that is no UTF-8", frame(TEXT, b'{"type": "\xff\xfe"}'), (_NO_TEXT,)),
        Frames("half a character at the end", frame(TEXT, b'"\xe2\x82'), (_NO_TEXT,)),
        Frames("no mask", frame(TEXT, text, masked=False), (_BROKEN,)),
        Frames("reserved bits", frame(TEXT, text, reserved=chance.randint(1, 7)), (_BROKEN,)),
        Frames("a reserved kind", frame(chance.choice([3, 4, 5, 6, 7, 11, 12, 15]), text), (_BROKEN,)),
        Frames("a long ping", frame(PING, bytes(200)), (_BROKEN,)),
        Frames("a ping in pieces", frame(PING, b"x", final=False), (_BROKEN,)),
        Frames("the rest of nothing", frame(0, text), (_BROKEN,)),
        Frames("text within text", frame(TEXT, b"{", final=False) + frame(TEXT, text), (_BROKEN,)),
        Frames("half a code", frame(CLOSE, b"\x03"), (_BROKEN,)),
        Frames("a code that is none", frame(CLOSE, struct.pack("!H", code)), (_BROKEN,)),
        Frames("a reason that is no text", frame(CLOSE, struct.pack("!H", 1000) + b"\xff"), (_BROKEN, _NO_TEXT)),
        Frames("a frame past every limit", struct.pack("!BBQ", 0x80 | BINARY, 0xFF, size) + bytes(200), (_TOO_BIG,)),
        Frames("a length below nothing", struct.pack("!BBQ", 0x81, 0xFF, 2**63 + 5) + bytes(50), (_BROKEN, _TOO_BIG)),
        Frames("a request in the middle", b"GET / HTTP/1.1\r\n\r\n" * 9, (_BROKEN, _TOO_BIG)),
        Frames("noise", b"\x70" + chance.randbytes(chance.randint(1, 3_000)), (_BROKEN,)),
        Frames("goodbye", frame(PONG, b"nobody asked") + frame(CLOSE, struct.pack("!H", 1000)), (1000,)),
        Frames("goodbye without a word", frame(CLOSE, b""), (1000, 1005)),
    ]
    return chance.choice(found)


async def send_frames(address: str, case: Frames, path: str) -> Wrong | None:
    """Opens a WebSocket and sends them."""
    await room(address)
    async with line(address) as (reader, writer):
        await writer.send(upgrade(path, host=address))
        if b" 101 " not in (head := await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0]:
            return Wrong("websocket", case.name, "101", head[:80].decode("latin-1"))
        await writer.send(case.raw)
        got = await closed(reader)
    if got in case.codes:
        return None
    return Wrong("websocket", f"{case.name} ({path})", f"closed with {case.codes}", f"{got}")


@dataclass(frozen=True)
class Handshake:
    """A request for a WebSocket, and the statuses that may answer it."""

    name: str
    raw: bytes
    statuses: tuple[int, ...]


_REFUSED = (400, 403, 404, 405, 426, 431)


def some_handshake(chance: random.Random, address: str) -> Handshake:
    """One draw."""
    path = chance.choice(PATHS)

    def made(name: str, *, at: str = path, **headers: str) -> Handshake:
        given = {key.replace("_", "-"): value for key, value in headers.items()}
        return Handshake(f"{name} ({at[:40]})", upgrade(at, given, host=address), _REFUSED)

    odd = ("POST", "PUT", "DELETE", "OPTIONS", "BREW")
    key = chance.choice(["", "x", "A" * 22, "A" * 500, "====", "\xff" * 24])
    makers: list[Callable[[], Handshake]] = [
        lambda: made("another version", Sec_WebSocket_Version=chance.choice(["8", "x", "14", "", "13, 8"])),
        lambda: made("no key", Sec_WebSocket_Key=key),
        lambda: made(
            "another site", Origin=chance.choice(["https://evil.example", "null", "http://[", "//", "http://[::1"])
        ),
        lambda: made(
            "a rebound name", Host=chance.choice(["evil.example", "[", "[::1", "localhost.evil.example", "]["])
        ),
        lambda: made(
            "no such place", at=chance.choice(["/v1/realtime/x", "/", "/api", "/v1/../v1/realtime", "/%00", "/%ff"])
        ),
        lambda: made("much", at=f"{path}?x={'x' * 9_000}"),
        lambda: made("much in a header", X="x" * 9_000),
        lambda: Handshake("another method", upgrade(path, method=chance.choice(odd), host=address), _REFUSED),
        lambda: Handshake(
            "an old version", upgrade(path, host=address).replace(b"/1.1", b"/1.0", 1), (*_REFUSED, 101, 505)
        ),
        lambda: Handshake(
            "two keys", upgrade(path, {"sec-websocket-key": "A" * 22 + "=="}, host=address), (*_REFUSED, 101)
        ),
    ]
    return chance.choice(makers)()


async def shake_hands(address: str, case: Handshake) -> Wrong | None:
    answer: Answer = await ask(address, case.raw, within=20)
    if answer.status in case.statuses:
        return None
    got = {0: "closed without an answer", -1: "no answer"}.get(answer.status, str(answer.status))
    return Wrong("websocket", case.name, f"a status of {case.statuses}", got)


async def too_large(address: str) -> Wrong | None:
    """An event larger than an event may be, and smaller than a frame: an error, and the session goes on."""
    case = "an event larger than there may be"
    async with line(address) as (reader, writer):
        await writer.send(upgrade(PATHS[0], host=address))
        await reader.readuntil(b"\r\n\r\n")
        await writer.send(frame(TEXT, b'{"type": "' + os.urandom(1).hex().encode() * (21 * 2**20 // 2 - 100) + b'"}'))
        await writer.send(frame(TEXT, b'{"type": "input_audio_buffer.clear"}'))
        seen = b""
        async for kind, payload in frames(reader):
            seen += payload
            if kind == CLOSE or b"input_audio_buffer.cleared" in payload:
                break
    good = b"event_too_large" in seen and b"input_audio_buffer.cleared" in seen
    return (
        None
        if good
        else Wrong("realtime", case, "event_too_large, and the session lives", seen[-200:].decode("latin-1"))
    )
