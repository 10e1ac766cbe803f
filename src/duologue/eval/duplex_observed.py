"""What is measured in one case of a full-duplex evaluation, and the table's values from many of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from duologue.data.dialogue.floor import between
from duologue.eval.duplex_cases import INTERRUPTION, PAUSE, TELLING, TURN, Case
from duologue.eval.duplex_driver import Take
from duologue.eval.duplex_measures import (
    as_published,
    backchannels,
    histogram,
    js_divergence,
    resized,
    stop_latency,
    takes_over,
    turn_taking,
)
from duologue.eval.metrics import Interval, bootstrap, count_words, mean

EDGE = 0.1  # seconds around a stretch of speech that the judge hears too

Found = dict[str, Any]
Values = dict[str, Interval]


def observe(case: Case, take: Take, transcribe: Callable[[Any, int], str]) -> Found:
    """What is measured in one case, and what its timeline shows."""

    @functools.cache
    def said(start: float, end: float) -> str:
        return transcribe(take.piece(start - EDGE, end + EDGE), take.rate)

    def words(start: float, end: float) -> int:
        return count_words(said(start, end))

    own = list(take.spans)
    found: Found = {
        "name": case.name,
        "kind": case.kind,
        "voice": case.voice,
        "seconds": round(take.seconds, 3),
        "user": [list(each) for each in case.said],
        "user_end": case.end,
        "marked": [list(each) for each in case.marked],
        "own": [[round(start, 3), round(end, 3)] for start, end in own],
        "texts": [[round(when, 3), text] for when, text in take.texts],
        "heard": [text for _, text in take.heard],
        "late": take.late,
    }
    if case.kind == PAUSE:
        found["over"] = takes_over(between(own, 0.0, case.end), words)
    elif case.kind == TELLING:
        meanwhile = [span for span in own if span[0] < case.end]  # what comes later answers it
        signs = backchannels(meanwhile, words, seconds=case.end)
        found |= {"over": signs.over, "signs": [list(each) for each in signs.signs], "a_minute": signs.a_minute}
        if case.expected:
            shares = histogram(signs.signs, case.end)
            found["jsd"] = js_divergence(shares, resized(case.expected, len(shares))) if signs.signs else 1.0
            found["jsd_published"] = as_published(found["jsd"]) if signs.signs else 1.0
    elif case.kind in (TURN, INTERRUPTION):
        since = case.marked[0][0] if case.kind == INTERRUPTION else 0.0
        taken = turn_taking(own, words, user_end=case.end, end=take.seconds, since=since)
        found |= {"over": taken.over, "latency": taken.latency}
        if case.kind == INTERRUPTION:
            found["stop"] = stop_latency(own, since)
            found["speaking"] = found["stop"] is not None
    if own and case.kind in (TURN, INTERRUPTION):
        found["answer"] = said(case.end, take.seconds)
    return found


def summarise(kind: str, rows: Sequence[Found], *, prefix: str = "") -> Values:
    """The table's values from cases of one kind. Shares are of 1, latencies milliseconds."""

    def numbers(key: str, scale: float = 1.0) -> list[float]:
        return [scale * row[key] for row in rows if row.get(key) is not None]

    name = prefix or kind
    columns = {f"{name}_tor": numbers("over")}
    if kind == TELLING:
        columns |= {f"{name}_{key}": numbers(key) for key in ("a_minute", "jsd", "jsd_published")}
    if kind in (TURN, INTERRUPTION):
        columns[f"{name}_latency"] = numbers("latency", 1000)
    if kind == INTERRUPTION:
        columns |= {f"{name}_speaking": numbers("speaking"), f"{name}_stop": numbers("stop", 1000)}
    return {key: bootstrap(values, mean) for key, values in columns.items() if values}
