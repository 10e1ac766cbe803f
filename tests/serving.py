"""A running server for tests, with a voice detector that hears loudness."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence

import httpx
import uvicorn
from fakes import EchoModel
from loudness import Loudness

from duologue.engine import Engine
from duologue.pipeline import Pipeline
from duologue.server.app import ServeConfig, Server, bind
from duologue.server.security import Keys
from duologue.server.upgrades import Http, WebSocket


@contextlib.contextmanager
def served(model=None, *, keys: Sequence[str] = (), ping: float = 20.0, **config) -> Iterator[tuple[str, Server]]:
    """Gives its address, host and port, and the server. `ping`: seconds after which who does not answer is dropped."""
    allowed = ServeConfig(**{"echo": False, **config})  # one pure tone is much like another's echo
    server = Server(Pipeline(model or EchoModel(), name="echo"), config=allowed, keys=Keys(keys))
    server.engine = Engine(
        server.pipeline.model, slots=server.config.max_sessions, voice=Loudness(), watch=server.metrics
    )
    with bind("127.0.0.1", 0) as listener:
        settings = uvicorn.Config(
            server.app(),
            http=Http,
            ws=WebSocket,
            ws_max_size=21 * 2**20,
            log_level="warning",
            timeout_graceful_shutdown=1,
            ws_ping_interval=ping,
            ws_ping_timeout=ping,
        )
        running = uvicorn.Server(settings)
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        try:
            ready(address)
            yield address, server
        finally:
            running.should_exit = True
            thread.join(10)


def ready(address: str) -> None:
    """Waits until the server answers."""
    for _ in range(200):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://{address}/readyz").status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not get ready")


def all_free(server: Server, *, within: float = 5.0) -> bool:
    """Whether every place comes back in time."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if server.engine.free == server.config.max_sessions:
            return True
        time.sleep(0.02)
    return False
