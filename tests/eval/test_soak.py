"""Soaks of a small server: nothing is found where nothing is wrong, and what is wrong is found."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fakes import EchoConfig, EchoModel
from watching import watched

from duologue.errors import DataError
from duologue.eval import soak_hangups, soak_memory, soak_pairs
from duologue.eval.serving import SERVE
from duologue.eval.soak_memory import Sample, hum
from duologue.eval.talk import Said
from duologue.server.realtime.seat import Seat

QUESTIONS = ["Hello there.", hum(0.5), hum(1.0)]


def row(key):
    (found,) = [row for task in SERVE for row in task.rows if row.key == key]
    return found


def reaches(outcome, key) -> bool:
    return row(key).reaches(outcome.values[key].value, row(key).must)


def test_sessions_of_every_kind_leave_no_place_taken():
    with watched() as (server, _):
        found = asyncio.run(soak_memory.measure(server, marks=(6, 12), rest=0.0))
        assert [sample.sessions for sample in found] == [6, 12] and server.complaints() == []


def test_a_place_that_does_not_come_back_ends_the_count_of_sessions(monkeypatch):
    monkeypatch.setattr(Seat, "close", lambda seat: None)
    monkeypatch.setattr(soak_memory, "BACK", 0.3)
    with watched() as (server, _), pytest.raises(DataError, match="not every place is free"):
        asyncio.run(soak_memory.measure(server, marks=(2,), rest=0.0))


def test_memory_may_grow_by_a_fiftieth():
    for resident, good in ((101e6, True), (103e6, False)):
        outcome = soak_memory.outcome([Sample(100, 100e6, 9), Sample(2_000, resident, 9)])
        assert reaches(outcome, "memory_growth") == good and reaches(outcome, "memory_files")
    assert not reaches(soak_memory.outcome([Sample(1, 1e6, 9), Sample(2, 1e6, 10)]), "memory_files")


class Mixing(EchoModel):
    """Tells everybody what anybody has said to it so far, whoever is there at the moment."""

    def __init__(self):
        super().__init__()
        self.all: list[str] = []

    def heard(self, state, slot):
        own = super().heard(state, slot)
        self.all.append(own)
        return " and ".join(dict.fromkeys(filter(None, self.all)))


def test_two_at_once_get_what_they_get_alone():
    with watched() as (server, _):
        pairs = asyncio.run(soak_pairs.measure(server, QUESTIONS, count=4))
    outcome = soak_pairs.outcome(pairs)
    assert outcome.count == 4 and reaches(outcome, "pairs_leaked") and outcome.values["pairs_changed"].value == 0
    heard = {pair.alone[0].heard for pair in pairs} | {pair.alone[1].heard for pair in pairs}
    assert len(heard) == 3 and soak_pairs.chosen(3, 4) == [pair.numbers for pair in pairs]


def test_a_word_of_the_others_is_found():
    with watched(Mixing()) as (server, _):
        outcome = soak_pairs.outcome(asyncio.run(soak_pairs.measure(server, QUESTIONS[1:], count=2)))
    assert not reaches(outcome, "pairs_leaked") and outcome.values["pairs_changed"].value > 0


def test_turns_are_the_same_up_to_rounding():
    said = Said("a", "b", np.zeros(100, np.int16))
    assert said.same(Said("a", "b", np.full(100, 3, np.int16)))
    others = [
        ("x", "b", np.zeros(100)),
        ("a", "x", np.zeros(100)),
        ("a", "b", np.zeros(99)),
        ("a", "b", np.full(100, 900)),
    ]
    assert not any(said.same(Said(heard, text, audio.astype(np.int16))) for heard, text, audio in others)


def hang(server, **changes):
    options = {"hang_ups": 7, "half_open": 0, "witnesses": 1, "latest": 5.0, **changes}
    return asyncio.run(soak_hangups.measure(server, QUESTIONS[:2], **options))


LONG = EchoConfig(audio_ticks=40)


def test_who_hangs_up_gives_the_place_back_and_disturbs_nobody():
    with watched(EchoModel(LONG)) as (server, _):
        found = hang(server)
    outcome = soak_hangups.outcome(found)
    assert found.refused == [] and found.turns and found.complaints == []
    assert all(reaches(outcome, row.key) for task in SERVE if task.name == "hangups" for row in task.rows)


def test_a_place_that_is_lost_is_found(monkeypatch):
    monkeypatch.setattr(Seat, "close", lambda seat: None)
    with watched(EchoModel(LONG), max_sessions=40) as (server, _):
        found = hang(server, latest=0.5)
    outcome = soak_hangups.outcome(found)
    assert None in found.gone and found.lost and not reaches(outcome, "hangups_back")
    assert not reaches(outcome, "hangups_lost")


class Fickle(EchoModel):
    """Says something else every time."""

    times = 0

    def text(self, ids):
        return f"{super().text(ids)}{self.times}"

    def end_turn(self, state, live_B):
        self.times += 1
        super().end_turn(state, live_B)


def test_an_answer_that_is_another_is_harm():
    with watched(Fickle(LONG)) as (server, _):
        outcome = soak_hangups.outcome(hang(server))
    assert not reaches(outcome, "hangups_harm")


def test_who_stays_without_a_word_loses_the_place():
    with watched(EchoModel(LONG), ping=0.3) as (server, _):
        found = hang(server, hang_ups=0, half_open=8)
    assert found.refused == [] and found.harm == [] and found.lost == 0
    assert all(each is not None and each < 5 for each in found.stayed)


def test_who_stays_for_good_is_found():
    with watched(EchoModel(LONG)) as (server, _):  # asks nobody whether they are there
        found = hang(server, hang_ups=0, half_open=8, latest=1.0)
    assert found.stayed == [None] and not reaches(soak_hangups.outcome(found), "half_open_back")
