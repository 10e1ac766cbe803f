"""`duologue bench serve`: a server in a process of its own, called over its wire protocol in real time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from duologue.data.recordings import iterate_recordings
from duologue.eval import overlap_cases, overlaps
from duologue.eval.callers import Question, Turn, call
from duologue.eval.context import Context
from duologue.eval.metrics import bootstrap, percentile
from duologue.eval.soak import SOAK
from duologue.eval.tasks import Outcome, Row, Task
from duologue.eval.watched import started

CROWDS = (1, 2, 4, 6, 8, 10)  # conversations at once
EVERY = 10.0  # seconds between two questions of a caller
ROUNDS = 4  # questions of each caller
LIMIT = 0.7  # seconds to the first sound, of which p95 says whether so many can be served
SEMANTIC = {"type": "semantic_vad", "eagerness": "high"}


@contextlib.contextmanager
def server(model: str, *options: str) -> Iterator[str]:
    """A server on a free port; gives its address.

    Raises:
        DataError: it does not start; its last line of error is told.
    """
    with started(model, *options) as found:
        yield found.address


def conversations(context: Context) -> Outcome:
    """How many can talk at once before answers come late or with gaps."""
    questions = [Question.of(clip.audio(), 16_000) for clip in context.clean(40)]
    crowds, rounds = (CROWDS[:2], 1) if context.quick else (CROWDS, ROUNDS)
    context.drop_pipes()
    table: list[dict[str, Any]] = []
    kept: dict[int, list[Turn]] = {}
    total = sum(crowds) * rounds
    with server(context.name, "--max-sessions", str(max(crowds))) as address:
        asyncio.run(call(address, questions, callers=1, every=EVERY, rounds=1))  # warm
        for crowd in crowds:
            before = sum(map(len, kept.values()))
            kept[crowd] = asyncio.run(
                call(
                    address,
                    questions[crowd:] + questions[:crowd],
                    callers=crowd,
                    every=EVERY,
                    rounds=rounds,
                    progress=lambda done, before=before: context.tell(before + done, total),
                )
            )
            table.append(summary(crowd, kept[crowd]))
        eager = asyncio.run(call(address, questions, callers=1, every=6.0, rounds=rounds * 2, detection=SEMANTIC))
    good = [row["conversations"] for row in table if fine(row)]
    alone = kept[crowds[0]]
    values = {
        "live": bootstrap([float(max(good, default=0))], max),
        "wire_excluded": bootstrap([1000 * t.after_decision for t in alone if t.after_decision is not None], median),
        "wire_included": bootstrap([1000 * t.first for t in alone if t.first is not None], median),
        "wire_semantic": bootstrap([1000 * t.first for t in eager if t.first is not None], median),
    }
    rows = [{"conversations": crowd, **asdict(turn)} for crowd, turns in kept.items() for turn in turns]
    return Outcome(values=values, count=total, details={"table": table, "rows": rows})


def overlap(context: Context) -> Outcome:
    """What is said over an answer: what stops it that should not, and what does not that should."""
    count = context.count(200)
    made = overlap_cases.cases(
        "test",
        speakers=overlap_cases.test_speakers(),
        recorded=iterate_recordings("test", only=overlap_cases.PEOPLE),
        noises=context.real_sounds(),
        count=count,
        seed=2,
    )
    bench = overlaps.Bench(context.pipe().model)
    found = overlaps.measure(made, bench, tell=lambda done, *_: context.tell(done + 1, count))
    return Outcome(
        values=overlaps.summary(found), count=count, details={"rows": [asdict(outcome) for outcome in found]}
    )


def median(values: list[float]) -> float:
    return percentile(values, 50)


def summary(crowd: int, turns: list[Turn]) -> dict[str, Any]:
    """One line of the table. Milliseconds."""
    firsts = [1000 * turn.first for turn in turns if turn.first is not None]
    after = [1000 * turn.after_decision for turn in turns if turn.after_decision is not None]
    return {
        "conversations": crowd,
        "turns": len(turns),
        "answered": len(firsts),
        "first_p50_ms": percentile(firsts, 50) if firsts else None,
        "first_p95_ms": percentile(firsts, 95) if firsts else None,
        "after_decision_p50_ms": percentile(after, 50) if after else None,
        "after_decision_p95_ms": percentile(after, 95) if after else None,
        "gaps": sum(len(turn.gaps) for turn in turns),
        "longest_gap_ms": 1000 * max((gap for turn in turns for gap in turn.gaps), default=0.0),
    }


def fine(row: dict[str, Any]) -> bool:
    """Everybody was answered in time and without a gap. The pause that ends a turn is not counted."""
    after = row["after_decision_p95_ms"]
    return row["answered"] == row["turns"] and after is not None and after < 1000 * LIMIT and not row["gaps"]


SERVE: tuple[Task, ...] = (
    Task(
        name="conversations",
        run=conversations,
        rows=(
            Row(
                key="live",
                title="live conversations, a question every 10 s: p95 to the first sound under 700 ms, no gap",
                higher=True,
                must=4,
                aim=10,
            ),
            Row(
                key="wire_excluded",
                title="one conversation, end of turn to first sound, p50",
                unit="ms",
                must=350,
                aim=226,
            ),
            Row(
                key="wire_semantic",
                title="one conversation, end of speech to first sound, semantic_vad (high), p50",
                unit="ms",
                must=700,
                aim=450,
            ),
            Row(key="wire_included", title="the same with server_vad, 500 ms of silence, p50", unit="ms"),
        ),
    ),
    Task(
        name="overlap",
        run=overlap,
        rows=(
            Row(
                key="false_stops",
                title="answers stopped by signs of listening, noises, echo",
                unit="%",
                must=0.1,
                aim=0.03,
            ),
            Row(
                key="missed_stops", title="requests over an answer that did not stop it", unit="%", must=0.05, aim=0.01
            ),
            Row(
                key="paused_p95",
                title="from the request to the answer's standing still, p95",
                unit="ms",
                must=200,
                aim=120,
            ),
            Row(key="hesitations", title="answers that stood still and went on", unit="%"),
            Row(key="hesitation_p50", title="... for so long, p50", unit="ms"),
        ),
    ),
    *SOAK,
)
