"""What the engine itself costs in a tick of a duplex family: posts, framing, batching, events; no model, no sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from duologue.engine import Engine
from duologue.streaming.events import Event
from duologue.streaming.protocol import Frame, StreamSpec
from duologue.streaming.state import State


@dataclass
class NoState(State):
    ticks_B: Tensor


class NullDuplex:
    """A duplex family that does nothing: silence and a text id at every tick."""

    def __init__(self, rate: int = 24_000):
        self.spec = StreamSpec(input_rate=rate, output_rate=rate, duplex=True)
        self.seconds = 0.0  # spent in here

    def init_state(self, slots: int) -> NoState:
        full = torch.full((slots,), self.spec.output_samples)
        never = torch.zeros(slots, dtype=torch.bool)
        self._frame = Frame(
            audio_BN=torch.zeros(slots, self.spec.output_samples),
            samples_B=full,
            ids_BT=torch.full((slots, 1), ord("a")),
            done_B=never,
        )
        return NoState(torch.zeros(slots, dtype=torch.long))

    def write(self, state: Any, slot: int, role: str, text: str) -> Iterator[None]:
        return iter(())

    def listen(self, state: Any, audio_BN: Tensor, live_B: Tensor) -> None:
        begin = time.perf_counter()
        state.ticks_B += live_B.long()
        self.seconds += time.perf_counter() - begin

    def speak(self, state: Any, live_B: Tensor) -> Frame:
        return self._frame

    def end_turn(self, state: Any, live_B: Tensor) -> None: ...
    def resume(self, state: Any, live_B: Tensor) -> None: ...
    def say(self, state: Any, slot: int, text: str) -> None: ...
    def truncate(self, state: Any, live_B: Tensor, heard_ticks_B: Tensor) -> None: ...

    def heard(self, state: Any, slot: int) -> str:
        return ""

    def complete(self, state: Any, slot: int) -> float | None:
        return None

    def overhear(self, audio_N: Tensor, expected: Sequence[str] = ()) -> str:
        return ""

    def text(self, ids: list[int]) -> str:
        return bytes(ids).decode()


@dataclass(frozen=True)
class Overhead:
    """Milliseconds a tick, of the engine's thread."""

    rows: int
    ticks: int
    median: float
    p95: float
    longest: float


def measure(*, rows: int = 32, ticks: int = 200, packet: float = 0.02) -> Overhead:
    """Drives an engine by hand through ticks of `rows` conversations, all of which send audio.

    Args:
        packet: seconds of audio that a client hands in at once.
    """
    now, model = [0.0], NullDuplex()
    engine = Engine(model, slots=rows, clock=lambda: now[0])
    taken = [0]

    def sink(event: Event) -> None:
        taken[0] += 1

    sessions = [engine.open(sink) for _ in range(rows)]
    spec = model.spec
    pieces = np.split(np.full(spec.input_samples, 0.1, np.float32), round(spec.tick / packet))
    times = []
    for _ in range(ticks + 20):
        for session in sessions:
            for piece in pieces:
                session.listen(piece)
        now[0] += spec.tick
        before, begin = model.seconds, time.perf_counter()
        engine._take_posts(wait=None)
        while engine.step():
            pass
        times.append(time.perf_counter() - begin - (model.seconds - before))
    assert taken[0] >= rows * ticks, "no ticks were made"
    milliseconds = np.array(times[20:]) * 1000
    return Overhead(
        rows=rows,
        ticks=ticks,
        median=float(np.median(milliseconds)),
        p95=float(np.quantile(milliseconds, 0.95)),
        longest=float(milliseconds.max()),
    )
