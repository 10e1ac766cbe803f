"""Speech over an answer, of which it is not known yet what it means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from duologue.audio.vad import SAMPLE_RATE, WINDOW
from duologue.streaming.turns import OverlapConfig, is_backchannel

_SECONDS = WINDOW / SAMPLE_RATE


@dataclass
class Overlap:
    """The windows of it, and a few that came before."""

    config: OverlapConfig
    windows: list[np.ndarray]
    at: float  # seconds of the session's audio before `windows`
    before: int  # how many of them came before the speech
    dropped: int = 0  # windows that are kept no more

    def __post_init__(self) -> None:
        self._judged_at = self.config.enough  # seconds of speech after which it is judged next

    def add(self, window: np.ndarray) -> None:
        self.windows.append(window)
        if len(self.windows) > round(self.config.longest / _SECONDS):
            del self.windows[0]
            self.at += _SECONDS
            self.dropped += 1

    def due(self, *, silence: float, over: bool) -> bool:
        """Whether there is enough of it to say what it means, or more than the last time.

        Args:
            silence: seconds at its end.
            over: no more is to come.
        """
        lasted = (len(self.windows) + self.dropped - self.before) * _SECONDS - silence
        if not over and lasted < self._judged_at:
            return False
        self._judged_at = max(lasted + self.config.again, 1.5 * lasted)
        return True

    def words(self, hear: Callable[[np.ndarray], str]) -> str:
        """The words, if they ask for something when heard a second time with little before the speech: what a listener
        makes of a hum or a noise is something else every time."""
        words = hear(np.concatenate(self.windows))
        if is_backchannel(words):
            return words
        lead = round(self.config.lead / _SECONDS)
        again = hear(np.concatenate(self.windows[max(0, self.before - self.dropped - lead) :]))
        return again if is_backchannel(again) else words
