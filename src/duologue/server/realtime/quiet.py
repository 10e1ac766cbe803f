"""When nobody speaks: how long that may last, what is said into it, and timers that ring. Seconds of one clock."""

from __future__ import annotations

from duologue.server.realtime.limits import RealtimeLimits
from duologue.server.realtime.seat import Alarms

_POLITE = 30.0  # seconds that a timer waits where the client may be about to ask for something


class Quiet:
    """The times of one conversation.

    Args:
        now: when it begins.
    """

    def __init__(self, limits: RealtimeLimits, alarms: Alarms | None, *, now: float):
        self._limits, self._alarms = limits, alarms
        self.end = now + limits.longest_session
        self.last_word = now  # when something came from the client
        self.broken_at: float | None = None  # when the silence after an answer has lasted too long
        self.broken_ms = 0.0  # ... counted in milliseconds of the user's audio: where that silence began
        self._due_since: float | None = None  # when it was first time for an alarm that had to wait

    def gone_at(self, now: float) -> float:
        """When a client counts as gone that says nothing: not while it waits for an alarm."""
        soon = self.seconds_to_alarm()
        return (self.last_word if soon is None else now + soon) + self._limits.idle

    def begin(self, timeout: float, *, played: float, now: float, heard_ms: float) -> None:
        """An answer was given: after `timeout` seconds the silence is to be broken.

        Args:
            played: seconds until all of the answer was played.
            heard_ms: milliseconds of the user's audio so far.
        """
        self.broken_at = now + played + timeout
        self.broken_ms = heard_ms + played * 1000

    def seconds_to_alarm(self) -> float | None:
        return self._alarms.seconds_to_due() if self._alarms else None

    def waits(self, now: float, *, asking: bool) -> bool:
        """Whether an alarm whose time has come lets the client ask first."""
        if self._due_since is None:
            self._due_since = now
        return asking and now < self._due_since + _POLITE

    def ring(self, now: float) -> list[str]:
        """What is due to be said."""
        self._due_since, self.last_word = None, now
        return self._alarms.due() if self._alarms else []

    def until(self, now: float, *, over: bool) -> float:
        """When there may be something to do."""
        times = [self.end, self.gone_at(now)]
        times += [self.broken_at] if self.broken_at is not None else []
        if not over and (soon := self.seconds_to_alarm()) is not None:
            times.append(now + (soon or 0.1))
        return min(times)
