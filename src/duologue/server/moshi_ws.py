"""Moshi's protocol over a WebSocket (docs/protocols.md), for any family: what its clients speak, unmodified.

Binary messages; the first byte says what it is. Audio is Ogg-Opus at 24 kHz both ways. The clients play what comes when
it comes, so it is sent as fast as it is to be heard: a continuous stream, silence where nothing is said.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from duologue.audio.io import Resampler
from duologue.audio.opus import OpusReader, OpusWriter
from duologue.engine import Engine, Session, SessionConfig
from duologue.errors import BusyError, ConfigError, DuologueError
from duologue.streaming.events import Audio, Done, Event, Failed, Interrupted, Text
from duologue.streaming.turns import TurnConfig

RATE = 24_000  # Hz
_PIECE = 0.04  # seconds of a message with audio
_LATE = 0.08  # seconds behind, from which the stream goes on from now
_FADE = 120  # samples in which a sound that is cut off dies away


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
    largest: int = 65_536  # bytes of a message
    prompt: int = 8_000  # characters of instructions
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
    """Why a conversation is over, as the client is told. Without a reason it has gone, or does not take what it gets."""

    code: int = 1000
    reason: str = ""


def route(engine: Engine, config: MoshiConfig | None = None, path: str = "/api/chat") -> WebSocketRoute:
    """The address at which Moshi's clients look for a server."""

    async def endpoint(websocket: WebSocket) -> None:
        await chat(websocket, engine, config or MoshiConfig())

    return WebSocketRoute(path, endpoint)


async def chat(websocket: WebSocket, engine: Engine, config: MoshiConfig) -> None:
    """Accepts a client and talks with it until either has had enough; its place in the engine is free afterwards.

    Query parameters: `text_prompt` are instructions; all others are about sampling or voices and change nothing.
    """
    with contextlib.suppress(WebSocketDisconnect, asyncio.TimeoutError):  # gone, or too slow to be told why
        await websocket.accept()
        client = _Chat(websocket, engine, config)
        end = await client.converse(websocket.query_params.get("text_prompt", "").strip())
        if end.reason:
            await client.send(Kind.ERROR, end.reason.encode())
        with contextlib.suppress(RuntimeError):  # closed already
            await asyncio.wait_for(websocket.close(end.code), config.slowest)


class _Chat:
    """One conversation."""

    def __init__(self, websocket: WebSocket, engine: Engine, config: MoshiConfig):
        self._socket, self._engine, self._config = websocket, engine, config
        self._loop = asyncio.get_running_loop()
        spec = engine.runner.spec
        self._input_rate = spec.input_rate
        self._reader, self._writer = OpusReader(spec.input_rate), OpusWriter(RATE)
        self._outbox = Outbox(spec.output_rate, most=config.held)
        self._failed: asyncio.Future[End] = self._loop.create_future()
        self._paused = False

    async def converse(self, prompt: str) -> End:
        if len(prompt) > self._config.prompt:
            return End(1008, f"text_prompt: at most {self._config.prompt} characters, got {len(prompt)}")
        self._prompt = [("system", prompt)] if prompt else []
        try:
            session = self._engine.open(self._sink, SessionConfig(turns=self._config.turns))
        except BusyError as error:
            return End(1013, str(error))
        try:
            for role, text in self._prompt:
                session.write(role, text)
            return await self._until_the_end(session)
        finally:
            session.close()

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
            await asyncio.wait_for(self._socket.send_bytes(bytes([kind]) + payload), self._config.slowest)
        except RuntimeError as error:  # starlette's and uvicorn's word for a message sent after the close
            raise WebSocketDisconnect(1006) from error

    # -- what the engine says -----------------------------------------------------------------------------------------

    def _sink(self, event: Event) -> None:
        """On the engine's thread."""
        self._loop.call_soon_threadsafe(self._take, event)

    def _take(self, event: Event) -> None:
        match event:
            case Interrupted():
                self._outbox.clear()
            case Failed(message):
                self._fail(End(1011, message))
            case _ if not self._outbox.add(event):
                self._fail(End(1011, "the server cannot keep up with this conversation; begin a new one"))

    def _fail(self, end: End) -> None:
        if not self._failed.done():
            self._failed.set_result(end)

    async def _play(self) -> End:
        """Sends what is said, and silence otherwise, each piece when it is due. Time that was lost stays lost: the
        clients would play what they get late even later, or throw it away."""
        await self.send(Kind.HANDSHAKE)
        due = self._loop.time()
        while True:
            await asyncio.sleep(due - self._loop.time())
            due = max(due, self._loop.time() - _LATE) + _PIECE
            texts, samples = self._outbox.take(round(_PIECE * RATE))
            for text in texts:
                await self.send(Kind.TEXT, text.encode())
            await self.send(Kind.AUDIO, self._writer.push(samples))

    # -- what the client says -----------------------------------------------------------------------------------------

    async def _read(self, session: Session) -> End:
        config = self._config
        messages = Allowance(config.messages, 2 * config.messages, now=self._loop.time())
        audio = Allowance(1.05, config.ahead, now=self._loop.time())  # a microphone's clock may be fast
        while True:
            try:
                received = await asyncio.wait_for(self._socket.receive(), config.idle)
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


class Outbox:
    """What is said, in order: words wait for the sound before them. Taken in pieces of any length, silence at the end.

    Args:
        rate: Hz, of the sound that comes.
        most: seconds that may wait.
    """

    def __init__(self, rate: int, *, most: float):
        self._input_rate, self._most = rate, round(most * RATE)
        self._level = 0.0  # the last sample that went out
        self.clear()
        self._apart = False  # whether the next words begin another answer

    def clear(self) -> None:
        """What waits is not wanted any more."""
        self._waiting: deque[str | np.ndarray] = deque()
        self._samples = 0
        self._resampler = Resampler(self._input_rate, RATE)
        self._apart = True

    def add(self, event: Event) -> bool:
        """Takes an event; those that are neither words nor sound change nothing. Returns whether there was room."""
        match event:
            case Text(text):
                self._waiting.append(f" {text}" if self._apart and not text[:1].isspace() else text)
                self._apart = False
            case Audio(samples):
                self._append(self._resampler(samples))
            case Done():
                if self._input_rate != RATE:
                    self._append(self._resampler(np.zeros(0, np.float32), final=True))
                    self._resampler = Resampler(self._input_rate, RATE)
                self._apart = True
        return self._samples <= self._most

    def _append(self, samples: np.ndarray) -> None:
        self._waiting.append(samples)
        self._samples += len(samples)

    def take(self, size: int) -> tuple[list[str], np.ndarray]:
        """The words that are due now, and the next samples."""
        texts, pieces, missing = [], [], size
        while self._waiting and (missing or isinstance(self._waiting[0], str)):
            first = self._waiting.popleft()
            if isinstance(first, str):
                texts.append(first)
                continue
            pieces.append(first[:missing])
            if len(first) > missing:
                self._waiting.appendleft(first[missing:])
            missing -= len(pieces[-1])
            self._samples -= len(pieces[-1])
        sound = np.concatenate([np.zeros(0, np.float32), *pieces])
        level = float(sound[-1]) if len(sound) else self._level
        silence = np.zeros(missing, np.float32)
        fade = min(missing, _FADE)
        silence[:fade] = level * np.linspace(1, 0, fade, endpoint=False)
        self._level = 0.0 if missing else level
        return texts, np.concatenate([sound, silence])


class Allowance:
    """So much a second, and so much at once. Time is handed in."""

    def __init__(self, rate: float, burst: float, *, now: float):
        self._rate, self._burst, self._left, self._at = rate, burst, burst, now

    def take(self, amount: float, *, now: float) -> bool:
        """Uses some of it. Returns whether there was enough."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - amount
        self._at = now
        return self._left >= 0
