"""Callers of a server over the Realtime API, in real time, and what they notice: how soon an answer sounds, and gaps.

Nothing here is of ours but the wire: any server that speaks the protocol can be called.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from duologue.audio import io
from duologue.errors import DataError
from duologue.streaming.events import AUDIBLE

RATE = 24_000  # Hz, of the wire
PIECE = 0.04  # seconds of audio in an event
LONGEST = 30.0  # seconds that an answer may take
_GAP = 0.02  # seconds of missing sound from which on it counts as heard


@dataclass
class Turn:
    """One question and its answer. Times in seconds; None: it never came."""

    first: float | None = None  # from the end of speech to the first sound
    decided: float | None = None  # ... to the server's word that the turn is over
    gaps: list[float] = field(default_factory=list)  # lengths of silences in which sound was missing
    seconds: float = 0.0  # of the answer
    transcript: str = ""

    @property
    def after_decision(self) -> float | None:
        """From the server's decision to the first sound."""
        return None if self.first is None or self.decided is None else max(0.0, self.first - self.decided)


@dataclass(frozen=True)
class Question:
    """24 kHz samples, and the second at which the speech in them is over."""

    samples: np.ndarray
    end: float

    @staticmethod
    def of(samples: np.ndarray, rate: int) -> Question:
        """The end is where the last 20 ms stand that are within 32 dB of the loudest."""
        samples = io.Resampler(rate, RATE)(samples.astype(np.float32), final=True)
        size = RATE // 50
        level = np.sqrt(np.square(samples[: len(samples) // size * size].reshape(-1, size)).mean(1))
        loud = np.flatnonzero(level > level.max() * 10 ** (-32 / 20))
        return Question(samples, (int(loud[-1]) + 1) * size / RATE)


class Caller:
    """One connection that asks one question after another."""

    def __init__(self, socket: Any):
        self._socket = socket

    async def begin(self, turn_detection: dict[str, Any] | None = None) -> None:
        """Waits for the session and sets it up."""
        detection = turn_detection or {"type": "server_vad", "silence_duration_ms": 500}
        audio = {"input": {"turn_detection": detection, "transcription": {"model": "mini"}}}
        await self._until("session.created")
        await self._send({"type": "session.update", "session": {"type": "realtime", "audio": audio}})
        await self._until("session.updated")

    async def ask(self, question: Question) -> Turn:
        """Speaks a question, then silence until the answer has come."""
        start = time.perf_counter()
        over = asyncio.Event()
        feeding = asyncio.create_task(self._feed(question.samples, start, over))
        try:
            return await asyncio.wait_for(self._hear(start + question.end), question.end + LONGEST)
        except asyncio.TimeoutError:
            return Turn()
        finally:
            over.set()
            await feeding

    async def _feed(self, samples: np.ndarray, start: float, over: asyncio.Event) -> None:
        size, sent = round(PIECE * RATE), 0
        while not over.is_set():
            piece = samples[sent : sent + size]
            piece = np.pad(piece, (0, size - len(piece)))
            coded = base64.b64encode(io.encode_pcm16(piece)).decode()
            await self._send({"type": "input_audio_buffer.append", "audio": coded})
            sent += size
            await asyncio.sleep(max(0.0, start + sent / RATE - time.perf_counter()))

    async def _hear(self, end: float) -> Turn:
        turn, playing = Turn(), 0.0  # until when what has come lasts
        while True:
            event = json.loads(await self._socket.recv())
            now = time.perf_counter()
            match event["type"]:
                case "input_audio_buffer.speech_stopped":
                    turn.decided = now - end
                case "conversation.item.input_audio_transcription.completed":
                    turn.transcript = event["transcript"]
                case "response.output_audio.delta":
                    samples = io.decode_pcm16(base64.b64decode(event["delta"]))
                    if turn.first is None:
                        loud = np.flatnonzero(np.abs(samples) > AUDIBLE)
                        turn.first = now - end + (int(loud[0]) / RATE if len(loud) else 0.0) if len(loud) else None
                        playing = now
                    if now - playing > _GAP:
                        turn.gaps.append(now - playing)
                    playing = max(playing, now) + len(samples) / RATE
                    turn.seconds += len(samples) / RATE
                case "response.done":
                    return turn
                case "error":
                    raise DataError(f"the server refused: {event['error'].get('message')}")

    async def _until(self, kind: str) -> None:
        while (event := json.loads(await self._socket.recv()))["type"] != kind:
            if event["type"] == "error":
                raise DataError(f"the server refused: {event['error'].get('message')}")

    async def _send(self, event: dict[str, Any]) -> None:
        await self._socket.send(json.dumps(event))


async def call(
    address: str,
    questions: Sequence[Question],
    *,
    callers: int,
    every: float,
    rounds: int,
    detection: dict[str, Any] | None = None,
    progress: Any = None,
) -> list[Turn]:
    """Several callers at once, each with a question every so many seconds; they begin at different times.

    Args:
        address: host and port.
        detection: the session's `turn_detection`; None: half a second of silence.
        progress: called with the number of turns done.
    """
    from websockets.asyncio.client import connect

    turns: list[Turn] = []

    async def one(number: int) -> None:
        await asyncio.sleep(every * number / callers)
        async with connect(f"ws://{address}/v1/realtime?model=mini", max_size=None, compression=None) as socket:
            caller = Caller(socket)
            await caller.begin(detection)
            start = time.perf_counter()
            for turn in range(rounds):
                turns.append(await caller.ask(questions[(number + turn * callers) % len(questions)]))
                if progress:
                    progress(len(turns))
                await asyncio.sleep(max(0.0, start + (turn + 1) * every - time.perf_counter()))

    await asyncio.gather(*(one(number) for number in range(callers)))
    return turns
