"""Who gets the next step of the model. Pure policy: no tensors, no threads, no clock of its own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Candidate(Protocol):
    """What the scheduler looks at in a session."""

    @property
    def can_listen(self) -> bool:
        """A tick of audio waits to be heard."""
        ...

    @property
    def can_write(self) -> bool:
        """Text waits to be read."""
        ...

    @property
    def can_end(self) -> bool:
        """The end of a turn waits to be heard."""
        ...

    @property
    def waiting_since(self) -> float:
        """The time since which one of the two waits."""
        ...

    @property
    def speaking(self) -> bool:
        """Has something to say."""
        ...

    def lead(self, now: float) -> float:
        """Seconds of speech that the listener has not heard yet; -inf before the first sound."""
        ...


ASession = TypeVar("ASession", bound=Candidate)


@dataclass(frozen=True)
class Plan(Generic[ASession]):
    """One step: hears first, then reads a piece of text or ends turns, then speaks."""

    listen: list[ASession]
    write: list[ASession]
    end: list[ASession]
    speak: list[ASession]

    @property
    def empty(self) -> bool:
        return not (self.listen or self.write or self.end or self.speak)


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """Seconds throughout."""

    dry: float = 0.2  # of speech ahead of the listener, below which nothing else is done that can wait
    low: float = 0.6  # below which a session comes first
    high: float = 4.0  # above which it waits, so that an interruption wastes little
    patience: float = 0.25  # that text and ends of turns wait for sessions which come first


class Scheduler(Generic[ASession]):
    """Speech that would run dry comes first, then ends of turns, then text that is read, then speech ahead of time.

    Who has enough speech for now has the next step all the same where somebody else needs one: two in one step cost
    little more than one.
    """

    def __init__(self, config: SchedulerConfig | None = None):
        self.config = config or SchedulerConfig()
        self._since: float | None = None  # the time since which all else waits for speech that would run dry

    def plan(self, sessions: Iterable[ASession], now: float) -> Plan[ASession]:
        sessions = list(sessions)
        listen = [session for session in sessions if session.can_listen]
        leads = [(session, session.lead(now)) for session in sessions if session.speaking]
        urgent = [session for session, lead in leads if lead < self.config.low]
        write = [session for session in sessions if session.can_write]
        end = [session for session in sessions if session.can_end]
        drying = [session for session, lead in leads if -math.inf < lead < self.config.dry]
        waited = max((now - session.waiting_since for session in [*write, *end]), default=0.0)
        if drying and now - (self._since if self._since is not None else now) <= self.config.patience:
            self._since = now if self._since is None else self._since
            return Plan([], [], [], urgent)
        self._since = None
        if (write or end) and (not urgent or waited > self.config.patience):
            near = any(lead < self.config.low for _, lead in leads)  # then only one long piece of work at a time
            return Plan([] if end and near else listen, [] if end else write[:1], end, [])
        return Plan(listen, [], [], [session for session, lead in leads if lead < self.config.high])
