"""`duologue bench serve`: what strangers, hang-ups and many sessions do to a server, and two sessions to each other."""

from __future__ import annotations

import asyncio

from duologue.eval import hostile_run, soak_hangups, soak_memory, soak_pairs
from duologue.eval.callers import Question as Spoken
from duologue.eval.context import Context
from duologue.eval.talk import Question
from duologue.eval.tasks import Outcome, Row, Task
from duologue.eval.watched import started

PLACES = 8
EVENTS, QUICK_EVENTS = 10_000, 400
HANG_UPS, HALF_OPEN = (500, 200), (14, 20)  # in full, and quick
MARKS, QUICK_MARKS = (100, 500, 1_000, 2_000), (12, 24)  # sessions after which memory is looked at
PAIRS, QUESTIONS = 100, 40


def hostile(context: Context) -> Outcome:
    """Malformed events over every protocol."""
    context.drop_pipes()
    count = QUICK_EVENTS if context.quick else EVENTS
    with started(context.name, "--max-sessions", str(PLACES)) as server:
        return hostile_run.outcome(asyncio.run(hostile_run.run(server, count=count, tell=context.tell)))


def hangups(context: Context) -> Outcome:
    """Clients that hang up or stay without a word, beside conversations that must not notice."""
    context.drop_pipes()
    gone, staying = HALF_OPEN if context.quick else HANG_UPS
    questions = ["What is your name?", _questions(context, 1)[0]]
    with started(context.name, "--max-sessions", str(PLACES)) as server:
        found = asyncio.run(
            soak_hangups.measure(server, questions, hang_ups=gone, half_open=staying, tell=context.tell)
        )
    return soak_hangups.outcome(found)


def memory(context: Context) -> Outcome:
    """Memory after many sessions against memory after some."""
    context.drop_pipes()
    marks = QUICK_MARKS if context.quick else MARKS
    with started(context.name, "--max-sessions", str(PLACES)) as server:
        return soak_memory.outcome(asyncio.run(soak_memory.measure(server, marks=marks, tell=context.tell)))


def pairs(context: Context) -> Outcome:
    """Two conversations at once that hear different things."""
    questions = _questions(context, QUESTIONS)
    context.drop_pipes()
    with started(context.name, "--max-sessions", str(PLACES)) as server:
        found = asyncio.run(soak_pairs.measure(server, questions, count=context.count(PAIRS), tell=context.tell))
    return soak_pairs.outcome(found)


def _questions(context: Context, count: int) -> list[Question]:
    return [Spoken.of(clip.audio(), 16_000).samples for clip in context.clean(count)]


SOAK: tuple[Task, ...] = (
    Task(
        name="hostile",
        run=hostile,
        rows=(
            Row(
                key="hostile_wrong", title="malformed events of 10,000 that were not answered as they should be", must=0
            ),
            Row(key="hostile_complaints", title="errors of its own in the server's log meanwhile", must=0),
            Row(key="hostile_lost", title="places that did not come back within 5 s", must=0),
            Row(key="hostile_changed", title="a conversation is another afterwards (1: it is)", must=0),
            Row(key="hostile_growth", title="memory after all, more than after half", unit="%", must=0.02, aim=0.0),
        ),
    ),
    Task(
        name="hangups",
        run=hangups,
        rows=(
            Row(key="hangups_back", title="until all places are back after hang-ups, longest", unit="s", must=5),
            Row(
                key="half_open_back", title="until the places of half-open sockets are back, longest", unit="s", must=5
            ),
            Row(key="hangups_harm", title="answers to others that came otherwise than alone, or not", must=0),
            Row(key="hangups_lost", title="places lost at the end", must=0),
            Row(key="hangups_complaints", title="errors of its own in the server's log meanwhile", must=0),
        ),
    ),
    Task(
        name="memory",
        run=memory,
        rows=(
            Row(
                key="memory_growth",
                title="memory after 2,000 sessions, more than after 100",
                unit="%",
                must=0.02,
                aim=0.0,
            ),
            Row(key="memory_sessions", title="resident memory then", unit="GiB"),
            Row(key="memory_files", title="open files and sockets, more than after 100", must=0),
        ),
    ),
    Task(
        name="pairs",
        run=pairs,
        rows=(
            Row(key="pairs_leaked", title="sessions that have words of the other at the same time", unit="%", must=0.0),
            Row(key="pairs_changed", title="sessions that are otherwise than alone", unit="%"),
        ),
    ),
)
