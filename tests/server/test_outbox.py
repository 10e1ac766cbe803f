"""What waits to be said: its order, its end, and how much may wait."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import tone

from duologue.server.allowance import Allowance
from duologue.server.outbox import Outbox
from duologue.streaming.events import Audio, Clock, Done, Heard, Interrupted, Paused, Resumed, Text

DONE = Done(Clock(0.0, 24_000, time=lambda: 1.0).metrics(transcript="", question_seconds=0.0))


def box(*events, rate: int = 24_000, most: float = 30.0) -> Outbox:
    outbox = Outbox(rate, 24_000, most=most)
    assert all([outbox.add(event) for event in events])
    return outbox


def sound(size: int, level: float = 0.5) -> Audio:
    return Audio(np.full(size, level, np.float32))


def test_words_wait_for_the_sound_before_them():
    outbox = box(Text("One"), sound(100), Text(" two"), sound(100), DONE, Text("three"))
    assert outbox.take(50)[0] == ["One"]
    texts, samples = outbox.take(50)
    assert texts == [" two"] and (samples == 0.5).all()
    assert outbox.take(99)[0] == []
    texts, samples = outbox.take(2)
    assert texts == [" three"] and samples[0] == 0.5 and len(samples) == 2  # another answer stands apart


def test_sound_that_ends_dies_away_into_silence():
    _, samples = box(sound(100)).take(480)
    assert (samples[:100] == 0.5).all() and (np.diff(samples[100:220]) < 0).all() and not samples[220:].any()
    outbox = box(sound(100))
    outbox.take(100)
    assert outbox.take(10)[1][0] == 0.5


def test_an_interruption_drops_what_waits_and_a_pause_keeps_it():
    outbox = box(sound(1_000), Text("late"))
    outbox.take(100)
    outbox.add(Paused(0.0))
    assert outbox.take(400)[1][-1] == 0 and outbox.take(400)[0] == []
    outbox.add(Resumed())
    assert (outbox.take(100)[1] == 0.5).all()
    outbox.add(Paused(0.0))
    outbox.add(Interrupted(0.0))
    texts, samples = outbox.take(2_000)
    assert texts == [] and not samples[120:].any()
    outbox.add(sound(10))
    assert (outbox.take(10)[1] == 0.5).all()


def test_another_rate_comes_out_whole_and_in_tune():
    outbox = box(*(Audio(piece) for piece in np.split(tone(0.4, rate=16_000), 5)), DONE, rate=16_000)
    _, samples = outbox.take(9_600)
    assert np.allclose(samples[500:9_000], tone(0.4, rate=24_000)[500:9_000], atol=1e-3)
    assert not outbox.take(480)[1][120:].any()


def test_too_much_that_waits_is_told():
    outbox = box(sound(24_000), most=1.0)
    assert not outbox.add(sound(1))
    outbox.take(480)
    assert outbox.add(sound(1)) and outbox.add(Heard("", final=False))


def test_an_allowance_is_so_much_a_second_and_so_much_at_once():
    allowance = Allowance(10, 20, now=0.0)
    assert all(allowance.take(1, now=0.0) for _ in range(20)) and not allowance.take(1, now=0.0)
    assert not allowance.take(2, now=0.2)
    assert allowance.take(10, now=2.0)
    assert not allowance.take(20.1, now=100.0)  # what is not used is not saved up


@pytest.mark.parametrize("size", [1, 7, 960])
def test_pieces_give_the_whole(size):
    samples = tone(0.2, rate=24_000)[:4_800]
    outbox = box(*(Audio(piece) for piece in np.array_split(samples, 7)))
    pieces = [outbox.take(size)[1] for _ in range(0, len(samples) - size + 1, size)]
    assert np.array_equal(np.concatenate(pieces), samples[: len(samples) // size * size])


def test_a_stream_that_fell_behind_catches_up_and_keeps_its_words():
    outbox = Outbox(24_000, 24_000, most=10)
    for word in ("one", "two", "three"):
        outbox.add(Text(word))
        outbox.add(Audio(np.full(12_000, 0.5, np.float32)))
    assert outbox.catch_up(most=2.0, keep=0.5) == [] and outbox.waiting == 36_000
    assert outbox.catch_up(most=1.0, keep=0.6) == ["one", "two"] and outbox.waiting == 14_400
    assert outbox.take(14_400)[0] == ["three"]
