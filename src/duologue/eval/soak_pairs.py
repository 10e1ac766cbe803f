"""Two conversations at once that hear different things: each gets what it gets alone, and no word of the other's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from duologue.eval.metrics import bootstrap, mean
from duologue.eval.talk import Question, Said, hold
from duologue.eval.tasks import Outcome
from duologue.eval.watched import Watched


@dataclass(frozen=True)
class Pair:
    """Two turns that were had at the same time, with what each is alone."""

    numbers: tuple[int, int]  # of the questions
    alone: tuple[Said, Said]
    together: tuple[Said, Said]

    @property
    def changed(self) -> list[bool]:
        """Of each: whether anything is otherwise than alone."""
        return [not one.same(other) for one, other in zip(self.alone, self.together, strict=True)]

    @property
    def leaked(self) -> list[list[str]]:
        """Of each: the words that it has not alone, and the other has."""
        found = []
        for own in (0, 1):
            strange = words(self.together[own]) - words(self.alone[own])
            found.append(sorted(strange & (words(self.alone[1 - own]) | words(self.together[1 - own]))))
        return found


def words(said: Said) -> set[str]:
    return set(re.findall(r"[\w']+", f"{said.heard} {said.text}".lower()))


async def measure(
    server: Watched,
    questions: Sequence[Question],
    *,
    count: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[Pair]:
    """So many pairs of different questions, the same ones every time."""
    total, done = len(questions) + count, 0
    alone: list[Said] = []
    for question in questions:
        alone += await hold(server.address, [question])
        tell(done := done + 1, total)
    pairs = []
    for first, second in chosen(len(questions), count):
        (one,), (other,) = await asyncio.gather(*(hold(server.address, [questions[n]]) for n in (first, second)))
        pairs.append(Pair((first, second), (alone[first], alone[second]), (one, other)))
        tell(done := done + 1, total)
    return pairs


def chosen(questions: int, count: int) -> list[tuple[int, int]]:
    """Which questions meet."""
    chance = np.random.default_rng(0)
    return [(int(a), int(b)) for a, b in (chance.choice(questions, 2, replace=False) for _ in range(count))]


def outcome(pairs: Sequence[Pair]) -> Outcome:
    changed = [float(each) for pair in pairs for each in pair.changed]
    leaked = [float(bool(each)) for pair in pairs for each in pair.leaked]
    values = {"pairs_changed": bootstrap(changed, mean), "pairs_leaked": bootstrap(leaked, mean)}
    return Outcome(values=values, count=len(pairs), details={"rows": [row(pair) for pair in pairs]})


def row(pair: Pair) -> dict[str, Any]:
    shown = {
        name: [{"heard": said.heard, "text": said.text, "samples": len(said.samples)} for said in both]
        for name, both in (("alone", pair.alone), ("together", pair.together))
    }
    return {"questions": list(pair.numbers), "changed": pair.changed, "leaked": pair.leaked, **shown}
