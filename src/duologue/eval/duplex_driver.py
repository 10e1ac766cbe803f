"""A user on a full-duplex line: plays a case to the engine as it is served, and records what came back when.

Time is simulated unless real time is asked for: the clock moves on by a block of 20 ms once the engine has nothing more
to do, so that what is measured is what the model and the engine decide, on any machine. How long they compute is then
in no number; in real time it is. A duplex family has its tick whenever one is due, a turn family the engine's turns.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from duologue.audio.io import Resampler
from duologue.audio.vad import SAMPLE_RATE, WINDOW, VoiceActivity, together
from duologue.data.dialogue.floor import Span, joined
from duologue.engine import Engine, Session, SessionConfig
from duologue.errors import DataError
from duologue.eval.duplex_cases import Case
from duologue.eval.judges import resample
from duologue.streaming.events import Audio, Event, Failed, Heard, Interrupted, Late, Paused, Resumed, Text
from duologue.streaming.protocol import StreamingModel
from duologue.streaming.turns import OverlapConfig, TurnConfig

BLOCK = 0.02  # seconds of audio that the client sends at once
UNIT = 0.2  # seconds of silence that end a stretch of speech
SPEECH, STAYS = 0.5, 0.35  # probability from which a window of 32 ms is speech, and down to which it stays speech
SHORTEST = 0.064  # seconds: what is shorter is no speech

Array = np.ndarray
Timed = list[tuple[float, Event]]


@dataclass(frozen=True, kw_only=True)
class Take:
    """What came of one case. Seconds from the first sample that the user sent."""

    seconds: float
    own: Array  # the model's channel as it was heard, [-1, 1] at `rate`
    rate: int  # Hz
    spans: tuple[Span, ...]  # its speech
    texts: tuple[tuple[float, str], ...]  # the model's words when they came
    heard: tuple[tuple[float, str], ...]  # what it wrote down of the user
    late: float  # seconds of the user's audio that were not heard; in real time only

    def piece(self, start: float, end: float) -> Array:
        """Its samples between two times."""
        return self.own[max(0, round(start * self.rate)) : max(0, round(end * self.rate))]


class Line:
    """One engine for all cases, one conversation after the other. To be closed where it runs in real time.

    Args:
        voice: finds turns and, in what came back, speech.
    """

    def __init__(self, model: StreamingModel, *, voice: VoiceActivity | None = None, real_time: bool = False):
        self.time, self.real_time, self._voice = 0.0, real_time, voice or VoiceActivity.load()
        clock = time.monotonic if real_time else lambda: self.time
        self.engine = Engine(model, slots=1, voice=self._voice, clock=clock)
        self._config = SessionConfig(turns=TurnConfig(), overlap=OverlapConfig(), echo=True)
        if real_time:
            self.engine.start()

    def close(self) -> None:
        self.engine.close()

    def run(self, case: Case) -> Take:
        """Plays the whole of a case, and what is left of its last block as silence.

        Raises:
            DataError: the conversation failed, or the case is not audio.
        """
        spec = self.engine.runner.spec
        samples, rate = case.sound()
        samples = Resampler(rate, spec.input_rate)(samples, final=True)
        size = round(BLOCK * spec.input_rate)
        count = -(-round(case.seconds * spec.input_rate) // size)
        samples = np.pad(samples, (0, max(0, count * size - len(samples))))
        events: Timed = []
        session = self._open(events)
        begin = self.engine.now()
        for block in range(count):
            session.listen(samples[block * size : (block + 1) * size])
            self._until(begin, (block + 1) * BLOCK)
        self._end(session)
        since = [(round(when - begin, 6), event) for when, event in events]
        if failed := [event for _, event in since if isinstance(event, Failed)]:
            raise DataError(f"{case.name}: the conversation failed: {failed[0].message}")
        own = played(since, spec.output_rate, seconds=count * BLOCK)
        return Take(
            seconds=count * BLOCK,
            own=own,
            rate=spec.output_rate,
            spans=tuple(speech(own, spec.output_rate, self._voice)),
            texts=tuple((when, event.text) for when, event in since if isinstance(event, Text)),
            heard=tuple(wrote(since, turns=not spec.duplex)),
            late=sum(event.seconds for _, event in since if isinstance(event, Late)),
        )

    def _open(self, events: Timed) -> Session:
        self.time = float(round(self.time) + 1)  # whole seconds: the same fractions for every case
        self._drive()
        while self.real_time and not self.engine.free:  # the place of the case before
            time.sleep(BLOCK)
        return self.engine.open(lambda event: events.append((self.engine.now(), event)), self._config)

    def _until(self, begin: float, at: float) -> None:
        if self.real_time:
            time.sleep(max(0.0, begin + at - time.monotonic()))
        else:
            self._drive()
            self.time = begin + at
            self._drive()

    def _end(self, session: Session) -> None:
        session.close()
        self._drive()

    def _drive(self) -> None:
        if self.real_time:
            return
        self.engine._take_posts(wait=None)
        while self.engine.step():
            self.engine._take_posts(wait=None)


def wrote(events: Sequence[tuple[float, Event]], *, turns: bool) -> list[tuple[float, str]]:
    """What was written down of the user, each text once it is whole.

    Args:
        turns: a text is whole at the end of a turn; else when another one begins, and at the end.
    """
    texts = [(when, event) for when, event in events if isinstance(event, Heard)]
    if turns:
        return [(when, event.text) for when, event in texts if event.final]
    following = [event.text for _, event in texts[1:]] + [""] * bool(texts)
    return [
        (when, event.text)
        for (when, event), text in zip(texts, following, strict=True)
        if event.text and not text.startswith(event.text)
    ]


def played(events: Sequence[tuple[float, Event]], rate: int, *, seconds: float) -> Array:
    """What a loudspeaker without delay makes of a session's events: audio follows audio, stands still at a pause and is
    dropped at an interruption."""
    out = np.zeros(round(seconds * rate), np.float32)
    waiting: list[Array] = []  # what was sent and has not been played
    stands = False
    ends = [*(when for when, _ in events), seconds][1:]
    for (when, event), end in zip(events, ends, strict=True):
        match event:
            case Audio(samples):
                waiting.append(samples)
            case Paused():
                stands = True
            case Resumed():
                stands = False
            case Interrupted():
                waiting, stands = [], False
        first, last = (min(len(out), round(at * rate)) for at in (when, end))
        if not stands and last > first and waiting:
            whole = np.concatenate(waiting)
            out[first : first + len(whole[: last - first])] = whole[: last - first]
            waiting = [whole[last - first :]]
    return out


def speech(audio_N: Array, rate: int, voice: VoiceActivity) -> list[Span]:
    """Stretches of speech, each to a window of 32 ms; less than 0.2 s of silence does not end one."""
    samples = resample(audio_N, rate, SAMPLE_RATE)
    windows = np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)
    state, spans, speaks = voice.init_state(1), [], False
    with torch.inference_mode():
        for number, window in enumerate(windows):
            speaks = together(voice, [window], [state])[0] >= (STAYS if speaks else SPEECH)
            if speaks:
                spans.append((number * WINDOW / SAMPLE_RATE, (number + 1) * WINDOW / SAMPLE_RATE))
    units = [(start, min(end, len(audio_N) / rate)) for start, end in joined(spans, UNIT)]
    return [(start, end) for start, end in units if end - start >= SHORTEST]
