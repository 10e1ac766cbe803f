"""The Live API, event by event, on a clock by hand: over a family with turns, and over a duplex one."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import ANSWER, DuplexEcho, EchoConfig, EchoModel, tone
from live_talk import Desk, heard, loud_seconds, nested, of, one, silence, transcript

from duologue.audio import g711, io
from duologue.server.realtime import RealtimeLimits
from duologue.streaming.turns import OverlapConfig

QUESTION = tone(0.8, rate=24_000)
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
BACKEND = {"type": "responses", "responses": {"model": "gpt", "tools": [LOOK]}}


def look(transcript, tools, **_):
    return ("look", '{"at": "it"}') if tools else None


# -- a family with turns ----------------------------------------------------------------------------------------------


def test_a_session_begins_with_its_settings_and_goes_on_with_sound_without_gaps():
    desk = Desk(session={"instructions": "Be brief."})
    session = one(desk.events, "session.started")["session"]
    assert (session["id"], session["instructions"]) == (desk.live.id, "Be brief.") and session["status"] == "active"
    assert session["audio"] == {"format": {"type": "audio/pcm", "rate": 24_000}, "output": {"voice": "marin"}}
    assert session["delegation"]["type"] == "client" and session["expires_at"] == 1_003_650
    events = desk.wait(2.0)
    assert len(heard(events)) / 24_000 == pytest.approx(2.0, abs=0.1) and loud_seconds(heard(events)) == 0
    assert {event["type"] for event in events} == {"session.output_audio.delta"}


def test_turns_are_answered_in_real_time_with_transcripts_on_one_timeline():
    desk = Desk()
    desk.wait(0.4)
    desk.say(QUESTION)
    events = desk.say(silence(2.5))
    assert transcript(events, "input").startswith("sound for 1") and transcript(events).strip() == ANSWER
    asked = of(events, "session.input_transcript.delta")[0]
    assert asked["start_ms"] <= 500 and 1_200 <= asked["end_ms"] <= 1_900
    said = of(events, "session.output_transcript.delta")
    assert all(0 < each["end_ms"] - each["start_ms"] <= 80 for each in said)
    assert [each["start_ms"] for each in said] == sorted(each["start_ms"] for each in said)
    assert said[0]["start_ms"] >= asked["end_ms"] - 100
    assert loud_seconds(heard(events)) == pytest.approx(0.6, abs=0.05)
    total = heard(desk.events)
    assert len(total) / 24_000 == pytest.approx(desk.time - 50.0, abs=0.1)  # never ahead, nothing missing


@pytest.mark.parametrize("model", [EchoModel, DuplexEcho])
def test_time_that_was_lost_is_left_out_of_the_sound_and_not_of_the_timeline(model):
    desk = Desk(model())
    desk.wait(0.4)
    desk.wait(5.0, each=5.0)  # the server stood still
    desk.wait(0.4)
    desk.say(QUESTION)
    said = of(desk.say(silence(2.0)), "session.output_transcript.delta") or of(
        desk.events, "session.output_transcript.delta"
    )
    assert len(heard(desk.events)) / 24_000 < desk.time - 50.0 - 3.0
    assert all(each["start_ms"] >= 5_800 for each in said) and said


def test_speech_over_the_answer_ends_it_and_its_words():
    desk = Desk(EchoModel(EchoConfig(audio_ticks=100)))
    desk.say(QUESTION, silence(1.0))
    assert loud_seconds(heard(desk.events)) > 0.1
    desk.say(tone(0.5, rate=24_000))
    assert loud_seconds(heard(desk.wait(0.4))) == 0
    assert desk.model.truncated
    desk.say(silence(1.5))
    assert len(of(desk.events, "session.input_transcript.delta")) == 2


def test_a_sign_of_listening_does_not_end_the_answer():
    desk = Desk(EchoModel(EchoConfig(audio_ticks=25)), overlap=OverlapConfig())
    desk.say(QUESTION, silence(1.0), tone(0.3, rate=24_000, level=0.05), silence(4.0))
    assert loud_seconds(heard(desk.events)) == pytest.approx(24.5 * 0.08, abs=0.1) and not desk.model.truncated
    assert transcript(desk.events).strip() == ANSWER


def test_who_stops_sending_is_answered_all_the_same():
    desk = Desk()
    desk.say(QUESTION)
    events = desk.wait(3.0)
    assert transcript(events).strip() == ANSWER


def test_what_is_muted_is_not_heard():
    desk = Desk()
    assert one(desk.send("session.input_audio.mute"), "session.input_audio.muted")["client_event_id"].startswith("mine")
    assert not transcript(desk.say(QUESTION, silence(1.5)), "input")
    assert of(desk.send("session.input_audio.unmute"), "session.input_audio.unmuted")
    assert transcript(desk.say(QUESTION, silence(1.5)), "input")


@pytest.mark.parametrize(
    ("kind", "rate", "encode", "decode"),
    [
        ("audio/pcm", 16_000, io.encode_pcm16, io.decode_pcm16),
        ("audio/pcmu", 8_000, g711.encode_mulaw, g711.decode_mulaw),
        ("audio/pcma", 8_000, g711.encode_alaw, g711.decode_alaw),
    ],
)
def test_every_format_goes_both_ways(kind, rate, encode, decode):
    desk = Desk(session={"audio": {"format": {"type": kind, "rate": rate}}})
    desk.say(tone(0.8, rate=rate), silence(2.0, rate=rate), encode=encode, rate=rate)
    sound = heard(desk.events, decode)
    assert loud_seconds(sound, rate) == pytest.approx(0.6, abs=0.1)
    assert len(sound) / rate == pytest.approx(desk.time - 50.0, abs=0.1)


def test_history_and_instructions_are_told_at_the_beginning():
    told = []

    class Reading(EchoModel):
        def write(self, state, slot, role, text):
            told.append((role, text))
            return super().write(state, slot, role, text)

    def message(role, text, kind):
        return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}

    history = [
        message("user", "Hello.", "input_text"),
        message("assistant", "Hi there.", "output_text"),
        message("developer", "Speak of birds.", "input_text"),
    ]
    desk = Desk(Reading(), session={"instructions": "Be brief.", "input": history})
    assert one(desk.events, "session.started")["session"]["input"] == history
    assert told == [("system", "Be brief.\nSpeak of birds."), ("user", "Hello."), ("assistant", "Hi there.")]


def test_commentary_is_said_when_nobody_speaks_and_other_notes_are_known():
    desk = Desk(session={})
    desk.say(tone(0.4, rate=24_000))
    told = desk.send("session.commentary.append", content="Your table is booked.", delegation_id=None)
    added = one(told, "session.commentary.appended")
    assert added["start_ms"] == added["end_ms"] == 400 and added["client_event_id"]
    assert not transcript(desk.say(tone(0.4, rate=24_000)))  # the user still speaks
    said = transcript(desk.say(silence(5.0)))
    assert said.index(ANSWER) >= 0 and "Your table" not in said  # the request that came meanwhile comes first
    desk.send("session.commentary.append", content="Your table is booked.", delegation_id=None)
    assert transcript(desk.wait(2.0)).strip() == "Your table is booked."
    for kind in ("thinking", "instructions"):
        assert of(
            desk.send(f"session.{kind}.append", content="Be kind.", delegation_id=None), f"session.{kind}.appended"
        )
    assert not transcript(desk.wait(1.0))


def test_who_says_that_it_takes_delegations_gets_every_request_and_answers_with_commentary():
    desk = Desk(session={"delegation": {"type": "client", "acknowledgement_delay_ms": 5_000}})
    events = desk.say(QUESTION, silence(1.0))
    assert transcript(events, "input") and not transcript(events)
    delegation = one(events, "session.delegation.created")
    assert delegation["delegation"]["target"] == "client" and 1_000 < delegation["offset_ms"] <= 1_800
    name = delegation["delegation"]["id"]
    desk.send("session.thinking.append", content="Looking it up.", delegation_id=name)
    desk.send("session.commentary.append", content="It is sunny.", delegation_id=name)
    assert transcript(desk.wait(8.0)).strip() == "It is sunny."  # no acknowledgement, and no answer of the model's own
    refused = desk.send("session.commentary.append", content="It is sunny.", delegation_id="dlg_0")
    assert one(refused, "error")["error"]["param"] == "delegation_id"


def test_who_takes_long_is_excused_and_who_does_not_answer_is_stood_in_for():
    desk = Desk(session={"delegation": {"type": "client", "acknowledgement_delay_ms": 300}})
    desk.say(QUESTION, silence(0.7))
    assert transcript(desk.wait(3.0)).strip() == "One moment."
    assert transcript(desk.wait(10.0)).strip().startswith("Sorry")
    desk = Desk(session={"delegation": {"type": "client", "acknowledgement_delay_ms": 20_000}})
    desk.say(QUESTION, silence(0.7))
    assert transcript(desk.wait(12.0)).strip() == ANSWER


def test_a_function_of_the_clients_is_called_and_its_result_is_answered():
    desk = Desk(session={"delegation": BACKEND}, router=look)
    events = desk.say(QUESTION, silence(1.0))
    created = one(events, "session.delegation.created")["delegation"]
    assert created["target"] == "responses" and created["response_id"].startswith("resp_")
    assert nested(events) == [
        "response.created",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert {event["delegation_id"] for event in of(events, "response.event")} == {created["id"]}
    call = of(events, "response.event")[4]["event"]["item"]
    assert (call["name"], call["arguments"]) == ("look", '{"at": "it"}') and not transcript(events)
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "all is well"}
    assert desk.send("response.item.create", item=output) == []
    events = desk.send("response.create") + desk.wait(3.0)
    assert transcript(events).strip() == ANSWER and nested(events)[-1] == "response.completed"
    assert one(desk.send("response.create"), "error")["error"]["message"].startswith("There is nothing")


class Writer:
    """A text model that the test writes for."""

    def __init__(self):
        self.requests, self.take, self.ended = [], None, 0

    def ask(self, request, take):
        self.requests.append(request)
        self.take = take
        return self.end

    def end(self):
        self.ended += 1

    def write(self, *deltas, calls=()):
        base = {"id": "resp_1", "object": "response", "created_at": 1, "model": "gpt", "parallel_tool_calls": True}
        base |= {"tool_choice": "auto", "tools": [LOOK], "instructions": "secret", "output": []}
        self.take({"type": "response.created", "sequence_number": 0, "response": {**base, "status": "in_progress"}})
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
        for number, delta in enumerate(deltas):
            self.take({"type": "response.output_text.delta", "sequence_number": number + 1, "delta": delta, **place})
        part = {"type": "output_text", "text": "".join(deltas), "annotations": []}
        output = [{"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}]
        ended = {**base, "status": "completed", "output": [*output, *calls]}
        self.take({"type": "response.completed", "sequence_number": 9, "response": ended})
        self.take(None)


def test_a_text_model_writes_what_is_said():
    writer = Writer()
    settings = {"model": "gpt", "instructions": "You know all about birds."}
    desk = Desk(session={"delegation": {"type": "responses", "responses": settings}}, text_model=writer)
    events = desk.say(QUESTION, silence(0.8))
    (request,) = writer.requests
    assert request["instructions"] == "You know all about birds." and request["model"] == "gpt"
    assert request["input"][0]["content"][0]["text"] == transcript(events, "input").strip()
    writer.write("It is a ro", "bin. It si", "ngs.")
    events = desk.wait(3.0)
    assert " ".join(transcript(events).split()) == "It is a robin. It sings."
    assert one(events, "session.delegation.created")["delegation"]["response_id"] == "resp_1"
    ended = of(events, "response.event")[-1]["event"]["response"]
    assert ended["instructions"] is None and ended["output"] == [] and ended["tools"] == []
    desk.say(QUESTION, silence(0.8))
    assert [item["role"] for item in writer.requests[1]["input"]] == ["user", "assistant", "user"]


def test_a_text_model_calls_functions_and_goes_on_with_what_they_gave():
    writer = Writer()
    desk = Desk(session={"delegation": BACKEND}, text_model=writer)
    desk.say(QUESTION, silence(0.8))
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": "{}"}
    writer.write(calls=[call])
    desk.wait(0.5)
    desk.send("response.item.create", item={"type": "function_call_output", "call_id": "call_1", "output": "a robin"})
    desk.send("response.create")
    assert [item["type"] for item in writer.requests[1]["input"]][-2:] == ["function_call", "function_call_output"]
    writer.write("A robin.")
    assert transcript(desk.wait(2.0)).strip() == "A robin."
    assert len(of(desk.events, "session.delegation.created")) == 1


def test_a_text_model_that_fails_is_stood_in_for_and_one_that_is_talked_over_is_stopped():
    from duologue.errors import ServerError

    writer = Writer()
    desk = Desk(session={"delegation": BACKEND}, text_model=writer)
    desk.say(QUESTION, silence(0.8))
    writer.take(ServerError("the text model does not answer"))
    events = desk.wait(3.0)
    assert one(events, "error")["error"]["code"] == "delegation_failed" and transcript(events).strip() == ANSWER
    desk.say(QUESTION, silence(0.8))
    old = writer.take
    desk.say(QUESTION, silence(0.8))
    assert writer.ended == 1
    old({"type": "response.output_text.delta", "sequence_number": 1, "delta": "Too late. "})
    assert not transcript(desk.wait(2.0))


def test_skills_answer_where_nobody_else_was_named_and_timers_ring():
    class Alarms:
        rung = False

        def sure(self):
            pass

        def due(self):
            self.rung = True
            return ["Your tea is ready."]

        def seconds_to_due(self):
            return None if self.rung else 0.0

    desk = Desk(reply=lambda transcript: "It is noon.", alarms=Alarms())
    assert transcript(desk.wait(2.0)).strip() == "Your tea is ready."
    assert transcript(desk.say(QUESTION, silence(2.0))).strip() == "It is noon."


def test_a_change_of_delegation_holds_for_what_comes_next_and_nothing_else_changes():
    desk = Desk(session={"delegation": BACKEND}, router=look)
    change = {"delegation": {"type": "responses", "responses": {"tools": []}}}
    session = one(desk.send("session.update", session=change), "session.updated")["session"]
    assert session["delegation"]["responses"] == {"model": "gpt", "tools": []}
    assert transcript(desk.say(QUESTION, silence(2.0))).strip() == ANSWER
    for patch, param in [
        ({"model": "x"}, "session.model"),
        ({"delegation": {"type": "client"}}, "session.delegation.type"),
    ]:
        assert one(desk.send("session.update", session=patch), "error")["error"]["param"] == param


# -- a duplex family --------------------------------------------------------------------------------------------------


def test_a_duplex_family_hears_and_speaks_at_every_tick():
    desk = Desk(DuplexEcho())
    desk.wait(0.2)
    desk.say(tone(1.6, rate=24_000))
    events = desk.wait(0.8)
    sound = heard(desk.events)
    assert len(sound) / 24_000 == pytest.approx(desk.time - 50.0, abs=0.17)
    assert loud_seconds(sound) == pytest.approx(1.6, abs=0.03)
    assert transcript(desk.events) == "abcdefghijklmnopqrst"
    sizes = {len(heard([event])) for event in of(desk.events, "session.output_audio.delta")}
    assert sizes == {1_920} and len(of(events, "session.output_audio.delta")) in (9, 10, 11)
    said = of(desk.events, "session.output_transcript.delta")
    assert all(each["end_ms"] - each["start_ms"] == 80 for each in said)
    assert transcript(desk.events, "input").split() == [str(number + 1) for number in range(20)]


def test_a_client_that_is_away_does_not_stop_the_ticks_and_is_told_what_was_late():
    desk = Desk(DuplexEcho())
    desk.say(tone(0.4, rate=24_000))
    events = desk.wait(2.0)
    assert len(heard(events)) / 24_000 == pytest.approx(2.0, abs=0.1)
    desk.live.receive(_appended(tone(1.6, rate=24_000)))
    info = one(desk.wait(2.0), "info")
    assert info["code"] == "late_audio" and float(info["message"].split()[0]) > 1.0


def _appended(samples: np.ndarray) -> str:
    import base64
    import json

    audio = base64.b64encode(io.encode_pcm16(samples)).decode()
    return json.dumps({"type": "session.input_audio.append", "audio": audio})


def test_commentary_is_the_next_that_a_duplex_family_says():
    desk = Desk(DuplexEcho(), session={"instructions": "Be brief."})
    assert desk.model.told == [("system", "Be brief.")]
    desk.wait(0.4)
    desk.send("session.commentary.append", content="It is sunny.", delegation_id=None)
    assert transcript(desk.wait(1.0)) == "It is sunny. "
    told = desk.send("session.instructions.append", content="Be kind.", delegation_id=None)
    assert one(told, "info")["code"] == "not_supported"  # this family reads them before the first tick only


def test_a_request_that_a_duplex_family_wrote_down_is_delegated():
    desk = Desk(DuplexEcho(), session={"delegation": BACKEND}, router=look)
    desk.say(tone(0.4, rate=24_000))
    events = desk.wait(2.0)
    assert nested(events)[-1] == "response.completed"
    assert one(desk.send("response.create"), "error")["error"]["code"] == "unsupported_value"
    writer = Writer()
    desk = Desk(DuplexEcho(), session={"delegation": BACKEND}, text_model=writer)
    desk.say(tone(0.4, rate=24_000))
    desk.wait(1.5)
    assert writer.requests[0]["input"][0]["content"][0]["text"] == "1 2 3 4 5"
    writer.write("It is a robin. It sings.")
    assert transcript(desk.wait(2.0)) == "It is a robin. It sings. "


# -- strangers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"modalities": ["audio"]}, "session.modalities"),
        ({"turn_detection": None}, "session.turn_detection"),
        ({"model": ""}, "session.model"),
        ({"model": 3}, "session.model"),
        ({"audio": {"input": {}}}, "session.audio.input"),
        ({"audio": {"format": {"type": "audio/pcm"}}}, "session.audio.format.rate"),
        ({"audio": {"format": {"type": "audio/pcm", "rate": 48_000}}}, "session.audio.format.rate"),
        ({"audio": {"format": {"type": "audio/opus", "rate": 48_000}}}, "session.audio.format.type"),
        ({"audio": {"output": {"voice": 7}}}, "session.audio.output.voice"),
        ({"audio": {"output": {"voice": {"name": "x"}}}}, "session.audio.output.voice.name"),
        ({"instructions": "x" * 20_000}, "session.instructions"),
        ({"input": [{"role": "system", "content": []}]}, "session.input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "session.input[0].content[0].type"),
        ({"input": [{"role": "user", "content": []}]}, "session.input[0].content"),
        ({"input": [{"role": "user", "content": [{"text": "a"}]}] * 129}, "session.input"),
        ({"store": True}, "session.store"),
        ({"triggers": [{}]}, "session.triggers"),
        ({"delegation": {"type": "decisions", "decisions": {}}}, "session.delegation.decisions"),
        ({"delegation": {"type": "nobody"}}, "session.delegation.type"),
        ({"delegation": {"type": "client", "responses": {}}}, "session.delegation.responses"),
        ({"delegation": {"type": "responses"}}, "session.delegation.responses"),
        ({"delegation": {"type": "responses", "responses": {}}}, "session.delegation.responses.model"),
        (
            {"delegation": {"type": "responses", "responses": {"model": "m", "temperature": 1}}},
            "session.delegation.responses.temperature",
        ),
        (
            {"delegation": {"type": "responses", "responses": {"model": "m", "tools": [{"type": "web_search"}]}}},
            "session.delegation.responses.tools[0].type",
        ),
        (
            {"client": {"data_channel": {"allowed_client_events": ["x"]}}},
            "session.client.data_channel.allowed_client_events",
        ),
    ],
)
def test_settings_that_are_unknown_or_wrong_are_refused_by_name_and_another_try_is_taken(session, param):
    desk = Desk(begin=False)
    error = one(desk.send("session.start", session={"model": "mini", **session}), "error")["error"]
    assert error["param"] == param and error["type"] == "invalid_request_error" and error["client_event_id"] == "mine_0"
    assert desk.engine.free == 2
    assert of(desk.send("session.start", session={"model": "mini"}), "session.started")


@pytest.mark.parametrize(
    ("kind", "fields", "param"),
    [
        ("session.input_audio.append", {"audio": "!"}, "audio"),
        ("session.input_audio.append", {"audio": "AAA="[:4] + "AA==", "more": 1}, "more"),
        ("session.input_audio.append", {"audio": "AA=="}, "audio"),
        ("session.input_audio.append", {}, "audio"),
        ("session.commentary.append", {"content": "x"}, "delegation_id"),
        ("session.commentary.append", {"content": " ", "delegation_id": None}, "content"),
        ("session.commentary.append", {"content": "x" * 4_001, "delegation_id": None}, "content"),
        ("session.start", {"session": {"model": "mini"}}, "type"),
        ("response.create", {"response": {}}, "response"),
        ("response.item.create", {"item": []}, "item"),
        ("session.output_audio.fixture.play", {"audio": ""}, "type"),
        ("input_audio_buffer.append", {"audio": ""}, "type"),
        ("nonsense", {}, "type"),
    ],
)
def test_events_that_make_no_sense_are_refused_and_the_session_goes_on(kind, fields, param):
    desk = Desk()
    (error,) = desk.send(kind, **fields)
    assert error["type"] == "error" and error["error"]["param"] == param
    assert transcript(desk.say(QUESTION, silence(2.0))).strip() == ANSWER


def test_nothing_goes_before_the_start_and_who_never_starts_is_sent_away():
    desk = Desk(begin=False)
    assert one(desk.send("session.input_audio.append", audio="AAAA"), "error")["error"]["code"] == "session_not_started"
    for raw in (b"\xff", "[]", "{", '{"type": 3}', "null"):
        desk.live.receive(raw)
    assert len(of(desk.events, "error")) == 6 and not desk.live.over
    desk.wait(21.0, each=1.0)
    assert desk.live.over and desk.engine.free == 2


@pytest.mark.parametrize("model", [EchoModel, DuplexEcho])
def test_every_end_is_told_with_its_reason_and_gives_the_place_back(model):
    desk = Desk(model())
    desk.wait(1.0)
    closed = one(desk.send("session.close"), "session.closed")
    assert (closed["reason"], closed["usage"]) == ("close_requested", {"seconds": 1.0}) and closed["client_event_id"]
    assert desk.live.over and desk.engine.free == 2
    desk = Desk(model(), limits=RealtimeLimits(longest_session=12.0))
    events = desk.wait(13.0, each=0.04)
    assert one(events, "session.usage.updated")["usage"]["seconds"] == pytest.approx(10.0, abs=0.1)
    assert one(events, "session.closed")["reason"] == "expired"
    desk = Desk(model(), limits=RealtimeLimits(idle=2.0))
    events = desk.wait(3.0)
    assert one(events, "error")["error"]["code"] == "session_idle" and one(events, "session.closed")


def test_a_model_that_fails_ends_the_session_and_says_so():
    class Broken(DuplexEcho):
        def speak(self, state, live_B):
            raise ValueError("broken")

    desk = Desk(Broken())
    events = desk.wait(0.3)
    assert one(events, "error")["error"]["code"] == "model_failed" and one(events, "session.closed")
    desk.run()
    assert desk.engine.free == 2


def test_a_full_server_says_so():
    desk = Desk()
    for _ in range(2):
        desk.engine.open(lambda event: None) if desk.engine.free else None
    other = Desk(begin=False)
    other.live._engine = desk.engine
    assert one(other.send("session.start", session={"model": "mini"}), "error")["error"]["code"] == "server_busy"
    assert other.live.over


@pytest.mark.parametrize("model", [EchoModel, DuplexEcho])
def test_no_event_however_odd_ends_a_session(model):
    import json
    import random

    from duologue.server.openai_live.events import CLIENT_EVENTS

    chance = random.Random(3)
    odd = [
        None,
        True,
        -1,
        1e99,
        10**30,
        "",
        "x",
        "AAAA",
        [],
        [{}],
        {},
        {"type": "message"},
        {"type": 3},
        {"model": "m"},
    ]
    odd += [{"delegation": value} for value in ({}, {"type": "responses"}, {"type": "client"}, [], 7)]
    odd += [{"type": "message", "role": value, "content": value} for value in ("user", [], {}, [{"text": "x"}])]
    odd += [{"type": "function_call_output", "call_id": value, "output": value} for value in ("x", [], 1)]
    names = ["session", "audio", "item", "content", "delegation_id", "event_id", "response", "type"]
    kinds = [kind for kind in CLIENT_EVENTS if kind != "session.close"]
    desk = Desk(model(), session={"delegation": BACKEND}, router=look, text_model=None)
    for _ in range(1_500):
        event = {"type": chance.choice(kinds)}
        for _ in range(chance.randrange(4)):
            event[chance.choice(names)] = chance.choice(odd)
        desk.live.receive(json.dumps(event))
    desk.run()
    assert not desk.live.over
    assert heard(desk.wait(1.0)).size
