"""Timers are spoken when they are due, also in the middle of silence, and never into what somebody says."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from fakes import EchoConfig, EchoModel, tone
from realtime_talk import RATE, Desk, message, of, one, silence

from duologue.server.assistant import Assistant, Library
from duologue.server.realtime import RealtimeLimits
from duologue.skills.router import Router

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=timezone.utc)
RING = [
    *("response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added"),
    *("response.output_audio_transcript.delta", "response.output_audio.delta", "response.output_audio.done"),
    *("response.output_audio_transcript.done", "response.content_part.done", "conversation.item.done"),
    *("response.output_item.done", "response.done", "rate_limits.updated"),
]


class Saying(EchoModel):
    """Its listener writes what the test says."""

    words = ""

    def heard(self, state, slot):
        return self.words if super().heard(state, slot) else ""


def desk_with(model=None, *, limits=None, by_hand: bool = False) -> Desk:
    clock = []  # filled once there is a desk whose time it is
    assistant = Assistant(Library(), Router(), now=lambda: NOON + timedelta(seconds=clock[0].time if clock else 0.0))
    desk = Desk(model, limits=limits, router=assistant.call, reply=assistant.reply, alarms=assistant)
    clock.append(desk)
    if by_hand:
        desk.update(audio={"input": {"turn_detection": None}})
    return desk


def set_timer(desk: Desk, seconds: int) -> None:
    desk.send("conversation.item.create", item=message(f"Set a timer for {seconds} seconds."))
    desk.send("response.create")
    assert one(desk.events, "response.output_audio_transcript.delta")["delta"].startswith("Timer set")


def rings(events) -> list[str]:
    return [
        event["transcript"]
        for event in of(events, "response.output_audio_transcript.done")
        if "done" in event["transcript"]
    ]


def quick(words: str = "") -> Saying:
    model = Saying(EchoConfig(omega=50, lead=1))
    model.words = words
    return model


def test_a_timer_rings_in_silence_as_a_response_of_its_own():
    desk = desk_with(quick())
    set_timer(desk, 10)
    assert rings(desk.wait(9)) == []
    events = desk.wait(3)
    assert rings(events) == ["Your timer for ten seconds is done."]
    assert [kind for kind in desk.kinds(events) if not kind.endswith(".delta")] == [
        kind for kind in RING if not kind.endswith(".delta")
    ]
    assert one(events, "conversation.item.added")["item"]["role"] == "assistant"
    assert desk.wait(30) == []


def test_a_timer_waits_for_the_end_of_an_answer_and_of_its_playing():
    desk = desk_with(Saying(EchoConfig(omega=50, lead=1, audio_ticks=100)))  # eight seconds
    set_timer(desk, 15)
    desk.wait(12)
    desk.send("conversation.item.create", item=message("Tell me a story."))
    desk.send("response.create")
    assert not of(desk.wait(7.5), "response.created")  # it is due after three of them
    assert rings([*desk.wait(1), *desk.wait(9)]) == ["Your timer for fifteen seconds is done."]


def test_a_timer_waits_while_the_user_speaks_and_until_they_are_answered():
    desk = desk_with(quick("Why is the sky blue?"))
    set_timer(desk, 5)
    desk.wait(4)
    spoken = [event for _ in range(20) for event in (*desk.say(tone(0.1, rate=RATE)), *desk.wait(0.1))]
    assert of(spoken, "input_audio_buffer.speech_started") and not of(spoken, "response.created")
    events = [*desk.say(silence(1.0)), *desk.wait(15)]
    said = [event["transcript"] for event in of(events, "response.output_audio_transcript.done")]
    assert len(said) == 2 and said[1] == "Your timer for five seconds is done."


def test_a_timer_waits_while_a_question_is_spoken_by_hand_which_is_heard_afterwards():
    model = quick("Why is the sky blue?")
    desk = desk_with(model, by_hand=True)
    set_timer(desk, 5)
    desk.wait(4)
    spoken = [event for _ in range(20) for event in (*desk.say(tone(0.1, rate=RATE)), *desk.wait(0.1))]
    assert not of(spoken, "response.created")
    assert rings(desk.wait(5)) == ["Your timer for five seconds is done."]
    desk.say(tone(0.5, rate=RATE))
    desk.send("input_audio_buffer.commit")
    done = one([*desk.send("response.create"), *desk.wait(5)], "response.done")["response"]
    assert done["output"][0]["content"][0]["transcript"] == model.config.answer


def test_a_request_that_goes_on_after_a_pause_sets_one_timer():
    model = quick("Set a timer for ten seconds.")
    desk = desk_with(model)
    desk.say(tone(0.5, rate=RATE), silence(0.3))  # an answer is prepared in this pause
    model.words = "Set a timer for twenty seconds."
    desk.say(tone(0.5, rate=RATE), silence(1.0))
    assert rings(desk.wait(15)) == []
    assert rings(desk.wait(30)) == ["Your timer for twenty seconds is done."]


def test_who_waits_for_a_timer_is_not_gone():
    desk = desk_with(quick(), limits=RealtimeLimits(idle=20.0))
    set_timer(desk, 60)
    assert rings(desk.wait(62)) and not desk.connection.over
    desk.wait(25)
    assert desk.connection.over


@pytest.mark.parametrize("owed", [True, False])
def test_a_timer_lets_the_client_answer_what_it_was_asked_first(owed):
    desk = desk_with(quick("Why is the sky blue?"))
    set_timer(desk, 10)
    if owed:
        desk.update(audio={"input": {"turn_detection": {"type": "server_vad", "create_response": False}}})
        desk.say(tone(0.5, rate=RATE), silence(1.0))
    assert bool(rings(desk.wait(15))) != owed
    assert bool(rings(desk.wait(40))) == owed  # but not for ever
