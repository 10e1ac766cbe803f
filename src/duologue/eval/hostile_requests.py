"""Requests against HTTP itself, or to places that there are not."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from duologue.eval.hostile import Wrong, dumped, noise
from duologue.eval.hostile_http import CHAT, CLIENT, JSON, SECRETS, SPEECH, VALID, WRITTEN, Case, part, some_body
from duologue.eval.wire import line, read_answer, request

_ODD = ("PUT", "DELETE", "PATCH", "BREW", "OPTIONS", "TRACE")
_NOWHERE = (
    "/v1/x",
    "/v1/audio",
    "/%ff",
    "/%00",
    "/..",
    "/v1/audio/speech/",
    "/v1//realtime",
    "/x" * 900,
    "/?" + "x" * 9_000,
)
_HOSTS = ("[", "][", "[::1", "evil.example", "localhost.evil.example", "a b")
_LENGTH = b"Content-Length: "


def draw(chance: random.Random) -> Case:
    """One malformed request: in its body, or as a request."""
    return some_request(chance) if chance.random() < 0.25 else some_body(chance)


def _plain(name: str, *raw: bytes, **how: Any) -> Case:
    """The answer may come from below the endpoints, in any shape."""
    return Case(name, raw, **{"shaped": False, **how})


def some_request(chance: random.Random) -> Case:
    """One draw."""
    path = chance.choice([SPEECH, CHAT, SECRETS, WRITTEN])
    body = dumped(VALID.get(path, {})).encode()
    good = request("POST", path, body, headers=JSON)
    head, _, _ = good.partition(b"\r\n\r\n")
    chunked = request("POST", path, headers={**JSON, "Transfer-Encoding": "chunked"})
    chunked = chunked.replace(_LENGTH + b"0\r\n", b"")
    host, nowhere = chance.choice(_HOSTS), chance.choice(_NOWHERE)
    site = {**JSON, "Origin": chance.choice(["http://[", "null", "x"])}
    other = chance.choice([b"SIP/2.0", b"HTTP/x", b"HTTP/1"])
    asking = request("GET", "/v1/models", headers={"Connection": "keep-alive"})
    h2c = {"Connection": "Upgrade", "Upgrade": "h2c"}
    open_end: dict[str, Any] = {"end": True, "silent": True}  # the server may close as soon as nothing more comes
    found = [
        Case("another method", (request(chance.choice(_ODD), path),)),
        Case("no such place", (request("POST", nowhere, body, headers=JSON),), statuses=(307, *CLIENT)),
        Case("a rebound name", (request("POST", path, body, headers=JSON, host=host),), shaped=" " not in host),
        Case("another site", (request("POST", path, body, headers=site),)),
        Case("no body", (request("POST", path, headers=JSON),), statuses=(200, *CLIENT)),
        _plain("cut off", good[: -chance.randrange(1, 9)], **open_end),
        _plain("no length", head.replace(_LENGTH + b"%d\r\n" % len(body), b"") + b"\r\n\r\n", statuses=(200, *CLIENT)),
        _plain("a length that is none", good.replace(_LENGTH, _LENGTH + b"x")),
        _plain("a length below nothing", good.replace(_LENGTH, _LENGTH + b"-")),
        _plain("two lengths", good.replace(_LENGTH, _LENGTH + b"3\r\n" + _LENGTH)),
        _plain("a length past every limit", good.replace(_LENGTH, _LENGTH + b"9999999999"), **open_end),
        _plain("a piece that is none", chunked + b"zz\r\nx\r\n", silent=True),
        _plain("pieces without an end", chunked + b"5\r\n[1, 2", **open_end),
        _plain("a piece past every limit", chunked + b"fffffffffffffffff\r\n" + b"x" * 99, **open_end),
        _plain("no request", noise(chance, 1, 300) + b"\r\n\r\n"),
        _plain("no version", f"POST {path}\r\n\r\n".encode()),
        _plain("another protocol's version", good.replace(b"HTTP/1.1", other, 1)),
        _plain("a header without a colon", good.replace(b"Host", b"Host x\r\nHost", 1)),
        _plain("a header with a zero", good.replace(b"Host", b"X: \x00\r\nHost", 1)),
        _plain("another protocol", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise(chance, 200, 300)),
        _plain("no host", good.replace(b"Host: localhost\r\n", b"", 1)),
        _plain("a head without an end", head + b"\r\nX: " + b"x" * 70_000, **open_end),
        _plain("nothing in it", b"\r\n" * 9, **open_end),
        _plain("a good request, then none", asking + noise(chance, 1, 99), statuses=(200,)),
        _plain("an upgrade to what there is not", request("GET", "/v1/realtime", headers=h2c)),
    ]
    return chance.choice(found)


async def much(address: str, *, size: int = 64 * 2**20) -> Wrong | None:
    """A body without a length that does not end: it is cut off where a request may have no more."""
    how = {"Content-Type": "multipart/form-data; boundary=limit", "Transfer-Encoding": "chunked"}
    head = request("POST", WRITTEN, headers=how).replace(b"Content-Length: 0\r\n", b"")
    begin = b"--limit\r\n" + part("file", b"", file="a.wav")
    taken = 0
    async with line(address) as (reader, writer):
        await writer.send(head, b"%x\r\n" % len(begin) + begin + b"\r\n")
        reading = asyncio.create_task(read_answer(reader))
        while taken < size and not reading.done():
            await writer.send(b"%x\r\n" % 2**16 + bytes(2**16) + b"\r\n")
            taken += 2**16
            await asyncio.sleep(0)  # a socket that takes everything at once would never let the answer be read
        reading.cancel()
    if taken < size:
        return None
    return Wrong(
        "http", "a body past every limit, without a length", "an answer, or an end", f"{taken} bytes were taken"
    )
