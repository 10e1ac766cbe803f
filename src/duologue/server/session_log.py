"""The log of a conversation: when it begins and ends, how soon answers came. What was said only where asked for.

That it failed, and of what, is told by the engine, under the same name.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import numpy as np

from duologue.server.witness import Called, Happening, Wrote
from duologue.streaming.events import Done, Heard, Interrupted, Text

logger = logging.getLogger(__name__)


_LONGEST = 500  # characters of a line


def short(name: str) -> str:
    """How the log calls a conversation: the end of its id, which is random."""
    return name[-8:]


class SessionLog:
    """A witness.

    Args:
        kind: what carries the conversation.
        texts: whether what is said is logged too.
    """

    def __init__(self, kind: str, name: str, *, texts: bool = False, clock: Callable[[], float] = time.monotonic):
        self._name, self._texts, self._clock, self._begin = short(name), texts, clock, clock()
        self._answers, self._said = 0, ""
        self._info("begins (%s)", kind)

    def hear(self, samples: np.ndarray) -> None:
        pass

    def happen(self, event: Happening) -> None:
        match event:
            case Heard(text, True) if self._texts and text:
                self._info("heard: %s", text)
            case Wrote(role, text) if self._texts:
                self._info("%s wrote: %s", role, text)
            case Text(text) if self._texts:
                self._said += text
                if len(self._said) > _LONGEST:  # without turns, an answer has no end
                    self._tell_said()
            case Done(metrics):
                self._answers += 1
                first = "nothing" if metrics.first_audio_ms is None else f"{metrics.first_audio_ms:.0f} ms"
                self._info("answered, first sound after %s, %.1f s of speech", first, metrics.audio_seconds)
                self._tell_said()
            case Called():
                self._info("calls a function")
            case Interrupted():
                self._info("interrupted")
                self._tell_said()

    def close(self) -> None:
        self._tell_said()
        self._info("over after %.0f s, %d answers", self._clock() - self._begin, self._answers)

    def _tell_said(self) -> None:
        if self._said:
            self._info("said: %s", self._said)
        self._said = ""

    def _info(self, message: str, *values: object) -> None:
        logger.info(f"%s: {message}", self._name, *values)
