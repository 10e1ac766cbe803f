"""What is being said to one user: its text as far as it is written, its sound as far as it can have been heard."""

from __future__ import annotations

import math

from duologue.streaming.events import Audio
from duologue.streaming.writing import Writing

_BACKGROUND = 2.0  # seconds of lead that stand for an answer nobody waits to hear: never urgent, never enough


class Answer:
    """One answer. Times are seconds, handed in.

    Args:
        writing: writes its text.
        paced: whether it is listened to as it comes.
    """

    def __init__(self, writing: Writing, *, paced: bool):
        self.writing, self._paced = writing, paced
        self.delivered = ""  # text
        self.made = 0.0  # seconds of speech
        self.complete = False  # nothing is to come
        self.idle = 0  # steps in a row that gave nothing
        self.kept: list[Audio] = []  # its beginning, until there is enough of it
        self._since: float | None = None  # when it began to play, the time left out in which it stood still
        self._stands: float | None = None  # since when it stands still

    def play(self, now: float) -> None:
        """The first sound of it goes out."""
        if self._since is None:
            self._since = now

    def told(self, played: float, now: float) -> None:
        """Somebody who knows tells how much of it was played at this time."""
        if self._since is not None:
            self._since = (now if self._stands is None else self._stands) - played

    @property
    def begun(self) -> bool:
        """Some of it plays, or has played."""
        return self._since is not None

    @property
    def stands(self) -> bool:
        return self._stands is not None

    def stand(self, now: float) -> None:
        """It stands still from now on."""
        self._stands = now

    def go_on(self, now: float) -> None:
        """It stands still no longer."""
        if self._since is not None and self._stands is not None:
            self._since += now - self._stands
        self._stands = None

    def left(self, now: float) -> float:
        """Seconds of what is made that are still to be played; less than nothing where more was due."""
        if self._since is None:
            return self.made
        return self.made - ((now if self._stands is None else self._stands) - self._since)

    def heard(self, now: float) -> float:
        """Seconds of it that can have been heard."""
        return max(0.0, min(self.made, self.made - self.left(now)))

    def lead(self, now: float) -> float:
        """Seconds of speech made that cannot have been heard yet; -inf while nothing is given out."""
        if not self.made or self.kept:
            return -math.inf
        return self.left(now) if self._paced else _BACKGROUND
