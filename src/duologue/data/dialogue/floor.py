"""Who has the floor in a conversation of two sides: units of speech, pauses, gaps and overlaps. Seconds throughout.

Source: dGSLM (Nguyen et al. 2023, arXiv:2203.16502), as in Moshi's table 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[float, float]
JOINED = 0.2  # seconds of silence that do not end a stretch of speech


def joined(spans: Sequence[Span], apart: float) -> list[Span]:
    """The stretches in order, those that are less than so many seconds apart made one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start - found[-1][1] < apart:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def between(spans: Sequence[Span], start: float, end: float) -> list[Span]:
    """What of the stretches lies between two times."""
    cut = [(max(start, begin), min(end, stop)) for begin, stop in spans]
    return [(begin, stop) for begin, stop in cut if stop > begin]


KINDS = ("ipu", "pause", "gap", "overlap")


@dataclass(frozen=True)
class Floor:
    """The stretches of each kind in a conversation of two sides, `seconds` long."""

    ipu: tuple[Span, ...]  # inter-pausal units: speech of one side, of both sides
    pause: tuple[Span, ...]  # silence between two of the same side
    gap: tuple[Span, ...]  # ... of different sides
    overlap: tuple[Span, ...]  # speech of both at once
    seconds: float


def floor(one: Sequence[Span], other: Sequence[Span], *, seconds: float, apart: float = JOINED) -> Floor:
    """The stretches of each kind. Silence of less than `apart` within one side's speech does not end a unit; silence
    before the first and after the last unit is neither a pause nor a gap."""
    units = [joined(each, apart) for each in (one, other)]
    both = [span for first in units[0] for span in between(units[1], *first)]
    ends = sorted((start, end, side) for side, own in enumerate(units) for start, end in own)
    silences: dict[bool, list[Span]] = {True: [], False: []}
    reached, last = (ends[0][1], ends[0][2]) if ends else (0.0, 0)
    for start, end, side in ends[1:]:
        if start > reached:
            silences[side == last].append((reached, start))
        if end > reached:
            reached, last = end, side
    spans = sorted(span for own in units for span in own)
    return Floor(tuple(spans), tuple(silences[True]), tuple(silences[False]), tuple(sorted(both)), seconds)


def totals(floors: Sequence[Floor]) -> dict[str, tuple[float, float]]:
    """How many and how many seconds of each kind in a minute, over all conversations."""
    minutes = sum(each.seconds for each in floors) / 60
    spans = {kind: [span for each in floors for span in getattr(each, kind)] for kind in KINDS}
    return {kind: (len(own) / minutes, sum(b - a for a, b in own) / minutes) for kind, own in spans.items()}
