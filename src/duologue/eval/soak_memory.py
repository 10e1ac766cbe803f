"""Memory after many sessions against memory after some: each a short turn, over one protocol after the other."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from duologue.audio.opus import OpusWriter
from duologue.errors import DataError
from duologue.eval.metrics import Interval
from duologue.eval.talk import RATE, Talk, talk
from duologue.eval.tasks import Outcome
from duologue.eval.watched import Watched
from duologue.eval.wire import ask, request, room

AT_ONCE = 4  # sessions
BACK = 10.0  # seconds until every place is free
_GIVE_UP = 60.0  # seconds that a session may take


@dataclass(frozen=True)
class Sample:
    """What the server holds after so many sessions."""

    sessions: int
    resident: float  # bytes
    files: int


def hum(seconds: float) -> np.ndarray:
    """A sound that is no word."""
    at = np.arange(round(seconds * RATE)) / RATE
    return (0.2 * np.sin(2 * np.pi * 180 * at) * np.sin(np.pi * at / seconds)).astype(np.float32)


async def cancelled(address: str) -> None:
    """A spoken question whose answer is cancelled at its first sound."""
    async with talk(address) as made:
        await made.put(hum(0.3))
        await _begin_and_cancel(made)


async def written(address: str) -> None:
    """A written question whose answer is cancelled at its first sound."""
    async with talk(address) as made:
        await made.put("Hello.")
        await _begin_and_cancel(made)


async def _begin_and_cancel(made: Talk) -> None:
    await made.send("response.create")
    if (await made.event("response.output_audio.delta", "response.done"))["type"] != "response.done":
        await made.send("response.cancel")
        # refused where the answer was over in the meantime
        with contextlib.suppress(DataError):
            await made.event("response.done")


async def heard_only(address: str) -> None:
    """Audio that is taken back."""
    async with talk(address) as made:
        for _ in range(3):
            await made.put(hum(0.3))
        await made.send(
            "conversation.item.retrieve", item_id=(await made.event("conversation.item.done"))["item"]["id"]
        )
        await made.event("conversation.item.retrieved")


async def moshi(address: str) -> None:
    """A client of Moshi's that speaks and leaves."""
    from websockets.asyncio.client import connect

    writer = OpusWriter(RATE)
    async with connect(f"ws://{address}/api/chat", compression=None, close_timeout=2, proxy=None) as socket:
        for begin in range(0, len(sound := hum(0.3)), 1_920):
            await socket.send(b"\x01" + writer.push(sound[begin : begin + 1_920]))
        await socket.send(b"\x03\x01")  # the end of the turn
        for _ in range(6):
            await socket.recv()


async def spoken_text(address: str) -> None:
    """A text that is said."""
    body = json.dumps({"input": "Yes.", "voice": "mini", "response_format": "pcm"}).encode()
    kind = {"Content-Type": "application/json"}
    if (
        answer := await ask(address, request("POST", "/v1/audio/speech", body, headers=kind), within=_GIVE_UP)
    ).status != 200:
        raise DataError(f"/v1/audio/speech answers {answer.status}")


KINDS: tuple[Callable[[str], Awaitable[None]], ...] = (cancelled, written, moshi, cancelled, heard_only, spoken_text)


async def measure(
    server: Watched,
    *,
    marks: tuple[int, ...],
    at_once: int = AT_ONCE,
    rest: float = 3.0,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Sample]:
    """Sessions one after the other, some at once; a sample after each of `marks`.

    Raises:
        DataError: a session fails, or a place does not come back.
    """
    samples, done, next_one = [], 0, 0

    async def work(until: int) -> None:
        nonlocal done, next_one
        while next_one < until:
            kind, next_one = KINDS[next_one % len(KINDS)], next_one + 1
            await room(server.address, least=at_once)
            try:
                await asyncio.wait_for(kind(server.address), _GIVE_UP)
            except asyncio.TimeoutError as error:
                raise DataError(f"a session ({kind.__name__}) is not over after {_GIVE_UP:.0f} seconds") from error
            tell(done := done + 1, marks[-1])

    for mark in marks:
        await asyncio.gather(*(work(mark) for _ in range(at_once)))
        if await server.freed(within=BACK) is None:
            raise DataError(f"after {mark} sessions not every place is free: {await server.places()}")
        samples.append(Sample(mark, await server.resident(rest=rest), server.files()))
    return samples


def outcome(samples: list[Sample]) -> Outcome:
    """The last against the first."""
    first, last = samples[0], samples[-1]
    growth = last.resident / first.resident - 1 if first.resident else 0.0
    values = {
        "memory_growth": Interval(growth, growth, growth),
        "memory_sessions": Interval(*[last.resident / 2**30] * 3),
        "memory_files": Interval(*[float(last.files - first.files)] * 3),
    }
    rows = [{"sessions": each.sessions, "resident_mib": each.resident / 2**20, "files": each.files} for each in samples]
    return Outcome(values=values, count=last.sessions, details={"table": rows})
