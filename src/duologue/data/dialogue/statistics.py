"""What a set of conversations holds: who speaks when, and whether what was drawn is what came out.

Who has the floor is counted as in Moshi's table 9 (floor.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from duologue.data.dialogue.clips import RATE
from duologue.data.dialogue.config import Distribution, TimingConfig
from duologue.data.dialogue.floor import JOINED, KINDS, Span, floor, joined
from duologue.data.dialogue.manifest import Conversation
from duologue.data.dialogue.texts import ASSISTANT, USER
from duologue.data.dialogue.timeline import BACKCHANNEL, TURN, Utterance
from duologue.data.word_times import FRAMES, QUIET_DB, Word, loudness

SAMPLE = 5000  # values of a stated distribution that what was drawn is compared with
SIDES = (ASSISTANT, USER)


def speech_spans(words: Iterable[Word]) -> list[Span]:
    """Stretches of speech of one side, from its words."""
    return joined([(word.start, word.end) for word in words], JOINED)


@dataclass
class Drawn:
    """One quantity: the distribution that the recipe states, what was drawn of it, and what came of that."""

    name: str
    stated: list[float]  # a sample; empty where the recipe is not known
    drawn: list[float] = field(default_factory=list)
    made: list[float] = field(default_factory=list)

    @property
    def distance(self) -> float:
        """The largest difference of the two cumulative distributions (Kolmogorov, Smirnov), stated against drawn."""
        if not self.drawn or not self.stated:
            return float("nan")
        grid = np.sort(np.concatenate([self.drawn, self.stated]))
        shares = [np.searchsorted(np.sort(v), grid, side="right") / len(v) for v in (self.drawn, self.stated)]
        return float(np.abs(shares[0] - shares[1]).max())

    @property
    def expected(self) -> float:
        """The distance that one in twenty samples of this size exceeds by chance."""
        return 1.36 / np.sqrt(len(self.drawn)) if self.drawn else float("nan")


@dataclass
class Statistics:
    """Sums over a set. Rates are for each minute of conversation."""

    conversations: int = 0
    seconds: float = 0.0
    floor: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))  # seconds; ipu: of both sides
    speech: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SIDES, 0.0))  # seconds
    turns: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    backchannels: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    room: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SIDES, 0.0))  # seconds
    interruptions: int = 0
    interruptible: int = 0  # turns of the assistant that might have been interrupted
    drawn: list[Drawn] = field(default_factory=list)

    def a_minute(self, amount: float) -> float:
        return 60 * amount / self.seconds if self.seconds else 0.0


def statistics(rows: Iterable[Conversation], timing: TimingConfig | None) -> Statistics:
    """Statistics of conversations; their sound is not looked at.

    Args:
        timing: what the recipe states; None where it is not known.
    """
    found = Statistics(drawn=_quantities(timing))
    for row in rows:
        spans = {side: speech_spans(row.words_of(side)) for side in SIDES}
        found.conversations, found.seconds = found.conversations + 1, found.seconds + row.seconds
        stretches = floor(*spans.values(), seconds=row.seconds)
        for kind in KINDS:
            found.floor[kind] += sum(end - start for start, end in getattr(stretches, kind))
        for side in SIDES:
            found.speech[side] += sum(end - start for start, end in spans[side])
            found.room[side] += json.loads(row.room).get(side, 0.0)
        _count(found, row.utterances_made(), timing)
    return found


def _quantities(timing: TimingConfig | None) -> list[Drawn]:
    names = ("assistant_gap", "user_gap", "goes_on", "user_pause", "assistant_pause", "stop_delay")
    return [Drawn(name, list(_sample(getattr(timing, name))) if timing else []) for name in names]


@lru_cache(maxsize=16)
def _sample(distribution: Distribution) -> tuple[float, ...]:
    rng = np.random.default_rng(0)
    return tuple(distribution.draw(rng) for _ in range(SAMPLE))


def _count(found: Statistics, utterances: list[Utterance], timing: TimingConfig | None) -> None:
    by_name = {each.name: each for each in found.drawn}
    turns = [each for each in utterances if each.kind == TURN]
    for each in utterances:
        found.backchannels[each.role] += each.kind == BACKCHANNEL
        found.turns[each.role] += each.kind == TURN
        found.interruptions += each.interrupts
        for drawn, made in zip(each.pauses_drawn, each.pauses, strict=True):
            _add(by_name[f"{each.role}_pause"], drawn, made)
        if each.stop is not None and each.stop_drawn is not None:
            _add(by_name["stop_delay"], each.stop_drawn, each.stop)
    for before, each in pairwise(turns):
        if each.gap is not None and each.gap_drawn is not None:
            name = "goes_on" if each.role == before.role else f"{each.role}_gap"
            _add(by_name[name], each.gap_drawn, each.gap)
    for each, following in pairwise(turns):
        long = each.stop is not None or len(each.text.split()) >= (timing.interruption_words if timing else 0)
        found.interruptible += each.role == ASSISTANT and following.role == USER and long


def _add(quantity: Drawn, drawn: float, made: float) -> None:
    quantity.drawn.append(drawn)
    quantity.made.append(made)


class SoundCheck(NamedTuple):
    """The assistant's clean channel, listened to, against its words: 10 ms frames and seconds."""

    frames: int
    silent_within: int  # frames inside words that hold no sound
    sound_outside: int  # frames with sound, 0.1 s or more from any word
    starts: list[float]  # where sound begins after 0.2 s of silence, from where the nearest word begins


def check_sound(rows: Sequence[Conversation]) -> SoundCheck:
    """Compares the times of the assistant's words with where its channel is loud."""
    frames = silent = outside = 0
    starts: list[float] = []
    for row in rows:
        levels = loudness(row.sound()[0], RATE)
        heard, words = levels > QUIET_DB, row.words_of(ASSISTANT)
        inside, near = np.zeros(len(heard), bool), np.zeros(len(heard), bool)
        for word in words:
            inside[round(word.start * FRAMES) : round(word.end * FRAMES)] = True
            near[max(0, round((word.start - 0.1) * FRAMES)) : round((word.end + 0.1) * FRAMES)] = True
        frames, silent = frames + len(heard), silent + int((inside & ~heard).sum())
        outside += int((heard & ~near).sum())
        quiet = round(JOINED * FRAMES)
        onsets = [at for at in np.flatnonzero(heard) if at >= quiet and not heard[at - quiet : at].any()]
        starts += [min((word.start - at / FRAMES for word in words), key=abs) for at in onsets if words]
    return SoundCheck(frames, silent, outside, starts)
