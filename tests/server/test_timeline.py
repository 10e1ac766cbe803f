"""A conversation on one time axis, what was not heard of it left out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from duologue.server.timeline import Lane, Streams, Timeline
from duologue.server.witness import Called, Wrote
from duologue.streaming.events import (
    Audio,
    Done,
    Heard,
    Interrupted,
    Metrics,
    Paused,
    Resumed,
    SpeechStarted,
    SpeechStopped,
    Text,
)

RATE = 1_000
METRICS = Metrics(
    transcript="",
    text="",
    question_seconds=0,
    audio_seconds=0,
    first_text_ms=None,
    first_audio_ms=None,
    lagging_words=None,
    real_time_factor=None,
)


def ones(seconds: float) -> np.ndarray:
    return np.ones(round(seconds * RATE), np.float32)


def spans(side: np.ndarray) -> list[tuple[float, float]]:
    """From when to when there is sound."""
    loud = np.flatnonzero(np.diff(np.concatenate([[0], (side > 0.5).astype(int), [0]])))
    return [(begin / RATE, end / RATE) for begin, end in loud.reshape(-1, 2).tolist()]


def answer(timeline: Timeline, at: float, text: str, seconds: float, *, done: bool = True) -> None:
    timeline.happen(at, Text(text))
    timeline.happen(at, Audio(ones(seconds)))
    if done:
        timeline.happen(at, Done(METRICS))


def both(timeline: Timeline, *until: float) -> tuple[list, list]:
    """The spans of the two sides, taken in pieces."""
    sound = np.concatenate([timeline.take(each) for each in until])
    return spans(sound[:, 0]), spans(sound[:, 1])


@pytest.mark.parametrize("until", [(10,), (0.5, 1.7, 3.3, 10)])
def test_question_and_answer_stand_where_they_were(until):
    timeline = Timeline(RATE, RATE)
    timeline.happen(1.2, SpeechStarted(1.0))
    for step in range(10):
        timeline.hear(1.2 + step / 10, ones(0.1))
    timeline.happen(2.6, SpeechStopped(2.1))
    timeline.happen(2.6, Heard("Hello?", True))
    answer(timeline, 3.0, "Hi.", 2.0)
    assert both(timeline, *until) == ([(1.1, 2.1)], [(3.0, 5.0)])
    assert timeline.entries() == [
        {"from": 1.2, "to": 2.6, "role": "user", "text": "Hello?"},
        {"from": 3.0, "to": 5.0, "role": "assistant", "text": "Hi."},
    ]
    assert timeline.entries() == []


def test_sound_that_comes_unevenly_has_no_holes_and_a_pause_is_one():
    timeline = Timeline(RATE, RATE)
    for at in (0.1, 0.25, 0.3, 0.55, 0.56, 3.0):
        timeline.hear(at, ones(0.1))
    assert both(timeline, 5)[0] == [(0.0, 0.5), (2.9, 3.0)]


@pytest.mark.parametrize(("heard", "end"), [(0.4, 1.4), (math.inf, 1.6)])
def test_the_rest_of_an_answer_that_was_cut_short_was_not_heard(heard, end):
    timeline = Timeline(RATE, RATE)
    answer(timeline, 1.0, "A long story.", 4.0, done=False)
    timeline.take(1.1)
    timeline.happen(1.6, Interrupted(heard))
    answer(timeline, 2.0, "Short.", 0.5)
    assert both(timeline, 1.1, 9)[1] == [(0.0, round(end - 1.1, 3)), (0.9, 1.4)]  # after what was taken
    first, second = timeline.entries()
    assert first == {"from": 1.0, "to": end, "role": "assistant", "text": "A long story.", "interrupted": True}
    assert second["text"] == "Short."


def test_an_answer_that_stands_still_goes_on_later():
    timeline = Timeline(RATE, RATE)
    answer(timeline, 1.0, "A long story.", 2.0, done=False)
    timeline.happen(1.5, Paused(0.5))
    timeline.happen(1.6, Audio(ones(1.0)))
    timeline.happen(2.5, Resumed())
    timeline.happen(2.6, Done(METRICS))
    assert both(timeline, 1.8, 9)[1] == [(1.0, 1.5), (2.5, 5.0)]
    assert [entry["to"] for entry in timeline.entries()] == [5.0]


def test_after_standing_still_an_interruption_cuts_at_the_right_place():
    timeline = Timeline(RATE, RATE)
    answer(timeline, 1.0, "A long story.", 3.0, done=False)
    timeline.happen(1.5, Paused(0.5))
    timeline.happen(2.5, Resumed())
    timeline.happen(3.5, Interrupted(1.2))
    assert both(timeline, 9)[1] == [(1.0, 1.5), (2.5, 3.2)]


def test_what_was_written_and_called_is_told_and_an_end_in_the_middle_too():
    timeline = Timeline(RATE, RATE)
    timeline.happen(1.0, Wrote("user", "Weather?"))
    timeline.happen(2.0, Called("weather"))
    answer(timeline, 3.0, "It is", 1.0, done=False)
    timeline.close()
    assert [(entry["role"], entry["text"]) for entry in timeline.entries()] == [
        ("user", "Weather?"),
        ("function_call", "weather"),
        ("assistant", "It is"),
    ]


def test_a_lane_gives_what_it_got_however_it_is_cut():
    chance = np.random.default_rng(1)
    lane, want, place = Lane(), np.zeros(5_000, np.float32), 0
    for _ in range(40):
        piece = chance.random(chance.integers(0, 100)).astype(np.float32)
        place += int(chance.integers(0, 20))
        lane.put(place, piece)
        want[place : place + len(piece)] = piece
        place += len(piece)
    lifted = lane.lift(3_000)
    assert np.array_equal(lifted[:0], lane.lift(4_000))
    cuts = sorted({*chance.integers(0, 4_999, 30).tolist(), 5_000})
    got = np.concatenate([lane.take(cut) for cut in cuts])
    assert np.array_equal(got[:3_000], want[:3_000]) and not got[3_000:].any()


@pytest.mark.parametrize("until", [(12,), (0.5, 2.2, 3.7, 5.2, 12)])
def test_without_turns_both_sounds_go_on_and_words_are_told_by_pauses(until):
    timeline, entries = Streams(RATE, RATE), []
    steps = iter(until)
    at, next_take, sounds = 0.0, next(steps), []
    for tick in range(100):
        at = tick / 10
        if at > next_take:
            sounds.append(timeline.take(next_take))
            entries += timeline.entries()
            next_take = next(steps)
        if not 20 <= tick < 40:  # nothing comes from the user for two seconds
            timeline.hear(at + 0.1, ones(0.1))
        timeline.happen(at, Audio(ones(0.1)))
        if tick in (0, 5, 10, 40, 45):
            timeline.happen(at, Text(f" {tick}"))
        if tick in (7, 9, 80):
            timeline.happen(at, Heard("and"[: {7: 1, 9: 3, 80: 3}[tick]] + " so" * (tick == 80), False))
    timeline.close()
    sounds.append(timeline.take(12))
    entries += timeline.entries()
    sound = np.concatenate(sounds)
    assert (spans(sound[:, 0]), spans(sound[:, 1])) == ([(0.0, 2.0), (4.0, 10.0)], [(0.0, 10.0)])
    assert sorted(entries, key=lambda entry: entry["from"]) == [
        {"from": 0.0, "to": 1.0, "role": "assistant", "text": "0 5 10"},
        {"from": 0.7, "to": 0.9, "role": "user", "text": "and"},
        {"from": 4.0, "to": 4.5, "role": "assistant", "text": "40 45"},
        {"from": 8.0, "to": 8.0, "role": "user", "text": "so"},
    ]
