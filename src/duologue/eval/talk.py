"""An honest client of the Realtime API whose turns can be compared: what was heard, what was answered, every sample."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duologue.audio import io
from duologue.errors import DataError

RATE = 24_000  # Hz, of the wire
LONGEST = 60.0  # seconds that a turn may take
_PIECE = 0.1  # seconds of audio in an event

Question = str | np.ndarray
"""Written, or spoken: samples at `RATE`."""


@dataclass(frozen=True)
class Said:
    """One turn."""

    heard: str  # transcript of the question
    text: str  # of the answer
    samples: np.ndarray  # 16 bit
    status: str = "completed"

    def same(self, other: Said) -> bool:
        """The same words, and the same sound up to the rounding of another order of sums."""
        if (self.heard, self.text, self.status, len(self.samples)) != (
            other.heard,
            other.text,
            other.status,
            len(other.samples),
        ):
            return False
        apart = np.abs(self.samples.astype(np.int32) - other.samples)
        return not len(apart) or int(apart.max()) <= _ROUNDING


_ROUNDING = 64  # of 32,768


class Talk:
    """One conversation; turns are ended by the client, so that time decides nothing."""

    def __init__(self, socket: Any):
        self.socket = socket

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def event(self, *kinds: str) -> dict[str, Any]:
        """The next event of one of these kinds.

        Raises:
            DataError: the server refuses what an honest client sends.
        """
        while True:
            event = json.loads(await self.socket.recv())
            if event["type"] in kinds:
                return event
            if event["type"] == "error":
                raise DataError(f"the server refuses an honest client: {event['error'].get('message')}")

    async def begin(self) -> None:
        audio = {"input": {"turn_detection": None, "transcription": {"model": "mini"}}}
        await self.event("session.created")
        await self.send("session.update", session={"type": "realtime", "audio": audio})
        await self.event("session.updated")

    async def put(self, question: Question) -> None:
        """Gives a question without asking for the answer."""
        if isinstance(question, str):
            part = {"type": "input_text", "text": question}
            await self.send("conversation.item.create", item={"type": "message", "role": "user", "content": [part]})
            return
        for begin in range(0, len(question), size := round(_PIECE * RATE)):
            coded = base64.b64encode(io.encode_pcm16(question[begin : begin + size])).decode()
            await self.send("input_audio_buffer.append", audio=coded)
        await self.send("input_audio_buffer.commit")

    async def ask(self, question: Question) -> Said:
        """A whole turn.

        Raises:
            DataError: there is no answer in time, or none at all.
        """
        await self.put(question)
        await self.send("response.create")
        try:
            return await asyncio.wait_for(self._answer(), LONGEST)
        except asyncio.TimeoutError as error:
            raise DataError(f"no answer within {LONGEST:.0f} seconds") from error

    async def _answer(self) -> Said:
        heard, text, pieces = "", "", [np.zeros(0, np.int16)]
        delta = ("response.output_audio.delta", "response.output_audio_transcript.delta")
        asked = "conversation.item.input_audio_transcription.completed"
        while True:
            event = await self.event(*delta, asked, "response.done")
            if event["type"] == asked:
                heard = event["transcript"]
            elif event["type"] == delta[0]:
                pieces.append(np.frombuffer(base64.b64decode(event["delta"]), "<i2"))
            elif event["type"] == delta[1]:
                text += event["delta"]
            else:
                return Said(heard, text.strip(), np.concatenate(pieces), event["response"]["status"])


@contextlib.asynccontextmanager
async def talk(address: str) -> AsyncIterator[Talk]:
    """A conversation that has begun.

    Raises:
        DataError: the server ends it, or has no place for it.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import WebSocketException

    url = f"ws://{address}/v1/realtime?model=mini"
    try:
        async with connect(url, max_size=None, compression=None, close_timeout=2, proxy=None) as socket:
            made = Talk(socket)
            await made.begin()
            yield made
    except (WebSocketException, OSError) as error:
        raise DataError(f"a conversation was cut off: {error}") from error


async def hold(address: str, questions: Sequence[Question]) -> list[Said]:
    """A whole conversation: some questions, one after the other."""
    async with talk(address) as made:
        return [await made.ask(question) for question in questions]
