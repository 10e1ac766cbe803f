"""Who is told what happens in a conversation, whatever carries it: the log, a recording, a trace. Nobody of them may
wait, and none can disturb the conversation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from duologue.errors import where
from duologue.streaming import events

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wrote:
    """The client put a text into the conversation."""

    role: str
    text: str


@dataclass(frozen=True)
class Called:
    """The answer is a call of the client's function."""

    name: str


Happening = events.Event | Wrote | Called


class Witness(Protocol):
    """Of one conversation. Calls come in one thread."""

    def hear(self, samples: np.ndarray) -> None:
        """The user's next audio, as it comes, at the rate at which the model hears."""
        ...

    def happen(self, event: Happening) -> None:
        """What happened. `Interrupted` with infinite seconds: as many as can have been heard."""
        ...

    def close(self) -> None:
        """The conversation is over."""
        ...


Witnesses = Callable[[str, str], Witness]
"""Makes the witness of a conversation from what carries it (realtime, moshi, http) and its id."""


class Several:
    """Some witnesses, or none. Who fails is told no more."""

    def __init__(self, witnesses: Sequence[Witness] = ()):
        self._witnesses = list(witnesses)

    def hear(self, samples: np.ndarray) -> None:
        self._each(lambda witness: witness.hear(samples))

    def happen(self, event: Happening) -> None:
        self._each(lambda witness: witness.happen(event))

    def close(self) -> None:
        self._each(lambda witness: witness.close())
        self._witnesses.clear()

    def _each(self, tell: Callable[[Witness], None]) -> None:
        for witness in list(self._witnesses):
            try:
                tell(witness)
            except Exception as error:
                logger.error("%s failed and is told no more: %s", type(witness).__name__, where(error))
                self._witnesses.remove(witness)


def nobody(kind: str, name: str) -> Witness:
    """The witness of a conversation that nobody follows."""
    return Several()
