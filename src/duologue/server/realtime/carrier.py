"""What every carrier of a connection does: how a session begins, events that wait to be read or sent, the clock."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from starlette.requests import HTTPConnection

from duologue.engine import Engine
from duologue.server.allowance import Allowance
from duologue.server.realtime.audio import Format
from duologue.server.realtime.connection import Connection
from duologue.server.realtime.limits import RealtimeLimits
from duologue.server.realtime.options import Options, Player
from duologue.server.realtime.responses import Emit
from duologue.server.realtime.secrets import SecretStore
from duologue.server.waiting import within

logger = logging.getLogger(__name__)


class Carried(Protocol):
    """A client's side of a protocol, whatever carries it."""

    @property
    def id(self) -> str: ...
    @property
    def over(self) -> bool: ...
    @property
    def input_format(self) -> Format:
        """Of the sound that comes outside events."""
        ...

    def begin(self) -> None: ...
    def receive(self, raw: str | bytes) -> None: ...
    def hear(self, data: bytes) -> None: ...
    def poll(self) -> float: ...
    def close(self) -> None: ...


def begin_with(client: HTTPConnection, options: Options, secrets: SecretStore | None) -> Options:
    """What this client's session begins with."""
    settings = (secrets.settings(client) if secrets else None) or options.settings
    model = client.query_params.get("model", "")[:200]
    if client.query_params.get("intent") == "transcription":
        settings = replace(settings, type="transcription")
    beyond = client.query_params.get("duologue") == "1"
    return replace(options, settings=replace(settings, model=model or settings.model), beyond=beyond)


def connect(
    engine: Engine, emit: Emit, *, limits: RealtimeLimits, options: Options, player: Player | None = None
) -> Connection:
    """A connection that runs in the running loop.

    Raises:
        BusyError: the engine has no place left.
    """
    loop = asyncio.get_running_loop()
    return Connection(
        engine,
        emit=emit,
        soon=loop.call_soon_threadsafe,
        clock=loop.time,
        wall=time.time,
        limits=limits,
        options=options,
        player=player,
    )


class Pace:
    """Holds back a client that sends events faster than is good for the others."""

    def __init__(self, limits: RealtimeLimits):
        self._clock = asyncio.get_running_loop().time
        self._events = Allowance(limits.events, limits.events_at_once, now=self._clock())

    async def keep(self) -> None:
        """Waits until the next event may be read; at least for what others have to do."""
        await asyncio.sleep(self._events.wait(1, now=self._clock()))


class Unread:
    """Events that wait to be read, where the carrier takes all that comes."""

    def __init__(self, receive: Callable[[str | bytes], None], limits: RealtimeLimits):
        self._receive, self._limits = receive, limits
        self._waiting: deque[str | bytes] = deque()
        self._size = 0  # characters that wait
        self._more = asyncio.Event()

    def put(self, raw: str | bytes) -> bool:
        """Whether there was room."""
        if len(self._waiting) >= self._limits.unread or self._size + len(raw) > self._limits.unread_size:
            return False
        self._waiting.append(raw)
        self._size += len(raw)
        self._more.set()
        return True

    async def run(self) -> None:
        """Reads what comes."""
        pace = Pace(self._limits)
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                raw = self._waiting.popleft()
                self._size -= len(raw)
                self._receive(raw)
                await pace.keep()


class Mail:
    """Events that wait to be sent. A client that does not take what it is sent loses its session.

    Args:
        send: sends one, and waits while the client takes no more.
    """

    def __init__(self, send: Callable[[str], Awaitable[None]], limits: RealtimeLimits):
        self._send, self._limits = send, limits
        self._waiting: deque[str] = deque()
        self._size = 0  # characters that wait
        self._more = asyncio.Event()
        self.slow = False  # whether the session is lost
        self.name = ""  # of the conversation, in the log

    def put(self, text: str) -> None:
        if self.slow:
            return
        self._waiting.append(text)
        self._size += len(text)
        self._more.set()
        if len(self._waiting) > self._limits.waiting or self._size > self._limits.waiting_size:
            logger.warning("%s: the client does not take what it is sent; its session is over", self.name)
            self.slow = True
            self._waiting.clear()

    async def run(self) -> None:
        """Sends what comes."""
        while True:
            await self._more.wait()
            await self.flush()

    async def flush(self) -> None:
        """Sends what waits."""
        self._more.clear()
        while self._waiting:
            text = self._waiting.popleft()
            self._size -= len(text)
            await within(self._send(text), self._limits.slowest)


async def watch(connection: Carried, mail: Mail) -> None:
    """Does what it is time for, until the session is over."""
    while not connection.over and not mail.slow:
        await asyncio.sleep(min(1.0, connection.poll()))
