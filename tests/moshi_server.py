"""A running server of Moshi's protocol, and what tests of its clients share."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import numpy as np
import uvicorn
from fakes import EchoConfig, EchoModel
from loudness import Loudness
from starlette.applications import Starlette

from duologue.engine import Engine
from duologue.server.app import bind
from duologue.server.moshi_ws import MoshiConfig, route
from duologue.streaming.turns import TurnConfig

TURNS = TurnConfig(end=0.4, pause=0.2)
LONG = EchoConfig(audio_ticks=100)  # eight seconds


@contextlib.contextmanager
def served(
    model: EchoModel | None = None, *, slots: int = 3, ping: float = 20.0, **limits
) -> Iterator[tuple[str, Engine]]:
    """A running server; gives where it is, and its engine. `ping`: seconds after which who does not read is dropped."""
    engine = Engine(model or EchoModel(), slots=slots, voice=Loudness())
    app = Starlette(routes=[route(engine, MoshiConfig(turns=TURNS, **limits))])
    engine.start()
    with bind("127.0.0.1", 0) as listener:
        settings = uvicorn.Config(
            app, log_level="warning", timeout_graceful_shutdown=1, ws_ping_interval=ping, ws_ping_timeout=ping
        )
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", engine
        finally:
            server.should_exit = True
            thread.join(10)
            engine.close()


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * 24_000), np.float32)


def loud_seconds(audio: np.ndarray) -> float:
    return float((np.abs(audio[: len(audio) // 240 * 240].reshape(-1, 240)).max(1) > 0.1).sum() / 100)


def all_free(engine: Engine, *, within: float = 5.0) -> bool:
    end = time.monotonic() + within
    while engine.free < engine.runner.slots and time.monotonic() < end:
        time.sleep(0.02)
    return engine.free == engine.runner.slots
