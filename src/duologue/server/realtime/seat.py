"""A place in the engine as a connection uses it: what is asked goes one way, what happens comes back with what was
decided about it.

Everything but `_decide` and `_sink` runs where the connection does.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from duologue.engine import Engine, SessionConfig
from duologue.errors import where
from duologue.server.witness import Several, Witness
from duologue.streaming.events import Audio, Done, Event, Heard, Interrupted, Text
from duologue.streaming.turns import OverlapConfig, TurnConfig

logger = logging.getLogger(__name__)

Tools = Sequence[dict[str, Any]]
"""The client's functions, as it described them."""


class Router(Protocol):
    """Chooses a function for what was said. Called on the engine's thread: it must not wait."""

    def __call__(self, transcript: str, tools: Tools, *, forced: bool) -> tuple[str, str] | None:
        """The name of the function and its arguments as JSON, or None: no function.

        Args:
            forced: the client has decided that one is called; None only where no arguments can be found for any.
        """
        ...


Reply = Callable[[str], "str | None"]
"""What the server itself says to a transcript, or None: the model answers. Called on the engine's thread, and again
with more of the transcript where the user went on in spite of a pause."""


class Alarms(Protocol):
    """What the server has to say when its time has come."""

    def sure(self) -> None:
        """The turn is really over that was replied to last: what was replied is so. Called on the engine's thread."""
        ...

    def due(self) -> list[str]:
        """What is to be said now; each is given once."""
        ...

    def seconds_to_due(self) -> float | None:
        """How long until `due` gives something; None: not as things are."""
        ...


@dataclass(frozen=True)
class Policy:
    """What follows a turn of the user's."""

    answers: bool = True
    tools: Tools = ()
    router: Router | None = None
    reply: Reply | None = None
    alarms: Alarms | None = None
    forced: bool = False  # whether one of the tools is called in any case
    name: str = ""  # of the conversation, in the log

    def sure(self) -> None:
        """What was decided last is done."""
        if self.alarms is not None:
            self.alarms.sure()

    def decide(self, transcript: str) -> Decision:
        call, said = None, ""
        try:
            if self.tools and self.router is not None and (transcript or self.forced):
                call = self.router(transcript, self.tools, forced=self.forced)
            if call is None and self.reply is not None and transcript:
                said = self.reply(transcript) or ""
        except Exception as error:
            logger.error("%s: what follows a turn cannot be decided, the model answers: %s", self.name, where(error))
        return Decision(call, pieces(said))


@dataclass(frozen=True)
class Decision:
    """A function to call, or texts to say one after another; neither: the model answers."""

    call: tuple[str, str] | None = None
    said: tuple[str, ...] = ()


def pieces(text: str, *, most: int = 240) -> tuple[str, ...]:
    """A text as the model can say it, which is little at once: whole sentences where they are short enough."""
    words, found = text.split(), [""]
    for index, word in enumerate(words):
        ended = index and words[index - 1][-1] in ".!?" and len(found[-1]) > most // 2
        if found[-1] and (ended or len(found[-1]) + len(word) >= most):
            found.append("")
        found[-1] = f"{found[-1]} {word[:most]}".strip()
    return tuple(each for each in found if each)


@dataclass(frozen=True)
class _Fence:
    number: int


Happened = Callable[[Event, "Decision | None"], None]
"""Takes what happened; with the end of a turn, what follows it (None: nothing yet)."""


@dataclass
class Seat:
    """One place.

    Args:
        soon: calls a function with these arguments where the connection runs; from any thread.
    Raises:
        BusyError: there is none.
    """

    engine: Engine
    happened: Happened
    soon: Callable[..., object]
    turns: TurnConfig | None = None
    interrupts: bool = True
    overlap: OverlapConfig | None = None
    echo: bool = False
    paced: bool = True
    ahead: bool = True
    backlog: float = 30.0
    policy: Policy = field(default_factory=Policy)
    witness: Witness = field(default_factory=Several)
    name: str = ""  # of the conversation, in the log
    holds: bool = False  # whether the turn that is being heard gets no answer by itself

    def __post_init__(self) -> None:
        self._decision: Decision | None = None  # on the engine's thread
        self._fences = self._passed = 0
        self._session = self.engine.open(
            self._sink,
            SessionConfig(
                turns=self.turns,
                interrupts=self.interrupts,
                overlap=self.overlap,
                echo=self.echo,
                paced=self.paced,
                ahead=self.ahead,
                backlog=self.backlog,
                decide=self._decide,
            ),
            name=self.name,
        )

    @property
    def rate(self) -> int:
        """Hz of what is heard."""
        return self.engine.runner.spec.input_rate

    def listen(self, samples: np.ndarray) -> None:
        """Raises BusyError where too much waits."""
        self._session.listen(samples)

    def end_turn(self) -> None:
        """The user's turn is over; nothing follows by itself."""
        self.holds = True
        self._session.end_turn()

    def set_turns(self, turns: TurnConfig | None, *, interrupts: bool) -> None:
        """Forgets a turn that has begun."""
        self._session.set_turns(turns, interrupts=interrupts)

    def set_omega(self, omega: int) -> None:
        self._session.set_omega(omega)

    def write(self, role: str, text: str) -> None:
        self._session.write(role, text)

    def forget(self, *turns: tuple[str, str]) -> None:
        self._session.forget(*turns)

    def answer(self, text: str | None = None) -> None:
        """Has the model answer, or say a text."""
        if text is None:
            self._session.answer()
        else:
            self._session.say(text)

    def stop(self, heard: float | None = None) -> None:
        """Cuts the answer short. What is still on its way of it does not arrive."""
        self._fences += 1
        fence: Any = _Fence(self._fences)
        self.witness.happen(Interrupted(math.inf if heard is None else heard))
        self._session.stop(heard)
        self.engine.post(lambda: self.soon(self._arrived, fence, None))

    def playing(self, heard: float) -> None:
        """How much of the answer was played by now; negative while it waits for what was said before."""
        self._session.playing(heard)

    def close(self) -> None:
        self._session.close()
        self.witness.close()

    def _decide(self, transcript: str) -> bool | str:
        policy = self.policy
        if self.holds or not policy.answers:
            self._decision = None
            return False
        self._decision = decision = policy.decide(transcript) if transcript else Decision()
        return False if decision.call else decision.said[0] if decision.said else True

    def _sink(self, event: Event) -> None:
        decision = None
        if isinstance(event, Heard) and event.final:
            decision, self._decision = self._decision, None
            if decision is not None:
                self.policy.sure()
        self.soon(self._arrived, event, decision)

    def _arrived(self, event: Event | _Fence, decision: Decision | None) -> None:
        if isinstance(event, _Fence):
            self._passed = event.number
            return
        if isinstance(event, Heard) and event.final:
            self.holds = False
            if decision is not None:  # an answer begins: it is not the one that was stopped
                self._passed = self._fences
        stale = self._passed < self._fences and isinstance(event, (Text, Audio, Done, Interrupted))
        if not stale:
            self.witness.happen(event)
            self.happened(event, decision)
