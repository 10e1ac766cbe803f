"""Duplex families that do what is known, and a user whose speech is a tone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import soundfile
import torch

from duologue.eval.duplex_cases import Case
from duologue.streaming.protocol import Frame, StreamSpec
from duologue.streaming.state import State

RATE, TICK = 16_000, 0.08


@dataclass
class ScriptedState(State):
    """spoke: the user has said something, quiet: ticks since then, said: ticks of the answer."""

    spoke_B: torch.Tensor
    quiet_B: torch.Tensor
    said_B: torch.Tensor


class Scripted:
    """A duplex family: a tone of so many ticks begins `after` so many ticks of silence that follow speech; when the
    user speaks again it breaks off, `slow` ticks later."""

    def __init__(self, *, after: int = 5, ticks: int = 20, slow: int = 0):
        self.spec = StreamSpec(input_rate=RATE, output_rate=RATE, tick=TICK, duplex=True)
        self.after, self.ticks, self.slow, self.seed = after, ticks, slow, None

    def init_state(self, slots):
        return ScriptedState(*(torch.zeros(slots, dtype=torch.long) for _ in range(3)))

    def listen(self, state, audio_BN, live_B):
        loud_B = audio_BN.abs().amax(1) > 0.01
        going_B = (state.quiet_B >= self.after) & (state.said_B < self.ticks) & (state.spoke_B > 0)
        state.spoke_B[live_B & loud_B] = 1
        state.quiet_B[live_B] += 1
        broken_B = live_B & loud_B & ~going_B
        state.quiet_B[broken_B] = 0
        state.said_B[broken_B] = 0
        late_B = live_B & loud_B & going_B  # it speaks on for a while
        state.said_B[late_B] = state.said_B[late_B].clamp_min(self.ticks - self.slow)

    def speak(self, state, live_B):
        slots, samples = len(live_B), self.spec.output_samples
        speaks_B = live_B & (state.spoke_B > 0) & (state.quiet_B >= self.after) & (state.said_B < self.ticks)
        tone_N = 0.3 * torch.sin(torch.arange(samples) / 3)
        ids_BT = torch.where(speaks_B, ord("a"), -1)[:, None]
        state.said_B += speaks_B.long()
        return Frame(
            audio_BN=speaks_B[:, None] * tone_N,
            samples_B=torch.full((slots,), samples),
            ids_BT=ids_BT,
            done_B=torch.zeros(slots, dtype=torch.bool),
        )

    def heard(self, state, slot):
        return ""

    def overhear(self, audio_N, expected=()):
        return ""

    def text(self, ids):
        return bytes(ids).decode()


def user(folder, kind, spoken, *, seconds, marked=(), name="case", **fields) -> Case:
    """A user who makes a sound between these times."""
    audio = np.zeros(round(seconds * RATE), np.float32)
    for start, end in spoken:
        count = round((end - start) * RATE)
        audio[round(start * RATE) :][:count] = 0.3 * np.sin(np.arange(count) / 5 + 1)
    path = folder / f"{name}.wav"
    soundfile.write(path, audio, RATE, subtype="FLOAT")
    return Case(
        kind=kind,
        name=name,
        voice="tone",
        path=path,
        seconds=seconds,
        end=spoken[-1][1],
        said=tuple(("tone", start, end) for start, end in spoken),
        marked=marked,
        **fields,
    )
