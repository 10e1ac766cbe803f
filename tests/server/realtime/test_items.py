"""Items that clients add, change and take away, and what the model is told of them."""

from __future__ import annotations

import base64

import pytest
from fakes import ANSWER, EchoConfig, EchoModel, tone
from realtime_talk import RATE, Desk, Noting, kinds, message, of, one, silence

from duologue.audio import io
from duologue.server.realtime import RealtimeLimits
from duologue.server.realtime.conversation import (
    MOST_INSTRUCTED,
    Conversation,
    Item,
    Part,
    instructed,
    told,
    unanswered,
)


def said(text: str, role: str = "user") -> Item:
    return Item("message", role=role, parts=[Part("input_text", text)])


def test_items_stand_where_they_are_put():
    conversation = Conversation(RealtimeLimits(items=3))
    first, second, third = said("1"), said("2"), said("3")
    assert conversation.add(first) and conversation.add(third)
    assert not conversation.add(second, first.id)
    assert [item.text for item in conversation.items] == ["1", "2", "3"]
    assert conversation.before(second) == first.id and conversation.before(first) is None
    assert conversation.add(said("4"))  # there is room for three
    assert [item.text for item in conversation.items] == ["2", "3", "4"]


def test_the_model_is_told_what_was_heard_and_the_latest_that_there_is_room_for():
    answer = Part("output_audio", "one two three four", milliseconds=1000.0, heard=500.0)
    call = Item("function_call", name="clock", call_id="c1")
    items = [
        said("Be kind.", "system"),
        said("Hi"),
        Item("message", role="assistant", parts=[answer]),
        call,
        Item("function_call_output", call_id="c1", output="noon"),
    ]
    assert told(items, most=100) == [("user", "Hi"), ("assistant", "one two"), ("user", "(clock says: noon)")]
    assert told(items, most=26) == [("assistant", "one two"), ("user", "(clock says: noon)")]
    assert told(items, most=1) == [("user", "(clock says: noon)")]
    assert instructed("Be brief.", items) == "Be brief.\nBe kind."
    notes = [said(f"Note {number}.", "system") for number in range(9)]
    assert instructed("Be brief.", notes, most=30) == "Be brief.\nNote\nNote 7.\nNote 8."
    assert instructed("x" * 9_000, [said("y" * 9_000, "system")] * 500) == "x" * MOST_INSTRUCTED
    assert instructed("", [said("y" * 9_000, "system")] * 500) == "y" * (MOST_INSTRUCTED - 1)
    assert unanswered(items) == items[-1:] and unanswered(items[:3]) == []


def test_what_was_cut_is_not_told_and_not_shown():
    part = Part("output_audio", "one two three four", audio=bytearray(48_000), milliseconds=1000.0)
    part.cut(500)
    assert (part.told, part.as_dict(audio=False)["transcript"], part.milliseconds) == ("one two", None, 500.0)
    assert len(part.audio) == 24_000


def test_a_written_question_is_answered():
    desk = Desk(model := Noting())
    desk.update(instructions="Be brief.")
    events = desk.send("conversation.item.create", item=message("What is up?", id="mine"))
    assert desk.kinds(events) == ["conversation.item.added", "conversation.item.done"]
    assert events[0]["item"]["id"] == "mine" and events[0]["previous_item_id"] is None
    done = one(desk.send("response.create"), "response.done")["response"]
    assert done["output"][0]["content"][0]["transcript"] == ANSWER
    assert model.told == [("system", "Be brief."), ("user", "What is up?")]


def test_a_history_is_told_in_its_order():
    desk = Desk(model := Noting())
    for item in (message("one"), message("two", role="assistant"), message("three")):
        desk.send("conversation.item.create", item=item)
    first = desk.order.items[0]
    desk.send("conversation.item.create", item=message("zero", role="assistant"), previous_item_id="root")
    desk.send("conversation.item.create", item=message("and a half"), previous_item_id=first)
    desk.send("conversation.item.create", item=message("Be kind.", role="system"))
    assert desk.order.items == [item.id for item in desk.connection.conversation.items]
    assert one(desk.send("response.create"), "response.done")["response"]["output"]
    told = [("assistant", "zero"), ("user", "one"), ("user", "and a half"), ("assistant", "two"), ("user", "three")]
    assert model.told == [("system", "Be kind."), *told]


def test_what_is_deleted_is_forgotten():
    desk = Desk(model := Noting())
    for text in ("one", "two"):
        desk.send("conversation.item.create", item=message(text, id=text))
    events = desk.send("conversation.item.delete", item_id="one")
    assert desk.kinds(events) == ["conversation.item.deleted"]
    desk.send("response.create")
    assert model.told == [("user", "two")]


@pytest.mark.parametrize(
    "kind, code", [("retrieve", "item_retrieve"), ("delete", "item_delete"), ("truncate", "item_truncate")]
)
def test_an_item_that_does_not_exist_is_an_error(kind, code):
    desk = Desk()
    fields = {"content_index": 0, "audio_end_ms": 0} if kind == "truncate" else {}
    (error,) = desk.send(f"conversation.item.{kind}", item_id="nobody", **fields)
    assert error["error"]["code"] == f"{code}_invalid_item_id" and error["error"]["event_id"] == "mine_1"


def test_audio_in_an_item_is_heard():
    desk = Desk()
    desk.update(audio={"input": {"transcription": {}}})
    audio = base64.b64encode(io.encode_pcm16(tone(1.0, rate=RATE))).decode()
    item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": audio}]}
    events = desk.send("conversation.item.create", item=item)
    assert one(events, "conversation.item.input_audio_transcription.completed")["transcript"].startswith("sound for 13")
    assert one(desk.send("response.create"), "response.done")["response"]["output"]
    assert desk.kinds(desk.say(tone(1.0, rate=RATE), silence(1.0)))[:2] == [
        "input_audio_buffer.speech_started",
        "conversation.item.input_audio_transcription.delta",
    ]


def test_an_item_added_during_an_answer_is_known_to_the_next():
    desk = Desk(model := Noting(EchoConfig(audio_ticks=100)))
    desk.send("conversation.item.create", item=message("one"))
    desk.send("response.create")
    desk.send("conversation.item.create", item=message("two"))
    desk.wait(10)
    assert [text for role, text in model.told] == ["one", ANSWER, "two"]
    assert one(desk.send("response.create"), "response.created")


def test_an_answer_can_be_cut_to_what_was_heard():
    desk = Desk(model := EchoModel())
    desk.send("conversation.item.create", item=message("one"))
    done = one(desk.send("response.create"), "response.done")["response"]
    item = done["output"][0]["id"]
    cut = {"item_id": item, "content_index": 0}
    (error,) = desk.send("conversation.item.truncate", **cut, audio_end_ms=602)
    assert error["error"]["message"] == "Audio content of 600ms is already shorter than 602ms"
    (event,) = desk.send("conversation.item.truncate", **cut, audio_end_ms=250)
    assert event["audio_end_ms"] == 250 and model.truncated == [3]
    shown = one(desk.send("conversation.item.retrieve", item_id=item), "conversation.item.retrieved")["item"]
    assert shown["content"][0]["transcript"] is None and len(base64.b64decode(shown["content"][0]["audio"])) == 12_000
    (error,) = desk.send("conversation.item.truncate", item_id=desk.order.items[0], content_index=0, audio_end_ms=1)
    assert error["error"]["message"] == "Only model output audio messages can be truncated"


def test_an_answer_that_is_cut_while_it_is_made_is_over():
    desk = Desk(model := EchoModel(EchoConfig(audio_ticks=100)))
    desk.send("conversation.item.create", item=message("one"))
    item = one(desk.send("response.create"), "response.output_item.added")["item"]["id"]
    events = desk.send("conversation.item.truncate", item_id=item, content_index=0, audio_end_ms=800)
    assert kinds(events)[-2:] == ["rate_limits.updated", "conversation.item.truncated"]
    assert one(events, "response.done")["response"]["status"] == "cancelled" and model.truncated == [10]


@pytest.mark.parametrize(
    "item, param, code",
    [
        ({}, "item.type", "missing_required_parameter"),
        ({"type": "poem"}, "item.type", "invalid_value"),
        ({"type": "message", "role": "user"}, "item.content", "missing_required_parameter"),
        (
            {"type": "message", "role": "user", "content": [{"type": "output_text"}]},
            "item.content[0].type",
            "invalid_value",
        ),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "output_audio"}]},
            "item.content[0].type",
            "invalid_value",
        ),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": 5}]},
            "item.content[0].text",
            "invalid_type",
        ),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "!"}]},
            "item.content[0].audio",
            "invalid_value",
        ),
        ({"type": "function_call_output", "call_id": "nobody", "output": ""}, "item.call_id", "invalid_tool_call_id"),
        (message("again", id="taken"), "item.id", "item_create_duplicate_item_id"),
        (message("x", colour="red"), "item.colour", "unknown_parameter"),
        (message("x" * 40_000), "item.content[0].text", "invalid_value"),
    ],
)
def test_items_that_make_no_sense_are_refused_and_nothing_changes(item, param, code):
    desk = Desk()
    desk.send("conversation.item.create", item=message("one", id="taken"))
    (error,) = desk.send("conversation.item.create", item=item)
    assert (error["error"]["param"], error["error"]["code"]) == (param, code)
    assert desk.order.items == ["taken"] == [item.id for item in desk.connection.conversation.items]
    (error,) = desk.send("conversation.item.create", item=message("x"), previous_item_id="nobody")
    assert error["error"]["code"] == "invalid_previous_item_id"
    assert of(desk.send("response.create"), "response.done")
