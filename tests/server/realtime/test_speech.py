"""Spoken conversations, event by event: turns found and cut by hand, barge-in, formats, what was said."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from fakes import ANSWER, EchoConfig, EchoModel, tone
from realtime_talk import RATE, Desk, kinds, message, of, one, silence

from duologue.audio import g711, io

QUESTION = tone(1.0, rate=RATE)
TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
ANSWERED = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "DELTAS",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]
LONG = EchoConfig(audio_ticks=100)


def canonical(events) -> list[str]:
    names = kinds(
        [{**e, "type": "DELTAS"} if e["type"].startswith("response.output_") and "delta" in e else e for e in events]
    )
    return names


def test_a_turn_that_is_found_is_answered_in_the_protocols_order():
    desk = Desk()
    assert desk.kinds() == ["session.created", "conversation.created"]
    events = desk.say(silence(0.5), QUESTION, silence(1.0))
    assert canonical(events) == TURN + ANSWERED
    started, stopped = one(events, TURN[0]), one(events, TURN[1])
    assert started["audio_start_ms"] == pytest.approx(500 - 300, abs=100)
    assert stopped["audio_end_ms"] == pytest.approx(500 + 1000 + 500, abs=100)
    added = of(events, "conversation.item.added")
    assert added[0]["item"]["id"] == started["item_id"] == one(events, TURN[2])["item_id"]
    assert added[0]["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    assert added[1]["item"]["status"] == "in_progress" and added[1]["previous_item_id"] == started["item_id"]
    response = one(events, "response.done")["response"]
    assert response["status"] == "completed" and response["conversation_id"] == desk.connection.conversation.id
    assert response["output"][0]["content"] == [{"type": "output_audio", "transcript": ANSWER}]
    assert response["usage"]["output_token_details"] == {"text_tokens": 11, "audio_tokens": 12}
    assert response["usage"]["input_token_details"]["audio_tokens"] == pytest.approx(18, abs=1)
    (known,) = desk.order.responses.values()
    assert len(known["audio"]) == 14_400 * 2 and known["text"] == ANSWER
    assert np.abs(io.decode_pcm16(known["audio"])).max() == pytest.approx(0.3, abs=0.01)


def test_what_was_said_is_told_while_it_is_said_and_when_it_is_over():
    desk = Desk()
    desk.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
    events = desk.say(QUESTION, silence(1.0))
    prefix = "conversation.item.input_audio_transcription."
    completed, deltas = one(events, prefix + "completed"), of(events, prefix + "delta")
    assert completed["transcript"].startswith("sound for ") and completed["usage"]["type"] == "tokens"
    assert {event["item_id"] for event in deltas} == {completed["item_id"]} == {one(events, TURN[0])["item_id"]}
    assert events.index(deltas[0]) < events.index(one(events, TURN[1]))  # while the user speaks
    retrieved = desk.send("conversation.item.retrieve", item_id=completed["item_id"])
    assert one(retrieved, "conversation.item.retrieved")["item"]["content"][0]["transcript"] == completed["transcript"]


def test_speech_over_an_answer_cancels_it():
    desk = Desk(model := EchoModel(LONG))
    events = desk.say(QUESTION, silence(1.6), tone(0.4, rate=RATE))
    assert canonical(events)[-8:] == [
        "input_audio_buffer.speech_started",
        *ANSWERED[5:],
    ]
    done = one(events, "response.done")["response"]
    assert (done["status"], done["status_details"]) == ("cancelled", {"type": "cancelled", "reason": "turn_detected"})
    assert done["output"][0]["status"] == "incomplete" and len(model.truncated) == 1
    again = desk.say(silence(0.8))
    assert canonical(again)[:5] == [*TURN[1:], "response.created"]
    item = done["output"][0]["id"]
    truncated = desk.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=800)
    assert one(truncated, "conversation.item.truncated")["audio_end_ms"] == 800


def test_speech_over_what_is_still_playing_cuts_the_memory():
    desk = Desk(model := EchoModel(EchoConfig(audio_ticks=40)))
    events = desk.say(QUESTION, silence(2.0))
    assert one(events, "response.done")["response"]["status"] == "completed"
    events = desk.say(tone(0.4, rate=RATE))
    assert desk.kinds(events) == ["input_audio_buffer.speech_started"] and len(model.truncated) == 1


def test_an_answer_that_may_not_be_interrupted_goes_on_and_the_next_turn_is_answered_after_it():
    desk = Desk(EchoModel(LONG))
    desk.update(audio={"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}})
    events = desk.say(QUESTION, silence(1.0), tone(0.5, rate=RATE), silence(1.0))
    assert not of(events, "response.done") and len(of(events, TURN[2])) == 2
    events += desk.wait(20)
    assert [event["response"]["status"] for event in of(events, "response.done")] == ["completed", "completed"]


def test_turns_are_found_but_not_answered_where_the_client_says_so():
    desk = Desk()
    turns = {"type": "server_vad", "create_response": False, "interrupt_response": False}
    desk.update(audio={"input": {"turn_detection": turns}})
    assert desk.kinds(desk.say(QUESTION, silence(1.0))) == TURN
    assert canonical(desk.send("response.create")) == ANSWERED


def test_turns_cut_by_hand_wait_for_the_client():
    desk = Desk()
    desk.update(audio={"input": {"turn_detection": None}})
    assert desk.say(QUESTION, silence(2.0)) == []
    assert desk.kinds(desk.send("input_audio_buffer.commit")) == TURN[2:]
    assert canonical(desk.send("response.create")) == ANSWERED
    (again,) = desk.send("input_audio_buffer.commit")
    assert again["error"]["code"] == "input_audio_buffer_commit_empty" and again["error"]["event_id"] == "mine_42"


def test_a_response_waits_until_it_is_known_what_was_said():
    desk = Desk()
    desk.update(audio={"input": {"turn_detection": None}})
    desk.say(QUESTION, steps=0)
    desk.send("input_audio_buffer.commit", run=False)
    assert desk.kinds(desk.send("response.create", run=False)) == ["response.created"]
    desk.run()
    assert one(desk.events, "response.done")["response"]["output"]


def test_what_was_cleared_is_not_heard():
    desk = Desk()
    desk.update(audio={"input": {"turn_detection": None}})
    desk.say(QUESTION)
    assert desk.kinds(desk.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    desk.say(silence(0.5))
    desk.send("input_audio_buffer.commit")
    done = one(desk.send("response.create"), "response.done")
    assert done["response"]["output"] == []  # the echo heard nothing


def test_audio_that_was_not_committed_is_not_answered_but_can_be_later():
    desk = Desk()
    desk.update(audio={"input": {"turn_detection": None, "transcription": {}}})
    desk.say(QUESTION)
    desk.send("conversation.item.create", item=message("Hello there"))
    assert one(desk.send("response.create"), "response.done")["response"]["output"]
    said = one(desk.send("input_audio_buffer.commit"), "conversation.item.input_audio_transcription.completed")
    assert said["transcript"] == "sound for 13 ticks in turn 2"


def test_turns_committed_during_an_answer_are_heard_after_it_one_by_one():
    desk = Desk(EchoModel(LONG))
    desk.update(audio={"input": {"turn_detection": None, "transcription": {}}})
    desk.say(QUESTION)
    desk.send("input_audio_buffer.commit")
    desk.send("response.create")
    for seconds in (0.4, 0.8):
        desk.say(tone(seconds, rate=RATE))
        assert desk.kinds(desk.send("input_audio_buffer.commit"))[:3] == TURN[2:]
    events = desk.wait(10)
    said = of(events, "conversation.item.input_audio_transcription.completed")
    assert [event["transcript"][:14] for event in said] == ["sound for 5 ti", "sound for 10 t"]
    assert one(desk.send("response.create") + desk.wait(10), "response.done")["response"]["output"]


@pytest.mark.parametrize(
    "name, encode, decode",
    [("pcmu", g711.encode_mulaw, g711.decode_mulaw), ("pcma", g711.encode_alaw, g711.decode_alaw)],
)
def test_telephones_are_understood(name, encode, decode):
    desk = Desk()
    format = {"type": f"audio/{name}"}
    desk.update(audio={"input": {"format": format, "transcription": {}}, "output": {"format": format}})
    events = desk.say(tone(1.0, rate=8_000), silence(1.0, rate=8_000), encode=encode, rate=8_000)
    assert "sound for 1" in one(events, "conversation.item.input_audio_transcription.completed")["transcript"]
    (known,) = desk.order.responses.values()
    audio = decode(known["audio"])
    assert len(audio) == pytest.approx(14_400 / 3, abs=2)
    assert 0.25 < np.abs(audio).max() < 0.35
    assert one(events, "response.created")["response"]["audio"]["output"]["format"] == format


def test_the_audio_of_items_can_be_retrieved():
    desk = Desk()
    events = desk.say(silence(0.5), QUESTION, silence(1.0))
    user, assistant = [event["item"]["id"] for event in of(events, "conversation.item.done")]
    audio = {}
    for item in (user, assistant):
        shown = one(desk.send("conversation.item.retrieve", item_id=item), "conversation.item.retrieved")["item"]
        audio[item] = io.decode_pcm16(base64.b64decode(shown["content"][0]["audio"]))
    (known,) = desk.order.responses.values()
    assert np.array_equal(audio[assistant], io.decode_pcm16(known["audio"]))
    loud = np.flatnonzero(np.abs(audio[user]) > 0.1)
    assert len(loud) > 0.7 * RATE and 0.1 * RATE < loud[0] < 0.5 * RATE  # the question and what came before it


def test_silence_is_broken_after_the_time_that_the_client_sets():
    desk = Desk()
    desk.update(audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5_000}}})
    desk.say(QUESTION, silence(1.0))
    assert desk.wait(4.0) == []
    events = desk.wait(3.0)
    triggered = "input_audio_buffer.timeout_triggered"
    assert canonical(events)[:5] == [triggered, *TURN[2:], "response.created"]
    assert one(events, triggered)["item_id"] == one(events, "input_audio_buffer.committed")["item_id"]
    output = one(events, "response.done")["response"]["output"]
    assert output[0]["content"][0]["transcript"] == "Are you still there?"


def test_a_turn_that_is_being_spoken_can_be_committed_at_once():
    desk = Desk()
    desk.say(QUESTION)
    events = desk.send("input_audio_buffer.commit")
    assert desk.kinds(events) == TURN[2:] and events[0]["item_id"] == desk.events[2]["item_id"]
    assert canonical(desk.send("response.create")) == ANSWERED


def test_a_response_that_is_wanted_while_the_user_speaks_ends_their_turn():
    desk = Desk()
    desk.say(QUESTION)
    events = desk.send("response.create")
    assert canonical(events) == [*TURN[1:], *ANSWERED]


@pytest.mark.parametrize("pause", [0.3, 0.7])  # while the turn may yet go on, and after it
def test_an_old_answer_that_is_cut_late_costs_the_next_turn_nothing(pause):
    desk = Desk()
    item = one(desk.say(QUESTION, silence(3.0)), "response.output_item.added")["item"]["id"]
    desk.say(QUESTION, silence(pause), steps=20)
    cut = desk.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=300, run=False)
    assert desk.kinds(cut) == ["conversation.item.truncated"]
    desk.say(silence(1.0))
    assert [bool(event["response"]["output"]) for event in of(desk.events, "response.done")] == [True, True]


def test_turns_are_found_again_after_they_were_cut_by_hand():
    desk = Desk()
    desk.update(audio={"input": {"turn_detection": None}})
    desk.say(QUESTION)
    desk.update(audio={"input": {"turn_detection": {"type": "server_vad"}}})
    desk.send("response.create")
    events = desk.say(silence(1.0), QUESTION, silence(1.0))
    assert canonical(events) == TURN + ANSWERED
