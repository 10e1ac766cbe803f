"""A caller over WebRTC for tests: aiortc on the other end, with a voice that says what it is given and silence else."""

from __future__ import annotations

import asyncio
import json
import re
import time
from fractions import Fraction
from typing import Any

import av
import httpx
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from realtime_talk import Order, valid

RATE = 48_000
_FRAME = 960  # samples
PATH = "/v1/realtime/calls"


class Voice(MediaStreamTrack):
    """A microphone."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._next = np.zeros(0, np.float32)
        self._begin = time.monotonic()
        self._sent = 0

    def say(self, *pieces: np.ndarray) -> None:
        self._next = np.concatenate([self._next, *pieces])

    async def recv(self) -> av.AudioFrame:
        await asyncio.sleep(max(0.0, self._begin + self._sent / RATE - time.monotonic()))
        block, self._next = self._next[:_FRAME], self._next[_FRAME:]
        samples = (np.pad(block, (0, _FRAME - len(block))) * 32_767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sent, Fraction(1, RATE)
        self._sent += _FRAME
        return frame


class Caller:
    """Calls, and follows the events.

    Args:
        session: settings, sent with the offer in a form.
        strict: whether every event is held against the `openai` package and its order.
        largest: bytes of a message that it takes.
    """

    def __init__(
        self,
        address: str,
        *,
        session: dict[str, Any] | None = None,
        key: str = "",
        path: str = PATH,
        strict: bool = True,
        largest: int | None = None,
    ):
        self._base, self._path, self._session = f"http://{address}", path, session
        self._strict, self._largest = strict, largest
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.voice, self.order = Voice(), Order()
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.events: list[dict[str, Any]] = []
        self.sound: list[float] = []  # how loud it was, every 20 ms
        self.closed = asyncio.Event()
        self._came = asyncio.Event()
        self._opened = asyncio.Event()
        self._taken = 0
        self.location = ""

    async def __aenter__(self) -> Caller:
        await self.call()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.peer.close()

    async def offer(self) -> str:
        self.peer.addTrack(self.voice)
        self.channel = self.peer.createDataChannel("oai-events")
        self.channel.on("open", self._opened.set)
        self.channel.on("message", self._message)
        self.channel.on("close", self.closed.set)
        self.peer.on("track", lambda track: asyncio.ensure_future(self._listen(track)))
        await self.peer.setLocalDescription(await self.peer.createOffer())
        sdp = self.peer.localDescription.sdp
        return re.sub(r"(?<=max-message-size:)\d+", str(self._largest), sdp) if self._largest else sdp

    async def call(self) -> None:
        response = await self.post(await self.offer())
        assert response.status_code == 201, response.text
        assert response.headers["content-type"].startswith("application/sdp")
        self.location = response.headers["location"]
        await self.peer.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        await asyncio.wait_for(self._opened.wait(), 20)

    async def post(self, sdp: str | bytes, *, kind: str = "application/sdp") -> httpx.Response:
        async with httpx.AsyncClient(headers=self._headers, timeout=20) as client:
            if self._session is None:
                return await client.post(self._base + self._path, content=sdp, headers={"Content-Type": kind})
            parts = {
                "sdp": (None, sdp, "application/sdp"),
                "session": (None, json.dumps(self._session), "application/json"),
            }
            return await client.post(self._base + self._path, files=parts)

    async def hang_up(self) -> httpx.Response:
        async with httpx.AsyncClient(headers=self._headers, timeout=20) as client:
            return await client.post(f"{self._base}{self.location}/hangup")

    def send(self, kind: str, **fields: Any) -> None:
        self.channel.send(json.dumps({"type": kind, **fields}))

    async def until(self, kind: str, *, within: float = 30.0) -> list[dict[str, Any]]:
        """The events since the last time, up to the next of this kind."""
        begin, end = self._taken, time.monotonic() + within
        while True:
            while self._taken < len(self.events):
                self._taken += 1
                if self.events[self._taken - 1]["type"] == kind:
                    return self.events[begin : self._taken]
            self._came.clear()
            left = end - time.monotonic()
            try:
                await asyncio.wait_for(self._came.wait(), max(0.01, left))
            except asyncio.TimeoutError:
                raise AssertionError(f"no {kind}, but {[each['type'] for each in self.events[begin:]]}") from None

    async def hears(self, frames: int) -> None:
        """Waits for so many frames more."""
        until = len(self.sound) + frames
        while len(self.sound) < until:
            await asyncio.sleep(0.02)

    def _message(self, text: str) -> None:
        event = json.loads(text)
        if self._strict:
            valid(event)
            self.order.take(event)
        self.events.append(event)
        self._came.set()

    async def _listen(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                self.sound.append(float(np.abs(frame.to_ndarray()).max()) / 32_768)
        except MediaStreamError:
            return
