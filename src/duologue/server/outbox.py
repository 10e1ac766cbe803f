"""What is said and not yet sent, for a client that plays what comes when it comes."""

from __future__ import annotations

from collections import deque

import numpy as np

from duologue.audio.io import Resampler
from duologue.streaming.events import Audio, Done, Event, Interrupted, Paused, Resumed, Text

_FADE = 120  # samples in which a sound that is cut off dies away


class Outbox:
    """What is said, in order: words wait for the sound before them. Taken in pieces of any length, silence where
    nothing is said.

    Args:
        rate_in, rate_out: Hz, of the sound that comes, and of what is taken.
        most: seconds that may wait.
    """

    def __init__(self, rate_in: int, rate_out: int, *, most: float):
        self._rates, self._most = (rate_in, rate_out), round(most * rate_out)
        self._level = 0.0  # the last sample that went out
        self.clear()
        self._apart = False  # whether the next words begin another answer

    def clear(self) -> None:
        """What waits is not wanted any more."""
        self._still = False  # silence goes out, and what waits goes on waiting
        self._waiting: deque[str | np.ndarray] = deque()
        self._samples = 0
        self._resampler = Resampler(*self._rates)
        self._apart = True

    def add(self, event: Event) -> bool:
        """Takes an event of an answer; others change nothing. Returns whether there was room."""
        match event:
            case Text(text):
                self._waiting.append(f" {text}" if self._apart and not text[:1].isspace() else text)
                self._apart = False
            case Audio(samples):
                self._append(self._resampler(samples))
            case Done():
                self.finish()
            case Interrupted():
                self.clear()
            case Paused():
                self._still = True
            case Resumed():
                self._still = False
        return self._samples <= self._most

    def finish(self) -> None:
        """An answer is over."""
        self._append(self._resampler(np.zeros(0, np.float32), final=True))
        self._resampler = Resampler(*self._rates)
        self._apart = True

    @property
    def waiting(self) -> int:
        """Samples that wait."""
        return self._samples

    def _append(self, samples: np.ndarray) -> None:
        self._waiting.append(samples)
        self._samples += len(samples)

    def catch_up(self, *, most: float, keep: float) -> list[str]:
        """Where more than `most` seconds wait of an endless stream, drops all but `keep` seconds, as it would never get
        less. Gives the words that were to come with what is dropped."""
        rate = self._rates[1]
        if self._samples <= most * rate:
            return []
        return self.take(self._samples - round(keep * rate))[0]

    def take(self, size: int) -> tuple[list[str], np.ndarray]:
        """The words that are due now, and the next samples."""
        texts, pieces, missing = [], [], size
        while not self._still and self._waiting and (missing or isinstance(self._waiting[0], str)):
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
