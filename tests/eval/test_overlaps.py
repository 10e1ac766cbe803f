"""What is said over an answer, with a model that takes loud sound for words and soft sound for a sign of listening."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import EchoConfig, EchoModel, tone
from loudness import Loudness

from duologue.errors import DataError
from duologue.eval.overlap_cases import Case
from duologue.eval.overlaps import Bench, measure, summary
from duologue.streaming.turns import OverlapConfig


def case(kind, level: float, seconds: float = 0.8, *, start: float = 1.0, **changes) -> Case:
    given = {
        "kind": kind,
        "text": kind,
        "voice": "tone",
        "audio": tone(seconds, level=level),
        "answer": "A long answer. " * 4,
        "start": start,
        "echo_db": None,
        "room": np.ones(1, np.float32),
        "delay": 0.1,
        "floor_db": -90.0,
        "block": 0.02,
        "seed": 0,
    }
    return Case(**{**given, **changes})


def bench(ticks: int = 80, **options) -> Bench:
    return Bench(EchoModel(EchoConfig(audio_ticks=ticks)), voice=Loudness(), echo=False, **options)


def test_requests_stop_an_answer_and_signs_make_it_stand_still():
    told = []
    cases = [case("request", 0.4), case("sign", 0.1), case("request", 0.4), case("noise", 0.005), case("sign", 0.1)]
    found = measure(cases, bench(), tell=lambda number, *_: told.append(number))
    assert told == [0, 1, 2, 3, 4]
    request, sign, _, noise, _ = found
    assert request.interrupted_ms is not None and request.paused_ms is not None and request.stopped
    assert request.interrupted_ms > request.paused_ms > 0
    assert sign.interrupted_ms is None and len(sign.stood) == 1 and 0.4 < sign.stood[0] < 1.2
    assert noise.stood == () and not noise.stopped and noise.paused_ms is None
    figures = {name: interval.value for name, interval in summary(found).items()}
    assert figures["missed_stops"] == 0.0
    assert 0 < figures["paused_p95"] < 200 and figures["interrupted_p50"] > figures["paused_p50"]


def test_what_goes_wrong_is_counted():
    """Any speech stops; and words that are too soft stop nothing."""
    found = measure([case("sign", 0.3), case("request", 0.1, 0.4)], bench())
    figures = {name: interval.value for name, interval in summary(found).items()}
    assert figures["false_stops"] == figures["false_stops_signs"] == 1.0 and figures["missed_stops"] == 1.0
    assert "false_stops_echo" not in figures  # there was no such case


def test_an_answer_that_comes_back_through_the_room_stops_itself_without_a_canceller():
    loud = case("echo", 0.0, 2.0, echo_db=0.0)
    assert measure([loud], bench(overlap=OverlapConfig()))[0].before > 0


def test_an_answer_that_is_over_too_soon_is_no_measurement():
    with pytest.raises(DataError, match="over before"):
        measure([case("request", 0.4, start=2.0)], bench(ticks=6))
