"""What the model says on its way out, on the session's timeline: sound without gaps, and each word with its time.

A duplex family makes the stream itself. A turn family's answers are put on the clock here, with silence between them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from duologue.server.outbox import Outbox
from duologue.streaming.events import Event

_MOST = 330.0  # seconds of an answer that may wait
_LOST_MS, _BEHIND_MS = 250, 100  # behind, from which time counts as lost; and where the timeline goes on then
_WAITS = 0.4  # seconds of a duplex family's sound that may wait for a slower clock
_KEPT = 0.16  # ... of which so many are kept


@dataclass(frozen=True)
class Piece:
    """The next sound, its place on the timeline, and the words that begin in it."""

    samples: np.ndarray
    start_ms: int
    end_ms: int
    texts: tuple[str, ...]


class Voice:
    """One session's.

    Args:
        rate_in, rate_out: Hz, of what the model says, and of what goes out.
    """

    def __init__(self, rate_in: int, rate_out: int, *, duplex: bool):
        self.rate, self._duplex = rate_out, duplex
        self._outbox = Outbox(rate_in, rate_out, most=_MOST)
        self._sent = 0  # samples

    @property
    def now_ms(self) -> int:
        """The end of what went out."""
        return round(self._sent / self.rate * 1000)

    @property
    def waits(self) -> bool:
        """Sound waits to go out."""
        return self._outbox.waiting > 0

    def add(self, event: Event) -> bool:
        """Takes an event of the model. Returns whether there was room."""
        return self._outbox.add(event)

    def restart(self) -> None:
        """The timeline begins."""
        self._sent = 0

    def keep_up(self, now_ms: int) -> None:
        """Where time was lost, the timeline goes on from now."""
        if now_ms - self.now_ms > _LOST_MS:
            self._sent = round((now_ms - _BEHIND_MS) * self.rate / 1000)

    def all(self) -> Piece | None:
        """What there is."""
        waiting = self._outbox.waiting
        return self._piece(waiting, []) if waiting else None

    def take(self, size: int) -> Piece:
        """The next samples, with silence where there are not enough."""
        return self._piece(size, self._outbox.catch_up(most=_WAITS, keep=_KEPT) if self._duplex else [])

    def _piece(self, size: int, dropped: list[str]) -> Piece:
        texts, samples = self._outbox.take(size)
        begin, self._sent = self.now_ms, self._sent + len(samples)
        return Piece(samples, begin, self.now_ms, tuple([*dropped, *texts]))
