"""One visitor's conversation over a WebSocket: by a held button, or hands-free."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from duologue.audio import io
from duologue.audio.vad import SAMPLE_RATE, Began, EndpointConfig, Endpointer, Goes, VoiceActivity
from duologue.errors import DuologueError, ServerError
from duologue.pipeline import Audio, Conversation, Done, Event, Heard, Text
from duologue.server import messages

Run = Callable[..., Awaitable[Any]]  # runs a function on the thread that owns the model


@dataclass(frozen=True, kw_only=True)
class TalkConfig:
    """What one visitor may ask of the server."""

    longest_question: float = 60.0  # seconds
    shortest_question: float = io.SHORTEST  # seconds
    idle: float = 120.0  # seconds without a turn after which the seat is free for somebody else
    slowest: float = 20.0  # seconds that sending a message may take
    waiting: int = 64  # messages that may wait to be handled; when there are more the socket is not read
    endpoint: EndpointConfig = field(default_factory=EndpointConfig)


class Talk:
    """Drives one conversation until the visitor goes."""

    def __init__(
        self, socket: WebSocket, conversation: Conversation, *, voice: VoiceActivity, run: Run, config: TalkConfig
    ):
        self._socket, self._conversation, self._run, self._config = socket, conversation, run, config
        self._endpointer = Endpointer(voice, config.endpoint)
        self._inbox: asyncio.Queue[messages.Message | ServerError | None] = asyncio.Queue(config.waiting)
        self._rate = 0  # Hz, of the microphone; 0 before hello
        self._hands_free = False
        self._cuts = 0  # begins and stops that wait in the inbox: the answer being given is not wanted any more
        self._answering = self._gone = False
        self._begin_hearing(hold=False)

    async def converse(self) -> None:
        """Runs the conversation. Returns when the visitor goes, breaks the protocol, or falls silent for too long."""
        reader = asyncio.create_task(self._read())
        try:
            await self._handle_all()
        except (WebSocketDisconnect, asyncio.TimeoutError):
            return  # gone, or too slow to take what is sent
        except RuntimeError:
            if self._socket.client_state is WebSocketState.CONNECTED:
                raise  # otherwise it is starlette's word for a message sent after the close
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _handle_all(self) -> None:
        clock = asyncio.get_running_loop().time
        self._deadline = clock() + self._config.idle
        while not self._gone:
            try:
                left = self._deadline - clock()
                message = await asyncio.wait_for(self._inbox.get(), max(left, 0.001))
            except asyncio.TimeoutError:
                return await self._close(1000, "You were silent for a while, so the seat was freed. Reload to go on.")
            if isinstance(message, ServerError):
                return await self._close(1008, str(message))
            if message is not None and await self._handle(message):
                self._deadline = clock() + self._config.idle

    async def _read(self) -> None:
        """Moves messages from the socket to the inbox, and notices at once what cuts an answer short."""
        while True:
            received = await self._socket.receive()
            if received["type"] == "websocket.disconnect":
                self._gone = True
                return await self._inbox.put(None)
            try:
                data = received.get("bytes")
                message = messages.parse(received.get("text") or "" if data is None else data)
            except ServerError as error:
                self._cuts += 1
                return await self._inbox.put(error)
            if isinstance(message, (messages.Begin, messages.Stop)):
                self._cuts += 1
            if isinstance(message, messages.Sound) and self._answering and not self._cuts:
                continue  # nothing is heard during an answer
            await self._inbox.put(message)

    async def _handle(self, message: messages.Message) -> bool:
        """Does what a message asks. Returns whether it was part of a turn, and so a sign of life."""
        try:
            match message:
                case messages.Hello(rate):
                    self._rate = rate
                    self._begin_hearing(hold=False)
                case messages.HandsFree(on):
                    self._hands_free = on
                    self._begin_hearing(hold=False)
                case messages.Begin(played) | messages.Stop(played):
                    self._cuts -= 1
                    if played is not None:
                        await self._run(self._conversation.interrupt, played)
                    self._begin_hearing(hold=isinstance(message, messages.Begin))
                    await self._send({"type": "listening"})  # nothing of an answer cut short comes after this
                    return True
                case messages.End() if self._holding:
                    await self._answer()
                    return True
                case messages.Sound(pcm) if self._holding or self._hands_free:
                    return await self._hear(pcm)
        except DuologueError as error:
            await self._run(self._conversation.reset)
            self._begin_hearing(hold=False)
            await self._send({"type": "error", "message": str(error)})
        return False

    def _begin_hearing(self, *, hold: bool) -> None:
        self._holding = hold
        self._early: list[np.ndarray] = []  # held back until they are enough for a question
        self._endpointer.reset()
        self._resampler = io.Resampler(self._rate or SAMPLE_RATE, SAMPLE_RATE)

    async def _hear(self, pcm: bytes) -> bool:
        if not self._rate:
            raise ServerError("hello must come first: it tells the microphone's rate")
        samples = self._resampler(io.decode_pcm16(pcm))
        if self._holding:
            await self._listen(samples)
            ended = False
        else:
            ended = await self._hear_turns(samples)
        if self._conversation.question_seconds > self._config.longest_question:
            limit = f"A question ends after {self._config.longest_question:.0f} seconds here."
            await self._send({"type": "notice", "message": limit})
            ended = True
        if ended:
            await self._answer()
        return self._holding or ended or self._endpointer.speaking

    async def _hear_turns(self, samples: np.ndarray) -> bool:
        """Listens hands-free. Returns whether a turn has ended; what comes after its end in `samples` is dropped."""
        for event in await self._run(self._endpointer.push, samples):
            if isinstance(event, Began):
                await self._send({"type": "speech"})
            if not isinstance(event, (Began, Goes)):
                return True
            await self._listen(event.samples)
        return False

    async def _listen(self, samples: np.ndarray) -> None:
        self._early.append(samples)
        if self._conversation.question_seconds or self._early_seconds() >= self._config.shortest_question:
            samples, self._early = np.concatenate(self._early), []
            for heard in await self._run(self._conversation.listen, samples):
                await self._send_event(heard)

    def _early_seconds(self) -> float:
        return sum(map(len, self._early)) / SAMPLE_RATE

    async def _answer(self) -> None:
        self._begin_hearing(hold=False)
        if not self._conversation.question_seconds:
            await self._send({"type": "notice", "message": "That was very short. Hold the button while you speak."})
            return
        self._answering = True
        events = self._conversation.answer()
        try:
            while not self._cuts and not self._gone:
                event = await self._run(next, events, None)
                if event is None:
                    return
                self._answering = not isinstance(event, Done)  # who is told that it is done may speak at once
                await self._send_event(event)
        finally:
            self._answering = False
            await self._run(events.close)

    async def _send_event(self, event: Event) -> None:
        match event:
            case Heard(text, final):
                await self._send({"type": "heard", "text": text, "final": final})
            case Text(text):
                await self._send({"type": "text", "text": text})
            case Audio(samples):
                await asyncio.wait_for(self._socket.send_bytes(io.encode_pcm16(samples)), self._config.slowest)
            case Done(metrics):
                await self._send({"type": "done", "metrics": metrics.as_dict()})

    async def _send(self, data: dict[str, Any]) -> None:
        await asyncio.wait_for(self._socket.send_json(data), self._config.slowest)

    async def _close(self, code: int, reason: str) -> None:
        await self._send({"type": "error", "message": reason})
        await self._socket.close(code)
