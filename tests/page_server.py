"""The page with a server that does what a test tells it to, for what a real one does only on a bad day."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import uvicorn
from serving import ready
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from duologue.audio import io
from duologue.server import web
from duologue.server.app import bind

RATE = 24_000


class GoneError(Exception):
    """The page has hung up."""


@dataclass
class Talk:
    """One connection, as a script sees it."""

    websocket: WebSocket
    got: list[dict[str, Any]] = field(default_factory=list)
    _responses: Iterator[int] = field(default_factory=itertools.count)

    async def send(self, kind: str, **fields: Any) -> None:
        await self.websocket.send_json({"type": kind, "event_id": "event", **fields})

    async def until(self, kind: str) -> dict[str, Any]:
        """Waits for the page to send an event of this type."""
        while True:
            try:
                event = await asyncio.wait_for(self.websocket.receive_json(), 20)
            except (WebSocketDisconnect, asyncio.TimeoutError, KeyError) as error:
                raise GoneError from error
            self.got.append(event)
            if event["type"] == kind:
                return event

    async def greet(self, **session: Any) -> None:
        await self.send(
            "session.created", session={"type": "realtime", "audio": {"output": {"voice": "mini"}}, **session}
        )
        updated = await self.until("session.update")
        await self.send("session.updated", session=updated["session"])

    async def begin(self, text: str = "As I was saying.") -> str:
        """Begins an answer. Returns its id."""
        name = f"resp_{next(self._responses)}"
        await self.send("response.created", response={"id": name, "status": "in_progress"})
        await self.send("response.output_item.added", response_id=name, item={"id": f"item_{name}", "type": "message"})
        await self.send("response.output_audio_transcript.delta", response_id=name, delta=text)
        return name

    async def speak(self, name: str, samples: np.ndarray) -> None:
        delta = base64.b64encode(io.encode_pcm16(samples)).decode()
        await self.send("response.output_audio.delta", response_id=name, item_id=f"item_{name}", delta=delta)

    async def end(self, name: str, status: str = "completed") -> None:
        await self.send("response.output_audio.done", response_id=name)
        await self.send("response.done", response={"id": name, "status": status})


Script = Callable[[Talk], Awaitable[None]]


@contextlib.contextmanager
def scripted(*scripts: Script, host: str = "127.0.0.1") -> Iterator[tuple[str, list[Talk]]]:
    """Serves one connection after another as the scripts say, the last of them ever again. A script that ends closes
    its connection. Gives the address, and the connections."""
    talks: list[Talk] = []

    async def realtime(websocket: WebSocket) -> None:
        await websocket.accept()
        talks.append(talk := Talk(websocket))
        with contextlib.suppress(GoneError, WebSocketDisconnect, RuntimeError):
            await scripts[min(len(talks), len(scripts)) - 1](talk)
            await websocket.close(1011)

    async def models(request):
        return JSONResponse({"object": "list", "data": [{"id": "mini", "object": "model"}]})

    async def state(request):
        return JSONResponse({"model": "mini", "places": 2, "free": 1})

    routes = [
        *web.routes(),
        Route("/v1/models", models),
        Route("/readyz", state),
        WebSocketRoute("/v1/realtime", realtime),
    ]
    with bind(host, 0) as listener:
        running = uvicorn.Server(
            uvicorn.Config(Starlette(routes=routes), log_level="warning", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            ready(address)
            yield address, talks
        finally:
            running.should_exit = True
            thread.join(10)


def tone(seconds: float, *, frequency: float = 440.0, level: float = 0.3) -> np.ndarray:
    return (level * np.sin(2 * np.pi * frequency * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)
