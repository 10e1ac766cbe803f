"""How long the model's steps take on this machine at this hour, and so how much speech an answer begins with."""

from __future__ import annotations

from collections import deque
from statistics import median

_THOUGHTS = 4  # steps that bring no sound may follow each other: short words, and a chunk that is not full
_BESIDE = 0.3  # seconds with which an answer begins at least while others are served: their work comes between


class Pace:
    """Durations of the latest steps."""

    def __init__(self) -> None:
        self._thoughts: deque[float] = deque(maxlen=16)

    def thought(self, seconds: float) -> None:
        """A step of speech took so long in which text was written."""
        self._thoughts.append(seconds)

    def headstart(self, *, alone: bool) -> float:
        """Seconds of speech with which an answer begins, so that it does not run dry at once.

        Args:
            alone: nobody else is served.
        """
        needed = _THOUGHTS * median(self._thoughts) if self._thoughts else 0.0
        return needed if alone else max(needed, _BESIDE)
