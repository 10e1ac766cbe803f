"""Responses: text alone, their own instructions, functions, cancellation, outside the conversation, how they end."""

from __future__ import annotations

import json

import pytest
from fakes import ANSWER, EchoConfig, EchoModel, tone
from realtime_talk import RATE, Desk, Noting, message, of, one, silence

from duologue.server.realtime.seat import pieces
from duologue.server.realtime.transcripts import Transcript

LONG = EchoConfig(audio_ticks=100)
WEATHER = {"type": "function", "name": "weather", "description": "Tells it.", "parameters": {"type": "object"}}


def asked(desk: Desk, **response):
    return desk.send("response.create", response=response)


def test_text_alone_is_sent_where_text_alone_is_wanted():
    desk = Desk()
    desk.update(output_modalities=["text"])
    desk.send("conversation.item.create", item=message("one"))
    events = desk.send("response.create")
    assert desk.kinds(events) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]
    done = one(events, "response.done")["response"]
    assert done["output"][0]["content"] == [{"type": "output_text", "text": ANSWER}]
    assert done["output_modalities"] == ["text"] and done["usage"]["output_token_details"]["audio_tokens"] == 0


def test_one_response_may_be_text_in_a_spoken_session():
    desk = Desk()
    desk.send("conversation.item.create", item=message("one"))
    assert not of(asked(desk, output_modalities=["text"]), "response.output_audio.delta")
    desk.send("conversation.item.create", item=message("two"))
    assert of(asked(desk), "response.output_audio.delta")


def test_instructions_of_one_response_are_forgotten_after_it():
    desk = Desk(model := Noting())
    desk.update(instructions="Be brief.")
    desk.send("conversation.item.create", item=message("one"))
    notes = []
    real = model.end_turn
    model.end_turn = lambda state, live_B: (notes.append(list(model.told)), real(state, live_B))[1]
    asked(desk, instructions="Be rude.")
    assert notes == [[("system", "Be rude."), ("user", "one")]]
    assert model.told == [("system", "Be brief."), ("user", "one"), ("assistant", ANSWER)]


def test_instructions_without_a_question_are_the_question():
    desk = Desk(model := Noting())
    desk.update(instructions="Be brief.")
    assert one(asked(desk, instructions="Greet the user."), "response.done")["response"]["output"]
    assert model.told == [("system", "Be brief."), ("user", "Greet the user.")]
    assert one(asked(desk), "response.done")["response"]["output"]


def test_metadata_comes_back_with_the_response():
    desk = Desk()
    events = asked(desk, metadata={"client_event_id": "x"})
    assert one(events, "response.created")["response"]["metadata"] == {"client_event_id": "x"}
    assert one(events, "response.done")["response"]["metadata"] == {"client_event_id": "x"}


def test_a_second_response_is_refused_while_one_runs():
    desk = Desk(EchoModel(LONG))
    asked(desk)
    (error,) = asked(desk)
    assert error["error"]["code"] == "conversation_already_has_active_response"
    desk.wait(10)
    assert len(of(desk.events, "response.done")) == 1 and of(asked(desk), "response.created")


def test_a_response_is_cancelled_and_nothing_of_it_comes_after():
    desk = Desk(EchoModel(LONG))
    response = one(asked(desk), "response.created")["response"]["id"]
    (error,) = desk.send("response.cancel", response_id="another")
    assert error["error"]["code"] == "response_cancel_not_active"
    events = desk.send("response.cancel", response_id=response)
    done = one(events, "response.done")["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert done["output"][0]["status"] == "incomplete"
    assert desk.wait(5) == []
    (error,) = desk.send("response.cancel")
    assert error["error"]["message"].startswith("Cancellation failed")
    assert error["error"]["code"] == "response_cancel_not_active"
    desk.send("conversation.item.create", item=message("again"))
    assert one(asked(desk) + desk.wait(10), "response.done")["response"]["status"] == "completed"


def test_a_response_that_was_cancelled_before_it_began_is_not_given():
    desk = Desk()
    desk.update(audio={"input": {"turn_detection": None}})
    desk.say(tone(0.5, rate=RATE), steps=0)
    desk.send("input_audio_buffer.commit", run=False)
    desk.send("response.create", run=False)
    events = desk.send("response.cancel")
    assert one(events, "response.done")["response"]["output"] == []
    assert one(asked(desk), "response.done")["response"]["output"]


def test_a_response_has_at_most_so_many_tokens():
    desk = Desk(EchoModel(LONG))
    done = one(asked(desk, max_output_tokens=40), "response.done")["response"]
    assert done["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    assert 40 <= done["usage"]["output_tokens"] <= 43 and done["output"][0]["status"] == "incomplete"
    assert desk.wait(3) == []


def test_what_was_read_before_counts_as_cached():
    desk = Desk()
    desk.send("conversation.item.create", item=message("12345678"))
    first = one(asked(desk), "response.done")["response"]["usage"]
    assert first["input_tokens"] == 2 and first["input_token_details"]["cached_tokens"] == 0
    desk.send("conversation.item.create", item=message("1234"))
    second = one(asked(desk), "response.done")["response"]["usage"]
    assert second["input_token_details"]["cached_tokens"] == 2 + 12 == second["input_tokens"] - 1


# -- functions ---------------------------------------------------------------------------------------------------------


def router(transcript: str, tools, *, forced: bool):
    if forced or "weather" in transcript or "sound" in transcript:
        return tools[0]["name"], json.dumps({"city": "Oslo"})
    return None


CALL = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]


@pytest.mark.parametrize("how", ["spoken", "written", "committed"])
def test_a_function_is_called_and_its_result_answered(how):
    desk = Desk(model := Noting(), router=router)
    turns = {} if how == "spoken" else {"audio": {"input": {"turn_detection": None}}}
    desk.update(tools=[WEATHER], **turns)
    if how == "written":
        desk.send("conversation.item.create", item=message("How is the weather?"))
        events = desk.send("response.create")
    else:
        events = desk.say(tone(1.0, rate=RATE), silence(1.0))
        if how == "committed":
            desk.send("input_audio_buffer.commit")
            events = desk.send("response.create")
    assert desk.kinds(events)[-len(CALL) :] == CALL
    called = one(events, "response.function_call_arguments.done")
    assert (called["name"], json.loads(called["arguments"])) == ("weather", {"city": "Oslo"})
    output = one(events, "response.done")["response"]["output"]
    assert output[0]["call_id"] == called["call_id"] and output[0]["status"] == "completed"
    result = {"type": "function_call_output", "call_id": called["call_id"], "output": "4 degrees"}
    desk.send("conversation.item.create", item=result)
    done = one(desk.send("response.create"), "response.done")["response"]
    assert done["output"][0]["content"][0]["transcript"] == ANSWER
    assert ("user", "(weather says: 4 degrees)") in model.told


@pytest.mark.parametrize(
    "choice, called", [("auto", True), ("none", False), ({"type": "function", "name": "other"}, False)]
)
def test_functions_are_called_as_far_as_the_client_lets_them(choice, called):
    desk = Desk(router=router)
    desk.update(tools=[WEATHER], tool_choice=choice)
    events = desk.say(tone(1.0, rate=RATE), silence(1.0))
    assert bool(of(events, "response.function_call_arguments.done")) == called


@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "weather"}])
@pytest.mark.parametrize("where", ["session", "response", "apart"])
def test_a_call_that_the_client_demands_is_made_whatever_was_said(choice, where):
    desk = Desk(router=router)
    other = {**WEATHER, "name": "other"}
    desk.update(tools=[WEATHER, other], **({"tool_choice": choice} if where == "session" else {}))
    desk.send("conversation.item.create", item=message("Good morning."))
    apart = {"conversation": "none"} if where == "apart" else {}
    events = asked(desk, **apart, **({} if where == "session" else {"tool_choice": choice}))
    assert one(events, "response.function_call_arguments.done")["name"] == "weather"
    if where != "session":  # it was for that response alone
        desk.send("conversation.item.create", item=message("Good evening."))
        assert not of(asked(desk), "response.function_call_arguments.done")


def test_a_noise_calls_nothing_even_where_a_call_is_demanded():
    class Deaf(EchoModel):
        def heard(self, state, slot):
            return ""

    desk = Desk(Deaf(), router=router)
    desk.update(tools=[WEATHER], tool_choice="required")
    assert not of(desk.say(tone(1.0, rate=RATE), silence(1.0)), "response.function_call_arguments.done")


def test_a_router_that_fails_costs_nobody_an_answer(caplog):
    def broken(transcript, tools, *, forced):
        raise RuntimeError("lost")

    desk = Desk(router=broken)
    desk.update(tools=[WEATHER])
    assert one(desk.say(tone(1.0, rate=RATE), silence(1.0)), "response.done")["response"]["output"]


def test_the_server_may_say_something_itself_sentence_by_sentence():
    text = "It is noon, as far as anybody here can tell from looking at the clock. " * 4
    desk = Desk(EchoModel(), reply=lambda transcript: "It is noon." if "sound" in transcript else None)
    done = one(desk.say(tone(1.0, rate=RATE), silence(1.0)), "response.done")["response"]
    assert done["output"][0]["content"][0]["transcript"] == "It is noon."
    parts = pieces(text.strip())
    assert len(parts) > 1 and " ".join(parts) == text.strip() and all(len(part) <= 240 for part in parts)


# -- outside the conversation ------------------------------------------------------------------------------------------


def test_a_response_apart_reads_and_leaves_the_conversation_as_it_is():
    desk = Desk(model := Noting(EchoConfig(audio_ticks=20)))
    desk.send("conversation.item.create", item=message("one", id="first"))
    asked(desk)
    before = list(desk.order.items)
    inputs = [{"type": "item_reference", "id": "first"}, message("two", role="assistant"), message("Sum up.")]
    apart = dict(conversation="none", input=inputs, output_modalities=["text"], metadata={"topic": "x"})
    events = asked(desk, **apart, instructions="Be brief.") + desk.wait(3)
    assert model.told == [("system", "Be brief."), ("user", "one"), ("assistant", "two"), ("user", "Sum up.")]
    done = one(events, "response.done")["response"]
    assert done["conversation_id"] is None and done["metadata"] == {"topic": "x"} and done["output"]
    assert not of(events, "conversation.item.added") and desk.order.items == before
    assert desk.engine.free == 2


def test_responses_apart_run_beside_others_and_are_bounded():
    desk = Desk(EchoModel(LONG), slots=3)
    asked(desk)
    ids = [one(asked(desk, conversation="none"), "response.created")["response"]["id"] for _ in range(2)]
    (error,) = asked(desk, conversation="none")
    assert error["error"]["code"] == "too_many_responses"
    done = one(desk.send("response.cancel", response_id=ids[0]), "response.done")["response"]
    assert done["id"] == ids[0] and desk.engine.free == 1
    desk.connection.close()
    desk.run()
    assert desk.engine.free == 3


def test_where_there_is_no_place_a_response_apart_is_refused():
    desk = Desk(slots=1)
    (error,) = asked(desk, conversation="none")
    assert (error["error"]["code"], error["error"]["type"]) == ("server_busy", "server_error")


def test_a_response_may_read_something_else_than_the_conversation():
    desk = Desk(model := Noting())
    desk.send("conversation.item.create", item=message("one"))
    told = []
    real = model.end_turn
    model.end_turn = lambda state, live_B: (told.append(list(model.told)), real(state, live_B))[1]
    events = asked(desk, input=[message("two")])
    assert told == [[("user", "two")]] and one(events, "conversation.item.added")["item"]["role"] == "assistant"
    assert model.told == [("user", "one"), ("assistant", ANSWER)]
    (error,) = asked(desk, input=[{"type": "item_reference", "id": "nobody"}])
    assert error["error"]["param"] == "response.input[0].id"


def test_a_session_in_which_the_model_fails_is_over():
    class Broken(EchoModel):
        def speak(self, state, live_B):
            raise RuntimeError("out of something")

    desk = Desk(Broken())
    events = asked(desk)
    assert one(events, "response.done")["response"]["status"] == "failed"
    assert one(events, "error")["error"]["code"] == "model_failed" and desk.connection.over


def test_words_are_told_once_they_are_sure():
    transcript = Transcript()
    assert [transcript.guess(text) for text in ("he", "hello wor", "hello word is", "hello world is it")] == [
        "",
        "",
        "hello",
        "",
    ]
    assert transcript.final("hello world is it") == " world is it"
    transcript = Transcript()
    assert [transcript.guess(text) for text in ("a b c", "a b c")] == ["", "a b"] and transcript.final("x") == ""
