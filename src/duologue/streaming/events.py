"""What happens in a conversation, as those are told who drive one: a pipeline's caller, a server's connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

AUDIBLE = 1e-3  # -60 dB: from here on a sample counts as sound


@dataclass(frozen=True)
class Heard:
    """What the model believes was said so far in this turn; always empty where the family writes no transcript."""

    text: str
    final: bool


@dataclass(frozen=True)
class Text:
    """The next piece of the answer's text."""

    text: str


@dataclass(frozen=True)
class Audio:
    """The next piece of the answer's speech, mono float32 in [-1, 1] at the model's output rate."""

    samples: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """What one turn brought and how long it took. `None` where there was no such moment."""

    transcript: str
    text: str
    question_seconds: float
    audio_seconds: float
    first_text_ms: float | None  # from the last sample of the question handed in to the first text
    first_audio_ms: float | None  # ... to the first audible piece of speech
    lagging_words: int | None  # words of text there were when the first speech came
    real_time_factor: float | None  # time to answer / audio_seconds

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Done:
    """The turn is over."""

    metrics: Metrics


@dataclass(frozen=True)
class SpeechStarted:
    """The user began to speak. `at`: seconds of the session's audio before the turn's own."""

    at: float


@dataclass(frozen=True)
class SpeechStopped:
    """The user's turn is over. `at`: seconds of the session's audio up to here."""

    at: float


@dataclass(frozen=True)
class Paused:
    """Somebody speaks over the answer: it is to stand still, after so many seconds of it were heard, until `Resumed` or
    `Interrupted`."""

    heard: float


@dataclass(frozen=True)
class Resumed:
    """What was said was not meant to interrupt: the answer goes on where it stood."""


@dataclass(frozen=True)
class Interrupted:
    """The answer was cut short, after so many seconds of it were heard; the model has forgotten the rest."""

    heard: float


@dataclass(frozen=True)
class Late:
    """So many seconds of the user's audio came too late for their ticks, and were not heard. Duplex families only."""

    seconds: float


@dataclass(frozen=True)
class Declined:
    """The family cannot do what was asked for last, for this reason. The session goes on. Duplex families only."""

    message: str


@dataclass(frozen=True)
class Failed:
    """The session is over, for this reason."""

    message: str


Event = (
    Heard
    | Text
    | Audio
    | Done
    | SpeechStarted
    | SpeechStopped
    | Paused
    | Resumed
    | Interrupted
    | Late
    | Declined
    | Failed
)


class Clock:
    """Times one answer, from the moment the question's last sample was handed in."""

    def __init__(self, start: float, sample_rate: int, *, time: Callable[[], float] = time.perf_counter):
        self._start, self._rate, self._time = start, sample_rate, time
        self._text, self._samples = "", 0
        self._first_text: float | None = None
        self._first_audio: float | None = None
        self._lagging: int | None = None

    @property
    def audio_seconds(self) -> float:
        return self._samples / self._rate

    def text(self, whole: str) -> None:
        self._text = whole
        if self._first_text is None:
            self._first_text = self._now()

    def audio(self, samples: np.ndarray) -> None:
        self._samples += len(samples)
        if self._first_audio is None and float(np.abs(samples).max()) > AUDIBLE:
            self._first_audio, self._lagging = self._now(), len(self._text.split())

    def metrics(self, *, transcript: str, question_seconds: float) -> Metrics:
        seconds = self.audio_seconds
        return Metrics(
            transcript=transcript,
            text=self._text.strip(),
            question_seconds=round(question_seconds, 3),
            audio_seconds=round(seconds, 3),
            first_text_ms=self._first_text,
            first_audio_ms=self._first_audio,
            lagging_words=self._lagging,
            real_time_factor=round(self._now() / 1000 / seconds, 4) if seconds else None,
        )

    def _now(self) -> float:
        return round((self._time() - self._start) * 1000, 1)
