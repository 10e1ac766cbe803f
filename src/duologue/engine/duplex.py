"""Families that listen and speak at every tick: the clock that all their conversations share, and the audio that each
has for its next tick.

Ticks stay on the clock whatever the clients do. Where no audio came there is silence; audio that comes after silence
stood for it is late, and no more of it than a bound waits to be heard.
"""

from __future__ import annotations

from collections import deque

import numpy as np

_OWED = 125  # ticks without their audio that are remembered
_QUIET = 1e-3  # a sample below -60 dB


class TickClock:
    """When the next tick is due. Seconds, handed in.

    Args:
        tick: from one to the next.
        behind: as much as ticks may be late and still be made up for; what is later is lost.
    """

    def __init__(self, tick: float, *, behind: float = 1.0):
        self.tick, self._behind = tick, behind
        self._due: float | None = None

    def rest(self) -> None:
        """Nobody is there: the next tick is one after the first `due`."""
        self._due = None

    def due(self, now: float) -> bool:
        """Whether it is time for a tick."""
        if self._due is None:
            self._due = now + self.tick
        return now >= self._due - 1e-9

    def wait(self, now: float) -> float:
        """Seconds until the next tick."""
        return self.tick if self._due is None else max(0.0, self._due - now)

    def done(self, now: float) -> tuple[bool, int]:
        """A tick was made. Gives whether it missed its deadline, the next tick; and how many ticks are lost, being
        later than can be made up for."""
        assert self._due is not None
        missed = now > self._due + self.tick
        self._due += self.tick
        lost = 0
        if now - self._due > self._behind:
            lost = int((now - self._due) / self.tick)
            self._due += lost * self.tick
        return missed, lost


class Intake:
    """One session's audio, cut into ticks.

    Args:
        size: samples of a tick.
        most: ticks of late audio that may wait.
        ahead: audio may come before its time, and waits for its ticks; else whatever waits is late.
    """

    def __init__(self, size: int, *, most: int, ahead: bool = True):
        self._size, self._most, self._ahead = size, most, ahead
        self._ticks: deque[np.ndarray] = deque()
        self._next, self._held = np.zeros(size, np.float32), 0  # the tick that is coming, and how much of it is there
        self._held_before = 0  # ... a tick ago
        self._owed = 0  # ticks that went by without their audio: so much of what comes may be late

    @property
    def waiting(self) -> int:
        """Samples that wait to be heard."""
        return len(self._ticks) * self._size + self._held

    def push(self, samples: np.ndarray) -> None:
        at = 0
        while at < len(samples):
            piece = samples[at : at + self._size - self._held]
            self._next[self._held : self._held + len(piece)] = piece
            at, self._held = at + len(piece), self._held + len(piece)
            if self._held == self._size:
                self._ticks.append(self._finish())

    def _finish(self) -> np.ndarray:
        tick, self._next, self._held = self._next, np.zeros(self._size, np.float32), 0
        return tick

    def clear(self) -> None:
        self._finish()
        self._ticks.clear()
        self._owed = self._held_before = 0

    def skip(self, ticks: int) -> None:
        """So many ticks went by in which nothing was heard."""
        self._owed = min(self._owed + ticks, _OWED)

    def take(self) -> tuple[np.ndarray, int]:
        """The next tick, and how many were dropped before it because they were too late."""
        dropped = self._catch_up()
        before, self._held_before = self._held_before, self._held
        if self._ticks:
            return self._ticks.popleft(), dropped
        if self._held and self._held == before:  # nothing came for a whole tick: what waits is the end of something
            self._held_before = 0
            return self._finish(), dropped
        self.skip(1)
        return np.zeros(self._size, np.float32), dropped

    def _catch_up(self) -> int:
        """Drops late audio beyond the bound, and silence while any of it waits. Gives how much that was not silence."""
        dropped = 0
        while (self._owed or not self._ahead) and len(self._ticks) > 1:
            quiet = float(np.abs(self._ticks[0]).max()) < _QUIET
            if not quiet and len(self._ticks) <= self._most:
                break
            self._ticks.popleft()
            self._owed = max(0, self._owed - 1)
            dropped += not quiet
        if self._owed and len(self._ticks) == 1:  # on time; what is late may yet follow
            self._owed -= 1
        return dropped
