"""What the user's loudspeaker is believed to play, on the clock of their microphone, and their sound without it."""

from __future__ import annotations

from collections import deque

import numpy as np

from duologue.audio.echo import SAMPLE_RATE, EchoCanceller
from duologue.audio.io import Resampler

_BEHIND = 1.0  # seconds by which a microphone may be late before it counts as one that was silent
_LONGEST = 600 * SAMPLE_RATE  # samples that may wait to be played


class Loudspeaker:
    """One session's.

    Args:
        rate: of the answers, Hz.
    """

    def __init__(self, rate: int):
        self._resample, self._canceller = Resampler(rate, SAMPLE_RATE), EchoCanceller()
        self._state = self._canceller.init_state()
        self._queue: deque[np.ndarray] = deque()
        self._waiting = 0  # samples in the queue
        self._standing = False

    @property
    def echoes(self) -> bool:
        """The microphone hears it."""
        return self._state.delay is not None

    def play(self, samples: np.ndarray, *, late: int) -> None:
        """Adds speech that was sent.

        Args:
            late: samples of the microphone that were heard before this, and are yet to come.
        """
        if not self._waiting:
            self._canceller.jump(self._state, goes=True)
            self._add(np.zeros(late, np.float32))
        self._add(self._resample(np.ascontiguousarray(samples, np.float32)))

    def stand(self, standing: bool) -> None:
        """It stands still, or goes on."""
        self._canceller.jump(self._state, goes=not standing)
        self._standing = standing

    def stop(self) -> None:
        """Nothing of what was sent will be played."""
        self._queue.clear()
        self._waiting, self._standing = 0, False

    def clean(self, microphone_N: np.ndarray, *, left: float) -> tuple[np.ndarray, bool]:
        """The next block of the microphone without the echo, and whether there is more in it than echo.

        Args:
            left: seconds that are still to be played by the session's clock.
        """
        if (behind := self._waiting - round(left * SAMPLE_RATE)) > _BEHIND * SAMPLE_RATE:
            self._next(behind)
        return self._canceller(microphone_N, self._next(len(microphone_N)), self._state), self._state.near

    def _add(self, samples: np.ndarray) -> None:
        if self._waiting + len(samples) <= _LONGEST:
            self._queue.append(samples)
            self._waiting += len(samples)

    def _next(self, count: int) -> np.ndarray:
        found = np.zeros(count, np.float32)
        at = 0
        while at < count and self._queue and not self._standing:
            piece = self._queue.popleft()
            part = piece[: count - at]
            found[at : at + len(part)] = part
            at += len(part)
            if len(part) < len(piece):
                self._queue.appendleft(piece[len(part) :])
        self._waiting -= at
        return found
