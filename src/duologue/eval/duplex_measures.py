"""How a model takes its turn, measured: take-over, latency, backchannels. Seconds throughout.

Source: Full-Duplex-Bench (Lin et al. 2025, arXiv:2503.04721; v1.5, arXiv:2507.23159). Where this departs from the
benchmark's own programs stands in docs/evaluation.md; who has the floor is in data/dialogue/floor.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from duologue.data.dialogue.floor import Span, between
from duologue.errors import DataError

Words = Callable[[float, float], int]
"""How many words are said between two times."""

LONG = 1.0  # seconds of speech from which on it is a turn, whatever is said
FEW = 3  # words that leave a shorter stretch a sign of listening
SIGN_WORDS = 2  # words of a sign of listening, while the user tells something
WINDOW = 0.2  # seconds, of the histogram of backchannels
_NEVER = 1e-10  # in a window of it where there is none


def takes_over(spans: Sequence[Span], words: Words) -> bool:
    """Whether what is said is a turn, not silence nor a sign of listening: it has words, and from its first sound to
    its last it is `LONG`, or has more than a `FEW` words."""
    if not spans:
        return False
    start, end = spans[0][0], spans[-1][1]
    count = words(start, end)
    return count > 0 and (end - start >= LONG or count > FEW)


class Taken(NamedTuple):
    """Whether the model took the turn, and how long after the user's end. A model that was first waits 0."""

    over: bool
    latency: float | None


def turn_taking(own: Sequence[Span], words: Words, *, user_end: float, end: float, since: float = 0.0) -> Taken:
    """What follows the end of the user's turn.

    Args:
        own: the model's stretches of speech.
        end: of the recording.
        since: what began before this time is no answer to it: the beginning of an interruption.
    """
    answer = between([span for span in own if span[0] >= since and span[1] > user_end], user_end, end)
    over = takes_over(answer, words)
    return Taken(over, answer[0][0] - user_end if over else None)


def stop_latency(own: Sequence[Span], interruption: float) -> float | None:
    """How long the model went on after it was interrupted; None where it was not speaking."""
    return next((end - interruption for start, end in own if start < interruption < end), None)


@dataclass(frozen=True)
class Signs:
    """What the model says while the user tells something."""

    over: bool
    signs: tuple[Span, ...]  # backchannels
    a_minute: float


def backchannels(own: Sequence[Span], words: Words, *, seconds: float) -> Signs:
    """Takes each stretch for a backchannel or a turn: it is a turn if it is `LONG` or has more than `SIGN_WORDS`."""
    signs, over = [], False
    for start, end in own:
        if end - start >= LONG or words(start, end) > SIGN_WORDS:
            over = True
        else:
            signs.append((start, end))
    return Signs(over, tuple(signs), 60 * len(signs) / seconds)


def histogram(spans: Sequence[Span], seconds: float) -> list[float]:
    """How backchannels lie in time: shares of windows of 0.2 s, each stretch counted in all that it touches."""
    counts = np.zeros(int(seconds / WINDOW) + 1)
    for start, end in spans:
        counts[int(start / WINDOW) : int(end / WINDOW) + 1] += 1
    counts += _NEVER
    return [float(share) for share in counts / counts.sum()]


def js_divergence(one: Sequence[float], other: Sequence[float]) -> float:
    """Jensen-Shannon divergence of two distributions in bits: 0 where they are the same, 1 where they share nothing.

    Raises:
        DataError: they are not distributions over the same windows.
    """
    p, q = np.asarray(one, float), np.asarray(other, float)
    if p.shape != q.shape or not len(p) or min(p.min(), q.min()) < 0 or p.sum() <= 0 or q.sum() <= 0:
        raise DataError(f"js_divergence: need two distributions over the same windows, got {len(p)} and {len(q)}")
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    parts = [x[x > 0] * np.log2(x[x > 0] / middle[x > 0]) for x in (p, q)]
    return float(np.clip((parts[0].sum() + parts[1].sum()) / 2, 0, 1))


def as_published(divergence: float) -> float:
    """The same as Full-Duplex-Bench prints it: the square root of the divergence in nats."""
    return float(np.sqrt(divergence * np.log(2)))


def resized(shares: Sequence[float], count: int) -> list[float]:
    """A distribution over another number of windows, by straight lines between the old ones."""
    return [float(x) for x in np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(shares)), shares)]
