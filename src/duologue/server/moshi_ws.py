"""Moshi's protocol over a WebSocket (docs/protocols.md), for any family: what its clients speak, unmodified.

Binary messages; the first byte says what it is. Audio is Ogg-Opus at 24 kHz both ways. The clients play what comes when
it comes, so it is sent as fast as it is to be heard: a continuous stream, silence where nothing is said.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from duologue.audio.opus import OpusReader, OpusWriter
from duologue.engine import Engine, Session, SessionConfig
from duologue.errors import BusyError, ConfigError, DuologueError
from duologue.server.allowance import Allowance
from duologue.server.outbox import Outbox
from duologue.server.session_log import short
from duologue.server.waiting import within
from duologue.server.witness import Witnesses, nobody
from duologue.streaming.events import Event, Failed
from duologue.streaming.turns import OverlapConfig, TurnConfig

RATE = 24_000  # Hz
_PIECE = 0.04  # seconds of a message with audio
_WAITS, _KEPT = 0.4, 0.16  # seconds of a duplex family's sound that may wait, and that are kept of more
_LATE = 0.08  # seconds behind, from which the stream goes on from now


class Kind(IntEnum):
    """The first byte of a message. Others, and those that have no meaning here, are passed over."""

    HANDSHAKE = 0
    AUDIO = 1
    TEXT = 2
    CONTROL = 3
    METADATA = 4
    ERROR = 5
    PING = 6


class Control(IntEnum):
    """The one byte of a control message."""

    START = 0
    END_TURN = 1
    PAUSE = 2
    RESTART = 3


@dataclass(frozen=True, kw_only=True)
class MoshiConfig:
    """What one client may do. Seconds, unless it says otherwise."""

    turns: TurnConfig = field(default_factory=TurnConfig)
    overlap: OverlapConfig | None = field(default_factory=OverlapConfig)
    echo: bool = False  # whether the answer is taken out of what the microphone hears
    largest: int = 65_536  # bytes of a message
    prompt: int = 4_000  # characters of instructions; the whole request line has room for 8,192 bytes
    messages: int = 200  # a second
    ahead: float = 20.0  # of audio that may come before it can have been spoken
    held: float = 30.0  # of speech that may wait to be sent
    idle: float = 10.0  # without a message
    slowest: float = 5.0  # that sending a message may take
    longest: float = 3_600.0  # of a conversation

    def __post_init__(self):
        if min(self.largest, self.messages, self.ahead, self.held, self.idle, self.slowest, self.longest) <= 0:
            raise ConfigError(f"MoshiConfig: every limit must be more than 0, got {self}")


@dataclass(frozen=True)
class End:
    """Why a conversation is over. Without a reason the client has gone, or does not take what it is sent."""

    code: int = 1000
    reason: str = ""


def route(
    engine: Engine, config: MoshiConfig | None = None, path: str = "/api/chat", *, witnesses: Witnesses = nobody
) -> WebSocketRoute:
    """The address at which Moshi's clients look for a server.

    Args:
        witnesses: who is told what happens.
    """

    async def endpoint(websocket: WebSocket) -> None:
        await chat(websocket, engine, config or MoshiConfig(), witnesses)

    return WebSocketRoute(path, endpoint)


async def chat(websocket: WebSocket, engine: Engine, config: MoshiConfig, witnesses: Witnesses = nobody) -> None:
    """Accepts a client and talks with it until either has had enough; its place in the engine is free afterwards.

    Query parameters: `text_prompt` are instructions; all others are about sampling or voices and change nothing.
    """
    with contextlib.suppress(WebSocketDisconnect, asyncio.TimeoutError):  # gone, or too slow to be told why
        await websocket.accept()
        client = _Chat(websocket, engine, config, witnesses)
        end = await client.converse(websocket.query_params.get("text_prompt", "").strip())
        if end.reason:
            await client.send(Kind.ERROR, end.reason.encode())
        with contextlib.suppress(RuntimeError):  # closed already
            await within(websocket.close(end.code), config.slowest)


class _Chat:
    """One conversation."""

    def __init__(self, websocket: WebSocket, engine: Engine, config: MoshiConfig, witnesses: Witnesses):
        self._socket, self._engine, self._config = websocket, engine, config
        self._loop = asyncio.get_running_loop()
        spec = engine.runner.spec
        self._input_rate, self._duplex = spec.input_rate, spec.duplex
        self._reader, self._writer = OpusReader(spec.input_rate), OpusWriter(RATE)
        self._outbox = Outbox(spec.output_rate, RATE, most=config.held)
        self._failed: asyncio.Future[End] = self._loop.create_future()
        self._witnesses, self._witness = witnesses, nobody("moshi", "")
        self._paused = False

    async def converse(self, prompt: str) -> End:
        if len(prompt) > self._config.prompt:
            return End(1008, f"text_prompt: at most {self._config.prompt} characters, got {len(prompt)}")
        self._prompt = [("system", prompt)] if prompt else []
        name = secrets.token_hex(12)
        try:
            config = SessionConfig(turns=self._config.turns, overlap=self._config.overlap, echo=self._config.echo)
            session = self._engine.open(self._sink, config, name=short(name))
        except BusyError as error:
            return End(1013, str(error))
        self._witness = self._witnesses("moshi", name)
        try:
            if self._prompt:
                session.forget(*self._prompt)  # a tick may have come before them
            return await self._until_the_end(session)
        finally:
            session.close()
            self._witness.close()

    async def _until_the_end(self, session: Session) -> End:
        tasks = [asyncio.ensure_future(_ending(each)) for each in (self._read(session), self._play())]
        try:
            waiting = [*tasks, self._failed]
            done, _ = await asyncio.wait(waiting, timeout=self._config.longest, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                return task.result()
            return End(1000, f"a conversation lasts {self._config.longest / 60:.0f} minutes at most; begin a new one")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, kind: Kind, payload: bytes = b"") -> None:
        try:
            await within(self._socket.send_bytes(bytes([kind]) + payload), self._config.slowest)
        except RuntimeError as error:  # starlette's and uvicorn's word for a message sent after the close
            raise WebSocketDisconnect(1006) from error

    # -- what the engine says -----------------------------------------------------------------------------------------

    def _sink(self, event: Event) -> None:
        """On the engine's thread."""
        self._loop.call_soon_threadsafe(self._take, event)

    def _take(self, event: Event) -> None:
        self._witness.happen(event)
        end = None
        if isinstance(event, Failed):
            end = End(1011, event.message)
        elif not self._outbox.add(event):
            end = End(1011, "the server cannot keep up with this conversation; begin a new one")
        if end is not None and not self._failed.done():
            self._failed.set_result(end)

    async def _play(self) -> End:
        """Sends what is said, and silence otherwise, each piece when it is due. Time that was lost stays lost: the
        clients would play what they get late even later, or throw it away."""
        await self.send(Kind.HANDSHAKE)
        due = self._loop.time()
        while True:
            await asyncio.sleep(due - self._loop.time())
            due = max(due, self._loop.time() - _LATE) + _PIECE
            dropped = self._outbox.catch_up(most=_WAITS, keep=_KEPT) if self._duplex else []
            texts, samples = self._outbox.take(round(_PIECE * RATE))
            for text in [*dropped, *texts]:
                await self.send(Kind.TEXT, text.encode())
            await self.send(Kind.AUDIO, self._writer.push(samples))

    # -- what the client says -----------------------------------------------------------------------------------------

    async def _read(self, session: Session) -> End:
        config = self._config
        messages = Allowance(config.messages, 2 * config.messages, now=self._loop.time())
        audio = Allowance(1.05, config.ahead, now=self._loop.time())  # a microphone's clock may be fast
        while True:
            try:
                received = await within(self._socket.receive(), config.idle)
            except asyncio.TimeoutError:
                return End(1000, f"nothing came for {config.idle:.0f} seconds; the place is free for somebody else")
            if received["type"] == "websocket.disconnect":
                return End()
            data = received.get("bytes") or b""  # text messages have no meaning here
            kind = data[0] if data else None
            if len(data) > config.largest:
                return End(1009, f"a message has at most {config.largest} bytes, got {len(data)}")
            if not messages.take(1, now=self._loop.time()):
                return End(1008, f"at most {config.messages} messages a second, got more")
            if kind == Kind.AUDIO:
                for samples in self._reader.push(data[1:]):
                    if not audio.take(len(samples) / self._input_rate, now=self._loop.time()):
                        return End(1008, f"more than {config.ahead:.0f} seconds of audio came ahead of time; slow down")
                    if not self._paused:
                        session.listen(samples)
                        self._witness.hear(samples)
                    await asyncio.sleep(0)  # many packets in one message must not hold up the others
            elif kind == Kind.CONTROL and len(data) == 2:
                self._control(session, data[1])

    def _control(self, session: Session, control: int) -> None:
        match control:
            case Control.START:
                self._paused = False
            case Control.END_TURN:
                session.end_turn()
            case Control.PAUSE:
                self._paused = True
                session.stop()
            case Control.RESTART:
                self._paused = False
                session.stop()
                session.forget(*self._prompt)


async def _ending(coroutine: Coroutine[Any, Any, End]) -> End:
    """What an error on the way means for the client."""
    try:
        return await coroutine
    except DuologueError as error:
        return End(1008, str(error))
    except (WebSocketDisconnect, asyncio.TimeoutError):
        return End(1001)
