"""Malformed offers to call over WebRTC, and malformed events on the data channel of a call that was answered.

Needs aiortc.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from duologue.errors import DataError
from duologue.eval.hostile import Wrong, noise
from duologue.eval.hostile_events import Case
from duologue.eval.hostile_http import form, part
from duologue.eval.hostile_talk import drive
from duologue.eval.wire import Answer, ask, request, room

PATH = "/v1/realtime/calls"
_SDP = "application/sdp"
_NEEDED = ("a=ice-ufrag", "a=ice-pwd", "a=fingerprint", "a=setup", "a=mid", "a=rtcp-mux", "a=rtpmap", "m=audio", "v=0")
_CONNECT = 20.0  # seconds

Spoil = Callable[[random.Random, str], str | bytes]


@dataclass(frozen=True)
class Offer:
    """A request with an offer, and the statuses that may answer it."""

    name: str
    raw: bytes
    statuses: tuple[int, ...] = (400,)


def _without(sdp: str, head: str) -> str:
    return "".join(row for row in sdp.splitlines(keepends=True) if not row.startswith(head))


def _sections(sdp: str) -> tuple[str, str, str]:
    first, audio, channel = sdp.split("m=")
    return first, f"m={audio}", f"m={channel}"


CERTAIN: dict[str, Spoil] = {
    "nothing": lambda chance, sdp: "",
    "noise": lambda chance, sdp: noise(chance, 1, 2_000),
    "binary": lambda chance, sdp: sdp.encode()[: chance.randrange(3, 900)] + b"\xff\xfe",
    "something else": lambda chance, sdp: chance.choice(
        ['{"sdp": "v=0"}', "<sdp/>", "v=1\r\n", "v=0", "v=0\r\nhello\r\n"]
    ),
    "a line missing": lambda chance, sdp: _without(sdp, chance.choice(_NEEDED)),
    "a thousand lines": lambda chance, sdp: sdp + "a=x\r\n" * 1_000,
    "a very long line": lambda chance, sdp: sdp + "a=x:" + "y" * 40_000 + "\r\n",
    "many codecs": lambda chance, sdp: sdp + "".join(f"a=rtpmap:{n} x{n}/8000\r\n" for n in range(100)),
    "many fingerprints": lambda chance, sdp: sdp + "a=fingerprint:sha-256 00\r\n" * 50,
    "no voice": lambda chance, sdp: _sections(sdp)[0] + _sections(sdp)[2],
    "two voices": lambda chance, sdp: sdp + _sections(sdp)[1],
    "two channels": lambda chance, sdp: sdp + _sections(sdp)[2],
    "a picture": lambda chance, sdp: sdp + _sections(sdp)[1].replace("m=audio", "m=video"),
    "no Opus": lambda chance, sdp: sdp.replace("opus/48000", chance.choice(["speex/16000", "opus/8000"])),
    "another bundle": lambda chance, sdp: sdp.replace("BUNDLE ", "BUNDLE 7 "),
    "a name twice": lambda chance, sdp: sdp.replace("a=mid:1", "a=mid:0"),
    "a strange role": lambda chance, sdp: sdp.replace("actpass", "holdconn"),
    "a strange port": lambda chance, sdp: sdp.replace("sctp-port:5000", "sctp-port:x"),
    "another order": lambda chance, sdp: "".join(reversed(sdp.splitlines(keepends=True))),
}
_WORDS = (
    "",
    "0",
    "-1",
    "x",
    "99999999999999999999",
    "9" * 400,
    "::",
    "127.0.0.1",
    "UDP",
    "\u0660",
    "[",
    "0.0.0.0",
    "\t",
)


def _somewhere(chance: random.Random, sdp: str) -> str:
    """Some words of it changed: there may be an answer to it all the same."""
    rows = sdp.split("\r\n")
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(1, len(rows))
        words = rows[place].split(" ")
        match chance.randrange(4):
            case 0:
                words[chance.randrange(len(words))] = chance.choice(_WORDS)
            case 1:
                head, colon, _ = rows[place].partition(":")
                words = [head + colon + chance.choice(_WORDS)]
            case 2:
                words = []
            case 3:
                words *= 2
        rows[place] = " ".join(words)
    return "\r\n".join(rows)


def some_offer(chance: random.Random, sdp: str, *, host: str) -> Offer:
    """One draw. Each names its kind, so that one is answered as the others are."""
    good = sdp.encode()

    def made(name: str, body: bytes, kind: str = _SDP, *statuses: int) -> Offer:
        raw = request("POST", PATH, body, headers={"Content-Type": kind}, host=host)
        return Offer(name, raw, statuses or (400,))

    if chance.random() < 0.5:
        name = chance.choice(list(CERTAIN))
        spoiled = CERTAIN[name](chance, sdp)
        return made(name, spoiled if isinstance(spoiled, bytes) else spoiled.encode())
    if chance.random() < 0.5:
        return made("words changed", _somewhere(chance, sdp).encode(), _SDP, 400, 201)
    session = chance.choice(
        [b"{", b"[]", b"5", b'{"type": "x"}', b'{"type": "realtime", "x": 1}', b"\xff", b'{"a": NaN}']
    )
    limits = "multipart/form-data; boundary=limit"
    found = [
        made("another kind", good, chance.choice(["text/plain", "application/json", "", "x"]), 415),
        made("a form that is none", good, limits),
        made("a form without a boundary", good, "multipart/form-data"),
        made("a form without an offer", form([part("session", b"{}")]), limits),
        made("a form with strange settings", form([part("sdp", good), part("session", session)]), limits),
        made("a form in a strange script", form([part("sdp", good)]), f"{limits}; charset=rot13", 400, 201),
        made("many parts", form([part(f"f{n}", b"x") for n in range(50)]), limits),
        made("a very large offer", b"v=0\r\n" + b"a" * 300_000),
        Offer("hanging up nobody", request("POST", f"{PATH}/rtc_none/hangup", host=host), (404,)),
        Offer("another method", request("GET", PATH, host=host), (405,)),
    ]
    return chance.choice(found)


async def check(address: str, offer: Offer) -> Wrong | None:
    """Sends it; a call that came of it is hung up."""
    await room(address)
    answer = await ask(address, offer.raw, within=20)
    if answer.status == 201:
        await hang_up(address, answer)
    if answer.status not in offer.statuses:
        return Wrong("webrtc", offer.name, f"a status of {offer.statuses}", f"{answer.status} {answer.body[:200]!r}")
    if answer.status >= 400 and (answer.error or {}).get("type") != "invalid_request_error":
        return Wrong("webrtc", offer.name, "an error that can be read", f"{answer.status} {answer.body[:200]!r}")
    return None


async def hang_up(address: str, answer: Answer) -> None:
    await ask(address, request("POST", f"{answer.headers.get('location', PATH)}/hangup"), within=20)


def _peer() -> Any:
    try:
        from aiortc import RTCConfiguration, RTCPeerConnection
    except ImportError as error:
        raise DataError("hostile: calls over WebRTC need aiortc; install it with 'pip install aiortc'") from error
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def good_offer() -> str:
    """What a caller with a microphone offers."""
    from aiortc.mediastreams import AudioStreamTrack

    peer = _peer()
    try:
        peer.addTrack(AudioStreamTrack())
        peer.createDataChannel("oai-events")
        await peer.setLocalDescription(await peer.createOffer())
        return peer.localDescription.sdp
    finally:
        await peer.close()


class _Channel:
    """The data channel of a call."""

    def __init__(self, channel: Any):
        self._channel = channel
        self._came: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        channel.on("message", self._came.put_nowait)
        channel.on("close", lambda: self._came.put_nowait(None))

    async def send(self, raw: str | bytes) -> None:
        if self._channel.readyState != "open":
            raise ConnectionError("the data channel is closed")
        self._channel.send(raw)

    async def receive(self) -> str | bytes:
        if (found := await self._came.get()) is None:
            raise ConnectionError("the data channel was closed")
        return found


@contextlib.asynccontextmanager
async def call(address: str) -> AsyncIterator[_Channel]:
    """A call whose microphone is silent, and its data channel.

    Raises:
        DataError: nobody answers.
    """
    from aiortc import RTCSessionDescription
    from aiortc.mediastreams import AudioStreamTrack

    peer, opened = _peer(), asyncio.Event()
    answer = Answer(0)
    try:
        peer.addTrack(AudioStreamTrack())
        channel = peer.createDataChannel("oai-events")
        made = _Channel(channel)
        channel.on("open", opened.set)
        await peer.setLocalDescription(await peer.createOffer())
        body = peer.localDescription.sdp.encode()
        answer = await ask(address, request("POST", PATH, body, headers={"Content-Type": _SDP}, host=address))
        if answer.status != 201:
            raise DataError(f"a good offer is answered with {answer.status}: {answer.body[:200]!r}")
        await peer.setRemoteDescription(RTCSessionDescription(answer.body.decode(), "answer"))
        await asyncio.wait_for(opened.wait(), _CONNECT)
        yield made
    except asyncio.TimeoutError as error:
        raise DataError("a call over WebRTC was answered, and never connected") from error
    finally:
        if answer.status == 201:
            await hang_up(address, answer)
        await peer.close()


async def over_webrtc(address: str, cases: Iterable[Case]) -> list[Wrong]:
    """A call of its own for some cases, and another after each that ends it."""
    left, wrong = deque(cases), []
    while left:
        await room(address)
        async with call(address) as channel:
            wrong += await drive(channel, left, protocol="webrtc")
    return wrong
