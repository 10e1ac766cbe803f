"""How much somebody may send."""

from __future__ import annotations


class Allowance:
    """So much a second, and so much at once. Time is handed in."""

    def __init__(self, rate: float, burst: float, *, now: float):
        self._rate, self._burst, self._left, self._at = rate, burst, burst, now

    def take(self, amount: float, *, now: float) -> bool:
        """Uses some of it. Returns whether there was enough."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - amount
        self._at = now
        return self._left >= 0

    def wait(self, amount: float, *, now: float) -> float:
        """Uses some. Returns the seconds until there is enough: who waits them loses nothing and is no faster."""
        return 0.0 if self.take(amount, now=now) else -self._left / self._rate
