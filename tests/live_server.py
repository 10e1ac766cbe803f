"""A running server of the Live API alone, and a caller over WebRTC."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import uvicorn
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from fakes import EchoModel
from live_talk import valid
from loudness import Loudness
from starlette.applications import Starlette
from webrtc_caller import Voice

from duologue.engine import Engine
from duologue.server.app import bind
from duologue.server.openai_live import Live, LiveOptions
from duologue.server.realtime import CallLimits, Options, RealtimeLimits

PATH = "/v1/live/sessions"


@contextlib.contextmanager
def served(
    model: Any = None,
    *,
    slots: int = 3,
    limits: RealtimeLimits | None = None,
    bounds: CallLimits | None = None,
    text_model: Any = None,
    **options: Any,
) -> Iterator[tuple[str, Engine]]:
    """Gives its address and its engine."""
    engine = Engine(model or EchoModel(), slots=slots, voice=Loudness())
    live = Live(
        engine, limits, bounds=bounds, options=lambda: LiveOptions(base=Options(**options), text_model=text_model)
    )

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        await live.close()

    engine.start()
    with bind("127.0.0.1", 0) as listener:
        app = Starlette(routes=live.routes(), lifespan=lifespan)
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, ws_max_size=2**25)
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", engine
        finally:
            server.should_exit = True
            thread.join(10)
            engine.close()


def all_free(engine: Engine, *, within: float = 10.0) -> bool:
    """Whether every place comes back in time."""
    end = time.monotonic() + within
    while engine.free < engine.runner.slots and time.monotonic() < end:
        time.sleep(0.02)
    return engine.free == engine.runner.slots


class Caller:
    """Calls over WebRTC, and follows the events."""

    def __init__(self, address: str, **session: Any):
        self._base, self._session = f"http://{address}", {"model": "mini", **session}
        self.voice = Voice()
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.events: list[dict[str, Any]] = []
        self.sound: list[float] = []  # how loud it was, every 20 ms
        self._opened, self._came = asyncio.Event(), asyncio.Event()
        self._taken = 0
        self.id = ""

    async def __aenter__(self) -> Caller:
        self.peer.addTrack(self.voice)
        self.channel = self.peer.createDataChannel("oai-events")
        self.channel.on("open", self._opened.set)
        self.channel.on("message", self._message)
        self.peer.on("track", lambda track: asyncio.ensure_future(self._listen(track)))
        await self.peer.setLocalDescription(await self.peer.createOffer())
        answer = await self.post({"type": "webrtc", "sdp": self.peer.localDescription.sdp})
        assert answer.status_code == 201, answer.text
        about = answer.json()
        self.id = about["session"]["id"]
        await self.peer.setRemoteDescription(RTCSessionDescription(about["transport"]["sdp"], "answer"))
        await asyncio.wait_for(self._opened.wait(), 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.peer.close()

    async def post(self, transport: Any) -> httpx.Response:
        async with httpx.AsyncClient(timeout=20) as client:
            return await client.post(self._base + PATH, json={"session": self._session, "transport": transport})

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
            try:
                await asyncio.wait_for(self._came.wait(), max(0.01, end - time.monotonic()))
            except asyncio.TimeoutError:
                raise AssertionError(f"no {kind}, but {[each['type'] for each in self.events[begin:]]}") from None

    async def hears(self, frames: int) -> None:
        """Waits for so many frames more."""
        until = len(self.sound) + frames
        while len(self.sound) < until:
            await asyncio.sleep(0.02)

    def _message(self, text: str) -> None:
        event = json.loads(text)
        valid(event)
        self.events.append(event)
        self._came.set()

    async def _listen(self, track: MediaStreamTrack) -> None:
        try:
            while True:
                frame = await track.recv()
                self.sound.append(float(np.abs(frame.to_ndarray()).max()) / 32_768)
        except MediaStreamError:
            return
