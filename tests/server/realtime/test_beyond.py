"""The events that are ours alone: only who asks for them gets them."""

from __future__ import annotations

import json

import pytest
import realtime_talk
from fakes import EchoConfig, EchoModel, tone
from realtime_talk import RATE, Desk, of, one, served, silence
from websockets.sync.client import connect

from duologue.streaming.turns import OverlapConfig

LONG = EchoConfig(audio_ticks=200)
COUGH, ORDER = tone(0.3, rate=RATE, level=0.1), tone(1.0, rate=RATE)


@pytest.fixture(autouse=True)
def known_here(monkeypatch):
    """Ours are not in the `openai` package."""
    plain = realtime_talk.valid
    monkeypatch.setattr(realtime_talk, "valid", lambda event: _ours(event) or plain(event))


def _ours(event) -> bool:
    return event["type"] in ("duologue.paused", "duologue.resumed", "duologue.metrics") or (
        "duologue" in event.get("session", {})
    )


def overlapped(speech, **options) -> list:
    desk = Desk(EchoModel(LONG), overlap=OverlapConfig(), **options)
    desk.say(tone(1.0, rate=RATE), silence(0.8), steps=4)
    return desk.say(silence(0.5), speech, silence(1.0), steps=4)


def test_an_answer_that_stands_still_for_a_cough_goes_on():
    events = overlapped(COUGH, beyond=True)
    assert [event["type"] for event in events if _ours(event)] == ["duologue.paused", "duologue.resumed"]
    assert 500 < one(events, "duologue.paused")["audio_end_ms"] < 1_500
    assert not of(events, "input_audio_buffer.speech_started")


def test_an_answer_that_stands_still_for_words_is_over():
    kinds = [event["type"] for event in overlapped(ORDER, beyond=True)]
    assert kinds.index("duologue.paused") < kinds.index("input_audio_buffer.speech_started")
    assert "duologue.resumed" not in kinds


def test_the_numbers_come_before_the_end_of_the_response():
    desk = Desk(beyond=True)
    events = desk.say(tone(1.0, rate=RATE), silence(1.0))
    metrics, done = one(events, "duologue.metrics"), one(events, "response.done")
    assert events.index(metrics) < events.index(done) and metrics["response_id"] == done["response"]["id"]
    assert metrics["audio_seconds"] == pytest.approx(0.6) and metrics["first_audio_ms"] is not None


def test_who_did_not_ask_gets_none():
    assert not [event for event in [*overlapped(COUGH), *overlapped(ORDER)] if _ours(event)]


@pytest.mark.parametrize(("query", "asked"), [("?model=mini&duologue=1", True), ("?model=mini", False)])
def test_the_query_asks(query, asked):
    with served() as (address, _), connect(f"ws://{address}/v1/realtime{query}", proxy=None) as line:
        for event in (
            {"type": "conversation.item.create", "item": realtime_talk.message("Hello.")},
            {"type": "response.create"},
        ):
            line.send(json.dumps(event))
        kinds = []
        while not kinds or kinds[-1] != "response.done":
            kinds.append(json.loads(line.recv(timeout=20))["type"])
        assert ("duologue.metrics" in kinds) is asked


class Chunky(EchoModel):
    omegas = (2, 20, 4)

    def __init__(self):
        super().__init__()
        self.told: list[int] = []

    def set_omega(self, state, slot, omega):
        self.told.append(omega)


def test_omega_is_offered_and_chosen_within_its_bounds():
    desk = Desk(model := Chunky(), beyond=True)
    assert desk.events[0]["session"]["duologue"] == {"omega": {"min": 2, "max": 20, "value": 4}}
    (event,) = desk.update(duologue={"omega": 9})
    assert event["session"]["duologue"]["omega"]["value"] == 9 and model.told == [9]
    for wrong, param in (({"omega": 21}, "omega"), ({"omega": "x"}, "omega"), ({"chunk": 5}, "chunk")):
        (error,) = desk.update(duologue=wrong)
        assert error["error"]["param"] == f"session.duologue.{param}"
    assert desk.connection.settings.omega == 9 and model.told == [9]


@pytest.mark.parametrize(("model", "beyond"), [(Chunky, False), (EchoModel, True)])
def test_omega_is_unknown_to_who_did_not_ask_and_to_models_without_it(model, beyond):
    desk = Desk(model(), beyond=beyond)
    assert "duologue" not in desk.events[0]["session"]
    (error,) = desk.update(duologue={"omega": 9})
    assert (error["error"]["code"], error["error"]["param"]) == ("unknown_parameter", "session.duologue")
